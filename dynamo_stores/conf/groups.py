"""
The groups of settings in ``DYNAMO_STORES``: defaults, rules and the ids of their checks.

Field names are the settings' names in lower case; every duration is in seconds. No two are
compared, so none has ``__eq__``, which would add to the start of each process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .rates import RESOURCES, paths_error
from .rules import (
    BOOLEAN,
    DOTTED_PATH,
    FACTOR,
    FILLED_TEXT,
    HEADER,
    HEADERS,
    HOURS,
    NAMESPACE,
    NETWORKS,
    NOT_NEGATIVE,
    PATHS,
    POSITIVE,
    SCALING,
    SCHEDULE,
    SECONDS,
    SECONDS_OR_0,
    SHARE,
    TIME_ZONE,
    TOPIC_ARN,
    URL,
    WEBHOOK,
    WHOLE,
    WHOLE_POSITIVE,
    Rule,
    is_number,
    one_of,
    or_none,
    proxies_error,
    setting,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class RetryConfig:
    """``RETRY``: the number of retries of a call, and the delays before them."""

    max_retries: int = setting(3, WHOLE, 20)
    throttle_retries: int | None = setting(None, or_none(WHOLE), 21)
    delay: float = setting(0.1, POSITIVE, 22)
    max_delay: float = setting(30.0, POSITIVE, 23)


@dataclass(frozen=True, kw_only=True, eq=False)
class BreakerConfig:
    """``CIRCUIT_BREAKER``: when to stop sending requests, and for how long."""

    enabled: bool = setting(True, BOOLEAN, 30)
    failure_threshold: int = setting(5, WHOLE_POSITIVE, 31)
    recovery_timeout: float = setting(60.0, POSITIVE, 32)
    count_throttles: bool = setting(False, BOOLEAN, 33)
    failure_rate: float | None = setting(None, or_none(SHARE), 34)
    slow_call_duration: float | None = setting(None, or_none(POSITIVE), 35)
    slow_call_rate: float = setting(0.5, SHARE, 36)
    window: float = setting(60.0, POSITIVE, 37)
    minimum_calls: int = setting(20, WHOLE_POSITIVE, 38)


@dataclass(frozen=True, kw_only=True, eq=False)
class ScalingConfig:
    """``SCALING``: capacity units of a provisioned table and of each of its indexes."""

    enabled: bool = setting(False, BOOLEAN, 40)
    base_read_capacity: int = setting(5, WHOLE_POSITIVE, 41)
    base_write_capacity: int = setting(5, WHOLE_POSITIVE, 42)
    max_read_capacity: int = setting(100, WHOLE_POSITIVE, 43)
    max_write_capacity: int = setting(50, WHOLE_POSITIVE, 44)
    scale_up_factor: float = setting(2.0, FACTOR, 45)
    target_utilization: float = setting(0.7, SHARE, 46)
    scale_down_delay: float = setting(600, NOT_NEGATIVE, 47)
    dry_run: bool = setting(False, BOOLEAN, 48)
    maintenance_windows: tuple[str, ...] = setting((), HOURS, 49)
    auto_scaling_endpoint_url: str | None = setting(None, or_none(URL), 52)
    auto_scaling: str = setting("leave", one_of("leave", "raise_minimum"), 55)
    reconcile_interval: float = setting(60.0, POSITIVE, 53)
    name_hot_keys: bool = setting(False, BOOLEAN, 54)
    schedule: dict[str, Any] | str | None = setting(None, SCHEDULE, 56)
    schedule_time_zone: str = setting("UTC", TIME_ZONE, 57)
    schedule_dry_run: bool = setting(True, BOOLEAN, 58)


@dataclass(frozen=True, kw_only=True, eq=False)
class CacheConfig:
    """``CACHE``: settings of all caches of the alias; the others are in ``CACHES``."""

    cleanup_interval: float = setting(300, POSITIVE, 50)
    expiry_index: bool = setting(False, BOOLEAN, 51)


@dataclass(frozen=True, kw_only=True, eq=False)
class DedupeConfig:
    """``DEDUPE``: deduplicated jobs."""

    ttl: float = setting(300, SECONDS, 60)
    lease: float = setting(30, SECONDS, 61)
    max_wait: float = setting(30.0, SECONDS_OR_0, 62)
    poll_interval: float = setting(0.1, POSITIVE, 63)
    failure_ttl: float = setting(5.0, SECONDS_OR_0, 64)
    credential_headers: tuple[str, ...] = setting(("X-API-Key",), HEADERS, 65)


PROXIES = Rule(
    "the number of your proxies, or a list of their networks",
    lambda value: not proxies_error(value),
    proxies_error,
)
PATHS_AND_RATES = Rule(
    "a dict of paths ('/api/') and dicts of RATE, KEY, METHOD and the like",
    lambda value: not paths_error(value),
    paths_error,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class RateLimitConfig:
    """``RATE_LIMIT``: the default limit, and the limits of resources and paths."""

    limit: int = setting(200, WHOLE, 70)
    window: float = setting(60, SECONDS, 71)
    resources: dict[str, Any] = setting({}, RESOURCES, 72)
    algorithm: str = setting("sliding", one_of("sliding", "fixed", "gcra", "log"), 73)
    on_unavailable: str = setting("allow", one_of("allow", "deny", "local"), 74)
    on_throttled: str = setting("local", one_of("allow", "deny", "local"), 78)
    operation_timeout: float = setting(5.0, POSITIVE, 75)
    trusted_proxies: int | list[str] = setting(0, PROXIES, 76)
    paths: dict[str, Any] = setting({}, PATHS_AND_RATES, 77)
    in_process: bool = setting(False, BOOLEAN, 79)


@dataclass(frozen=True, kw_only=True, eq=False)
class AdaptiveConfig:
    """``ADAPTIVE``: how a limit is shared between users and background work."""

    monitoring_window: float = setting(900, POSITIVE, 80)
    recalculation_interval: float = setting(30, POSITIVE, 81)
    high_activity_threshold: int = setting(10, WHOLE_POSITIVE, 82)
    moderate_activity_threshold: int = setting(3, WHOLE_POSITIVE, 83)
    sustained_inactivity: float = setting(1800, POSITIVE, 84)
    pause_background_on_increasing_trend: bool = setting(True, BOOLEAN, 85)
    max_user_scaling: float = setting(2.0, SCALING, 86)
    min_user_reserved: int = setting(5, WHOLE, 87)


SINK_OPTIONS = Rule(
    "a dict of dotted paths of SINKS and dicts of their options",
    lambda value: (
        isinstance(value, dict)
        and all(isinstance(path, str) for path in value)
        and all(isinstance(each, dict) for each in value.values())
    ),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class MetricsConfig:
    """``METRICS``: where measurements go, and how often."""

    sinks: tuple[str, ...] = setting(("dynamo_stores.monitoring.sinks.LoggingSink",), PATHS, 90)
    namespace: str = setting("DynamoDBStore", NAMESPACE, 91)
    sampling_rate: float = setting(
        1.0, Rule("a number from 0 to 1", lambda v: is_number(v) and 0 <= v <= 1), 92
    )
    interval: float = setting(60.0, POSITIVE, 97)
    region: str | None = setting(None, or_none(FILLED_TEXT), 98)
    options: dict[str, Any] = setting({}, SINK_OPTIONS, 99)
    correlation_header: str = setting("X-Request-ID", HEADER, 160)
    token: str | None = setting(None, or_none(FILLED_TEXT), 161, is_secret=True)
    allow: tuple[str, ...] = setting((), NETWORKS, 162)


@dataclass(frozen=True, kw_only=True, eq=False)
class ReportsConfig:
    """``REPORTS``: the reports of each process, for the status pages."""

    enabled: bool = setting(True, BOOLEAN, 93)
    interval: float = setting(60.0, POSITIVE, 94)


@dataclass(frozen=True, kw_only=True, eq=False)
class HealthConfig:
    """``HEALTH``: the check of ``health/ready``; ``required``: not ready without DynamoDB."""

    required: bool = setting(True, BOOLEAN, 95)
    timeout: float = setting(1.0, POSITIVE, 96)
    interval: float | None = setting(None, or_none(POSITIVE), 159)


@dataclass(frozen=True, kw_only=True, eq=False)
class NotifyConfig:
    """``NOTIFY``: who is told of changes of circuit breakers, capacity and failover."""

    topic: str | None = setting(None, or_none(TOPIC_ARN), 150)
    topic_endpoint_url: str | None = setting(None, or_none(URL), 151)
    webhook: str | None = setting(None, or_none(WEBHOOK), 152, is_secret=True)
    webhook_secret: str | None = setting(None, or_none(FILLED_TEXT), 153, is_secret=True)
    function: str | None = setting(None, or_none(DOTTED_PATH), 154)
    timeout: float = setting(5.0, POSITIVE, 155)
    max_per_hour: int = setting(20, WHOLE_POSITIVE, 156)

    @property
    def is_on(self) -> bool:
        """Whether anybody is told."""
        return bool(self.topic or self.webhook or self.function)


ADVICE_CODES = (
    "scan",
    "reads-one-by-one",
    "writes-one-by-one",
    "repeated-reads",
    "filtered",
    "many-pages",
    "single-transaction",
    "throttled",
    "retried",
    "strong-reads",
    "wide-reads",
    "hot-key",
    "overwrites",
    "unit-boundary",
)
CODES = Rule(
    "a list of codes of findings, such as 'hot-key'",
    lambda value: isinstance(value, list | tuple) and all(each in ADVICE_CODES for each in value),
    lambda value: f" Known: {', '.join(ADVICE_CODES)}.",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class AdviceConfig:
    """``ADVICE``: findings of AdviceMiddleware; ``enabled`` None: where ``DEBUG`` is on."""

    enabled: bool | None = setting(None, or_none(BOOLEAN), 170)
    interval: float = setting(60.0, NOT_NEGATIVE, 171)
    one_by_one: int = setting(5, WHOLE_POSITIVE, 172)
    ignore: tuple[str, ...] = setting((), CODES, 173)


@dataclass(frozen=True, kw_only=True, eq=False)
class CostConfig:
    """``COST``: the price file of estimates, and where its prices are from."""

    prices: str | None = setting(None, or_none(FILLED_TEXT), 176)
    price_region: str | None = setting(None, or_none(FILLED_TEXT), 177)
    factor: float = setting(1.0, POSITIVE, 178)
