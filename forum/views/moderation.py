"""Pages on which the staff moves and deletes posts and threads. Each asks before it does."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from .. import accounts, posting, recent, threads
from ..adapters import Item
from ..forms import MoveForm
from ..profiles import get_profile
from ..trees import NoSuchPost, NoSuchThread, WouldBeCycle
from .answers import page, show_form, staff_only

_form_methods = require_http_methods(["GET", "HEAD", "POST"])


@_form_methods
@staff_only
@page
def move_post(request: HttpRequest, thread_id: str, post_id: str) -> HttpResponse:
    """Asks below which post to move a post with its replies, and moves them."""
    form = MoveForm(request.POST if request.method == "POST" else None, thread_id=thread_id)
    context: dict[str, Any] = {"post": _post(thread_id, post_id)}
    if not form.is_valid():
        return show_form(request, "forum/move_post.html", form, **context)
    try:
        is_done = posting.move_post(
            accounts.ensure_profile(request.user), thread_id, post_id, form.cleaned_data["parent"]
        )
    except WouldBeCycle:
        form.add_error("parent", "A post cannot be moved below itself. Choose another post.")
        return show_form(request, "forum/move_post.html", form, **context)
    except NoSuchPost:
        form.add_error("parent", "This post is deleted. Choose another post.")
        return show_form(request, "forum/move_post.html", form, **context)
    recent.remember(request, thread_id, post_id)
    _tell(request, is_done, "The post is moved with its replies.")
    return redirect("forum:post", thread_id, post_id)


@_form_methods
@staff_only
@page
def delete_replies(request: HttpRequest, thread_id: str, post_id: str) -> HttpResponse:
    """Asks whether to delete a post with all replies below it, and deletes them."""
    post = _post(thread_id, post_id)
    if request.method != "POST":
        return render(request, "forum/delete_replies.html", {"post": post})
    is_done = posting.delete_replies(accounts.ensure_profile(request.user), thread_id, post_id)
    recent.remember(request, thread_id, post_id)
    _tell(request, is_done, "The post is deleted with its replies.")
    return redirect("forum:thread", thread_id)


@_form_methods
@staff_only
@page
def delete_thread(request: HttpRequest, thread_id: str) -> HttpResponse:
    """Asks whether to delete a thread with all its posts, and deletes it."""
    thread = threads.get_thread(thread_id, consistent=True)
    if thread is None:
        raise NoSuchThread
    if request.method != "POST":
        return render(request, "forum/delete_thread.html", {"thread": thread})
    is_done = posting.delete_thread(accounts.ensure_profile(request.user), thread)
    recent.remember(request, thread_id)
    _tell(request, is_done, "The thread is deleted with its posts.")
    return redirect("forum:front")


def _tell(request: HttpRequest, is_done: bool, done: str) -> None:
    if is_done:
        messages.success(request, done)
    else:
        messages.info(request, "There are many replies. The rest is done in the background.")


def _post(thread_id: str, post_id: str) -> Item:
    post: Any = threads.get_post(thread_id, post_id)
    if post is None:
        raise NoSuchPost
    return {**post, "author": get_profile(post["userId"])}
