"""The near tier: entries as they were read, kept in the process for some seconds."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import NamedTuple

from ... import clock
from ...calls.item_size import item_size
from ...concurrency.bounded import BoundedDict
from ...concurrency.flights import AGAIN, Flight, Flights
from ...concurrency.per_process import PerProcess
from ...exceptions import StoreUnavailable
from ...models import RawItem
from ..options import CacheOptions

# What Python needs for an entry beside its bytes: the dicts of its attributes, and our own.
_OVERHEAD = 2_000


class Entry(NamedTuple):
    """An entry as DynamoDB wrote it, and its value's parts in order."""

    head: RawItem
    parts: Sequence[bytes] = ()


class NearStats(NamedTuple):
    """What a near tier holds, and what it did in this process."""

    entries: int
    bytes: int
    hits: int
    misses: int
    evictions: int


class _Kept(NamedTuple):
    found: Entry
    asked_at: float
    size: int


class _Writing:
    """How many writes of one key are under way, and whether any two of them overlapped."""

    __slots__ = ("count", "overlapped")

    def __init__(self) -> None:
        self.count = 0
        self.overlapped = False


Fetch = Callable[[list[str]], Mapping[str, Entry]]


class NearTier:
    """
    The entries of one alias and prefix, at most so many and so many bytes of them, least recently
    used first out. Keeps bytes, so what a caller does to a value changes nobody else's.

    A read that a write of this process overtook is never kept, and nobody joins it afterwards.
    """

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self._kept: BoundedDict[str, _Kept] = BoundedDict(
            max_entries, max_bytes, lambda kept: kept.size
        )
        self._flights = Flights()
        self._writing: dict[str, _Writing] = {}
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def get(
        self,
        pk: str,
        timeout: float,
        is_good: Callable[[Entry], bool],
        *,
        counts_misses: bool = True,
    ) -> Entry | None:
        """Return the entry if it was asked for within ``timeout`` seconds and ``is_good``."""
        with self._lock:
            kept = self._kept.get(pk)
            if (
                kept is not None
                and clock.monotonic() - kept.asked_at < timeout
                and is_good(kept.found)
            ):
                self._kept.use(pk)
                self._counts["hits"] += 1
                return kept.found
            if kept is not None:
                self._kept.drop(pk)
            self._counts["misses"] += counts_misses
            return None

    def fetch(
        self, pks: Iterable[str], fetch: Fetch, *, join: bool, wait: float
    ) -> dict[str, Entry]:
        """
        Return the entries that ``fetch`` finds, by partition key, and keep them.

        With ``join``, what another thread is reading is not read again: its answer is waited for,
        at most ``wait`` seconds, and its StoreUnavailable is raised here too.
        """
        own: dict[str, Flight] = {}
        joined: dict[str, Flight] = {}
        with self._lock:
            for pk in pks:
                flight, is_own = self._flights.join(pk) if join else (self._flights.lead(pk), True)
                (own if is_own else joined)[pk] = flight
        found = self._lead(own, fetch) if own else {}
        again = []
        for pk, flight in joined.items():
            try:
                outcome = flight.result(wait)
            except FutureTimeoutError:
                outcome = AGAIN
            if outcome is AGAIN:
                again.append(pk)
            elif outcome is not None:
                found[pk] = outcome
        return {**found, **fetch(again)} if again else found

    def _lead(self, own: Mapping[str, Flight], fetch: Fetch) -> dict[str, Entry]:
        error: StoreUnavailable | None = None
        found: Mapping[str, Entry] | None = None
        try:
            found = fetch(list(own))
            return dict(found)
        except StoreUnavailable as exc:
            error = exc
            raise
        finally:
            with self._lock:
                for pk, flight in own.items():
                    outcome = AGAIN if found is None else found.get(pk)
                    was_current = self._flights.land(pk, flight, outcome, error)
                    if was_current and found is not None and pk in found:
                        self._keep(pk, found[pk], flight.started_at)

    def begin_write(self, pks: Iterable[str]) -> float:
        """Note that these are being written; return the monotonic time."""
        with self._lock:
            for pk in pks:
                writing = self._writing.setdefault(pk, _Writing())
                writing.count += 1
                writing.overlapped |= writing.count > 1
        return clock.monotonic()

    def end_write(self, pks: Iterable[str], written: Mapping[str, Entry], began_at: float) -> None:
        """Keep what was ``written``, and nothing that was known before of the others."""
        with self._lock:
            for pk in pks:
                writing = self._writing[pk]
                writing.count -= 1
                if not writing.count:
                    del self._writing[pk]
                self._flights.detach(pk)
                self._kept.drop(pk)
                # Of two writes at once nobody knows here which one came last.
                if pk in written and not writing.overlapped:
                    self._keep(pk, written[pk], began_at)

    def clear(self) -> None:
        """Drop everything, and keep nothing that is being read now."""
        with self._lock:
            self._flights.detach_all()
            for writing in self._writing.values():
                writing.overlapped = True
            self._kept.clear()

    def stats(self) -> NearStats:
        """Return what it holds and what it did."""
        with self._lock:
            return NearStats(
                entries=len(self._kept),
                bytes=self._kept.size,
                hits=self._counts["hits"],
                misses=self._counts["misses"],
                evictions=self._kept.evictions,
            )

    def _keep(self, pk: str, found: Entry, asked_at: float) -> None:
        size = item_size(found.head) + sum(map(len, found.parts)) + _OVERHEAD
        self._kept.put(pk, _Kept(found, asked_at, size))


def _make(using: str) -> dict[str, NearTier]:
    return {}


_by_prefix = PerProcess(_make)


def get_near(using: str, prefix: str, options: CacheOptions) -> NearTier:
    """Return this process's near tier of the prefix; its first user's options bound it."""
    found = _by_prefix.get(using)
    return found.get(prefix) or found.setdefault(
        prefix, NearTier(options.local_max_entries, options.local_max_bytes)
    )
