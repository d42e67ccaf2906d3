"""
The limit of a request: its group, key, rate and cost; counting a request.

Names and meanings are those of django-ratelimit where it has them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest

from ..client_address import get_address, get_ip, is_in
from ..conf import DEFAULT_ALIAS, get_config, imported, ratelimit_setting
from ..conf.rates import (
    Rate,
    ResourceConfig,
    import_rate,
    is_dotted_path,
    key_error,
    methods_error,
    parse_resource,
    resolve_rate,
)
from ..conf.rules import WHOLE_POSITIVE, Problem, networks_error
from ..exceptions import ConfigurationError
from . import ALL
from .adaptive import PRIORITIES, AdaptiveRateLimitStore
from .algorithms import algorithm_of
from .store import RateLimitStore

_ACCESSORS: dict[str, Callable[[HttpRequest, str], Any]] = {
    "get": lambda request, name: request.GET.get(name, ""),
    "post": lambda request, name: request.POST.get(name, ""),
    "header": lambda request, name: request.headers.get(name, ""),
}


@dataclass(frozen=True, kw_only=True)
class Limit:
    """The limit of a decorator, a path or a call. ``scope`` is the name it is counted under."""

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
    scope: str = field(init=False, default="")

    def __post_init__(self) -> None:
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
    config = RateLimitStore(limit.using).get_resource_config(limit.resource)
    return _arguments(limit, request, config)


async def aget_arguments(limit: Limit, request: HttpRequest) -> dict[str, Any] | None:
    """See :func:`get_arguments`; functions that may query a database run in a thread."""
    if not _calls_nothing(limit):
        return await sync_to_async(get_arguments)(limit, request)
    if limit.rate is not None or limit.resource is None:
        return get_arguments(limit, request)
    if not _applies(limit, request):
        return None
    config = await RateLimitStore(limit.using).aget_resource_config(limit.resource)
    return _arguments(limit, request, config)


def _applies(limit: Limit, request: HttpRequest) -> bool:
    if not ratelimit_setting("ENABLE", True) or not matches(limit.method, request):
        return False
    return limit.skip_if is None or not imported(limit.skip_if)(request)


def _arguments(
    limit: Limit, request: HttpRequest, config: ResourceConfig | None
) -> dict[str, Any] | None:
    if config is None or config.rates is None:
        return None
    key = get_key(limit.key, limit.group, request, limit.using)
    if limit.allow and is_in(get_address(request, limit.using), limit.allow):
        return None
    cost = imported(limit.cost)
    if callable(cost):
        cost = cost(limit.group, request)
    arguments = {
        "key": key,
        "rate": config,
        "cost": cost,
        "on_unavailable": _on_unavailable(limit),
    }
    priority = limit.priority(request) if callable(limit.priority) else limit.priority
    return arguments if priority is None else {**arguments, "priority": priority}


def _calls_nothing(limit: Limit) -> bool:
    """Return whether neither functions nor dotted paths of functions are among the arguments."""
    rate = limit.rate
    return (
        (limit.key == "ip" or str(limit.key).startswith(("header:", "get:")))
        and not (callable(rate) or is_dotted_path(rate))
        and not (callable(limit.cost) or isinstance(limit.cost, str))
        and not callable(limit.priority)
        and limit.skip_if is None
    )


def get_store(limit: Limit) -> Any:
    """Return the store that counts for ``limit``."""
    kind: Any = RateLimitStore if limit.priority is None else AdaptiveRateLimitStore
    return kind(limit.using)


def get_key(key: Any, group: str, request: HttpRequest, using: str = DEFAULT_ALIAS) -> str:
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
        return str(key(group, request))
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
        return str(imported(key)(group, request))
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


def find_problems(limit: Limit, where: str) -> Iterable[Problem]:
    """Yield the problems of a limit's literals, for the system check."""
    hint = "See docs/limits.md."
    if not limit.key:
        yield Problem("dynamo_stores.E120", f"{where}: the key is missing.", hint)
    elif error := key_error(limit.key):
        yield Problem("dynamo_stores.E120", f"{where}: {error}", hint)
    methods = () if limit.method is None or tuple(limit.method) == ALL else limit.method
    if error := methods_error(methods):
        yield Problem("dynamo_stores.E125", f"{where}: {error}", hint)
    if limit.rate is None and limit.resource is None:
        message = f"{where} has neither a rate nor a resource, so it limits nothing."
        yield Problem("dynamo_stores.W014", message, "Name one of them. See docs/limits.md.")
    if limit.rate is not None and not callable(limit.rate):
        try:
            if is_dotted_path(limit.rate):
                import_rate(limit.rate)
            else:
                # With a fixed algorithm, because DYNAMO_STORES has checks of its own.
                config = _parsed(replace(limit, algorithm=limit.algorithm or "sliding"), limit.rate)
                yield from _cost_problems(limit, config, where)
        except ConfigurationError as exc:
            yield Problem("dynamo_stores.E121", f"{where}: {exc}", hint)
    if not (
        callable(limit.cost) or is_dotted_path(limit.cost) or WHOLE_POSITIVE.accepts(limit.cost)
    ):
        message = (
            f"{where}: cost is {limit.cost!r}; expected a whole number, 1 or more, a function of "
            "group and request, or its dotted path."
        )
        yield Problem("dynamo_stores.E122", message, hint)
    if error := networks_error(limit.allow):
        message = f"{where}: allow is not a list of networks.{error}"
        yield Problem("dynamo_stores.E123", message, hint)
    if limit.on_unavailable not in (None, "allow", "deny", "local"):
        message = f"{where}: on_unavailable is {limit.on_unavailable!r}; expected 'allow', 'deny' "
        yield Problem("dynamo_stores.E124", message + "or 'local'.", hint)
    if not (limit.priority in (None, *PRIORITIES) or callable(limit.priority)):
        message = f"{where}: priority is {limit.priority!r}; expected 'user', 'background' or a "
        yield Problem("dynamo_stores.E128", message + "function of the request.", hint)


def _cost_problems(limit: Limit, config: ResourceConfig, where: str) -> Iterable[Problem]:
    algorithm = algorithm_of(config)
    for rate in config.rates or ():
        most = algorithm.capacity(rate)
        if WHOLE_POSITIVE.accepts(limit.cost) and 0 < most < limit.cost:
            message = (
                f"{where}: cost is {limit.cost}, and the limit {rate} admits at most {most} at "
                "once, so it refuses every request."
            )
            hint = "Raise the limit, for 'gcra' the burst, or lower the cost. See docs/limits.md."
            yield Problem("dynamo_stores.E122", message, hint)


def _config(limit: Limit, request: HttpRequest) -> ResourceConfig | None:
    if limit.rate is None:
        return None
    rate = resolve_rate(limit.rate, limit.group, request)
    return None if rate is None else _parsed(limit, rate)


def _parsed(limit: Limit, rate: Any) -> ResourceConfig:
    if isinstance(rate, ResourceConfig):
        return rate
    algorithm = limit.algorithm if limit.priority is None else "sliding"
    if algorithm is None:
        algorithm = get_config(limit.using).rate_limit.algorithm
    return parse_resource({"RATE": rate, "ALGORITHM": algorithm, "BURST": limit.burst})


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
