"""Errors as ``application/problem+json`` (RFC 9457)."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, ValidationError

from dynamo_stores.exceptions import StoreUnavailable, retry_after_of

from ..accounts import Taken
from ..adapters import WriteRefused
from ..cursors import BadCursor
from ..posting import TooManyWords
from ..trees import NoSuchPost, NoSuchThread, TreeBusy

_STALE = "It was changed since it was read with this ETag. Read it again."


class Stale(Exception):
    """The item was changed since the caller read it, as ``If-Match`` says."""


class NoVersion(Exception):
    """The request does not say which version it changes."""


def content_of(status: int, detail: str, **members: Any) -> dict[str, Any]:
    """Return a problem; ``members`` are more of its members."""
    return {"title": HTTPStatus(status).phrase, "status": status, "detail": detail, **members}


def problem(status: int, detail: str, **members: Any) -> HttpResponse:
    """Return a response with a problem; ``members`` are more of its members."""
    content = json.dumps(content_of(status, detail, **members))
    return HttpResponse(content, status=status, content_type="application/problem+json")


def too_many(request: HttpRequest, status: Any) -> HttpResponse:
    """Return 429 for the status of a limit."""
    seconds = max(1, math.ceil(status.retry_after)) if status is not None else 1
    return problem(429, f"Too many requests. Try again in {seconds} s.", retryAfter=seconds)


def unavailable(exc: Any) -> HttpResponse:
    """Return 503 with the header ``Retry-After``."""
    seconds, detail = retry_after_of(exc), "The forum is not available at the moment."
    response = problem(503, f"{detail} Try again later.", retryAfter=seconds)
    response["Retry-After"] = str(seconds)
    return response


def not_found(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
    """Return 404 for a path that the API does not have."""
    return problem(404, "There is no such path. GET /api/ lists the paths.")


def with_problems(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Return the view with HEAD where it has GET, and a problem for a method that it has not."""

    @functools.wraps(view)
    def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        method = request.method
        try:
            # The server sends no content to HEAD.
            request.method = "GET" if method == "HEAD" else method
            response = view(request, *args, **kwargs)
        finally:
            request.method = method
        if not isinstance(response, HttpResponseNotAllowed):
            return response
        allowed = response["Allow"].split(", ")
        shown = ", ".join(sorted([*allowed, *(["HEAD"] if "GET" in allowed else [])]))
        refused = problem(405, f"This path has the methods {shown}.")
        refused["Allow"] = shown
        return refused

    return wrapper


def handle_errors(api: NinjaAPI) -> None:
    """Let the API answer errors with problems."""
    for kind, status, detail in (
        (Http404, 404, "There is nothing with this id."),
        (NoSuchThread, 404, "There is no such thread."),
        (NoSuchPost, 404, "There is no such post, or it is deleted."),
        (Stale, 412, _STALE),
        (
            NoVersion,
            428,
            "Send the ETag that you have read in If-Match, or the version as ?version=.",
        ),
        (RequestDataTooBig, 413, "The content is too large."),
        (BadCursor, 422, "The parameter after is not from a Link header of this list."),
    ):
        api.add_exception_handler(kind, _answering(status, detail))
    api.add_exception_handler(WriteRefused, _changed)
    api.add_exception_handler(TooManyWords, lambda request, exc: problem(422, str(exc)))
    api.add_exception_handler(Taken, lambda request, exc: problem(409, str(exc)))
    api.add_exception_handler(StoreUnavailable, lambda request, exc: unavailable(exc))
    api.add_exception_handler(TreeBusy, lambda request, exc: unavailable(exc))
    api.add_exception_handler(AuthenticationError, _unauthenticated)
    api.add_exception_handler(HttpError, _refused)
    api.add_exception_handler(ValidationError, _invalid)


def _answering(status: int, detail: str) -> Any:
    return lambda request, exc: problem(status, detail)


def _changed(request: HttpRequest, exc: Any) -> HttpResponse:
    if request.headers.get("If-Match", "").strip() not in ("", "*"):
        return problem(412, _STALE)
    return problem(409, "It was changed meanwhile. Read it again.")


def _refused(request: HttpRequest, exc: Any) -> HttpResponse:
    return problem(exc.status_code, exc.message)


def _unauthenticated(request: HttpRequest, exc: Any) -> HttpResponse:
    response = problem(401, "Log in, or send a token: Authorization: Bearer <token>.")
    response["WWW-Authenticate"] = 'Bearer realm="forum"'
    return response


def _invalid(request: HttpRequest, exc: Any) -> HttpResponse:
    errors = [
        {"pointer": "/".join(map(str, each["loc"])), "detail": each["msg"]} for each in exc.errors
    ]
    return problem(422, "The request is not valid; errors says what was expected.", errors=errors)
