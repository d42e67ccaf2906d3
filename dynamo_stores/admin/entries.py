"""The page of caches: hits and misses, entries without their values, and their deletion."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..cache import DynamoDBCache, cache_for
from ..cache.options import our_caches
from ..cache.store.description import EntryDescription
from ..cache.store.sweeps import Matches
from ..calls.policy import deadline
from ..conf import get_config
from ..exceptions import CALL_ERRORS, ConfigurationError
from ..monitoring.formatting import count_of, number
from ..monitoring.snapshot import reason_of
from ..monitoring.status import AliasStatus
from .actions import (
    Action,
    BadAction,
    Effect,
    Outcome,
    Target,
    check_typed,
    problem_of,
    short,
)

# Seconds for looking a key up, for deleting one, and for counting and deleting those of a pattern.
# A web server may end a request after 30 seconds.
LOOK_SECONDS, ACT_SECONDS = 4.0, 10.0
COUNT_SECONDS, CLEAR_SECONDS = 5.0, 15.0
# After its time a pattern waits so many seconds for the request under way.
_LAST_REQUEST = 5.0
# Why nothing is looked up in an alias whose snapshot got no answer.
NO_ANSWER = "DynamoDB does not answer"
_VERSION = re.compile(r"-?\d{1,18}")


@dataclass(frozen=True)
class HitRow:
    """The lookups of all processes of an alias, each since it began."""

    using: str
    hits: int
    misses: int
    processes: int
    knows_others: bool

    @property
    def rate(self) -> float | None:
        """The share of hits from 0 to 1, None without lookups."""
        lookups = self.hits + self.misses
        return self.hits / lookups if lookups else None

    @property
    def percent(self) -> str:
        """The rate for people, ``""`` without lookups."""
        return "" if self.rate is None else f"{number(100 * self.rate)} %"


def hits(statuses: Sequence[AliasStatus]) -> list[HitRow]:
    """Return the hits and misses of each alias, by the reports of its processes."""
    return [
        HitRow(
            status.using,
            sum(each.cache_hits for each in status.reports),
            sum(each.cache_misses for each in status.reports),
            len(status.reports),
            status.knows_others,
        )
        for status in statuses
    ]


@dataclass(frozen=True)
class CacheRow:
    """
    A cache of ``CACHES``. ``problem`` is what is wrong in its options; ``reads`` what counting and
    clearing the keys of a pattern reads.
    """

    name: str
    using: str
    prefix: str
    version: int
    reads: str
    is_generation: bool
    problem: str = ""


def caches() -> list[CacheRow]:
    """Return the caches of ``CACHES`` whose backend is ours."""
    return [_row(name) for name in our_caches()]


def _row(name: str) -> CacheRow:
    try:
        cache = cache_for(name)
        store = cache.store
        indexed = get_config(store.using).cache.expiry_index
    except ConfigurationError as exc:
        return CacheRow(name, "", "", 1, "", False, str(exc))
    return CacheRow(
        name=name,
        using=store.using,
        prefix=store.prefix,
        version=cache.version,
        reads="the entries of its prefix" if indexed else "the whole table",
        is_generation=store.options.clear == "generation",
    )


@dataclass(frozen=True)
class EntryLookup:
    """
    The answer to a look-up: an ``entry``, None if there is none; or a ``problem``. ``memory`` is a
    sentence about what processes may return from their memory, ``""`` without a near tier.
    """

    cache: str
    key: str
    version: str
    using: str = ""
    entry: EntryDescription | None = None
    problem: str = ""
    memory: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return asdict(self)


def look_up(name: str, key: str, version: str, *, dead: Collection[str] = ()) -> EntryLookup:
    """
    Return what the cache ``name`` has under ``key``. Takes about four seconds at most; no time for
    a cache of a ``dead`` alias.

    Raises BadAction for an unknown cache.
    """
    cache = _cache(name)
    problem = problem_of("key", key) or _version_problem(version)
    if not problem and not key:
        problem = "The key is empty."
    if problem:
        return EntryLookup(name, key[:200], version[:200], problem=problem)
    try:
        store = cache.store
        if store.using in dead:
            return EntryLookup(name, key, version, problem=f"The key was not read: {NO_ANSWER}.")
        with deadline(LOOK_SECONDS):
            entry = store.describe(_full_key(cache, key, version))
    except CALL_ERRORS as exc:
        return EntryLookup(name, key, version, problem=f"The key was not read: {reason_of(exc)}.")
    return EntryLookup(name, key, version, store.using, entry, memory=_memory(cache))


def _cache(name: str) -> DynamoDBCache:
    if name not in our_caches():
        raise BadAction(f"CACHES has no cache {short(name)} whose backend is DynamoDBCache.")
    return cache_for(name)


def _version_problem(version: str) -> str:
    if not version or _VERSION.fullmatch(version):
        return ""
    return f"The version is {short(version)}; expected a whole number, or nothing."


def _full_key(cache: DynamoDBCache, key: str, version: str) -> str:
    # Not by the cache's methods: with IGNORE_EXCEPTIONS they hide that DynamoDB does not answer.
    return str(cache.make_key(key, version=int(version) if version else None))


def _memory(cache: DynamoDBCache) -> str:
    timeout, stale = cache.store.options.local_timeout, cache.store.options.local_stale
    while_dead = f"while DynamoDB does not answer, for {stale:g} s"
    times = [f"for {timeout:g} s"] if timeout else []
    times += [while_dead] if stale > timeout else []
    if not times:
        return ""
    return f"Other processes may return values from their memory {'; '.join(times)}."


def _check(target: Target) -> None:
    cache = _cache(target.cache)
    if cache.store.using != target.using:
        raise BadAction(f"The cache {target.cache!r} is not of alias {short(target.using)}.")
    if problem := _version_problem(target.version):
        raise BadAction(problem)


def _check_key(target: Target) -> None:
    _check(target)
    check_typed("key", target.key)


def _check_pattern(target: Target) -> None:
    _check(target)
    check_typed("pattern", target.pattern)


def _check_generation(target: Target) -> None:
    _check(target)
    if cache_for(target.cache).store.options.clear != "generation":
        raise BadAction(
            f"The cache {target.cache!r} does not have the option CLEAR: 'generation'. Clear a "
            "pattern."
        )


def _of_version(target: Target) -> str:
    version = target.version or cache_for(target.cache).version
    return f"version {version} of cache {target.cache}"


def _in_memory(target: Target) -> str:
    memory = _memory(cache_for(target.cache))
    return f" {memory}" if memory else ""


def _delete_entry(target: Target) -> Outcome:
    cache, name = cache_for(target.cache), short(target.key)
    with deadline(ACT_SECONDS):
        was_there = cache.store.delete(_full_key(cache, target.key, target.version))
    if not was_there:
        return Outcome(f"There was no valid key {name} in {_of_version(target)}.", is_good=False)
    return Outcome(f"The key {name} in {_of_version(target)} is deleted.{_in_memory(target)}")


def _pattern(target: Target) -> tuple[DynamoDBCache, str]:
    cache = cache_for(target.cache)
    version = int(target.version) if target.version else None
    return cache, cache.make_pattern(target.pattern, version)


def _effect_of_clearing(target: Target) -> Effect:
    cache, pattern = _pattern(target)
    try:
        with deadline(COUNT_SECONDS + _LAST_REQUEST):
            found = cache.store.count_keys(pattern, seconds=COUNT_SECONDS)
    except CALL_ERRORS as exc:
        return Effect(f"How many keys match is not known: {reason_of(exc)}.", is_change=False)
    text = f"{_counted(found)} in {_of_version(target)} match {short(target.pattern)}."
    if found.is_whole and not found.keys:
        return Effect(f"Nothing would change: {text}", is_change=False)
    return Effect(
        f"{text} They are deleted one page after the other, for {CLEAR_SECONDS:g} s at most."
        f"{_in_memory(target)}"
    )


def _counted(found: Matches) -> str:
    keys = count_of(found.keys, "key")
    if found.is_whole:
        return keys
    pages = "page was" if found.pages == 1 else f"{found.pages} pages were"
    return f"At least {keys} (the first {pages} read)"


def _clear_pattern(target: Target) -> Outcome:
    cache, pattern = _pattern(target)
    name = f"{short(target.pattern)} in {_of_version(target)}"
    try:
        with deadline(CLEAR_SECONDS + _LAST_REQUEST):
            found = cache.store.delete_some(pattern, seconds=CLEAR_SECONDS)
    except CALL_ERRORS as exc:
        return Outcome(
            f"Clearing {name} ended early, some keys may be deleted: {reason_of(exc)}.",
            is_good=False,
        )
    done = f"{count_of(found.keys, 'key')} that match {name} deleted."
    if found.is_whole:
        return Outcome(done + _in_memory(target))
    return Outcome(
        f"{done} There may be more: the time was over after {count_of(found.pages, 'page')} of the "
        "table. delete_pattern() in a shell or a task has no such limit.",
        is_good=False,
    )


def _clear_cache(target: Target) -> Outcome:
    with deadline(ACT_SECONDS):
        cache_for(target.cache).store.clear()
    return Outcome(f"All entries of cache {target.cache} are invalid now.{_in_memory(target)}")


DELETE_ENTRY, CLEAR_PATTERN, CLEAR_CACHE = "delete_entry", "clear_pattern", "clear_cache"

ACTIONS = {
    DELETE_ENTRY: Action(
        DELETE_ENTRY,
        "Delete the key",
        lambda target: f"Delete the key {short(target.key)} in {_of_version(target)}?",
        lambda target: Effect(
            f"The value is deleted from the table; the next reader gets a miss.{_in_memory(target)}"
        ),
        _delete_entry,
        _check_key,
        "manage_data",
    ),
    CLEAR_PATTERN: Action(
        CLEAR_PATTERN,
        "Delete these keys",
        lambda target: f"Delete the keys that match {short(target.pattern)}?",
        _effect_of_clearing,
        _clear_pattern,
        _check_pattern,
        "manage_data",
    ),
    CLEAR_CACHE: Action(
        CLEAR_CACHE,
        "Clear the cache",
        lambda target: f"Clear the cache {target.cache}?",
        lambda target: Effect(
            "One write makes all entries of its prefix invalid, in every version. Their items are "
            f"deleted later.{_in_memory(target)}"
        ),
        _clear_cache,
        _check_generation,
        "manage_data",
    ),
}
