"""``@ratelimit`` and related functions, with the names and meanings of django-ratelimit."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponseBase
from django.utils.decorators import method_decorator

from ..client_address import request_of
from ..conf import DEFAULT_ALIAS
from ..conf.functions import check_not_async
from ..conf.rates import Rate
from ..exceptions import ConfigurationError
from . import ALL, UNSAFE
from .problems import note
from .requests import (
    Limit,
    acheck,
    aget_arguments,
    check,
    get_arguments,
    get_store,
    group_of,
)
from .responses import add_headers, arefuse, refuse, remember, usage_of

V = TypeVar("V")


def ratelimit(
    group: str | None = None,
    key: Any = None,
    rate: Any = None,
    method: Any = ALL,
    block: bool = True,
    *,
    cost: Any = 1,
    algorithm: str | None = None,
    burst: int | None = None,
    priority: Any = None,
    skip_if: Any = None,
    allow: Sequence[str] = (),
    shadow: bool = False,
    on_unavailable: str | None = None,
    response: Any = None,
    resource: str | None = None,
    using: str = DEFAULT_ALIAS,
) -> Callable[[V], V]:
    """
    Limit a view: function, coroutine function, class, or method of a class.

    ``key`` is ``"ip"``, ``"user"``, ``"user_or_ip"``, ``"header:x-…"``, ``"get:…"``, ``"post:…"``
    or a function of group and request. ``rate`` is ``"100/m"`` or another value for
    :func:`~dynamo_stores.conf.rates.parse_rates`, a function of group and request, a dotted path,
    or None for no limit. With ``resource`` and without ``rate`` the limit of the resource applies.

    A refused request gets 429, or RateLimited is raised if ``RATELIMIT_RAISE`` is set. With
    ``block=False`` the view is called and can read ``request.limited``. ``shadow`` counts requests
    and never limits, and sends no headers. ``cost`` may be a function of group and request; a cost
    of 0 is free, and one that can never be admitted is refused. ``skip_if`` is a function of the
    request, ``allow`` lists networks that are not limited, and ``response`` returns the answer
    from request and status. ``priority`` (``"user"``, ``"background"``, or a function of the
    request) shares the limit adaptively. The status is in ``request.ratelimit`` and in the headers
    of the response.
    """

    given = {
        "key": key,
        "rate": rate,
        "method": method,
        "cost": cost,
        "algorithm": algorithm,
        "burst": burst,
        "priority": priority,
        "skip_if": skip_if,
        "allow": allow,
        "on_unavailable": on_unavailable,
        "resource": resource,
        "using": using,
    }
    return _limiting("@ratelimit", group, given, block=block, shadow=shadow, response=response)


def _limiting(
    name: str,
    group: str | None,
    given: dict[str, Any],
    *,
    block: bool,
    shadow: bool,
    response: Any,
) -> Callable[[V], V]:
    """Return the decorator that is ``name`` in messages; ``given`` are arguments of Limit."""
    if callable(group):
        raise TypeError(f"{name} needs arguments, such as {name}(key='ip', rate='5/m').")
    check_not_async(f"response of {name}", response)

    # method_decorator decorates anew for each request.
    noted: set[str] = set()

    def decorate(view: Any) -> Any:
        if isinstance(view, type):
            return method_decorator(decorate, name="dispatch")(view)
        own_group = group if group is not None else group_of(view)
        limit = Limit(group=own_group, decorator=name, **given)
        where = f"{name} on {group_of(view)}"
        if where not in noted:
            noted.add(where)
            note(limit, response, where)

        @functools.wraps(view)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            request = request_of(args, kwargs, name)
            status, rates = check(limit, request)
            if _record(request, status, rates, shadow=shadow) and block:
                return _finish(request, refuse(request, status, response, name))
            return _finish(request, view(*args, **kwargs))

        @functools.wraps(view)
        async def async_wrapper(*args: Any, **kwargs: Any) -> Any:
            request = request_of(args, kwargs, name)
            status, rates = await acheck(limit, request)
            if _record(request, status, rates, shadow=shadow) and block:
                return _finish(request, await arefuse(request, status, response, name))
            return _finish(request, await view(*args, **kwargs))

        return async_wrapper if _is_async(view) else wrapper

    return decorate


def _is_async(view: Any) -> bool:
    if iscoroutinefunction(view):
        return True
    while isinstance(view, functools.partial):
        view = view.func
    # In a class of async handlers dispatch is a plain method that returns a coroutine.
    name, instance = getattr(view, "__name__", ""), getattr(view, "__self__", None)
    return name == "dispatch" and bool(getattr(instance, "view_is_async", False))


def is_ratelimited(
    request: HttpRequest,
    group: str | None = None,
    fn: Any = None,
    key: Any = None,
    rate: Any = None,
    method: Any = ALL,
    increment: bool = False,
    **options: Any,
) -> bool:
    """Return whether the request is over the limit; count it only with ``increment``."""
    usage = get_usage(request, group, fn, key, rate, method, increment, **options)
    return usage is not None and bool(usage["should_limit"])


def get_usage(
    request: HttpRequest,
    group: str | None = None,
    fn: Any = None,
    key: Any = None,
    rate: Any = None,
    method: Any = ALL,
    increment: bool = False,
    **options: Any,
) -> dict[str, Any] | None:
    """
    Return ``count``, ``limit``, ``should_limit`` and ``time_left`` (seconds), or None if the
    request is not limited. It is counted only with ``increment``, and not if it is refused.

    Raises ConfigurationError without ``group`` and ``fn``.
    """
    limit = _limit_of(group, fn, key, rate, method, options)
    arguments = get_arguments(limit, request)
    if arguments is None:
        return None
    store = get_store(limit)
    ask = store.acquire if increment else store.get_status
    return usage_of(ask(limit.scope, **arguments))


async def aget_usage(
    request: HttpRequest,
    group: str | None = None,
    fn: Any = None,
    key: Any = None,
    rate: Any = None,
    method: Any = ALL,
    increment: bool = False,
    **options: Any,
) -> dict[str, Any] | None:
    """See :func:`get_usage`."""
    limit = _limit_of(group, fn, key, rate, method, options)
    arguments = await aget_arguments(limit, request)
    if arguments is None:
        return None
    store = get_store(limit)
    ask = store.aacquire if increment else store.aget_status
    return usage_of(await ask(limit.scope, **arguments))


async def ais_ratelimited(request: HttpRequest, *args: Any, **kwargs: Any) -> bool:
    """See :func:`is_ratelimited`."""
    usage = await aget_usage(request, *args, **kwargs)
    return usage is not None and bool(usage["should_limit"])


def _limit_of(
    group: str | None, fn: Any, key: Any, rate: Any, method: Any, options: dict[str, Any]
) -> Limit:
    if group is None and fn is None:
        raise ConfigurationError("get_usage and is_ratelimited need a group or a fn.")
    name = group if group is not None else group_of(fn)
    return Limit(group=name, key=key, rate=rate, method=method, **options)


def adaptive_ratelimit(
    group: str | None = None,
    key: Any = None,
    rate: Any = None,
    method: Any = ALL,
    block: bool = True,
    *,
    priority: Any = "user",
    shadow: bool = False,
    response: Any = None,
    **options: Any,
) -> Callable[[V], V]:
    """See :func:`ratelimit`; requests of users go before those with ``priority="background"``."""
    unknown = options.keys() - inspect.signature(ratelimit).parameters.keys()
    if unknown:
        raise TypeError(f"@adaptive_ratelimit has no argument {min(unknown)!r}.")
    given = {"key": key, "rate": rate, "method": method, "priority": priority, **options}
    return _limiting(
        "@adaptive_ratelimit", group, given, block=block, shadow=shadow, response=response
    )


def _record(request: Any, status: Any, rates: Sequence[Rate], *, shadow: bool) -> bool:
    """Set the decision on the request; return whether this decorator limits it."""
    limited = status is not None and not status.allowed and not shadow
    request.limited = limited or getattr(request, "limited", False)
    if status is not None:
        remember(request, status, rates, shadow=shadow)
    return limited


def _finish(request: Any, response: Any) -> Any:
    if isinstance(response, HttpResponseBase):
        add_headers(request, response)
    return response


# As in django-ratelimit: ratelimit.ALL, is_ratelimited.UNSAFE, …
_with_methods: list[Any] = [ratelimit, is_ratelimited, get_usage, adaptive_ratelimit]
for _function in _with_methods:
    _function.ALL, _function.UNSAFE = ALL, UNSAFE
