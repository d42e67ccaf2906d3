"""``OPTIONS`` of a cache in ``CACHES``, and their checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

from .. import keys
from ..conf import DEFAULT_ALIAS, aliases
from ..conf.rules import (
    BOOLEAN,
    FILLED_TEXT,
    NOT_NEGATIVE,
    POSITIVE,
    SECONDS_OR_0,
    UNKNOWN_NAME,
    WHOLE,
    WHOLE_POSITIVE,
    Problem,
    one_of,
    or_none,
    setting,
    setting_problems,
    settings_of,
    suggestion,
)
from ..exceptions import ConfigurationError


@dataclass(frozen=True, kw_only=True, eq=False)
class CacheOptions:
    """``OPTIONS`` of a cache in ``CACHES``."""

    serializer: str = setting("pickle", FILLED_TEXT, 100)
    compressor: str | None = setting(None, or_none(FILLED_TEXT), 101)
    compress_over: int = setting(1024, WHOLE, 102)
    ignore_exceptions: bool = setting(False, BOOLEAN, 103)
    consistent_read: bool | None = setting(None, or_none(BOOLEAN), 104)
    operation_timeout: float = setting(2.0, POSITIVE, 105)
    max_value_bytes: int = setting(64 * 2**20, WHOLE_POSITIVE, 108)
    clear_by_index: bool = setting(False, BOOLEAN, 109)
    reverse_key_function: str | None = setting(None, or_none(FILLED_TEXT), 110)
    clear: str = setting("delete", one_of("delete", "generation"), 111)
    generation_timeout: float = setting(1.0, POSITIVE, 112)
    local_timeout: float = setting(0, NOT_NEGATIVE, 113)
    local_max_entries: int = setting(1000, WHOLE_POSITIVE, 114)
    local_max_bytes: int = setting(16 * 2**20, WHOLE_POSITIVE, 115)
    local_stale: float = setting(0, NOT_NEGATIVE, 127)
    combine_reads: bool = setting(False, BOOLEAN, 129)
    stampede_lease: float = setting(0, SECONDS_OR_0, 116)
    stale_timeout: float = setting(0, SECONDS_OR_0, 117)
    stampede_wait: float | None = setting(None, or_none(POSITIVE), 119)
    early_refresh: float = setting(0, NOT_NEGATIVE, 118)

    @property
    def keeps_near(self) -> bool:
        """Whether there is a near tier."""
        return self.local_timeout > 0 or self.local_stale > 0


CULLING_OPTIONS = ("MAX_ENTRIES", "CULL_FREQUENCY")
_OF_DJANGO_REDIS = frozenset(
    [
        "CLIENT_CLASS", "CLOSE_CONNECTION", "CONNECTION_FACTORY", "CONNECTION_POOL_CLASS",
        "CONNECTION_POOL_CLASS_KWARGS", "CONNECTION_POOL_KWARGS", "LOG_IGNORED_EXCEPTIONS",
        "PARSER_CLASS", "PASSWORD", "REDIS_CLIENT_CLASS", "REDIS_CLIENT_KWARGS", "SENTINELS",
        "SENTINEL_KWARGS", "SOCKET_CONNECT_TIMEOUT", "SOCKET_TIMEOUT",
    ]
)  # fmt: skip
CACHE_BACKEND = "dynamo_stores.cache.DynamoDBCache"
CACHE_LOCATION, CACHE_PREFIX = "dynamo_stores.E106", "dynamo_stores.E107"
MAX_PREFIX_BYTES = 1024

_DEFAULT_OPTIONS = CacheOptions()


def get_cache_options(options: Mapping[str, Any]) -> CacheOptions:
    """Return ``OPTIONS`` as a dataclass. Raises ConfigurationError, which names each problem."""
    if not options:
        return _DEFAULT_OPTIONS
    own = without_culling(options)
    if problems := _option_problems(own, "CACHES[…]['OPTIONS']"):
        raise ConfigurationError(" ".join(problem.message for problem in problems))
    return CacheOptions(**{name.lower(): value for name, value in own.items()})


def _option_problems(options: Any, where: str) -> list[Problem]:
    if not isinstance(options, Mapping):
        return setting_problems(CacheOptions, options, where)
    of_redis = [
        Problem(
            UNKNOWN_NAME,
            f"{where}[{name!r}] is an option of django-redis; it does nothing here.",
            f"Remove it. Known: {', '.join(settings_of(CacheOptions))}.",
        )
        for name in options
        if name in _OF_DJANGO_REDIS
    ]
    own = {name: value for name, value in options.items() if name not in _OF_DJANGO_REDIS}
    return of_redis + setting_problems(CacheOptions, own, where)


def without_culling(options: Any) -> Any:
    """Return ``OPTIONS`` without Django's options for culling, which have no effect here."""
    if not isinstance(options, Mapping):
        return options
    return {name: value for name, value in options.items() if name not in CULLING_OPTIONS}


def wrong_prefix(prefix: str) -> str:
    """Return why ``prefix`` cannot be part of a partition key, ``""`` if it can."""
    try:
        size = len(keys.escape(prefix).encode())
    except UnicodeEncodeError:
        return "contains a lone surrogate"
    if size > MAX_PREFIX_BYTES:
        return (
            f"has {size:,} bytes as part of a key, where # and % take three; expected at most "
            f"{MAX_PREFIX_BYTES:,}"
        )
    return ""


def check_prefix(prefix: str) -> None:
    """Raise ConfigurationError if ``prefix`` cannot be part of a partition key."""
    if wrong := wrong_prefix(prefix):
        raise ConfigurationError(f"The cache's KEY_PREFIX {wrong}.")


def our_caches() -> dict[str, Mapping[str, Any]]:
    """Return the caches of ``CACHES`` whose backend is DynamoDBCache or a subclass, by name."""
    return {
        name: cache for name, cache in settings.CACHES.items() if _is_ours(cache.get("BACKEND"))
    }


def _is_ours(path: Any) -> bool:
    if path == CACHE_BACKEND:
        return True
    try:
        backend = import_string(path)
    except (ImportError, AttributeError):
        return False  # Django reports it
    return isinstance(backend, type) and issubclass(backend, import_string(CACHE_BACKEND))


def find_cache_problems() -> list[Problem]:
    """Return the problems in the settings of these caches."""
    problems = []
    for name, cache in our_caches().items():
        where = f"CACHES[{name!r}]"
        options = without_culling(cache.get("OPTIONS", {}))
        problems += _option_problems(options, f"{where}['OPTIONS']")
        location = cache.get("LOCATION")
        if location and location not in (known := aliases()):
            problems.append(
                Problem(
                    CACHE_LOCATION,
                    f"{where}['LOCATION'] is {location!r}; expected an alias of "
                    f"DYNAMO_STORES{suggestion(location, known)}",
                    f"Known: {', '.join(map(repr, known)) or 'none'}. Without LOCATION it is "
                    f"{DEFAULT_ALIAS!r}.",
                )
            )
        if wrong := wrong_prefix(str(cache.get("KEY_PREFIX", ""))):
            problems.append(
                Problem(
                    CACHE_PREFIX,
                    f"{where}['KEY_PREFIX'] {wrong}.",
                    "The prefix is part of every partition key; choose a short one.",
                )
            )
    return problems
