"""
The settings: ``DYNAMO_STORES`` read once into frozen dataclasses, one per alias.

Field names are the settings' names in lower case; every duration is in seconds. Each setting
has its default, the rule that it must meet and the id of its system check.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar, cast

from django.conf import settings
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from ..exceptions import ConfigurationError
from .groups import (
    AdaptiveConfig,
    AdviceConfig,
    BreakerConfig,
    CacheConfig,
    CostConfig,
    DedupeConfig,
    HealthConfig,
    MetricsConfig,
    NotifyConfig,
    RateLimitConfig,
    ReportsConfig,
    RetryConfig,
    ScalingConfig,
)
from .rules import (
    BOOLEAN,
    DOTTED_PATH,
    ENCRYPTION_KEY,
    EXTERNAL_ID,
    FILLED_TEXT,
    MAPPING,
    NAME,
    NOT_A_DICT,
    POSITIVE,
    PREFIX_NAME,
    ROLE_ARN,
    SESSION_NAME,
    TAGS,
    URL,
    WHOLE_POSITIVE,
    Problem,
    groups_of,
    one_of,
    or_none,
    setting,
    setting_problems,
    settings_of,
    suggestion,
)

DEFAULT_ALIAS = "default"

NO_DEFAULT_ALIAS = "dynamo_stores.E003"

C = TypeVar("C")


@dataclass(frozen=True, kw_only=True, eq=False)
class StoreConfig:
    """One alias of ``DYNAMO_STORES``."""

    table_name: str = setting("dynamo-stores", NAME, 10)
    table_prefix: str = setting("", PREFIX_NAME, 4)
    region: str | None = setting(None, or_none(FILLED_TEXT), 11)
    endpoint_url: str | None = setting(None, or_none(URL), 12)
    billing_mode: str = setting("PAY_PER_REQUEST", one_of("PAY_PER_REQUEST", "PROVISIONED"), 13)
    connect_timeout: float = setting(5.0, POSITIVE, 14)
    read_timeout: float = setting(10.0, POSITIVE, 15)
    operation_timeout: float = setting(30.0, POSITIVE, 16)
    request_deadline: float = setting(10.0, POSITIVE, 25)
    max_pool_connections: int = setting(50, WHOLE_POSITIVE, 17)
    profile: str | None = setting(None, or_none(FILLED_TEXT), 5)
    role_arn: str | None = setting(None, or_none(ROLE_ARN), 6)
    external_id: str | None = setting(None, or_none(EXTERNAL_ID), 7)
    session_name: str | None = setting(None, or_none(SESSION_NAME), 8)
    session: str | None = setting(None, or_none(DOTTED_PATH), 9)
    log_operations: bool = setting(False, BOOLEAN, 29)
    transport: str = setting("auto", one_of("auto", "lean", "botocore"), 24)
    failover: str | None = setting(None, or_none(FILLED_TEXT), 18)
    failover_writes: bool = setting(False, BOOLEAN, 28)
    retry: RetryConfig = field(default_factory=RetryConfig)
    circuit_breaker: BreakerConfig = field(default_factory=BreakerConfig)
    scaling: ScalingConfig = field(default_factory=ScalingConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    dedupe: DedupeConfig = field(default_factory=DedupeConfig)
    rate_limit: RateLimitConfig = field(default_factory=RateLimitConfig)
    adaptive: AdaptiveConfig = field(default_factory=AdaptiveConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    reports: ReportsConfig = field(default_factory=ReportsConfig)
    health: HealthConfig = field(default_factory=HealthConfig)
    notify: NotifyConfig = field(default_factory=NotifyConfig)
    advice: AdviceConfig = field(default_factory=AdviceConfig)
    cost: CostConfig = field(default_factory=CostConfig)
    # Options of the tables; None leaves an option as it is.
    point_in_time_recovery: bool | None = setting(None, or_none(BOOLEAN), 140)
    stream: str | None = setting(
        None,
        or_none(one_of("NEW_AND_OLD_IMAGES", "NEW_IMAGE", "OLD_IMAGE", "KEYS_ONLY", "OFF")),
        141,
    )
    deletion_protection: bool | None = setting(None, or_none(BOOLEAN), 142)
    tags: dict[str, str] | None = setting(None, or_none(TAGS), 143)
    encryption_key: str | None = setting(None, or_none(ENCRYPTION_KEY), 144)
    table_class: str | None = setting(
        None, or_none(one_of("STANDARD", "STANDARD_INFREQUENT_ACCESS")), 145
    )
    tables: dict[str, Any] = setting({}, MAPPING, 19)

    # Both are used on every call, so their values are computed once.
    _names: dict[str, str] = field(default_factory=dict, repr=False)
    _tables: dict[str, Self] = field(default_factory=dict, repr=False)

    @property
    def names_account(self) -> bool:
        """Whether an AWS account is named, so that it is also used for an endpoint here."""
        return bool(self.profile or self.role_arn or self.session)

    @property
    def store_table(self) -> str:
        """The name of the table of the stores, prefix included."""
        return self.real_name(self.table_name)

    @property
    def control_table(self) -> str:
        """The name of the control table, prefix included."""
        return f"{self.store_table}-control"

    def real_name(self, table: str) -> str:
        """Return the name in DynamoDB of the table that a model names ``table``."""
        if (name := self._names.get(table)) is None:
            name = self.tables.get(table, {}).get("TABLE_NAME", self.table_prefix + table)
            self._names[table] = name
        return name

    def name_in_dynamodb(self, table: str) -> str:
        """Return the name in DynamoDB of ``table``, which may be a model's name for it or that."""
        names = {self.real_name(each) for each in self.tables}
        is_real = table in names or (self.table_prefix and table.startswith(self.table_prefix))
        return table if is_real else self.real_name(table)

    def same_table(self, other: StoreConfig, name: str) -> str | None:
        """
        Return the name here of the table that has the name ``name`` in another alias; None for an
        ARN, and for a name that is not one of the other alias.
        """
        if name == other.store_table:
            return self.store_table
        for table in other.tables:
            if other.real_name(table) == name:
                return self.real_name(table)
        if name.startswith("arn:") or not name.startswith(other.table_prefix):
            return None
        return self.real_name(name.removeprefix(other.table_prefix))

    def for_table(self, name: str) -> Self:
        """Return these settings with the differences that ``TABLES`` has for the table ``name``."""
        if (found := self._tables.get(name)) is None:
            differences: Mapping[str, Any] = next(
                (
                    changes
                    for table, changes in self.tables.items()
                    if name in (table, self.real_name(table))
                ),
                {},
            )
            found = self._tables[name] = _merge(self, differences) if differences else self
        return found


# The names of all settings of an alias.
_NAMES = frozenset([*settings_of(StoreConfig), *groups_of(StoreConfig)])
# DynamoDB's limit of 255, without "-control".
_MAX_NAME = 247
# The settings that TABLES may change for one table.
TABLE_SETTINGS = frozenset(
    [
        "TABLE_NAME", "BILLING_MODE", "OPERATION_TIMEOUT", "RETRY", "CIRCUIT_BREAKER", "SCALING",
        "POINT_IN_TIME_RECOVERY", "STREAM", "DELETION_PROTECTION", "TAGS", "ENCRYPTION_KEY",
        "TABLE_CLASS",
    ]
)  # fmt: skip


def get_config(using: str = DEFAULT_ALIAS) -> StoreConfig:
    """
    Return the settings of the alias ``using``.

    Raises ConfigurationError with all errors of the alias.
    """
    if (config := _configs.get(using)) is None:
        config = _read(using)
        _configs[using] = config
    return config


def aliases() -> list[str]:
    """Return the names of all aliases; ``["default"]`` without DYNAMO_STORES."""
    return list(_raw())


def provisioned_aliases() -> list[str]:
    """Return the aliases that have a provisioned table, or scaling enabled."""
    found = []
    for using in aliases():
        config = get_config(using)
        tables = [config, *(config.for_table(name) for name in config.tables)]
        if any(each.scaling.enabled or each.billing_mode == "PROVISIONED" for each in tables):
            found.append(using)
    return found


def find_problems() -> list[Problem]:
    """Return all errors in ``DYNAMO_STORES``, the most general first."""
    try:
        raw = _raw()
    except ConfigurationError as exc:
        return [Problem(NOT_A_DICT, str(exc), "See docs/settings.md for its structure.")]
    problems = []
    if DEFAULT_ALIAS not in raw:
        problems.append(
            Problem(
                NO_DEFAULT_ALIAS,
                "DYNAMO_STORES has no alias 'default'.",
                "Name one of the aliases 'default'; stores use it unless they name another.",
            )
        )
    for using, values in raw.items():
        problems += _find_problems(using, values, raw)
    return problems


_configs: dict[str, StoreConfig] = {}
_callbacks: list[Callable[[], None]] = []
_lock = threading.Lock()


def when_changed(callback: Callable[[], None]) -> Callable[[], None]:
    """Call ``callback`` whenever the settings change (``override_settings``). A decorator."""
    _callbacks.append(callback)
    return callback


def _on_setting_changed(*, setting: str, **kwargs: object) -> None:
    if setting in ("DYNAMO_STORES", "CACHES", "SECRET_KEY", "SECRET_KEY_FALLBACKS"):
        with _lock:
            _configs.clear()
            for callback in _callbacks:
                callback()


setting_changed.connect(_on_setting_changed, dispatch_uid="dynamo_stores.conf")


def _raw() -> Mapping[str, Any]:
    raw = getattr(settings, "DYNAMO_STORES", None)
    if raw is None:
        return {DEFAULT_ALIAS: {}}
    if not isinstance(raw, Mapping):
        raise ConfigurationError(
            f"DYNAMO_STORES is {type(raw).__name__}; expected a dict of aliases, "
            "such as {'default': {'TABLE_NAME': 'dynamo-stores'}}."
        )
    if DEFAULT_ALIAS not in raw and (names := [name for name in raw if name in _NAMES]):
        raise ConfigurationError(
            f"DYNAMO_STORES[{names[0]!r}] is a setting; expected aliases with their settings: "
            f"DYNAMO_STORES = {{'default': {{{names[0]!r}: …}}}}."
        )
    return raw


def _read(using: str) -> StoreConfig:
    raw = _raw()
    if using not in raw:
        raise ConfigurationError(
            f"DYNAMO_STORES has no alias {using!r}{suggestion(using, raw)} "
            f"Known: {', '.join(map(repr, raw)) or 'none'}."
        )
    if problems := _find_problems(using, raw[using], raw):
        raise ConfigurationError(" ".join(problem.message for problem in problems))
    return _merge(StoreConfig(), raw[using])


def _merge(config: C, values: Mapping[str, Any]) -> C:
    groups = groups_of(type(config))
    changes: dict[str, Any] = {
        name.lower(): _merge(getattr(config, name.lower()), value) if name in groups else value
        for name, value in values.items()
    }
    if isinstance(config, StoreConfig):
        changes |= {"_names": {}, "_tables": {}}
    if isinstance(config, MetricsConfig):
        changes |= {name: tuple(changes[name]) for name in ("sinks", "allow") if name in changes}
    return cast(C, dataclasses.replace(cast(Any, config), **changes))


def _find_problems(using: str, values: Any, raw: Mapping[str, Any]) -> list[Problem]:
    where = f"DYNAMO_STORES[{using!r}]"
    problems = list(setting_problems(StoreConfig, values, where))
    if problems:
        return problems
    for table, differences in values.get("TABLES", {}).items():
        problems += setting_problems(
            StoreConfig, differences, f"{where}['TABLES'][{table!r}]", only=TABLE_SETTINGS
        )
    if problems:
        return problems
    config: StoreConfig = _merge(StoreConfig(), values)
    if not 3 <= len(config.store_table) <= _MAX_NAME:
        problems.append(
            Problem(
                "dynamo_stores.E010",
                f"{where}: the name of the table, {config.store_table!r}, has "
                f"{len(config.store_table)} characters; expected 3 to {_MAX_NAME}.",
                "Change TABLE_NAME or TABLE_PREFIX. The control table is '<name>-control'.",
            )
        )
    problems += _account_problems(config, where)
    if config.notify.webhook_secret is not None and config.notify.webhook is None:
        problems.append(
            Problem(
                "dynamo_stores.E153",
                f"{where}['NOTIFY']['WEBHOOK_SECRET'] is set without WEBHOOK, which it is for.",
                "Set WEBHOOK, or remove WEBHOOK_SECRET.",
            )
        )
    if config.failover_writes and config.failover is None:
        problems.append(
            Problem(
                "dynamo_stores.E028",
                f"{where}['FAILOVER_WRITES'] is True without FAILOVER, the alias that it is for.",
                "Set FAILOVER, or remove FAILOVER_WRITES.",
            )
        )
    problems += (of_alias := _contradictions(config, where))
    for table in config.tables:
        of_table = f"{where}['TABLES'][{table!r}]"
        problems += [
            each._replace(message=each.message.replace(where, of_table, 1))
            for each in _contradictions(config.for_table(table), where)
            if each not in of_alias
        ]
    if config.failover is not None and (config.failover == using or config.failover not in raw):
        problems.append(
            Problem(
                "dynamo_stores.E018",
                f"{where}['FAILOVER'] is {config.failover!r}; expected another alias of "
                "DYNAMO_STORES.",
                f"Known: {', '.join(repr(name) for name in raw if name != using) or 'none'}.",
            )
        )
    return list(dict.fromkeys(problems))


def _account_problems(config: StoreConfig, where: str) -> list[Problem]:
    found = []
    for name, value, number in (
        ("EXTERNAL_ID", config.external_id, 7),
        ("SESSION_NAME", config.session_name, 8),
    ):
        if value is not None and config.role_arn is None:
            found.append(
                Problem(
                    f"dynamo_stores.E{number:03}",
                    f"{where}[{name!r}] is set without ROLE_ARN, the role that it is for.",
                    f"Set ROLE_ARN, or remove {name}.",
                )
            )
    if config.session is not None and config.profile is not None:
        found.append(
            Problem(
                "dynamo_stores.E009",
                f"{where} sets PROFILE and SESSION; expected one of them.",
                "Let the function of SESSION use the profile, or remove SESSION.",
            )
        )
    return found


def _contradictions(config: StoreConfig, where: str) -> list[Problem]:
    scaling, adaptive, retry = config.scaling, config.adaptive, config.retry
    pairs = [
        ("SCALING", "MAX_READ_CAPACITY", scaling.max_read_capacity,
         "BASE_READ_CAPACITY", scaling.base_read_capacity, 43),
        ("SCALING", "MAX_WRITE_CAPACITY", scaling.max_write_capacity,
         "BASE_WRITE_CAPACITY", scaling.base_write_capacity, 44),
        ("ADAPTIVE", "HIGH_ACTIVITY_THRESHOLD", adaptive.high_activity_threshold,
         "MODERATE_ACTIVITY_THRESHOLD", adaptive.moderate_activity_threshold, 82),
        ("RETRY", "MAX_DELAY", retry.max_delay, "DELAY", retry.delay, 23),
    ]  # fmt: skip
    return [
        Problem(
            f"dynamo_stores.E{number:03}",
            f"{where}['{group}']['{upper}'] is {high!r}; expected at least {lower}, {low!r}.",
            f"Raise {upper} or lower {lower}.",
        )
        for group, upper, high, lower, low, number in pairs
        if high < low
    ]


def ratelimit_setting(name: str, default: Any = None) -> Any:
    """Return django-ratelimit's setting ``RATELIMIT_<name>``."""
    return getattr(settings, f"RATELIMIT_{name}", default)


def imported(function: Any) -> Any:
    """Return ``function``, or the object at that dotted path. Raises ConfigurationError."""
    if not isinstance(function, str):
        return function
    try:
        return import_string(function)
    except ImportError as exc:
        raise ConfigurationError(f"{function!r} cannot be imported: {exc}.") from exc
