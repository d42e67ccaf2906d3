from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from . import views
from .limits import limit_log_ins

app_name = "forum"
urlpatterns = [
    path("", views.front, name="front"),
    path("search/", views.search, name="search"),
    path(
        "login/",
        limit_log_ins(LoginView.as_view(template_name="forum/login.html")),
        name="login",
    ),
    path("logout/", LogoutView.as_view(next_page="forum:front"), name="logout"),
    path("new/", views.new_thread, name="new-thread"),
    path("threads/<path:thread_id>/reply/", views.reply, name="reply"),
    path("threads/<path:thread_id>/", views.thread, name="thread"),
]
