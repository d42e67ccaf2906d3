"""Site-wide limits by path, and the answer where a limited view raises."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponseBase

from ..conf import DEFAULT_ALIAS, get_config, imported, ratelimit_setting
from ..conf.rates import parse_resource
from ..exceptions import RateLimited
from .requests import ALL, Limit, aget_limit, get_limit, get_store, resource_of
from .responses import add_headers, remember, too_many


class RateLimitMiddleware:
    """
    Limits requests by ``RATE_LIMIT["PATHS"]``: the longest path that theirs begins with counts.

    Where a view raises RateLimited (``RATELIMIT_RAISE``), answers by ``RATELIMIT_VIEW``, a
    function of request and exception, or with 429. Sync and async.
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
        asked = None if limit is None else get_limit(limit, request)
        if limit is not None and asked is not None:
            status = get_store(limit).acquire(resource_of(limit), **asked)
            if not status.allowed:
                return _refused(request, status, asked)
            remember(request, status, asked["rate"].rates)
        return _with_headers(request, self._get_response(request))

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        limit = limit_of(request)
        asked = None if limit is None else await aget_limit(limit, request)
        if limit is not None and asked is not None:
            status = await get_store(limit).aacquire(resource_of(limit), **asked)
            if not status.allowed:
                return _refused(request, status, asked)
            remember(request, status, asked["rate"].rates)
        return _with_headers(request, await self._get_response(request))

    def process_exception(
        self, request: HttpRequest, exception: Exception
    ) -> HttpResponseBase | None:
        """Answer for a view that raised."""
        if not isinstance(exception, RateLimited):
            return None
        return _answer(request, exception)


def limit_of(request: HttpRequest, using: str = DEFAULT_ALIAS) -> Limit | None:
    """Return the limit of the request's path, None where there is none."""
    paths = get_config(using).rate_limit.paths
    found = max((path for path in paths if request.path.startswith(path)), key=len, default=None)
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


def _refused(request: Any, status: Any, asked: dict[str, Any]) -> HttpResponseBase:
    request.limited = True
    remember(request, status, asked["rate"].rates)
    return _with_headers(request, _answer(request, RateLimited(status=status)))


def _answer(request: HttpRequest, refusal: RateLimited) -> HttpResponseBase:
    view = ratelimit_setting("VIEW")
    if not view:
        return too_many(request, refusal.status)
    answer: HttpResponseBase = imported(view)(request, refusal)
    return answer


def _with_headers(request: Any, response: HttpResponseBase) -> HttpResponseBase:
    if "RateLimit" not in response:
        add_headers(request, response)
    return response
