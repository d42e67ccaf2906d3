"""
The limit of a request: its group, key, rate and cost; counting a request.

Names and meanings are those of django-ratelimit where it has them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest

from ..client_address import get_address, get_ip, has_own_function, is_in
from ..conf import DEFAULT_ALIAS, get_config, imported, ratelimit_setting
from ..conf.functions import call, check_not_async, check_result
from ..conf.rates import (
    Rate,
    ResourceConfig,
    is_dotted_path,
    key_error,
    parse_resource,
    resolve_rate,
)
from ..conf.rules import networks_error
from ..exceptions import ConfigurationError
from . import ALL
from .adaptive import AdaptiveRateLimitStore
from .store import RateLimitStore

_ACCESSORS: dict[str, Callable[[HttpRequest, str], Any]] = {
    "get": lambda request, name: request.GET.get(name, ""),
    "post": lambda request, name: request.POST.get(name, ""),
    "header": lambda request, name: request.headers.get(name, ""),
}


# The arguments that may be functions.
FUNCTIONS = ("key", "rate", "cost", "skip_if", "priority")


@dataclass(frozen=True, kw_only=True)
class Limit:
    """
    The limit of a decorator, a path or a call. ``scope`` is the name it is counted under,
    ``decorator`` is named in messages.
    """

    group: str
    key: Any
    rate: Any
    method: Any = ALL
    cost: Any = 1
    algorithm: str | None = None
    burst: int | None = None
    priority: Any = None
    skip_if: Any = None
    allow: Sequence[str] = ()
    on_unavailable: str | None = None
    resource: str | None = None
    using: str = DEFAULT_ALIAS
    decorator: str = "@ratelimit"
    scope: str = field(init=False, default="")

    def __post_init__(self) -> None:
        for each in FUNCTIONS:
            check_not_async(f"{each} of {self.decorator}", getattr(self, each))
        name, methods = self.resource or self.group, _methods(self.method)
        # Each set of methods is counted separately.
        object.__setattr__(self, "scope", f"{name} {methods}" if methods else name)


def check(limit: Limit, request: HttpRequest) -> tuple[Any, Sequence[Rate]]:
    """Count ``request``; return its status and the rates, or ``(None, ())`` if not limited."""
    arguments = get_arguments(limit, request)
    if arguments is None:
        return None, ()
    status = get_store(limit).acquire(limit.scope, **arguments)
    return status, arguments["rate"].rates


async def acheck(limit: Limit, request: HttpRequest) -> tuple[Any, Sequence[Rate]]:
    """See :func:`check`."""
    arguments = await aget_arguments(limit, request)
    if arguments is None:
        return None, ()
    status = await get_store(limit).aacquire(limit.scope, **arguments)
    return status, arguments["rate"].rates


def get_arguments(limit: Limit, request: HttpRequest) -> dict[str, Any] | None:
    """
    Return the arguments of ``acquire`` for ``request``, None if it is not limited.

    Raises ConfigurationError if the key or the rate is not valid.
    """
    if not _applies(limit, request):
        return None
    if limit.rate is not None or limit.resource is None:
        return _arguments(limit, request, _config(limit, request))
    config = get_store(limit).get_resource_config(limit.resource)
    return _arguments(limit, request, config)


async def aget_arguments(limit: Limit, request: HttpRequest) -> dict[str, Any] | None:
    """See :func:`get_arguments`; functions that may query a database run in a thread."""
    if not _calls_nothing(limit):
        return await sync_to_async(get_arguments)(limit, request)
    if limit.rate is not None or limit.resource is None:
        return get_arguments(limit, request)
    if not _applies(limit, request):
        return None
    config = await get_store(limit).aget_resource_config(limit.resource)
    return _arguments(limit, request, config)


def _applies(limit: Limit, request: HttpRequest) -> bool:
    if not ratelimit_setting("ENABLE", True) or not matches(limit.method, request):
        return False
    skip_if = imported(limit.skip_if)
    return skip_if is None or not call(f"skip_if of {limit.decorator}", skip_if, request)


def _arguments(
    limit: Limit, request: HttpRequest, config: ResourceConfig | None
) -> dict[str, Any] | None:
    if config is None or config.rates is None:
        return None
    key = get_key(limit.key, limit.group, request, limit.using, limit.decorator)
    if limit.allow and _is_allowed(get_address(request, limit.using), limit.allow):
        return None
    cost = imported(limit.cost)
    if callable(cost):
        cost = call(f"cost of {limit.decorator}", cost, limit.group, request)
    arguments = {
        "key": key,
        "rate": config,
        "cost": cost,
        "on_unavailable": _on_unavailable(limit),
    }
    priority = limit.priority
    if callable(priority):
        priority = call(f"priority of {limit.decorator}", priority, request)
    return arguments if priority is None else {**arguments, "priority": priority}


def _is_allowed(address: Any, allow: Any) -> bool:
    try:
        return is_in(address, allow)
    except (TypeError, ValueError) as exc:
        raise ConfigurationError(
            f"allow is {allow!r}; expected a list of networks, such as ['10.0.0.0/8']."
            f"{networks_error(allow)}"
        ) from exc


def _calls_nothing(limit: Limit) -> bool:
    """Return whether no function of the project is called, by itself or by its dotted path."""
    rate = limit.rate
    return (
        (limit.key == "ip" or str(limit.key).startswith(("header:", "get:")))
        and not (callable(rate) or is_dotted_path(rate))
        and not (callable(limit.cost) or isinstance(limit.cost, str))
        and not callable(limit.priority)
        and limit.skip_if is None
        and not has_own_function()
    )


def get_store(limit: Limit) -> Any:
    """Return the store that counts for ``limit``."""
    kind: Any = RateLimitStore if limit.priority is None else AdaptiveRateLimitStore
    return kind(limit.using)


def get_key(
    key: Any,
    group: str,
    request: HttpRequest,
    using: str = DEFAULT_ALIAS,
    decorator: str = "@ratelimit",
) -> str:
    """
    Return the name of the client of ``request``, by the kind of ``key``.

    Raises ConfigurationError if ``key`` is not valid.
    """
    if not key:
        raise ConfigurationError(
            "A rate limit needs a key: 'ip', 'user', 'user_or_ip', 'header:…', 'get:…', 'post:…' "
            "or a function of group and request."
        )
    if callable(key):
        return str(call(f"key of {decorator}", key, group, request))
    match key:
        case "ip":
            return get_ip(request, using)
        case "user":
            return str(request.user.pk)
        case "user_or_ip":
            user = getattr(request, "user", None)
            if user is not None and user.is_authenticated:
                return str(user.pk)
            return get_ip(request, using)
    accessor, colon, name = key.partition(":") if isinstance(key, str) else ("", "", "")
    if colon and accessor in _ACCESSORS:
        return str(_ACCESSORS[accessor](request, name))
    if accessor and not colon and "." in key:
        return str(call(f"key of {decorator}", imported(key), group, request))
    raise ConfigurationError(key_error(key))


def group_of(function: Any) -> str:
    """
    Return the name of a view: its module, its class if it is a method, its qualified name. The
    module of an inherited method is that of the class.
    """
    while isinstance(function, functools.partial):
        function = function.func
    if hasattr(function, "__self__"):
        owner = function.__self__
        kind = owner if isinstance(owner, type) else type(owner)
        return f"{kind.__module__}.{kind.__name__}.{function.__qualname__}"
    parts = [function.__module__] if hasattr(function, "__module__") else []
    return ".".join([*parts, getattr(function, "__qualname__", type(function).__name__)])


def _config(limit: Limit, request: HttpRequest) -> ResourceConfig | None:
    if limit.rate is None:
        return None
    rate = resolve_rate(limit.rate, limit.group, request)
    check_result(f"rate of {limit.decorator}", limit.rate, rate)
    return None if rate is None else parsed(limit, rate)


def parsed(limit: Limit, rate: Any) -> ResourceConfig:
    """Return ``rate`` with the other arguments of ``limit``. Raises ConfigurationError."""
    if isinstance(rate, ResourceConfig):
        return rate
    check_algorithm(limit)
    algorithm = limit.algorithm if limit.priority is None else "sliding"
    if algorithm is None:
        algorithm = get_config(limit.using).rate_limit.algorithm
    return parse_resource({"RATE": rate, "ALGORITHM": algorithm, "BURST": limit.burst})


def check_algorithm(limit: Limit) -> None:
    """Raise ConfigurationError if an adaptive limit has an algorithm that cannot be shared."""
    if limit.priority is not None and limit.algorithm not in (None, "sliding"):
        raise ConfigurationError(
            f"algorithm is {limit.algorithm!r}; expected 'sliding', by which limits with a "
            "priority are counted, or no algorithm."
        )


def _on_unavailable(limit: Limit) -> str | None:
    if limit.on_unavailable is not None:
        return limit.on_unavailable
    fail_open = ratelimit_setting("FAIL_OPEN")
    return None if fail_open is None else ("allow" if fail_open else "deny")


def matches(method: Any, request: HttpRequest) -> bool:
    """Return whether a limit of ``method`` (one, several, ALL) is for the request's method."""
    methods = _methods(method)
    return not methods or (request.method or "") in methods.split(",")


def _methods(method: Any) -> str:
    if method is None or tuple(method) == ALL:
        return ""
    methods = {each.upper() for each in ([method] if isinstance(method, str) else method)}
    if "GET" in methods:
        # Django runs the view of a GET for HEAD, too.
        methods.add("HEAD")
    return ",".join(sorted(methods))
