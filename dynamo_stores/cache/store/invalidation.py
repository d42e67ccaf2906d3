"""Which entries are valid: by the numbers of their generation and tags, asked for with them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pynamodb.expressions.condition import Condition

from ... import clock, keys
from ...calls.batches import batch_get
from ...concurrency.bounded import BoundedDict
from ...concurrency.per_process import PerProcess
from ...keys import ItemKey
from ...models import RawItem
from .items import (
    GENERATION,
    TAGS,
    CacheEntry,
    generation_of,
    invalidation_of,
    tags_of,
    whole_number,
)
from .parts import PartsStore

# Tags and tagged keys that are remembered per prefix; what is forgotten is asked for again.
_REMEMBERED = 20_000
MAX_TAGS = 50
_MAX_TAG_BYTES = 255


class _Known(NamedTuple):
    number: int
    asked_at: float


class InvalidationNumbers:
    """
    The numbers of one alias and prefix by partition key, when they were asked for, and which tags
    a key had when it was last seen. For all threads.
    """

    def __init__(self) -> None:
        self._known: BoundedDict[str, _Known] = BoundedDict(_REMEMBERED)
        self._tags: BoundedDict[str, tuple[str, ...]] = BoundedDict(_REMEMBERED)
        self._lock = threading.Lock()

    def number(self, pk: str) -> int | None:
        """Return the largest number that was seen, None if there is none to go by."""
        known = self._known.get(pk)
        return None if known is None else known.number

    def is_fresh(self, pk: str, timeout: float) -> bool:
        """Return whether the number was asked for less than ``timeout`` seconds ago."""
        known = self._known.get(pk)
        return known is not None and clock.monotonic() - known.asked_at < timeout

    def learn(self, pk: str, number: int, asked_at: float) -> None:
        """Note what was the answer to a question of the monotonic time ``asked_at``."""
        with self._lock:
            known = self._known.get(pk)
            if known is not None:
                number, asked_at = max(number, known.number), max(asked_at, known.asked_at)
            self._known.put(pk, _Known(number, asked_at))

    def adopt(self, pk: str, number: int) -> None:
        """Note a number that an entry carries; nobody asked for it."""
        known = self._known.get(pk)
        if known is not None and number > known.number:
            self.learn(pk, number, known.asked_at)

    def tags_of(self, pk: str) -> tuple[str, ...]:
        """Return the tags that the entry had when it was last seen."""
        return self._tags.get(pk, ())

    def remember_tags(self, pk: str, tags: Iterable[str]) -> None:
        """Note the tags of an entry."""
        found = tuple(tags)
        if found:
            self._tags.put(pk, found)
        elif pk in self._tags:
            self._tags.drop(pk)


def _make(using: str) -> dict[str, InvalidationNumbers]:
    return {}


_by_prefix = PerProcess(_make)


def get_numbers(using: str, prefix: str) -> InvalidationNumbers:
    """Return what this process knows of the prefix."""
    found = _by_prefix.get(using)
    return found.get(prefix) or found.setdefault(prefix, InvalidationNumbers())


def checked_tags(tags: Iterable[str] | None) -> tuple[str, ...]:
    """Return ``tags`` in order, each once. Raises ValueError for what cannot be one."""
    if not tags:
        return ()
    if isinstance(tags, str | bytes):
        raise ValueError(f"tags is a {type(tags).__name__}; expected a list of strings.")
    found = list(tags)
    for tag in found:
        if not isinstance(tag, str) or not tag:
            raise ValueError(f"A tag is of type {type(tag).__name__} or empty; expected a string.")
        if len(tag.encode(errors="surrogatepass")) > _MAX_TAG_BYTES:
            raise ValueError(f"A tag may have at most {_MAX_TAG_BYTES} bytes in UTF-8.")
        if not tag.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in tag):
            raise ValueError("A tag holds half a character (a lone surrogate).")
    unique = tuple(sorted(set(found)))
    if len(unique) > MAX_TAGS:
        raise ValueError(f"There are {len(unique)} tags; an entry may have at most {MAX_TAGS}.")
    return unique


class ValidityStore(PartsStore):
    """
    Knows which entries were invalidated.

    An entry is invalid when its prefix was cleared or one of its tags invalidated since it was
    written: it carries the numbers of that time. A number is asked for again when it was last
    asked for over ``generation_timeout`` seconds ago: in one call with the entry, strongly.
    """

    def look(self, tags: Iterable[str] = ()) -> RawItem:
        """Return the numbers that an entry with ``tags`` carries if it is computed from now on."""
        tag_keys = {tag: keys.tag(self.prefix, tag) for tag in tags}
        generation = self._generation
        with self._in_time():
            self._ask(self._not_fresh([*generation, *tag_keys.values()]))
        numbers = self._numbers
        stamps: RawItem = {}
        for key in generation:
            if number := numbers.number(key.pk):
                stamps[GENERATION] = {"N": str(number)}
        if tag_keys:
            stamps[TAGS] = {
                "M": {tag: {"N": str(numbers.number(key.pk) or 0)} for tag, key in tag_keys.items()}
            }
        return stamps

    def _is_valid(self, head: RawItem) -> bool:
        """Return whether no number that is known here is above the one that ``head`` carries."""
        if TAGS not in head and self.options.clear != "generation":
            return True
        numbers = self._numbers
        for key, number in self._numbers_of(head).items():
            known = numbers.number(key.pk)
            if known is None or number < known:
                return False
            numbers.adopt(key.pk, number)
        return True

    def _numbers_of(self, head: RawItem) -> dict[ItemKey, int]:
        """Return the numbers that ``head`` carries; -1, which is never valid, for what is none."""
        found = {
            keys.tag(self.prefix, tag): whole_number(held) for tag, held in tags_of(head).items()
        }
        for key in self._generation:
            found[key] = generation_of(head)
        return found

    def _numbers_for(self, pk: str) -> list[ItemKey]:
        """Return the numbers on which the entry depends, as far as this process knows."""
        tags = self._numbers.tags_of(pk)
        return [*self._generation, *(keys.tag(self.prefix, tag) for tag in tags)]

    def _not_fresh(self, wanted: Iterable[ItemKey]) -> list[ItemKey]:
        numbers, timeout = self._numbers, self.options.generation_timeout
        return [key for key in dict.fromkeys(wanted) if not numbers.is_fresh(key.pk, timeout)]

    def _ask(
        self,
        asked: Sequence[ItemKey],
        wanted: Sequence[ItemKey] = (),
        attributes: Sequence[str] | None = None,
    ) -> dict[str, RawItem]:
        """Learn these numbers, strongly, and return the items ``wanted`` with them, by key."""
        if not asked:
            return {}
        table, asked_at = self._table, clock.monotonic()
        answer = batch_get(
            table.connection,
            table.table_name,
            self._raw_keys([*wanted, *asked]),
            consistent=True,
            attributes={"ProjectionExpression": ", ".join(attributes)} if attributes else None,
        )
        found = {item["PK"]["S"]: item for item in answer}
        for key in asked:
            number = invalidation_of(found.pop(key.pk, {}))
            self._numbers.learn(key.pk, number, asked_at)
        return found

    def _live(self) -> Condition:
        """Return the condition that an entry without tags counts."""
        now = clock.now_ms()
        live: Condition = CacheEntry.pk.exists() & (
            CacheEntry.expiry.does_not_exist() | (CacheEntry.expiry > now)
        )
        if number := self._known_generation():
            live &= CacheEntry.generation >= number
        return live

    def _free(self) -> Condition:
        """Return the condition that nothing is there, or an entry that does not count."""
        free: Condition = CacheEntry.pk.does_not_exist() | (CacheEntry.expiry <= clock.now_ms())
        if number := self._known_generation():
            free = free | CacheEntry.generation.does_not_exist() | (CacheEntry.generation < number)
        return free

    def _known_generation(self) -> int:
        return max((self._numbers.number(key.pk) or 0 for key in self._generation), default=0)

    @property
    def _generation(self) -> tuple[ItemKey, ...]:
        return (keys.generation(self.prefix),) if self.options.clear == "generation" else ()

    @property
    def _numbers(self) -> InvalidationNumbers:
        return get_numbers(self.using, self.prefix)


def is_live(head: RawItem | None) -> bool:
    """Return whether there is an entry that has not expired."""
    return head is not None and CacheEntry.is_raw_live(head, clock.now())
