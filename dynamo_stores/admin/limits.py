"""The page of rate limits: resources, the use of a limit, and changes of both."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from ..calls.policy import deadline
from ..conf import get_config
from ..conf.groups import RateLimitConfig
from ..conf.rates import Rate, ResourceConfig, describe, parse_rates, parse_resource
from ..exceptions import CALL_ERRORS, ConfigurationError
from ..monitoring.snapshot import reason_of
from ..monitoring.status import AliasStatus
from ..ratelimit.algorithms import RateLimitStatus
from ..ratelimit.requests import Limit
from ..ratelimit.store import RateLimitStore
from ..stores import AdaptiveRateLimitStore
from .actions import (
    Action,
    Effect,
    Outcome,
    Target,
    check_alias,
    check_typed,
    problem_of,
    short,
)
from .entries import ACT_SECONDS, LOOK_SECONDS, NO_ANSWER

STORED, SETTINGS, PATH, DEFAULT, TYPED, HERE = (
    "stored for all processes",
    "RESOURCES",
    "PATHS",
    "LIMIT and WINDOW",
    "the rate of the form",
    "set in this process",
)
# What the limit of a path has beside the limit itself.
_OF_PATHS = ("KEY", "METHOD", "ALLOW")
_UNREADABLE = "cannot be read"

Stored = Mapping[str, ResourceConfig | None]


@dataclass(frozen=True)
class ResourceRow:
    """
    A resource with a limit of its own; ``origin`` says where the limit is set, ``otherwise`` which
    limit it has without the stored one.
    """

    using: str
    resource: str
    origin: str
    rate: str
    algorithm: str
    otherwise: str = ""

    @property
    def is_path(self) -> bool:
        """Whether the limit is of a path: it is changed in the settings only."""
        return self.origin == PATH


@dataclass(frozen=True)
class AliasLimits:
    """The limits of one alias. ``stored`` is None if the stored ones were not read."""

    using: str
    rows: tuple[ResourceRow, ...]
    default: str
    refused: int
    stored: Stored | None
    problem: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {
            "using": self.using,
            "default": self.default,
            "refused": self.refused,
            "resources": [asdict(row) for row in self.rows],
            "knows_stored": self.stored is not None,
            "problem": self.problem,
        }


def limits(statuses: Sequence[AliasStatus]) -> list[AliasLimits]:
    """Return the limits of each alias. Takes about four seconds at most."""
    with ThreadPoolExecutor(len(statuses), "dynamo-stores-limits") as threads:
        return list(threads.map(_limits, statuses))


def _limits(status: AliasStatus) -> AliasLimits:
    using, problem = status.using, ""
    settings = get_config(using).rate_limit
    stored: Stored | None = None
    if status.outage is not None:
        problem = f"The stored limits are not known: {NO_ANSWER}."
    elif settings.in_process:
        stored = {}
    else:
        try:
            with deadline(LOOK_SECONDS):
                stored = RateLimitStore(using).get_stored_configs()
        except CALL_ERRORS as exc:
            problem = f"The stored limits are not known: {reason_of(exc)}."
    return AliasLimits(
        using,
        tuple(_rows(using, settings, stored or {})),
        rates_text((Rate(settings.limit, settings.window),)),
        sum(each.limits_refused for each in status.reports),
        stored,
        problem,
    )


def _rows(using: str, settings: RateLimitConfig, stored: Stored) -> list[ResourceRow]:
    rows = []
    for name in sorted({*settings.resources, *stored}, key=str):
        own = _of_settings(settings, name)
        otherwise = _text(own) if own is not None else DEFAULT
        if name in stored:
            config, origin = stored[name], STORED
        else:
            config, origin, otherwise = own, SETTINGS, ""
        rows.append(
            ResourceRow(using, str(name), origin, _text(config), _algorithm(config), otherwise)
        )
    for scope, config in _paths(settings).items():
        rows.append(ResourceRow(using, scope, PATH, _text(config), _algorithm(config)))
    return rows


def _of_settings(settings: RateLimitConfig, resource: str) -> ResourceConfig | None:
    if resource not in settings.resources:
        return None
    return parse_resource(settings.resources[resource], algorithm=settings.algorithm)


def _paths(settings: RateLimitConfig) -> dict[str, ResourceConfig]:
    """Return the limits of paths, by the names under which they are counted."""
    found = {}
    for path, config in settings.paths.items():
        own = {name: value for name, value in config.items() if name not in _OF_PATHS}
        rate = parse_resource(own, algorithm=settings.algorithm)
        methods = {"method": config["METHOD"]} if "METHOD" in config else {}
        found[Limit(group=f"path:{path}", key="ip", rate=rate, **methods).scope] = rate
    return found


def rates_text(rates: tuple[Rate, ...] | None) -> str:
    """Return rates for people, such as ``100 in 60 s``."""
    if rates is None:
        return "no limit"
    return ", ".join(f"{rate.limit:,} in {rate.window:g} s" for rate in rates)


def _text(config: ResourceConfig | None) -> str:
    return _UNREADABLE if config is None else rates_text(config.rates)


def _algorithm(config: ResourceConfig | None) -> str:
    if config is None:
        return ""
    more = [f"burst {config.burst}"] if config.burst is not None else []
    more += [f"{config.shards} shards"] if config.shards > 1 else []
    more += [f"blocks of {config.block}"] if config.block > 1 else []
    return ", ".join([config.algorithm, *more])


@dataclass(frozen=True)
class UseRow:
    """
    The use of a limit, of its tightest rate; ``priority`` and ``allocation`` are those of an
    adaptive limit.
    """

    status: RateLimitStatus
    priority: str = ""
    allocation: Mapping[str, Any] | None = None

    @property
    def used(self) -> int | None:
        """How many requests are counted, None without a limit."""
        if self.status.limit is None or self.status.remaining is None:
            return None
        return self.status.limit - self.status.remaining

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {
            "priority": self.priority or None,
            "used": self.used,
            **self.status._asdict(),
            "allocation": self.allocation,
        }


@dataclass(frozen=True)
class LimitLookup:
    """
    The answer to a look-up. ``rows`` has one row, or two for an adaptive limit; ``others`` are
    windows under which requests of the key are counted, too.
    """

    using: str
    resource: str
    key: str
    rate: str
    origin: str = ""
    limit: str = ""
    algorithm: str = ""
    rows: tuple[UseRow, ...] = ()
    is_counted: bool = False
    others: tuple[str, ...] = ()
    is_in_process: bool = False
    problem: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {
            "using": self.using,
            "resource": self.resource,
            "key": self.key,
            "origin": self.origin or None,
            "limit": self.limit or None,
            "algorithm": self.algorithm or None,
            "is_counted": self.is_counted,
            "use": [row.as_json() for row in self.rows],
            "others": list(self.others),
            "problem": self.problem,
        }


def look_up(
    using: str,
    resource: str,
    key: str,
    rate: str,
    stored: Stored | None,
    *,
    dead: Collection[str] = (),
) -> LimitLookup:
    """
    Return the use of a limit. ``rate`` is that of a decorator, ``""`` for the limit of the
    resource; ``stored`` are the stored limits. Takes about four seconds at most; no time for a
    ``dead`` alias.

    Raises BadAction for an unknown alias.
    """
    check_alias(using)
    problem = problem_of("resource", resource) or problem_of("key", key) or problem_of("rate", rate)
    if not problem and not resource:
        problem = "The resource is empty."
    if problem:
        return LimitLookup(using, resource[:200], key[:200], rate[:200], problem=problem)
    asked = LimitLookup(using, resource, key, rate)
    if using in dead:
        return replace(asked, problem=f"The limit was not read: {NO_ANSWER}.")
    try:
        with deadline(LOOK_SECONDS):
            return _looked_up(asked, stored)
    except ConfigurationError as exc:
        return replace(asked, problem=str(exc))
    except CALL_ERRORS as exc:
        return replace(asked, problem=f"The limit was not read: {reason_of(exc)}.")


def _looked_up(asked: LimitLookup, stored: Stored | None) -> LimitLookup:
    using, resource, key = asked.using, asked.resource, asked.key
    settings = get_config(using).rate_limit
    plain, adaptive = RateLimitStore(using), AdaptiveRateLimitStore(using)
    own = _paths(settings).get(resource)
    if asked.rate:
        config, origin = parse_resource(asked.rate, algorithm=settings.algorithm), TYPED
    elif own is not None:
        config, origin = own, PATH
    else:
        config = plain.get_resource_config(resource)
        origin = _origin(config, settings, resource, stored or {})
    counted = [] if settings.in_process else plain.get_counted(resource, key=key)
    is_adaptive = not settings.in_process and adaptive.is_counted(resource, key=key)
    mine = (config.algorithm, tuple(rate.window for rate in config.rates or ()))
    rows = []
    if config.rates is not None and (mine in counted or not is_adaptive):
        rows.append(
            UseRow(plain.get_status(resource, key=key, rate=config, on_unavailable="raise"))
        )
    if config.rates is not None and is_adaptive:
        shared = replace(config, algorithm="sliding", burst=None)
        ask = partial(adaptive.get_status, resource, key=key, rate=shared, on_unavailable="raise")
        rows += [_shared(ask(priority=each), each) for each in ("user", "background")]
    return replace(
        asked,
        origin=origin,
        limit=rates_text(config.rates),
        algorithm=_algorithm(config) if len(rows) < 2 else "adaptive",
        rows=tuple(rows),
        is_counted=mine in counted or is_adaptive,
        others=tuple(
            f"{each.algorithm} in {', '.join(f'{window:g} s' for window in each.windows)}"
            for each in sorted(counted)
            if each != mine
        ),
        is_in_process=settings.in_process,
    )


def _shared(status: Any, priority: str) -> UseRow:
    plain = RateLimitStatus(*status[: len(RateLimitStatus._fields)])
    allocation = dict(zip(status._fields, status, strict=True))
    for name in RateLimitStatus._fields:
        del allocation[name]
    return UseRow(plain, priority, allocation)


def _origin(
    config: ResourceConfig, settings: RateLimitConfig, resource: str, stored: Stored
) -> str:
    if config == stored.get(resource):
        return STORED
    if config == _of_settings(settings, resource):
        return SETTINGS
    rates = (Rate(settings.limit, settings.window),)
    is_default = config == ResourceConfig(rates=rates, algorithm=settings.algorithm)
    return DEFAULT if is_default else HERE


def _check_resource(target: Target) -> None:
    check_alias(target.using)
    check_typed("resource", target.resource)


def _check_limit(target: Target) -> None:
    _check_resource(target)
    if target.key:
        check_typed("key", target.key)


def _check_rate(target: Target) -> None:
    _check_resource(target)
    check_typed("rate", target.rate)


def _counter_name(target: Target) -> str:
    of = f" of key {short(target.key)}" if target.key else ""
    return f"{short(target.resource)}{of}"


def _reset(target: Target) -> Outcome:
    with deadline(ACT_SECONDS):
        RateLimitStore(target.using).reset(target.resource, key=target.key)
        AdaptiveRateLimitStore(target.using).reset(target.resource, key=target.key)
    return Outcome(f"The limit {_counter_name(target)} is reset.")


def _changed(target: Target) -> tuple[ResourceConfig, ResourceConfig]:
    """Return the limit of the resource, and what it would be. Raises ConfigurationError."""
    old = RateLimitStore(target.using).get_resource_config(target.resource)
    new = replace(old, rates=parse_rates(target.rate))
    return old, parse_resource(describe(new), algorithm=old.algorithm)


def _effect_of_setting(target: Target) -> Effect:
    try:
        with deadline(LOOK_SECONDS):
            old, new = _changed(target)
    except ConfigurationError as exc:
        return Effect(f"Nothing would change: {exc}", is_change=False)
    except CALL_ERRORS as exc:
        return Effect(f"What would change is not known: {reason_of(exc)}.", is_change=False)
    text = (
        f"The limit of {short(target.resource)} is {rates_text(old.rates)}, and will be "
        f"{rates_text(new.rates)}, counted by {_algorithm(new)}. All processes of alias "
        f"{target.using} follow within five seconds."
    )
    if [rate.window for rate in old.rates or ()] != [rate.window for rate in new.rates or ()]:
        text += " The windows are others, so counting begins at 0."
    return Effect(text)


def _set(target: Target) -> Outcome:
    try:
        with deadline(ACT_SECONDS):
            _, new = _changed(target)
            RateLimitStore(target.using).set_resource_config(target.resource, new, everywhere=True)
    except ConfigurationError as exc:
        return Outcome(f"The limit was not changed: {exc}", is_good=False)
    return Outcome(
        f"The limit of {short(target.resource)} is {rates_text(new.rates)} in all processes within "
        "five seconds."
    )


def _unset(target: Target) -> Outcome:
    with deadline(ACT_SECONDS):
        RateLimitStore(target.using).unset_resource_config(target.resource, everywhere=True)
    return Outcome(f"The limit of {short(target.resource)} is that of the settings again.")


def _effect_of_unsetting(target: Target) -> Effect:
    settings = get_config(target.using).rate_limit
    own = _of_settings(settings, target.resource)
    if own is None:
        rates = rates_text((Rate(settings.limit, settings.window),))
        then = f"{rates} (LIMIT and WINDOW)"
    else:
        then = f"{rates_text(own.rates)} (RESOURCES)"
    return Effect(
        f"The stored limit is deleted. The limit of {short(target.resource)} is {then} then, in "
        f"all processes of alias {target.using} within five seconds."
    )


RESET_LIMIT, SET_LIMIT, UNSET_LIMIT = "reset_limit", "set_limit", "unset_limit"

ACTIONS = {
    RESET_LIMIT: Action(
        RESET_LIMIT,
        "Reset the limit",
        lambda target: f"Reset the limit {_counter_name(target)}?",
        lambda target: Effect(
            "All requests that are counted for it are forgotten, of every rate and algorithm, and "
            "the allocation of an adaptive limit. A process that remembers a refusal refuses for "
            "two seconds more at most."
        ),
        _reset,
        _check_limit,
        "manage_data",
    ),
    SET_LIMIT: Action(
        SET_LIMIT,
        "Change the limit",
        lambda target: f"Change the limit of {short(target.resource)} for all processes?",
        _effect_of_setting,
        _set,
        _check_rate,
        "manage_data",
    ),
    UNSET_LIMIT: Action(
        UNSET_LIMIT,
        "Use the settings' limit",
        lambda target: f"Use the limit of the settings for {short(target.resource)}?",
        _effect_of_unsetting,
        _unset,
        _check_resource,
        "manage_data",
    ),
}
