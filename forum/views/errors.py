"""What pages for errors keep of a form that was sent in vain."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

# The fields that are kept, with their labels; no password is among them.
_KEPT = {
    "title": "Title",
    "name": "Name",
    "email": "E-mail address",
    "bio": "About you",
    "parent": "New place",
    "text": "Your text",
}
_LONG = ("bio", "text")
_HIDDEN = ("username", "once", "version", "next")


def unsent(request: HttpRequest) -> dict[str, Any]:
    """Return the fields of a form that was sent, for a form that sends them again."""
    sent = request.POST
    kept = [
        {"name": name, "label": label, "value": sent[name], "is_long": name in _LONG}
        for name, label in _KEPT.items()
        if sent.get(name)
    ]
    hidden = [(name, sent[name]) for name in _HIDDEN if sent.get(name)]
    return {"unsent": kept, "hidden": hidden if kept else []}


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """
    The page for a form without a valid token, for ``CSRF_FAILURE_VIEW``.

    It has what was sent, with a new token, for the user to send it again. A form of another site
    must not get a token: only the browser's ``Origin`` proves that it was one of this site.
    """
    match = request.resolver_match
    is_ours = request.headers.get("Origin") == f"{request.scheme}://{request.get_host()}"
    is_kept = is_ours and match is not None and match.app_name == "forum"
    return render(request, "403_csrf.html", unsent(request) if is_kept else {}, status=403)
