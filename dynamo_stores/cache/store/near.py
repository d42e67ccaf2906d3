"""The near tier: entries as DynamoDB wrote them, kept in the process for some seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ... import clock
from ...calls.item_size import item_size
from ...concurrency.bounded import BoundedDict
from ...concurrency.effects import Join, Verb
from ...concurrency.flights import AGAIN, Flight, Flights, Lead
from ...concurrency.per_process import PerProcess
from ...exceptions import OperationTimeoutError, StoreUnavailable
from ...models import RawItem
from ..options import CacheOptions
from .codecs import Codec

# Memory that an entry needs beside its bytes: the dicts of its attributes and of the tier.
_OVERHEAD = 2_000


@dataclass(slots=True)
class Entry:
    """
    An entry as DynamoDB wrote it, its value's parts in order, and the codec that has verified the
    signature of its bytes. Caches of one prefix may have different codecs.
    """

    head: RawItem
    parts: Sequence[bytes] = ()
    verified_by: Codec | None = field(default=None, compare=False)


class NearStats(NamedTuple):
    """The contents of a near tier and its counts in this process."""

    entries: int
    bytes: int
    hits: int
    misses: int
    evictions: int


class _Kept(NamedTuple):
    found: Entry
    requested_at: float
    size: int


class _Writing:
    """How many writes of one key are in progress, and whether any two of them overlapped."""

    __slots__ = ("count", "overlapped")

    def __init__(self) -> None:
        self.count = 0
        self.overlapped = False


Fetch = Callable[[list[str]], Verb[Mapping[str, Entry]]]


class NearTier:
    """
    The entries of one alias and prefix, bounded in number and bytes; the least recently used are
    dropped first. Entries are kept as bytes, so callers never share a value.

    A read during which this process wrote the key is not kept, and no later read joins it.
    """

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self._kept: BoundedDict[str, _Kept] = BoundedDict(
            max_entries, max_bytes, lambda kept: kept.size
        )
        self._flights = Flights()
        self._writing: dict[str, _Writing] = {}
        self._hits = self._misses = 0
        self._lock = threading.Lock()

    def get(
        self,
        pk: str,
        timeout: float,
        is_valid: Callable[[Entry], bool],
        *,
        kept_for: float = 0,
        counts_misses: bool = True,
    ) -> Entry | None:
        """
        Return the entry if it was read within ``timeout`` seconds and ``is_valid``. Otherwise it is
        dropped, unless it was read within ``kept_for`` seconds.
        """
        with self._lock:
            kept = self._kept.get(pk)
            if kept is not None:
                age = clock.monotonic() - kept.requested_at
                if age < timeout and is_valid(kept.found):
                    self._kept.move_to_end(pk)
                    self._hits += 1
                    return kept.found
                if age >= kept_for:
                    self._kept.drop(pk)
            self._misses += counts_misses
            return None

    async def fetch(
        self, pks: Iterable[str], fetch: Fetch, *, join: bool, wait: float
    ) -> dict[str, Entry]:
        """
        Return the entries that ``fetch`` finds, by partition key, and keep them. A verb.

        With ``join``, keys that another thread or task is reading are not read again: this waits
        for the other's result at most ``wait`` seconds, and raises its StoreUnavailable too. If the
        other one ran out of its own time, this reads.
        """
        own: dict[str, Lead] = {}
        joined: dict[str, Flight] = {}
        try:
            with self._lock:
                for pk in pks:
                    flight = self._flights.join(pk) if join else self._flights.lead(pk)
                    if isinstance(flight, Lead):
                        own[pk] = flight
                    else:
                        joined[pk] = flight
            found = await self._lead(own, fetch) if own else {}
        except BaseException:
            # The traceback of an exception from outside keeps the leads.
            for lead in own.values():
                lead.end()
            raise
        again = []
        for pk, flight in joined.items():
            try:
                outcome = await Join(flight, wait)
            except (TimeoutError, OperationTimeoutError):
                outcome = AGAIN
            except StoreUnavailable as exc:
                exc.found = found
                raise
            if outcome is AGAIN:
                again.append(pk)
            elif outcome is not None:
                found[pk] = outcome
        return {**found, **await fetch(again)} if again else found

    async def _lead(self, own: Mapping[str, Lead], fetch: Fetch) -> dict[str, Entry]:
        error: StoreUnavailable | None = None
        found: Mapping[str, Entry] | None = None
        try:
            found = await fetch(list(own))
            return dict(found)
        except StoreUnavailable as exc:
            error = exc
            raise
        finally:
            with self._lock:
                for pk, lead in own.items():
                    self._land(pk, lead, found, error)

    def _land(
        self,
        pk: str,
        lead: Lead,
        found: Mapping[str, Entry] | None,
        error: StoreUnavailable | None,
    ) -> None:
        outcome = AGAIN if found is None else found.get(pk)
        was_current = self._flights.land(pk, lead, outcome, error)
        if was_current and found is not None and pk in found:
            self._keep(pk, found[pk], lead.flight.started_at)

    def begin_write(self, pks: Iterable[str]) -> float:
        """Record that these keys are being written; return the monotonic time."""
        with self._lock:
            for pk in pks:
                writing = self._writing.setdefault(pk, _Writing())
                writing.count += 1
                writing.overlapped |= writing.count > 1
        return clock.monotonic()

    def end_write(self, pks: Iterable[str], written: Mapping[str, Entry], began_at: float) -> None:
        """Keep the entries that were ``written``, and drop the others of ``pks``."""
        with self._lock:
            for pk in pks:
                self._end_write(pk, written.get(pk), began_at)

    def _end_write(self, pk: str, written: Entry | None, began_at: float) -> None:
        writing = self._writing[pk]
        writing.count -= 1
        if not writing.count:
            del self._writing[pk]
        self._flights.detach(pk)
        self._kept.drop(pk)
        # Of two overlapping writes, this process does not know which came last.
        if written is not None and not writing.overlapped:
            self._keep(pk, written, began_at)

    def forget(self, pks: Iterable[str]) -> None:
        """Drop the entries of keys that were written."""
        pks = list(pks)
        self.end_write(pks, {}, self.begin_write(pks))

    def has_kept(self, pk: str, matches: Callable[[RawItem], bool]) -> bool:
        """Return whether an entry is kept that ``matches``; a read in progress may replace it."""
        with self._lock:
            kept = self._kept.get(pk)
            return kept is not None and matches(kept.found.head)

    def clear(self) -> None:
        """Drop all entries, and keep none that are being read or written now."""
        with self._lock:
            self._flights.detach_all()
            for writing in self._writing.values():
                writing.overlapped = True
            self._kept.clear()

    def stats(self) -> NearStats:
        """Return the statistics."""
        with self._lock:
            return NearStats(
                entries=len(self._kept),
                bytes=self._kept.size,
                hits=self._hits,
                misses=self._misses,
                evictions=self._kept.evictions,
            )

    def _keep(self, pk: str, found: Entry, requested_at: float) -> None:
        size = item_size(found.head) + sum(map(len, found.parts)) + _OVERHEAD
        self._kept.put(pk, _Kept(found, requested_at, size))


def _make(using: str) -> dict[str, NearTier]:
    return {}


_by_prefix = PerProcess(_make)


def find_near(using: str, prefix: str) -> NearTier | None:
    """Return this process's near tier of the prefix, None if no cache has made one."""
    return _by_prefix.get(using).get(prefix)


def near_tiers(using: str) -> dict[str, NearTier]:
    """Return this process's near tiers of the alias by prefix."""
    return dict(_by_prefix.get(using))


def get_near(using: str, prefix: str, options: CacheOptions) -> NearTier:
    """Return this process's near tier of the prefix, bounded by its first caller's options."""
    found = _by_prefix.get(using)
    return found.get(prefix) or found.setdefault(
        prefix, NearTier(options.local_max_entries, options.local_max_bytes)
    )
