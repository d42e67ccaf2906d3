"""The forum's pages."""

from __future__ import annotations

import functools
import re
import secrets
from collections.abc import Callable
from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe

from dynamo_stores.decorators import idempotent, ratelimit
from dynamo_stores.ratelimit.responses import remember, too_many

from . import posting, services

# The stored form of a time, used in links to the next page.
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)

Page = Callable[..., HttpResponse]


def unless_busy(view: Page) -> Page:
    """Return 429 if the view raises Busy."""

    @functools.wraps(view)
    def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            return view(request, *args, **kwargs)
        except services.Busy as exc:
            remember(request, exc.status)
            return too_many(request, exc.status)

    return wrapper


@require_safe
@ratelimit("forum.list", "ip", "300/m")
@unless_busy
def front(request: HttpRequest) -> HttpResponse:
    """Every thread by its title, newest first."""
    page = services.list_threads(_moment(request, "before"))
    return _answer(request, "forum/front.html", page)


@require_safe
@ratelimit("forum.search", "ip", "30/m")
@unless_busy
def search(request: HttpRequest) -> HttpResponse:
    """The threads whose title contains the searched words."""
    words = request.GET.get("q", "")[:200]
    return _answer(request, "forum/search.html", services.search(words), words=words)


@require_safe
@ratelimit("forum.list", "ip", "300/m")
@unless_busy
def thread(request: HttpRequest, thread_id: str) -> HttpResponse:
    """A thread with its posts in order and their authors."""
    page = services.show_thread(thread_id, _moment(request, "after"))
    if page is None:
        raise Http404("There is no such thread.")
    return _answer(request, "forum/thread.html", page, form=posting.PostForm())


@login_required
@ratelimit("forum.post", "user", "10/m", ratelimit.UNSAFE)
@idempotent(field="once")
def new_thread(request: HttpRequest) -> HttpResponse:
    """
    A new thread with its first post; a request repeated with the same key creates only one.

    API clients send the key as header Idempotency-Key, the page as a form field.
    """
    form = posting.ThreadForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        thread_id = posting.create_thread(
            request.user, form.cleaned_data["title"], form.cleaned_data["text"]
        )
        if request.get_preferred_type(["text/html", "application/json"]) == "application/json":
            return JsonResponse({"thread_id": thread_id}, status=201)
        return redirect("forum:thread", thread_id)
    context = {"form": form, "once": secrets.token_urlsafe(16)}
    return render(request, "forum/new_thread.html", context, status=400 if form.is_bound else 200)


@require_POST
@login_required
@ratelimit("forum.post", "user", "10/m", ratelimit.UNSAFE)
def reply(request: HttpRequest, thread_id: str) -> HttpResponse:
    """A post in a thread."""
    form = posting.PostForm(request.POST)
    if not form.is_valid():
        page = services.show_thread(thread_id)
        if page is None:
            raise Http404("There is no such thread.")
        return _answer(request, "forum/thread.html", page, status=400, form=form)
    try:
        posting.create_post(request.user, thread_id, form.cleaned_data["text"])
    except posting.NoSuchThread as exc:
        raise Http404("There is no such thread.") from exc
    return redirect("forum:thread", thread_id)


def _moment(request: HttpRequest, name: str) -> str:
    """Return the time where a page starts, ``""`` for the first; 404 for other values."""
    value = request.GET.get(name, "")
    if value and not MOMENT.fullmatch(value):
        raise Http404("There is no such page.")
    return value


def _answer(
    request: HttpRequest,
    template: str,
    page: services.Page[Any],
    status: int = 200,
    **context: Any,
) -> HttpResponse:
    content = {"page": page.content, "from_cache": page.from_cache, **context}
    response = render(request, template, content, status=status)
    response["X-Cache"] = "hit" if page.from_cache else "miss"
    return response
