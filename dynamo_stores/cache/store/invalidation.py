"""Which entries are valid: invalidation numbers of generations and tags, read with the entries."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from django.dispatch import receiver

from ... import clock, keys
from ...concurrency.bounded import BoundedDict
from ...concurrency.per_process import PerProcess
from ...expressions import Condition, add, at_least, at_most, exists, less, missing, more
from ...item_access import Items, raw_keys
from ...keys import ItemKey
from ...models import RawItem
from ...signals import failed_over
from ..options import CacheOptions
from .items import (
    GENERATION,
    TAGS,
    CacheEntry,
    InvalidationNumber,
    generation_of,
    invalidation_of,
    tags_of,
    whole_number,
)

# Numbers and tagged keys that are remembered per prefix; others are read again.
_REMEMBERED = 20_000
MAX_TAGS = 50
_MAX_TAG_BYTES = 255


_NEXT = add(InvalidationNumber.number, 1)
_EXISTS, _MISSING = exists(CacheEntry.pk), missing(CacheEntry.pk)
_ENDLESS, _UNSTAMPED = missing(CacheEntry.expiry), missing(CacheEntry.generation)


class _Known(NamedTuple):
    number: int
    requested_at: float


class InvalidationNumbers:
    """
    The numbers of one alias and prefix by partition key, when they were read, and the tags that
    each key had when it was last read. Thread-safe.
    """

    def __init__(self) -> None:
        self._known: BoundedDict[str, _Known] = BoundedDict(_REMEMBERED)
        self._tags: BoundedDict[str, tuple[str, ...]] = BoundedDict(_REMEMBERED)
        self._lock = threading.Lock()
        self._doubted_at = -math.inf

    def number(self, pk: str) -> int | None:
        """Return the largest number that this process read, None if it read none."""
        known = self._known.get(pk)
        return None if known is None else known.number

    def is_fresh(self, pk: str, timeout: float) -> bool:
        """Return whether the number was read less than ``timeout`` seconds ago."""
        known = self._known.get(pk)
        if known is None or known.requested_at <= self._doubted_at:
            return False
        return clock.monotonic() - known.requested_at < timeout

    def record(self, pk: str, number: int, requested_at: float) -> None:
        """Record a number that was requested at the monotonic time ``requested_at``."""
        with self._lock:
            known = self._known.get(pk)
            if known is not None:
                number = max(number, known.number)
                requested_at = max(requested_at, known.requested_at)
            self._known.put(pk, _Known(number, requested_at))

    def adopt(self, pk: str, number: int) -> None:
        """Record a larger number that an entry carries; it stays as fresh as it was."""
        known = self._known.get(pk)
        if known is not None and number > known.number:
            self.record(pk, number, known.requested_at)

    def doubt(self, pk: str) -> None:
        """Let a number that has changed be read again."""
        with self._lock:
            known = self._known.get(pk)
            if known is not None:
                self._known.put(pk, known._replace(requested_at=-math.inf))

    def doubt_all(self) -> None:
        """Let all numbers be read again before they are used."""
        self._doubted_at = clock.monotonic()

    @property
    def knows_tags(self) -> bool:
        """Whether this process has seen an entry with tags."""
        return bool(self._tags)

    def tags_of(self, pk: str) -> tuple[str, ...]:
        """Return the tags that the entry had when it was last read."""
        return self._tags.get(pk, ())

    def remember_tags(self, pk: str, tags: Iterable[str]) -> None:
        """Remember the tags of an entry."""
        found = tuple(tags)
        if found:
            self._tags.put(pk, found)
        elif pk in self._tags:
            self._tags.drop(pk)


def _make(using: str) -> dict[str, InvalidationNumbers]:
    return {}


_by_prefix = PerProcess(_make)


@receiver(failed_over, dispatch_uid="dynamo_stores.cache.numbers")
def _on_failover(using: str, is_active: bool, **kwargs: object) -> None:
    # Numbers of another region may have been older ones.
    if not is_active:
        for numbers in list(_by_prefix.get(using).values()):
            numbers.doubt_all()


def get_numbers(using: str, prefix: str) -> InvalidationNumbers:
    """Return this process's numbers of the prefix."""
    found = _by_prefix.get(using)
    return found.get(prefix) or found.setdefault(prefix, InvalidationNumbers())


def checked_tags(tags: Iterable[str] | None) -> tuple[str, ...]:
    """Return ``tags`` sorted and without duplicates. Raises ValueError if one is not a tag."""
    if not tags:
        return ()
    if isinstance(tags, str | bytes):
        raise ValueError(f"tags is a {type(tags).__name__}; expected a list of strings.")
    found = list(tags)
    for tag in found:
        if not isinstance(tag, str) or not tag:
            raise ValueError(
                f"A tag is of type {type(tag).__name__} or empty; expected a string with content."
            )
        if len(tag.encode(errors="surrogatepass")) > _MAX_TAG_BYTES:
            raise ValueError(f"A tag may have at most {_MAX_TAG_BYTES} bytes in UTF-8.")
        if not tag.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in tag):
            raise ValueError(
                "A tag contains a lone surrogate; expected text that UTF-8 can encode."
            )
    unique = tuple(sorted(set(found)))
    if len(unique) > MAX_TAGS:
        raise ValueError(f"There are {len(unique)} tags; an entry may have at most {MAX_TAGS}.")
    return unique


class Validity:
    """
    Which entries were invalidated.

    An entry is invalid if its prefix was cleared, or one of its tags invalidated, since it was
    written: it carries the numbers of that time, its stamps. A number that was read over
    ``generation_timeout`` seconds ago is read again: in one call with the entry, strongly.
    """

    def __init__(self, items: Items[CacheEntry], prefix: str, options: CacheOptions) -> None:
        self.has_generation = options.clear == "generation"
        self.generation = (keys.generation(prefix),) if self.has_generation else ()
        self.numbers = get_numbers(items.using, prefix)
        self._items = items
        self._prefix = prefix
        self._timeout = options.generation_timeout

    def is_valid(self, head: RawItem) -> bool:
        """Return whether no number that this process knows is above the one in ``head``."""
        if TAGS not in head and not self.has_generation:
            return True
        numbers = self.numbers
        for key, number in self.numbers_of(head).items():
            known = numbers.number(key.pk)
            if known is None or number < known:
                return False
            numbers.adopt(key.pk, number)
        return True

    def numbers_of(self, head: RawItem) -> dict[ItemKey, int]:
        """Return the numbers in ``head``; -1, which is never valid, for one that is not whole."""
        found = {
            keys.tag(self._prefix, tag): whole_number(held) for tag, held in tags_of(head).items()
        }
        for key in self.generation:
            found[key] = generation_of(head)
        return found

    def numbers_for(self, pk: str) -> list[ItemKey]:
        """Return the keys of the numbers of the entry, as far as this process knows its tags."""
        tags = self.numbers.tags_of(pk)
        return [*self.generation, *(keys.tag(self._prefix, tag) for tag in tags)]

    def not_fresh(self, wanted: Iterable[ItemKey]) -> list[ItemKey]:
        """Return the keys of those numbers that must be read again, each once."""
        numbers, timeout = self.numbers, self._timeout
        return [key for key in dict.fromkeys(wanted) if not numbers.is_fresh(key.pk, timeout)]

    async def stamps_for(self, tags: Iterable[str] = ()) -> RawItem:
        """
        Return the numbers that an entry with ``tags`` carries if its computation begins now. A
        verb.
        """
        tag_keys = {tag: keys.tag(self._prefix, tag) for tag in tags}
        await self.read(self.not_fresh([*self.generation, *tag_keys.values()]))
        numbers = self.numbers
        stamps: RawItem = {}
        for key in self.generation:
            if number := numbers.number(key.pk):
                stamps[GENERATION] = {"N": str(number)}
        if tag_keys:
            stamps[TAGS] = {
                "M": {tag: {"N": str(numbers.number(key.pk) or 0)} for tag, key in tag_keys.items()}
            }
        return stamps

    async def read(
        self,
        numbers: Sequence[ItemKey],
        wanted: Sequence[ItemKey] = (),
        attributes: Sequence[str] | None = None,
    ) -> dict[str, RawItem]:
        """
        Read these numbers strongly, and the items ``wanted`` with them; return those by key. A
        verb.
        """
        if not numbers:
            return {}
        requested_at = clock.monotonic()
        answer = await self._items.get_many(
            raw_keys([*wanted, *numbers]), consistent=True, attributes=attributes
        )
        found = {item["PK"]["S"]: item for item in answer}
        for key in numbers:
            number = invalidation_of(found.pop(key.pk, {}))
            self.numbers.record(key.pk, number, requested_at)
        return found

    async def invalidate(self, key: ItemKey) -> None:
        """Raise the number of a tag or generation by one: a write. A verb."""
        requested_at = clock.monotonic()
        changed = await self._items.update(key, _NEXT)
        self.numbers.record(key.pk, invalidation_of(changed), requested_at)

    def live(self) -> Condition:
        """Return the condition that an entry without tags is live and valid."""
        now = clock.now_ms()
        live = _EXISTS & (_ENDLESS | more(CacheEntry.expiry, now))
        number = self._known_generation()
        return live & at_least(CacheEntry.generation, number) if number else live

    def free(self) -> Condition:
        """Return the condition that no entry exists, or one that is not live and valid."""
        free = _MISSING | at_most(CacheEntry.expiry, clock.now_ms())
        number = self._known_generation()
        return free | _UNSTAMPED | less(CacheEntry.generation, number) if number else free

    def _known_generation(self) -> int:
        return max((self.numbers.number(key.pk) or 0 for key in self.generation), default=0)


def is_live(head: RawItem | None) -> bool:
    """Return whether the entry exists and has not expired."""
    return head is not None and CacheEntry.is_raw_live(head, clock.now())
