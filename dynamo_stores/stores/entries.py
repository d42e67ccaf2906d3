"""Entries as they count now: neither expired nor invalidated, out of the near tier or the table."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from pynamodb.expressions.condition import Condition

from .. import clock, keys
from ..calls.batches import batch_get
from ..codecs import Forged
from ..exceptions import StoreUnavailable
from ..keys import ItemKey
from ..models import CacheEntry, RawItem
from .near import Found, NearStats, NearTier, get_near
from .numbers import Numbers, get_numbers
from .parts import PartsStore

logger = logging.getLogger(__name__)

MISSING: Final = object()
# What decides whether an entry counts, without its value.
LIFE = ["PK", "SK", "e", "g", "t"]
_warned: set[tuple[str, str]] = set()


class EntriesStore(PartsStore):
    """
    Reads entries, and knows which of them count.

    An entry is invalid when its prefix was cleared or one of its tags invalidated since it was
    written: it carries the numbers of that time. A number is asked for again when it was last
    asked for over ``generation_timeout`` seconds ago: in one call with the entry, strongly.
    """

    def find(self, key: str, *, strongly: bool = False, expired: bool = False) -> Found | None:
        """
        Return the entry of ``key`` if it counts, with ``expired`` also after its expiry.

        Out of the near tier where there is one, but for ``strongly``.
        """
        item_key = self._key(key)
        near = None if strongly else self._near
        if near is None:
            found = self._find(item_key, strongly=strongly)
        else:
            found = near.get(item_key.pk, self.options.local_timeout, self._counts_near)
            if found is None:
                found = self._fetch_near(near, item_key)
        return found if found is not None and (expired or is_live(found.head)) else None

    def peek(self, key: str) -> Any:
        """Return the value that the near tier has, ``MISSING`` if none; sends nothing."""
        near = self._near
        if near is None:
            return MISSING
        found = near.get(self._key(key).pk, self.options.local_timeout, self._counts_near)
        return self.value_of(found)

    def value_of(self, found: Found | None, default: Any = MISSING) -> Any:
        """Return the value of an entry, ``default`` where there is none that is ours."""
        if found is None:
            return default
        try:
            return self._values.read(found.head, found.parts)
        except Forged:
            self._warn_of_forged()
            return default

    def get_near_stats(self) -> NearStats | None:
        """Return what this process's near tier holds and did, None where there is none."""
        near = self._near
        return None if near is None else near.stats()

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
                stamps["g"] = {"N": str(number)}
        if tag_keys:
            stamps["t"] = {
                "M": {tag: {"N": str(numbers.number(key.pk) or 0)} for tag, key in tag_keys.items()}
            }
        return stamps

    def _fetch_near(self, near: NearTier, key: ItemKey) -> Found | None:
        def fetch(pks: list[str]) -> dict[str, Found]:
            found = self._find(key)
            return {} if found is None else {key.pk: found}

        found = near.fetch([key.pk], fetch, join=self._joins, wait=self.options.operation_timeout)
        return found.get(key.pk)

    def _find(self, key: ItemKey, *, strongly: bool = False) -> Found | None:
        """Return the entry out of the table, after its expiry if it may be served stale."""
        head = self._head(key, strongly=strongly)
        if head is None or not self._is_kept(head):
            return None
        found = self._with_parts(head)
        if found is None and self._parts_of(head):
            # An overwrite may have taken the parts of this head along meanwhile.
            again = self._head(key, strongly=True)
            if again is not None and not is_same_write(again, head):
                found = self._with_parts(again) if self._is_kept(again) else None
        return found

    def _is_kept(self, head: RawItem) -> bool:
        return self.options.stale_timeout > 0 or is_live(head)

    def _with_parts(self, head: RawItem) -> Found | None:
        if "p" not in head:
            return Found(head)
        try:
            parts = self._read_parts(head)
        except Forged:
            self._warn_of_forged()
            return None
        return None if parts is None else Found(head, parts)

    def _head(
        self, key: ItemKey, attributes: Sequence[str] | None = None, *, strongly: bool = False
    ) -> RawItem | None:
        """Return the item under ``key`` unless it is invalid; its expiry is not looked at."""
        asked = self._not_fresh(self._numbers_for(key.pk))
        consistent = strongly or self.options.consistent_read
        with self._in_time():
            while True:
                if asked:
                    head = self._ask(asked, [key], attributes).get(key.pk)
                else:
                    head = self._get(key, consistent=consistent, attributes=attributes)
                if head is None:
                    return None
                self._numbers.remember_tags(key.pk, _tags_of(head))
                # Tags that were not known here, or a slow answer to a plain read.
                more = [
                    each for each in self._not_fresh(self._numbers_of(head)) if each not in asked
                ]
                if not more:
                    return head if self._is_valid(head) else None
                asked += more

    def _find_many(self, pks: Iterable[str]) -> dict[str, Found]:
        """Return the entries that count, by partition key."""
        wanted = list(pks)
        near = self._near
        if near is None:
            return self._fetch_many(wanted)
        found = {}
        for pk in wanted:
            kept = near.get(pk, self.options.local_timeout, self._counts_near)
            if kept is not None:
                found[pk] = kept
        rest = [pk for pk in wanted if pk not in found]
        try:
            return {
                **found,
                **near.fetch(
                    rest,
                    self._fetch_many,
                    join=self._joins,
                    wait=self.options.operation_timeout,
                ),
            }
        except StoreUnavailable as exc:
            exc.found = {**found, **(exc.found or {})}
            raise

    def _fetch_many(self, pks: Iterable[str]) -> dict[str, Found]:
        wanted = [ItemKey(pk, keys.ENTRY) for pk in pks]
        asked = self._not_fresh(each for key in wanted for each in self._numbers_for(key.pk))
        try:
            with self._in_time():
                read: Iterable[RawItem] = (
                    self._ask(asked, wanted).values() if asked else self._get_items(wanted)
                )
                heads = self._counting(read, asked)
        except StoreUnavailable as exc:
            read = (exc.responses or {}).get(self._table.table_name, [])
            exc.found = self._whole(
                head
                for head in read
                if head["SK"]["S"] == keys.ENTRY
                and is_live(head)
                and not self._not_fresh(self._numbers_of(head))
                and self._is_valid(head)
            )
            raise
        return self._whole(heads)

    def _whole(self, heads: Iterable[RawItem]) -> dict[str, Found]:
        found = {head["PK"]["S"]: self._with_parts(head) for head in heads}
        return {pk: each for pk, each in found.items() if each is not None}

    def _counting(self, heads: Iterable[RawItem], asked: Iterable[ItemKey] = ()) -> list[RawItem]:
        """Return those of ``heads`` that count; ``asked`` are numbers that were read with them."""
        live = [head for head in heads if is_live(head)]
        numbers, has_generation = self._numbers, bool(self._generation)
        wanted: list[ItemKey] = []
        for head in live:
            numbers.remember_tags(head["PK"]["S"], _tags_of(head))
            if has_generation or "t" in head:
                wanted += self._numbers_of(head)
        known = set(asked)
        with self._in_time():
            self._ask([each for each in self._not_fresh(wanted) if each not in known])
        return [head for head in live if self._is_valid(head)]

    def _counts(self, head: RawItem | None) -> bool:
        """Return whether an item that was just read counts."""
        return head is not None and bool(self._counting([head]))

    def _counts_near(self, found: Found) -> bool:
        # The generation's bound holds here too; an invalidated tag is news within LOCAL_TIMEOUT.
        return (
            is_live(found.head)
            and not self._not_fresh(self._generation)
            and self._is_valid(found.head)
        )

    def _is_valid(self, head: RawItem) -> bool:
        """Return whether no number that is known here is above the one that ``head`` carries."""
        if "t" not in head and self.options.clear != "generation":
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
            keys.tag(self.prefix, tag): _whole_number(held) for tag, held in _tags_of(head).items()
        }
        for key in self._generation:
            found[key] = _whole_number(head.get("g", {"N": "0"}))
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
            held = found.pop(key.pk, {}).get("g", {"N": "0"})
            self._numbers.learn(key.pk, max(_whole_number(held), 0), asked_at)
        return found

    @contextlib.contextmanager
    def _writing(self, pks: Sequence[str]) -> Iterator[dict[str, Found]]:
        """Keep the near tier true while these are written; put into the dict what was written."""
        near = self._near
        written: dict[str, Found] = {}
        if near is None:
            yield written
            return
        began_at = near.begin_write(pks)
        done = False
        try:
            yield written
            done = True
        finally:
            near.end_write(pks, written if done else {}, began_at)

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

    def _key(self, key: str) -> ItemKey:
        return keys.cache_entry(self.prefix, key)

    @property
    def _generation(self) -> tuple[ItemKey, ...]:
        return (keys.generation(self.prefix),) if self.options.clear == "generation" else ()

    @property
    def _numbers(self) -> Numbers:
        return get_numbers(self.using, self.prefix)

    @property
    def _near(self) -> NearTier | None:
        if not self.options.local_timeout:
            return None
        return get_near(self.using, self.prefix, self.options)

    @property
    def _joins(self) -> bool:
        return not self.options.consistent_read

    def _warn_of_forged(self) -> None:
        if (self.using, self.prefix) not in _warned:
            _warned.add((self.using, self.prefix))
            logger.warning(
                "A cache entry in alias %s was not signed with one of this project's secrets and "
                "was taken for missing; further ones are not logged.",
                self.using,
                extra={"dynamodb_using": self.using, "cache_prefix": self.prefix},
            )


def is_live(head: RawItem | None) -> bool:
    """Return whether there is an entry that has not expired."""
    return head is not None and CacheEntry.is_raw_live(head, clock.now())


def is_same_write(old: RawItem | None, written: Mapping[str, Any]) -> bool:
    """Return whether ``old`` is what ``written`` wrote."""
    return old is not None and old.get("w") == written["w"]


def _tags_of(head: RawItem) -> dict[str, Any]:
    tags: dict[str, Any] = head.get("t", {}).get("M", {})
    return tags


def _whole_number(held: Mapping[str, Any]) -> int:
    digits = str(held.get("N", ""))
    return int(digits) if digits.isdecimal() else -1
