"""Pages that show threads and posts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from dynamo_stores.calls.batches import execute_in_parallel

from .. import cursors, profiles, recent, threads
from ..caching import Page
from ..content import PostView, ThreadPage
from ..forms import PostForm
from .answers import (
    after_of,
    limit_reading,
    limit_searching,
    new_key,
    own_id,
    page,
    show,
)


@dataclass(frozen=True)
class Line:
    """
    A post, what it replies to if that is on the page, whether that is right above, and whether the
    post is one's own.
    """

    post: PostView
    parent: PostView | None
    follows: bool
    is_own: bool


@require_safe
@limit_reading
@page
def front(request: HttpRequest) -> HttpResponse:
    """Every thread by its title, newest first."""
    after = after_of(request, "threads")
    found = threads.list_threads(after, recent=recent.threads(request))
    return show(
        request,
        "forum/front.html",
        found,
        after=cursors.dump("threads", found.content.after),
        is_first=after is None,
    )


@require_safe
@limit_searching
@page
def search(request: HttpRequest) -> HttpResponse:
    """The threads whose title contains the searched words, or words that begin with them."""
    words = request.GET.get("q", "")[:200].strip()
    listing = f"search.{words}"
    found = threads.search(
        words, after_of(request, listing), is_exact=bool(recent.threads(request))
    )
    return show(
        request,
        "forum/search.html",
        Page(found, from_cache=False),
        words=words,
        after=cursors.dump(listing, found.after),
    )


@require_safe
@limit_reading
@page
def thread(request: HttpRequest, thread_id: str) -> HttpResponse:
    """A thread with its posts as a tree, and a form for a reply to the thread."""
    return _show_tree(request, thread_id)


@require_safe
@limit_reading
@page
def post(request: HttpRequest, thread_id: str, post_id: str) -> HttpResponse:
    """A post with the replies to it, and a form for another."""
    return _show_tree(request, thread_id, post_id)


@require_safe
@limit_reading
@page
def user(request: HttpRequest, user_id: str) -> HttpResponse:
    """A user with the posts of theirs, newest first."""
    listing = f"user.{user_id}"
    after, own = after_of(request, listing), recent.posts(request)
    # Neither needs the other.
    reads: list[Callable[[], Any]] = [
        lambda: profiles.get_profile(user_id),
        lambda: threads.show_posts_of_user(user_id, after, recent=own),
    ]
    profile, found = execute_in_parallel(reads, lambda read: read())
    if profile is None:
        raise Http404("There is no such user.")
    return show(
        request,
        "forum/user.html",
        found,
        profile=profile,
        posts=[
            (each, found.content.titles[each.thread_id])
            for each in found.content.posts
            if each.thread_id in found.content.titles and not each.is_deleted
        ],
        is_own=user_id == own_id(request),
        is_first=after is None,
        after=cursors.dump(listing, found.content.after),
    )


def _show_tree(request: HttpRequest, thread_id: str, root_id: str = "") -> HttpResponse:
    listing = f"thread.{thread_id}\0{root_id}"
    after = after_of(request, listing)
    found = threads.show_thread(thread_id, after, root_id=root_id)
    content, own = found.content, own_id(request)
    return show(
        request,
        "forum/post.html" if root_id else "forum/thread.html",
        found,
        root=None if content.root is None else _line(content.root, None, own),
        lines=_lines(content, own),
        is_own=bool(own) and own == content.thread.author_id,
        form=PostForm(),
        once=new_key(),
        is_first=after is None,
        after=cursors.dump(listing, content.after),
    )


def _lines(content: ThreadPage, own: str) -> list[Line]:
    posts = {post.post_id: post for post in content.posts}
    if content.root is not None:
        posts[content.root.post_id] = content.root
    above = [content.root, *content.posts]
    return [
        _line(post, posts.get(post.parent), own, before)
        for post, before in zip(content.posts, above, strict=False)
    ]


def _line(post: PostView, parent: PostView | None, own: str, above: PostView | None = None) -> Line:
    is_own = bool(own) and post.author_id == own and not post.is_deleted
    return Line(post, parent, parent is not None and parent is above, is_own)
