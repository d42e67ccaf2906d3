"""What a process knows of the numbers that make entries invalid: generations and tags."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from .. import clock
from ..calls.process import PerProcess

# Tags and tagged keys that are remembered per prefix; what is forgotten is asked for again.
_REMEMBERED = 20_000
MAX_TAGS = 50
_MAX_TAG_BYTES = 255


class _Known(NamedTuple):
    number: int
    asked_at: float


class Numbers:
    """
    The numbers of one alias and prefix by partition key, when they were asked for, and which tags
    a key had when it was last seen. For all threads.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._tags: OrderedDict[str, tuple[str, ...]] = OrderedDict()
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
            known = self._known.pop(pk, None)
            if known is not None:
                number, asked_at = max(number, known.number), max(asked_at, known.asked_at)
            self._known[pk] = _Known(number, asked_at)
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)

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
        if not found and pk not in self._tags:
            return
        with self._lock:
            self._tags.pop(pk, None)
            if found:
                self._tags[pk] = found
                if len(self._tags) > _REMEMBERED:
                    self._tags.popitem(last=False)


def _make(using: str) -> dict[str, Numbers]:
    return {}


_by_prefix = PerProcess(_make)


def get_numbers(using: str, prefix: str) -> Numbers:
    """Return what this process knows of the prefix."""
    found = _by_prefix.get(using)
    return found.get(prefix) or found.setdefault(prefix, Numbers())


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
