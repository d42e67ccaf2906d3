"""Site-wide limits by path, and the response to RateLimited."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponseBase

from ..conf import DEFAULT_ALIAS, get_config, imported, ratelimit_setting
from ..conf.rates import Rate, parse_resource
from ..exceptions import RateLimited
from . import ALL
from .requests import Limit, acheck, check, matches
from .responses import add_headers, made_by, remember, too_many


class RateLimitMiddleware:
    """
    Limits requests by ``RATE_LIMIT["PATHS"]``: the longest matching prefix of the path applies.

    If a view raises RateLimited (``RATELIMIT_RAISE``), the response is that of ``RATELIMIT_VIEW``,
    a function of request and exception, or 429. Sync and async.
    """

    sync_capable = True
    async_capable = True

    def __init__(
        self, get_response: Callable[[HttpRequest], HttpResponseBase | Awaitable[Any]]
    ) -> None:
        self._get_response: Any = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        if self._is_async:
            return self._acall(request)
        limit = limit_of(request)
        if limit is not None and _is_refused(request, *check(limit, request)):
            return _refuse(request)
        return _with_headers(request, self._get_response(request))

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        limit = limit_of(request)
        if limit is not None and _is_refused(request, *(await acheck(limit, request))):
            # RATELIMIT_VIEW may query a database; a thread takes longer than the other answer.
            if ratelimit_setting("VIEW"):
                return await sync_to_async(_refuse)(request)
            return _refuse(request)
        return _with_headers(request, await self._get_response(request))

    def process_exception(
        self, request: HttpRequest, exception: Exception
    ) -> HttpResponseBase | None:
        """Return the response to RateLimited, None for another exception."""
        if not isinstance(exception, RateLimited):
            return None
        return _answer(request, exception)


# The name in django-ratelimit.
RatelimitMiddleware = RateLimitMiddleware


def limit_of(request: HttpRequest, using: str = DEFAULT_ALIAS) -> Limit | None:
    """Return the limit of the longest path whose method matches, None without a limit."""
    paths = get_config(using).rate_limit.paths
    found = max(
        (
            path
            for path, config in paths.items()
            if request.path.startswith(path) and matches(config.get("METHOD", ALL), request)
        ),
        key=len,
        default=None,
    )
    if found is None:
        return None
    config = paths[found]
    own = {name: value for name, value in config.items() if name not in ("KEY", "METHOD", "ALLOW")}
    algorithm = get_config(using).rate_limit.algorithm
    return Limit(
        group=f"path:{found}",
        key=config.get("KEY", "ip"),
        rate=parse_resource(own, algorithm=algorithm),
        method=config.get("METHOD", ALL),
        allow=config.get("ALLOW", ()),
        using=using,
    )


def _is_refused(request: Any, status: Any, rates: Sequence[Rate]) -> bool:
    if status is None:
        return False
    remember(request, status, rates)
    return not status.allowed


def _refuse(request: Any) -> HttpResponseBase:
    request.limited = True
    return _with_headers(request, _answer(request, RateLimited(status=request.ratelimit)))


def _answer(request: HttpRequest, refusal: RateLimited) -> HttpResponseBase:
    view = ratelimit_setting("VIEW")
    if not view:
        return too_many(request, refusal.status)
    return made_by("RATELIMIT_VIEW", imported(view), request, refusal)


def _with_headers(request: Any, response: HttpResponseBase) -> HttpResponseBase:
    if "RateLimit" not in response:
        add_headers(request, response)
    return response
