"""Pages on which users write, edit and delete what is theirs."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from .. import accounts, posting, recent, threads
from ..adapters import Conflict, Item
from ..content import ThreadLine
from ..forms import PostForm, ThreadForm, TitleForm
from ..posting import KeyUsed
from ..templatetags.forum import anchor
from ..trees import NoSuchPost, NoSuchThread
from .answers import (
    key_of,
    limit_editing,
    limit_posting,
    own_id,
    page,
    replayed,
    show_form,
    version_of,
)

_form_methods = require_http_methods(["GET", "HEAD", "POST"])


@_form_methods
@login_required
@limit_posting
@replayed
@page
def new_thread(request: HttpRequest) -> HttpResponse:
    """
    A new thread with its first post; a request repeated with the same key creates only one.

    API clients send the key as header Idempotency-Key, the page as a form field.
    """
    form = ThreadForm(request.POST or None)
    if not (request.method == "POST" and form.is_valid()):
        return show_form(request, "forum/new_thread.html", form)
    try:
        created = posting.create_thread(
            accounts.ensure_profile(request.user),
            form.cleaned_data["title"],
            form.cleaned_data["text"],
            key=key_of(request),
        )
    except KeyUsed as exc:
        address = exc.item and reverse("forum:thread", args=[exc.item["threadId"]])
        return show_form(
            request, "forum/new_thread.html", form, 409, is_sent=True, sent_before=address
        )
    thread_id = created["threadId"]
    recent.remember(request, thread_id)
    if request.get_preferred_type(["text/html", "application/json"]) == "application/json":
        return JsonResponse({"thread_id": thread_id}, status=201)
    messages.success(request, "Your thread is started.")
    return redirect("forum:thread", thread_id)


@_form_methods
@login_required
@limit_posting
@page
def reply(request: HttpRequest, thread_id: str, post_id: str | None = None) -> HttpResponse:
    """A reply to a thread, or to a post of it."""
    form = PostForm(request.POST or None)
    context: dict[str, Any] = {"thread_id": thread_id, "post_id": post_id}
    if not (request.method == "POST" and form.is_valid()):
        return show_form(request, "forum/reply.html", form, **context)
    try:
        created = posting.create_post(
            accounts.ensure_profile(request.user),
            thread_id,
            form.cleaned_data["text"],
            parent=post_id,
            key=key_of(request),
        )
    except KeyUsed as exc:
        address = exc.item and _address(exc.item)
        return show_form(
            request, "forum/reply.html", form, 409, is_sent=True, sent_before=address, **context
        )
    recent.remember(request, thread_id, created["postId"])
    messages.success(request, "Your reply is posted.")
    return redirect(_address(created))


@_form_methods
@login_required
@limit_editing
@page
def edit_post(request: HttpRequest, thread_id: str, post_id: str) -> HttpResponse:
    """The text of one's own post, to be changed."""
    post = _own_post(request, thread_id, post_id)
    context: dict[str, Any] = {"post": post}
    if request.method != "POST":
        form = PostForm(initial={"text": post.get("content", "")})
        return show_form(request, "forum/edit_post.html", form, version=post["version"], **context)
    form, version = PostForm(request.POST), version_of(request)
    if not form.is_valid():
        return show_form(request, "forum/edit_post.html", form, version=version, **context)
    try:
        posting.edit_post(post["userId"], post, form.cleaned_data["text"], version=version)
    except Conflict as exc:
        now = exc.item or post
        return show_form(
            request, "forum/edit_post.html", form, 409,
            version=now["version"], present=now, **context,
        )  # fmt: skip
    recent.remember(request, thread_id, post_id)
    messages.success(request, "Your post is changed.")
    return redirect(_address(post))


@_form_methods
@login_required
@limit_editing
@page
def delete_post(request: HttpRequest, thread_id: str, post_id: str) -> HttpResponse:
    """Asks whether to delete one's own post, and deletes it."""
    post = _own_post(request, thread_id, post_id)
    context: dict[str, Any] = {"post": post, "version": post["version"]}
    if request.method != "POST":
        return show_form(request, "forum/delete_post.html", None, 200, **context)
    try:
        posting.delete_post(post["userId"], post, version=version_of(request))
    except Conflict as exc:
        now = exc.item or post
        context |= {"post": now, "version": now["version"], "is_changed": True}
        return show_form(request, "forum/delete_post.html", None, 409, **context)
    recent.remember(request, thread_id, post_id)
    messages.success(request, "Your post is deleted.")
    return redirect("forum:thread", thread_id)


@_form_methods
@login_required
@limit_editing
@page
def edit_thread(request: HttpRequest, thread_id: str) -> HttpResponse:
    """The title of one's own thread, to be changed."""
    thread = threads.get_thread(thread_id, consistent=True)
    if thread is None:
        raise NoSuchThread
    _check_own(request, thread.get("createdBy"))
    context: dict[str, Any] = {"thread": ThreadLine.of(thread)}
    if request.method != "POST":
        form = TitleForm(initial={"title": thread["title"]})
        return show_form(
            request, "forum/edit_thread.html", form, version=thread["version"], **context
        )
    form, version = TitleForm(request.POST), version_of(request)
    if not form.is_valid():
        return show_form(request, "forum/edit_thread.html", form, version=version, **context)
    try:
        posting.edit_thread(own_id(request), thread, form.cleaned_data["title"], version=version)
    except Conflict as exc:
        now = exc.item or thread
        return show_form(
            request, "forum/edit_thread.html", form, 409,
            version=now["version"], present=now, **context,
        )  # fmt: skip
    recent.remember(request, thread_id)
    messages.success(request, "The title is changed.")
    return redirect("forum:thread", thread_id)


def _own_post(request: HttpRequest, thread_id: str, post_id: str) -> Item:
    post = threads.get_post(thread_id, post_id)
    if post is None or post.get("isDeleted"):
        raise NoSuchPost
    _check_own(request, post["userId"])
    return post


def _check_own(request: HttpRequest, author_id: str | None) -> None:
    if author_id != own_id(request):
        raise PermissionDenied("Only the author may change this.")


def _address(post: Item) -> str:
    """Return where to show a post: in its thread if that surely fits one page."""
    thread = threads.get_thread(post["threadId"], consistent=True)
    is_shallow = not post.get("branch") and post["depth"] <= threads.LEVELS
    if thread is not None and is_shallow and thread["posts"] <= threads.POSTS_PER_PAGE // 2:
        path = reverse("forum:thread", args=[post["threadId"]])
        return f"{path}#{anchor(post['postId'])}"
    return reverse("forum:post", args=[post["threadId"], post["postId"]])
