"""Responses of limited views: the headers of the IETF draft, 429, and django-ratelimit's usage."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from .. import clock
from ..conf import imported, ratelimit_setting
from ..conf.functions import call, name_of
from ..exceptions import ConfigurationError, RateLimited


def remember(
    request: Any, status: Any, rates: Sequence[Any] | None = None, *, shadow: bool = False
) -> None:
    """
    Set the status on the request as ``request.ratelimit`` if it is the tightest so far, and with
    its rates for the headers. A client is not told of a limit that is a ``shadow``.
    """
    if _is_tightest(status, getattr(request, "ratelimit", None)):
        request.ratelimit = status
    if not shadow and _is_tightest(status, getattr(request, "_ratelimit_shown", (None,))[0]):
        request._ratelimit_shown = status, rates


def _is_tightest(status: Any, known: Any) -> bool:
    if known is None:
        return True
    if status.allowed != known.allowed:
        return bool(known.allowed)
    return bool(status.remaining < known.remaining)


def add_headers(request: Any, response: HttpResponseBase) -> None:
    """Set the headers for the status that :func:`remember` set on the request."""
    set_headers(response, *getattr(request, "_ratelimit_shown", (None, None)))


def set_headers(response: HttpResponseBase, status: Any, rates: Sequence[Any] | None) -> None:
    """
    Set the headers for ``status``.

    These are ``RateLimit`` and ``RateLimit-Policy`` of draft-ietf-httpapi-ratelimit-headers-10,
    ``X-RateLimit-*`` with the reset in seconds since the epoch, and ``Retry-After`` if refused.
    """
    if status is None or status.limit is None or status.window is None:
        return
    policies = [(rate.limit, rate.window) for rate in rates or ()]
    response["RateLimit-Policy"] = (
        ", ".join(f'"{window:g}s";q={limit};w={math.ceil(window)}' for limit, window in policies)
        or f'"{status.window:g}s";q={status.limit};w={math.ceil(status.window)}'
    )
    reset_in = max(0, math.ceil(status.reset_at - clock.now()))
    response["RateLimit"] = f'"{status.window:g}s";r={status.remaining};t={reset_in}'
    response["X-RateLimit-Limit"] = str(status.limit)
    response["X-RateLimit-Remaining"] = str(status.remaining)
    response["X-RateLimit-Reset"] = str(math.ceil(status.reset_at))
    if not status.allowed:
        response["Retry-After"] = str(max(1, math.ceil(status.retry_after)))


def refuse(
    request: HttpRequest, status: Any, response: Any = None, decorator: str = "@ratelimit"
) -> HttpResponseBase:
    """
    Return the response to a refused request: that of ``response``, a function of request and
    status or its dotted path, or 429. ``decorator`` is named in messages.

    Raises RateLimited, or ``RATELIMIT_EXCEPTION_CLASS``, without ``response`` and with
    ``RATELIMIT_RAISE``, ``RATELIMIT_EXCEPTION_CLASS`` or ``RATELIMIT_VIEW``.
    """
    if response is not None:
        function = imported(response)
        return made_by(f"response of {decorator}", function, request, status)
    own = ratelimit_setting("EXCEPTION_CLASS")
    if own is not None:
        kind = imported(own)
        raise kind(status=status) if issubclass(kind, RateLimited) else kind()
    if ratelimit_setting("RAISE", False) or ratelimit_setting("VIEW"):
        raise RateLimited(status=status)
    return too_many(request, status)


def made_by(name: str, function: Any, *args: Any) -> HttpResponseBase:
    """
    Return the response that ``function``, the value of ``name``, returns for ``args``. Raises
    ConfigurationError if it is no response.
    """
    answer = call(name, function, *args)
    if not isinstance(answer, HttpResponseBase):
        raise ConfigurationError(
            f"{name} is {name_of(function)}, which returned {type(answer).__name__}; expected an "
            "HttpResponse."
        )
    return answer


async def arefuse(
    request: HttpRequest, status: Any, response: Any = None, decorator: str = "@ratelimit"
) -> HttpResponseBase:
    """See :func:`refuse`; ``response`` is called in a thread."""
    if response is None:
        return refuse(request, status)
    return await sync_to_async(refuse)(request, status, response, decorator)


def too_many(request: HttpRequest, status: Any) -> HttpResponse:
    """Return 429 with a sentence, or with JSON if the client prefers it."""
    seconds = max(1, math.ceil(status.retry_after)) if status is not None else 1
    text = f"Too many requests. Try again in {seconds} second{'' if seconds == 1 else 's'}."
    wanted = request.get_preferred_type(["text/html", "text/plain", "application/json"])
    if wanted == "application/json":
        body = json.dumps({"error": "rate_limited", "detail": text, "retry_after": seconds})
        return HttpResponse(body, status=429, content_type="application/json")
    return HttpResponse(text, status=429, content_type="text/plain; charset=utf-8")


def usage_of(status: Any) -> dict[str, Any]:
    """Return ``status`` as django-ratelimit's ``count, limit, should_limit, time_left``."""
    window = math.ceil(status.window)
    return {
        "count": max(0, status.limit - status.remaining),
        "limit": status.limit,
        "should_limit": not status.allowed,
        "time_left": min(window, max(0, math.ceil(status.reset_at - clock.now()))),
    }
