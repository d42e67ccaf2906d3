"""What all pages of the forum have in common: their policy, and pages for errors."""

from __future__ import annotations

from collections.abc import Callable

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render, resolve_url
from django.template.loader import render_to_string
from django.urls import get_resolver

from .views.errors import unsent

POLICY = "default-src 'self'"
# Errors that the library answers with a sentence.
_REPLACED = (429, 503)


class PagesMiddleware:
    """
    Sets ``Content-Security-Policy`` on the forum's pages, unless the view has set another one, and
    shows errors as pages of the forum. What was sent in vain is on them, to be sent again.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self._get_response(request)
        if not _is_page(request):
            return response
        if settings.DEBUG and response.status_code == 404 and request.resolver_match is None:
            # Instead of Django's list of all patterns.
            response = render(request, "404.html", status=404)
        if _is_logged_out(request, response) and (kept := unsent(request))["unsent"]:
            context = {"address": response["Location"], **kept}
            response = render(request, "forum/errors/logged_out.html", context, status=403)
        if response.status_code in _REPLACED and _is_sentence(response) and _wants_page(request):
            context = {
                "wait": int(response.headers.get("Retry-After", 1)),
                **unsent(request),
            }
            name = f"forum/errors/{response.status_code}.html"
            response.content = render_to_string(name, context, request).encode()
            response["Content-Type"] = "text/html; charset=utf-8"
        response.headers.setdefault("Content-Security-Policy", POLICY)
        if settings.SESSION_COOKIE_NAME in request.COOKIES:
            response.headers.setdefault("Cache-Control", "private")
        return response

    def process_exception(self, request: HttpRequest, exc: Exception) -> HttpResponse | None:
        """Return the page for a 404 or 403 of a view, with DEBUG, too."""
        if not _is_page(request):
            return None
        if isinstance(exc, Http404):
            return render(request, "404.html", {"exception": str(exc)}, status=404)
        if isinstance(exc, PermissionDenied):
            return render(request, "403.html", {"exception": str(exc)}, status=403)
        return None


def _is_page(request: HttpRequest) -> bool:
    """Return whether a request is for a page of the forum, or for no page at all."""
    match = request.resolver_match
    if match is not None:
        return bool(match.app_name == "forum")
    # With DEBUG, apps at other paths keep Django's page, which has styles of its own.
    return not settings.DEBUG or _is_below_forum(request)


def _is_logged_out(request: HttpRequest, response: HttpResponse) -> bool:
    """Return whether a form was sent after the session of its user had ended."""
    return (
        request.method == "POST"
        and response.status_code == 302
        and response["Location"].startswith(f"{resolve_url(settings.LOGIN_URL)}?")
    )


def _is_below_forum(request: HttpRequest) -> bool:
    """Return whether no other app comes before the forum at a path."""
    path = request.path_info.removeprefix("/")
    patterns = get_resolver(getattr(request, "urlconf", None)).url_patterns
    found = (each for each in patterns if each.pattern.match(path))
    return getattr(next(found, None), "app_name", None) == "forum"


def _wants_page(request: HttpRequest) -> bool:
    kinds = ["text/html", "text/plain", "application/json"]
    return request.get_preferred_type(kinds) in ("text/html", None)


def _is_sentence(response: HttpResponse) -> bool:
    return response.headers.get("Content-Type", "").startswith("text/plain")
