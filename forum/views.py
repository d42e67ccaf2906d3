"""The forum's public pages."""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from . import services


@require_safe
def front(request: HttpRequest) -> HttpResponse:
    """Every thread by its title, newest first."""
    page = services.list_threads(request.GET.get("before", "")[:32])
    return _answer(request, "forum/front.html", page)


@require_safe
def thread(request: HttpRequest, thread_id: str) -> HttpResponse:
    """A thread's posts in their order, with their authors."""
    page = services.show_thread(thread_id, request.GET.get("after", "")[:32])
    if page is None:
        raise Http404("There is no such thread.")
    return _answer(request, "forum/thread.html", page)


def _answer(request: HttpRequest, template: str, page: services.Page[Any]) -> HttpResponse:
    response = render(request, template, {"page": page.content, "from_cache": page.from_cache})
    response["X-Cache"] = "hit" if page.from_cache else "miss"
    return response
