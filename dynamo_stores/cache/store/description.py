"""What is known of an entry without its value: its state, times, size, parts and tags."""

from __future__ import annotations

from dataclasses import dataclass

from ...item_access import Items
from ...keys import ItemKey
from ...models import RawItem, seconds_of
from .codecs import COMPRESSED_HEADERS, SEAL_SIZE
from .invalidation import is_live
from .items import (
    EXPIRY,
    NUMBER,
    SEALED,
    CacheEntry,
    data_of,
    tags_of,
    took_of,
    whole_number,
    write_of,
)
from .parts import Parts
from .reader import Reader
from .values import Values

LIVE, EXPIRED, INVALIDATED, UNREADABLE = "live", "expired", "invalidated", "unreadable"
# A write id begins with its time in milliseconds.
_WRITE_DIGITS = 13


@dataclass(frozen=True)
class EntryDescription:
    """
    An entry as it is in the table, without its value.

    ``state`` is ``live``; or why the cache does not return the value: ``expired``, ``invalidated``
    (by one of its tags, or by ``clear()``), ``unreadable`` (a part is missing, or the value was not
    signed for this cache, its serializer, its compressor and one of the secrets).
    ``written_at`` and ``expiry`` are in seconds since the epoch; None: not known, or never.
    ``size`` is the bytes of the value as stored, without the signature, of an int its digits; None
    if a part is missing. ``parts`` is in how many items the value is. ``took`` is how many seconds
    the computation of the value took, None if not known.
    """

    state: str
    written_at: float | None
    expiry: float | None
    size: int | None
    parts: int
    is_compressed: bool
    tags: tuple[str, ...]
    took: float | None


async def describe(
    items: Items[CacheEntry], reader: Reader, values: Values, parts: Parts, key: ItemKey
) -> EntryDescription | None:
    """
    Return the entry, read strongly; None if the table has none. A verb.

    One GetItem; one BatchGetItem more for an entry with tags or a generation, and one for a value
    in parts, which reads the first and the last of them.
    """
    with items.in_time():
        head = await items.get(key, consistent=True)
        if head is None:
            return None
        is_valid = await reader.is_live_and_valid(head)
        size = await _size(items, parts, head)
    if not is_live(head):
        state = EXPIRED
    elif not is_valid:
        state = INVALIDATED
    else:
        state = LIVE if size is not None and values.is_readable(head) else UNREADABLE
    took = took_of(head)
    return EntryDescription(
        state=state,
        written_at=_written_at(head),
        expiry=seconds_of(whole_number(head.get(EXPIRY, {}))),
        size=size,
        parts=max(1, len(parts.keys_of(head))),
        is_compressed=_sealed(head)[:2] in COMPRESSED_HEADERS,
        tags=tuple(sorted(tags_of(head))),
        took=None if took is None else took / 1000,
    )


async def _size(items: Items[CacheEntry], parts: Parts, head: RawItem) -> int | None:
    if NUMBER in head:
        return len(str(head[NUMBER].get("N", "")))
    wanted = parts.keys_of(head)
    if not wanted:
        return max(0, len(_sealed(head)) - SEAL_SIZE)
    # All parts but the last have the same size.
    found = {
        each["PK"]["S"]: data_of(each) for each in await items.get_large([wanted[0], wanted[-1]])
    }
    first, last = found.get(wanted[0].pk), found.get(wanted[-1].pk)
    if first is None or last is None:
        return None
    return len(first) * (len(wanted) - 1) + len(last)


def _sealed(head: RawItem) -> bytes:
    return bytes(head.get(SEALED, {}).get("B", b""))


def _written_at(head: RawItem) -> float | None:
    digits = write_of(head)[:_WRITE_DIGITS]
    return seconds_of(int(digits)) if len(digits) == _WRITE_DIGITS and digits.isdecimal() else None
