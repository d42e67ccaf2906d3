"""The forum's public pages."""

from __future__ import annotations

import re
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from . import services

# As it is stored, in links to the next page.
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)


@require_safe
def front(request: HttpRequest) -> HttpResponse:
    """Every thread by its title, newest first."""
    page = services.list_threads(_moment(request, "before"))
    return _answer(request, "forum/front.html", page)


@require_safe
def thread(request: HttpRequest, thread_id: str) -> HttpResponse:
    """A thread's posts in their order, with their authors."""
    page = services.show_thread(thread_id, _moment(request, "after"))
    if page is None:
        raise Http404("There is no such thread.")
    return _answer(request, "forum/thread.html", page)


def _moment(request: HttpRequest, name: str) -> str:
    """Return the moment where a page starts, ``""`` for the first; 404 for anything else."""
    value = request.GET.get(name, "")
    if value and not MOMENT.fullmatch(value):
        raise Http404("There is no such page.")
    return value


def _answer(request: HttpRequest, template: str, page: services.Page[Any]) -> HttpResponse:
    response = render(request, template, {"page": page.content, "from_cache": page.from_cache})
    response["X-Cache"] = "hit" if page.from_cache else "miss"
    return response
