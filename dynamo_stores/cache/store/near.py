"""The near tier: entries as they were read, kept in the process for some seconds."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from ... import clock
from ...calls.item_size import item_size
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


class _Flight:
    """A read that is under way; whoever wants the same entry may wait for it."""

    __slots__ = ("asked_at", "error", "found", "has_landed", "is_detached", "landed")

    def __init__(self) -> None:
        self.asked_at = clock.monotonic()
        self.landed = threading.Event()
        self.is_detached = False
        self.has_landed = False
        self.found: Entry | None = None
        self.error: StoreUnavailable | None = None


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
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._bytes = 0
        self._flights: dict[str, list[_Flight]] = {}
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
                self._kept.move_to_end(pk)
                self._counts["hits"] += 1
                return kept.found
            if kept is not None:
                self._drop(pk)
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
        own: dict[str, _Flight] = {}
        joined: dict[str, _Flight] = {}
        with self._lock:
            for pk in pks:
                flights = self._flights.get(pk)
                if join and flights:
                    joined[pk] = flights[-1]
                else:
                    own[pk] = _Flight()
                    self._flights.setdefault(pk, []).append(own[pk])
        found = self._lead(own, fetch) if own else {}
        again = []
        for pk, flight in joined.items():
            flight.landed.wait(wait)
            if flight.error is not None:
                raise flight.error
            if not flight.has_landed:
                again.append(pk)
            elif flight.found is not None:
                found[pk] = flight.found
        return {**found, **fetch(again)} if again else found

    def _lead(self, own: Mapping[str, _Flight], fetch: Fetch) -> dict[str, Entry]:
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
                    flight.error = error
                    if found is not None:
                        flight.has_landed = True
                        flight.found = found.get(pk)
                    if not flight.is_detached:
                        flights = self._flights[pk]
                        flights.remove(flight)
                        if not flights:
                            del self._flights[pk]
                        if flight.found is not None:
                            self._keep(pk, flight.found, flight.asked_at)
                    flight.landed.set()

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
                self._detach(pk)
                self._drop(pk)
                # Of two writes at once nobody knows here which one came last.
                if pk in written and not writing.overlapped:
                    self._keep(pk, written[pk], began_at)

    def clear(self) -> None:
        """Drop everything, and keep nothing that is being read now."""
        with self._lock:
            for pk in list(self._flights):
                self._detach(pk)
            for writing in self._writing.values():
                writing.overlapped = True
            self._kept.clear()
            self._bytes = 0

    def stats(self) -> NearStats:
        """Return what it holds and what it did."""
        with self._lock:
            counts = (self._counts[name] for name in ("hits", "misses", "evictions"))
            return NearStats(len(self._kept), self._bytes, *counts)

    def _detach(self, pk: str) -> None:
        for flight in self._flights.pop(pk, ()):
            flight.is_detached = True

    def _drop(self, pk: str) -> None:
        kept = self._kept.pop(pk, None)
        if kept is not None:
            self._bytes -= kept.size

    def _keep(self, pk: str, found: Entry, asked_at: float) -> None:
        size = item_size(found.head) + sum(map(len, found.parts)) + _OVERHEAD
        self._drop(pk)
        if size > self._max_bytes:
            return
        self._kept[pk] = _Kept(found, asked_at, size)
        self._bytes += size
        while len(self._kept) > self._max_entries or self._bytes > self._max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= oldest.size
            self._counts["evictions"] += 1


def _make(using: str) -> dict[str, NearTier]:
    return {}


_by_prefix = PerProcess(_make)


def get_near(using: str, prefix: str, options: CacheOptions) -> NearTier:
    """Return this process's near tier of the prefix; its first user's options bound it."""
    found = _by_prefix.get(using)
    return found.get(prefix) or found.setdefault(
        prefix, NearTier(options.local_max_entries, options.local_max_bytes)
    )
