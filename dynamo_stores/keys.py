"""
What keys look like: the one place that builds PK and SK.

A partition key is ``<kind>#<owner>#<key>``. The owner (a prefix, a scope) is escaped, so that
owners which look alike never share a key; a key too long for DynamoDB, or one that cannot be
written as UTF-8, is hashed, and the item then carries the key itself in an attribute.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import NamedTuple

CACHE = "CACHE"
ENTRY = "ENTRY"
PART = "PART"
LOCK = "LOCK"
LEASE = "LEASE"
GENERATION = "GEN"
TAG = "TAG"
RATE_WINDOW = "RL"
ADAPTIVE_WINDOW = "AL"
STORED_RATE = "RATE"
CONFIG = "CONFIG"
DEDUPE = "DD"
JOB = "JOB"
CAPACITY = "CAP"
RECORD = "RECORD"
CLAIM = "CLAIM"
STATUS = "STATUS"
USE = "USE"
DECISIONS = "DECISIONS"
ACTIONS = "ACTIONS"
EXPIRY = "X"
EXPIRY_SHARDS = 8

# DynamoDB's limit for a partition key is 2,048 bytes; parts of a split value need some of it.
MAX_PARTITION_KEY_BYTES = 1_900
# Those who are limited may be named by anything; longer names only cost more.
_MAX_LIMITED_BYTES = 512
_HASHED = "H#"


class ItemKey(NamedTuple):
    """``pk`` and ``sk`` of an item; ``original`` is the key in full where ``pk`` holds a hash."""

    pk: str
    sk: str
    original: bytes | None = None

    def raw(self) -> dict[str, dict[str, str]]:
        """Return the key as DynamoDB writes it."""
        return {"PK": {"S": self.pk}, "SK": {"S": self.sk}}


def cache_entry(prefix: str, key: str) -> ItemKey:
    """Return the key of the cache entry that Django calls ``key``, prefix and version included."""
    return _item_key(CACHE, prefix, key, ENTRY)


def lock(prefix: str, key: str) -> ItemKey:
    """Return the key of the lock that is called ``key``, prefix and version included."""
    return _item_key(LOCK, prefix, key, LOCK)


def lease(prefix: str, key: str) -> ItemKey:
    """Return the key of the lease to compute the value of ``key``, prefix and version included."""
    return _item_key(LEASE, prefix, key, LEASE)


def generation(prefix: str) -> ItemKey:
    """Return the key of the number that tells which entries of ``prefix`` were cleared."""
    return ItemKey(f"{GENERATION}#{escape(prefix)}", GENERATION)


def tag(prefix: str, name: str) -> ItemKey:
    """Return the key of the number that tells which entries tagged ``name`` were invalidated."""
    return _item_key(TAG, prefix, name, TAG)


def rate_window(
    scope: str, key: str, sk: str, *, kind: str = RATE_WINDOW, shard: int = 0
) -> ItemKey:
    """Return the key of what counts the requests of ``key`` under ``scope``; long ones hashed."""
    pk = f"{kind}#{_short(scope)}#{_short(key)}"
    return ItemKey(f"{pk}+#{shard}" if shard else pk, sk)


def dedupe_job(key: str) -> ItemKey:
    """Return the key of the job called ``key``, which may be of any length."""
    digest = hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()
    return ItemKey(f"{DEDUPE}#{digest}", JOB)


def dedupe_part(job: ItemKey, fence: int, number: int) -> ItemKey:
    """Return the key of part ``number``, from 0, of the result that was got under ``fence``."""
    return ItemKey(job.pk, f"R#{fence}#{number}")


def capacity(table: str, sk: str) -> ItemKey:
    """Return the key of what the control table says of ``table``: its RECORD, its CLAIM."""
    return ItemKey(f"{CAPACITY}#{table}", sk)


def demand(table: str, process: str) -> ItemKey:
    """Return the key of what ``process`` asks of ``table``."""
    return ItemKey(f"{CAPACITY}#{table}", f"DEMAND#{process}")


def capacity_tables() -> ItemKey:
    """Return the key of the list of tables that have a record."""
    return ItemKey("CAPACITY", "TABLES")


def process_status(process: str) -> ItemKey:
    """Return the key of what the process, ``<host>#<pid>``, reports of itself."""
    return ItemKey(STATUS, process)


def use(minute: int, table: str = "") -> ItemKey:
    """Return the key of what was used of ``table`` in that minute since the epoch."""
    return ItemKey(USE, f"{minute:010}#{table}")


def decision(at: int, table: str = "") -> ItemKey:
    """Return the key of what was decided about ``table`` at ``at``, in ms since the epoch."""
    return ItemKey(DECISIONS, f"{at:015}#{table}")


def action(token: str) -> ItemKey:
    """Return the key that tells that the action of the form with ``token`` was done."""
    return ItemKey(f"{ACTIONS}#{token}", ACTIONS)


def stored_rate(resource: str) -> ItemKey:
    """Return the key of the limit that is set for all processes."""
    return ItemKey(f"{STORED_RATE}#{_short(resource)}", CONFIG)


def cache_prefix(prefix: str) -> str:
    """Return what the partition keys of all cache entries with ``prefix`` begin with."""
    return f"{CACHE}#{escape(prefix)}#"


def cache_key(prefix: str, pk: str, original: bytes | None) -> str:
    """Return the key that :func:`cache_entry` made ``pk`` of; ``original`` where that is a hash."""
    if original is not None:
        return original.decode(errors="surrogatepass")
    return pk.removeprefix(cache_prefix(prefix))


def cache_hashes(prefix: str) -> str:
    """Return what the partition keys of entries whose key is hashed begin with."""
    return cache_prefix(prefix) + _HASHED


def cache_part(pk: str, write: str, number: int) -> ItemKey:
    """Return the key of part ``number``, from 0, of the value that ``write`` put under ``pk``."""
    return ItemKey(f"{pk}#{write}#{number}", PART)


def head_of_part(pk: str) -> tuple[str, str]:
    """Return the partition key of the entry that a part belongs to, and its write."""
    head, write, _ = pk.rsplit("#", 2)
    return head, write


def expiry_index_shards(prefix: str) -> list[str]:
    """Return the partition keys of the expiry index for the entries with ``prefix``."""
    return [f"{EXPIRY}#{escape(prefix)}#{shard}" for shard in range(EXPIRY_SHARDS)]


def expiry_index_shard(prefix: str, pk: str) -> str:
    """Return the partition of the expiry index in which the entry ``pk`` is listed."""
    return f"{EXPIRY}#{escape(prefix)}#{zlib.crc32(pk.encode()) % EXPIRY_SHARDS}"


def expiry_index_sort_key(pk: str, removal: int | None) -> str:
    """Return where ``pk`` is listed: by the time in ms when it may go, the undying ones last."""
    moment = "9" * 15 if removal is None else f"{removal:015}"
    return f"{moment}#{hashlib.sha256(pk.encode()).hexdigest()[:16]}"


def escape(owner: str) -> str:
    """Return ``owner`` without ``#``, differently for every owner."""
    if "#" not in owner and "%" not in owner:
        return owner
    return owner.replace("%", "%25").replace("#", "%23")


def _short(name: str) -> str:
    escaped = escape(name)
    encoded = escaped.encode(errors="surrogatepass")
    if len(encoded) <= _MAX_LIMITED_BYTES and _is_utf8(escaped):
        return escaped
    # An escaped name has no "#", so no name looks like this.
    return _HASHED + hashlib.sha256(encoded).hexdigest()


def _item_key(kind: str, owner: str, key: str, sk: str) -> ItemKey:
    head = f"{kind}#{escape(owner)}#"
    pk = head + key
    # Four bytes are the most that one character takes, so short keys need not be encoded here.
    if len(pk) * 4 > MAX_PARTITION_KEY_BYTES or not pk.isascii() or key.startswith(_HASHED):
        original = key.encode(errors="surrogatepass")
        if (
            len(head.encode()) + len(original) > MAX_PARTITION_KEY_BYTES
            or key.startswith(_HASHED)
            or not _is_utf8(key)
        ):
            pk = head + _HASHED + hashlib.sha256(original).hexdigest()
            return ItemKey(pk, sk, original)
    return ItemKey(pk, sk)


def _is_utf8(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True
