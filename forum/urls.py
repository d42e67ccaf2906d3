from django.contrib.auth.views import LogoutView
from django.urls import path, register_converter

from .converters import IdConverter
from .views import lists, moderation, passwords, people, posts, tokens

register_converter(IdConverter, "id")

app_name = "forum"
_THREAD = "threads/<id:thread_id>/"
_POST = f"{_THREAD}posts/<id:post_id>/"
urlpatterns = [
    path("", lists.front, name="front"),
    path("search/", lists.search, name="search"),
    path("sign-up/", people.sign_up, name="sign-up"),
    path("login/", people.LogIn.as_view(), name="login"),
    path("logout/", LogoutView.as_view(next_page="forum:front"), name="logout"),
    path("account/", people.account, name="account"),
    path("account/edit/", people.edit_profile, name="edit-profile"),
    path("account/password/", passwords.ChangePassword.as_view(), name="change-password"),
    path("password-reset/", passwords.ResetPassword.as_view(), name="reset-password"),
    path("password-reset/<uidb64>/<token>/", passwords.SetPassword.as_view(), name="set-password"),
    path("account/activity/", people.activity, name="activity"),
    path("account/tokens/", tokens.tokens, name="tokens"),
    path("account/tokens/<int:token_id>/delete/", tokens.delete_token, name="delete-token"),
    path("users/<id:user_id>/", lists.user, name="user"),
    path("users/<id:user_id>/activity/", people.activity_of, name="activity-of"),
    path("new/", posts.new_thread, name="new-thread"),
    path(_THREAD, lists.thread, name="thread"),
    path(f"{_THREAD}reply/", posts.reply, name="reply"),
    path(f"{_THREAD}edit/", posts.edit_thread, name="edit-thread"),
    path(f"{_THREAD}delete/", moderation.delete_thread, name="delete-thread"),
    path(_POST, lists.post, name="post"),
    path(f"{_POST}reply/", posts.reply, name="reply-to-post"),
    path(f"{_POST}edit/", posts.edit_post, name="edit-post"),
    path(f"{_POST}delete/", posts.delete_post, name="delete-post"),
    path(f"{_POST}move/", moderation.move_post, name="move-post"),
    path(f"{_POST}delete-replies/", moderation.delete_replies, name="delete-replies"),
]
