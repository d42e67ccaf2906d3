"""Rates: ``"100/m"``, ``"10/s,100/m,1000/h"``, ``(100, 60)``. Pure."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.utils.module_loading import import_string

from ..exceptions import ConfigurationError
from .rules import MOST_SECONDS, POSITIVE, WHOLE, Rule, networks_error, suggestion

_PERIODS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_RATE = re.compile(r"(\d+)/(\d*)([smhd]?)")
ALGORITHMS = ("sliding", "fixed", "gcra", "log")
_MAX_LOGGED = 1_000


class Rate(NamedTuple):
    """At most ``limit`` in any ``window`` seconds."""

    limit: int
    window: float

    def __str__(self) -> str:
        return f"{self.limit}/{self.window:g}s"


def parse_rates(rate: Any) -> tuple[Rate, ...] | None:
    """
    Return the rates in ``rate``, the shortest window first; None for no limit.

    ``rate`` is a string (``"100/m"``, ``"5/10s"``, ``"100/600"`` in seconds, several separated by
    commas), a pair of limit and seconds, or a list of these. Of two limits with the same window
    the smaller applies. Raises ConfigurationError for other values.
    """
    if rate is None:
        return None
    by_window: dict[float, int] = {}
    for limit, window in _parts(rate):
        if window > MOST_SECONDS:
            raise ConfigurationError(
                f"A rate has a window of over 100 years; expected at most {MOST_SECONDS} seconds."
            )
        by_window[window] = min(limit, by_window.get(window, limit))
    if not by_window:
        raise ConfigurationError(f"The rate {rate!r} is empty; {_EXPECTED}")
    return tuple(Rate(limit, window) for window, limit in sorted(by_window.items()))


def resolve_rate(rate: Any, *args: Any) -> Any:
    """Return ``rate``; if it is a function, or the dotted path of one, return its result."""
    if is_dotted_path(rate):
        rate = import_rate(rate)
    return rate(*args) if callable(rate) else rate


def is_dotted_path(value: Any) -> bool:
    """Return whether ``value`` is the dotted path of a function, and not a rate."""
    return isinstance(value, str) and "/" not in value and "." in value


def import_rate(path: str) -> Any:
    """Return the rate at the dotted path. Raises ConfigurationError."""
    try:
        return import_string(path)
    except ImportError as exc:
        raise ConfigurationError(f"The rate {path!r} cannot be imported: {exc}.") from exc


_EXPECTED = (
    "expected '100/m' (s, m, h, d), '5/10s', '100/600' (seconds), several separated by commas, a "
    "pair (100, 60), or None for no limit."
)


def _parts(rate: Any) -> Iterable[Rate]:
    if isinstance(rate, Rate):
        return [rate]
    if isinstance(rate, str):
        return [_parse(part.strip(), rate) for part in rate.split(",")]
    if (
        isinstance(rate, list | tuple)
        and len(rate) == 2
        and not isinstance(rate[0], str | tuple | list)
    ):
        limit, window = rate
        if WHOLE.accepts(limit) and POSITIVE.accepts(window):
            return [Rate(limit, window)]
    elif isinstance(rate, list | tuple):
        return [each for part in rate for each in _parts(part)]
    raise ConfigurationError(f"{rate!r} is not a rate: {_EXPECTED}")


def _parse(part: str, whole: str) -> Rate:
    found = _RATE.fullmatch(part.lower())
    if found is None or not (found[2] or found[3]):
        raise ConfigurationError(f"{whole!r} is not a rate: {_EXPECTED}")
    window = int(found[2] or 1) * _PERIODS[found[3] or "s"]
    if not window:
        raise ConfigurationError(f"The rate {whole!r} has a window of 0 seconds; {_EXPECTED}")
    return Rate(int(found[1]), window)


@dataclass(frozen=True, kw_only=True)
class ResourceConfig:
    """
    The limit of a resource: ``rates`` (None: no limit), and the algorithm that counts.

    ``burst`` is how many requests ``gcra`` admits at once (None: a tenth of the limit); ``shards``
    the number of items that count a key; ``block`` how many requests of a key a process counts in
    advance by one write.
    """

    rates: tuple[Rate, ...] | None
    algorithm: str = "sliding"
    burst: int | None = None
    shards: int = 1
    block: int = 1


_WHOLE_POSITIVE_NAMES = ("BURST", "SHARDS", "BLOCK")
_NAMES = ("RATE", "ALGORITHM", *_WHOLE_POSITIVE_NAMES)


def parse_resource(config: Any, *, algorithm: str = "sliding") -> ResourceConfig:
    """
    Return the limit in ``config``: a rate, or a dict of ``RATE``, ``ALGORITHM``, ``BURST``,
    ``SHARDS`` and ``BLOCK``. Raises ConfigurationError for other values.
    """
    if isinstance(config, ResourceConfig):
        return config
    if isinstance(config, str):
        return _parse_text(config, algorithm)
    if not isinstance(config, Mapping):
        return _checked(ResourceConfig(rates=parse_rates(config), algorithm=algorithm))
    for name in config:
        if name not in _NAMES:
            raise ConfigurationError(f"Unknown setting {name!r}{suggestion(name, _NAMES)}")
    if "RATE" not in config:
        raise ConfigurationError("RATE is missing; set it to a rate, or to None for no limit.")
    for name in _WHOLE_POSITIVE_NAMES:
        value = config.get(name)
        if value is not None and not (WHOLE.accepts(value) and value >= 1):
            raise ConfigurationError(f"{name} is {value!r}; expected a whole number, 1 or more.")
    return _checked(
        ResourceConfig(
            rates=parse_rates(config["RATE"]),
            algorithm=config.get("ALGORITHM", algorithm),
            burst=config.get("BURST"),
            shards=config.get("SHARDS") or 1,
            block=config.get("BLOCK") or 1,
        )
    )


@functools.lru_cache(maxsize=1024)
def _parse_text(rate: str, algorithm: str) -> ResourceConfig:
    # The rate of a decorator is given with each request.
    return _checked(ResourceConfig(rates=parse_rates(rate), algorithm=algorithm))


def _checked(config: ResourceConfig) -> ResourceConfig:
    if config.algorithm not in ALGORITHMS:
        raise ConfigurationError(
            f"ALGORITHM is {config.algorithm!r}; expected one of "
            f"{', '.join(map(repr, ALGORITHMS))}{suggestion(config.algorithm, ALGORITHMS)}"
        )
    for rate in config.rates or ():
        if config.algorithm == "log" and rate.limit > _MAX_LOGGED:
            raise ConfigurationError(
                f"The algorithm 'log' stores every request; the rate {rate} is above its maximum "
                f"of {_MAX_LOGGED:,}. Use 'sliding'."
            )
        if 0 < rate.limit < config.shards:
            raise ConfigurationError(
                f"SHARDS is {config.shards}; expected at most the limit of {rate}."
            )
    if config.block > 1 and config.algorithm not in ("sliding", "fixed"):
        raise ConfigurationError("BLOCK requires the algorithm 'sliding' or 'fixed'.")
    return config


def _resources_error(value: Any) -> str:
    """Return the first error in a dict of resources, ``""`` without one."""
    if not isinstance(value, Mapping):
        return f" Expected a dict, got {type(value).__name__}."
    for name, config in value.items():
        try:
            parse_resource(config)
        except ConfigurationError as exc:
            return f" {name!r}: {exc}"
    return ""


RESOURCES = Rule(
    "a dict of resources and rates, or dicts of RATE, ALGORITHM, BURST, SHARDS, BLOCK",
    lambda value: not _resources_error(value),
    _resources_error,
)


KEY_ACCESSORS = ("header", "get", "post")
_METHODS = ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE")


def key_error(key: Any) -> str:
    """Return why ``key`` is not the key of a limit, ``""`` if it is or may be."""
    if callable(key):
        return ""
    accessor, colon, name = key.partition(":") if isinstance(key, str) else ("", "", "")
    if key in ("ip", "user", "user_or_ip") or (accessor in KEY_ACCESSORS and name):
        return ""
    if isinstance(key, str) and "." in key and not colon:
        return ""
    return (
        f"{key!r} is not a valid key; expected 'ip', 'user', 'user_or_ip', 'header:…', 'get:…', "
        "'post:…', a dotted path, or a function of group and request."
    )


def methods_error(value: Any) -> str:
    """Return why ``value`` is not a method of HTTP or a list of them, ``""`` if it is."""
    methods = [value] if isinstance(value, str) else value
    if not isinstance(methods, list | tuple | set | frozenset):
        return f"{value!r} is not a list of methods, such as ['POST', 'PUT']."
    for method in methods:
        if not isinstance(method, str) or method.upper() not in _METHODS:
            hint = suggestion(method.upper(), _METHODS) if isinstance(method, str) else "."
            return f"{method!r} is not a method of HTTP{hint}"
    return ""


PATH_NAMES = ("RATE", "KEY", "METHOD", "ALGORITHM", "BURST", "SHARDS", "BLOCK", "ALLOW")


def paths_error(value: Any) -> str:
    """Return the first error in ``PATHS``, ``""`` without one."""
    if not isinstance(value, Mapping):
        return f" Expected a dict, got {type(value).__name__}."
    for path, config in value.items():
        if not isinstance(path, str) or not path.startswith("/"):
            return f" {path!r} does not begin with a slash."
        if not isinstance(config, Mapping):
            return f" {path!r}: expected a dict, got {type(config).__name__}."
        for name in config:
            if name not in PATH_NAMES:
                return f" {path!r}: unknown setting {name!r}{suggestion(name, PATH_NAMES)}"
        own = {name: each for name, each in config.items() if name in _NAMES}
        try:
            parse_resource(own)
        except ConfigurationError as exc:
            return f" {path!r}: {exc}"
        if error := key_error(config.get("KEY", "ip")):
            return f" {path!r}: {error}"
        if error := methods_error(config.get("METHOD", ())):
            return f" {path!r}: {error}"
        if error := networks_error(config.get("ALLOW", ())):
            return f" {path!r}: ALLOW is not a list of networks.{error}"
    return ""


def describe(config: ResourceConfig) -> dict[str, Any]:
    """Return ``config`` as a JSON serializable dict that :func:`parse_resource` accepts."""
    return {
        "RATE": None if config.rates is None else [list(rate) for rate in config.rates],
        "ALGORITHM": config.algorithm,
        "BURST": config.burst,
        "SHARDS": config.shards,
        "BLOCK": config.block,
    }
