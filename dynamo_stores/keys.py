"""
Formats of item keys: the only module that builds PK and SK.

A partition key is ``<kind>#<owner>#<key>``. The owner (a prefix, a scope) is escaped, so that
different owners never share a key. A key that is too long for DynamoDB, or cannot be encoded in
UTF-8, is hashed; the item then has the key itself in an attribute.
"""

from __future__ import annotations

import functools
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
STORED_RATES = "RATES"
CONFIG = "CONFIG"
DEDUPE = "DD"
JOB = "JOB"
CAPACITY = "CAP"
RECORD = "RECORD"
CLAIM = "CLAIM"
SCHEDULE = "SCHEDULE"
STATUS = "STATUS"
USAGE = "USE"
METRICS_MINUTES = "METRICS-MINUTES"
METRICS_HOURS = "METRICS-HOURS"
DECISIONS = "DECISIONS"
ACTIONS = "ACTIONS"
NOTIFICATIONS = "NOTIFY"
STREAM = "STREAM"
STREAM_FAILED = "STREAM-FAILED"
STREAM_START = "START"
STREAM_SHARD = "SHARD"
STREAM_WORKER = "WORKER"
HEARTBEAT = "HEARTBEAT"
EXPIRY = "X"
EXPIRY_SHARDS = 8

# DynamoDB's limit for a partition key is 2,048 bytes; parts of a split value need some of it.
MAX_PARTITION_KEY_BYTES = 1_900
# Scopes and keys of limits may be any text; longer ones are hashed, because they cost more.
_MAX_LIMITED_BYTES = 512
_HASHED = "H#"
# The most digits of the number of a stream's record.
_SEQUENCE_NUMBER_DIGITS = 40


class ItemKey(NamedTuple):
    """``pk`` and ``sk`` of an item; ``original`` is the full key if ``pk`` contains a hash."""

    pk: str
    sk: str
    original: bytes | None = None

    def raw(self) -> dict[str, dict[str, str]]:
        """Return the key as DynamoDB writes it."""
        return {"PK": {"S": self.pk}, "SK": {"S": self.sk}}


def heartbeat(token: str) -> ItemKey:
    """Return the key of an item that is looked for in another region."""
    return ItemKey(f"{HEARTBEAT}#{token}", HEARTBEAT)


def cache_entry(prefix: str, key: str) -> ItemKey:
    """Return the key of a cache entry; ``key`` is Django's, with prefix and version."""
    return _item_key(CACHE, prefix, key, ENTRY)


def lock(prefix: str, key: str) -> ItemKey:
    """Return the key of a lock; ``key`` includes prefix and version."""
    return _item_key(LOCK, prefix, key, LOCK)


def lease(prefix: str, key: str) -> ItemKey:
    """Return the key of the lease to compute a value; ``key`` includes prefix and version."""
    return _item_key(LEASE, prefix, key, LEASE)


def generation(prefix: str) -> ItemKey:
    """Return the key of the number that invalidates the cleared entries of ``prefix``."""
    return ItemKey(f"{GENERATION}#{escape(prefix)}", GENERATION)


def tag(prefix: str, name: str) -> ItemKey:
    """Return the key of the number that invalidates the entries tagged ``name``."""
    return _item_key(TAG, prefix, name, TAG)


def rate_window(
    scope: object, key: object, sk: str, *, kind: str = RATE_WINDOW, shard: int = 0
) -> ItemKey:
    """Return the key of the counter of ``key`` under ``scope``; long names are hashed."""
    pk = f"{kind}#{_short(scope)}#{_short(key)}"
    return ItemKey(f"{pk}+#{shard}" if shard else pk, sk)


def dedupe_job(key: object = None, *, digest: str | None = None) -> ItemKey:
    """Return the key of the job ``key``, which may have any length, or of that with the digest."""
    if digest is None:
        digest = hashlib.sha256(_as_text(key).encode(errors="surrogatepass")).hexdigest()
    return ItemKey(f"{DEDUPE}#{digest}", JOB)


def dedupe_digest(pk: str) -> str:
    """Return the digest of the key of the job with the partition key ``pk``."""
    return pk.removeprefix(f"{DEDUPE}#")


def dedupe_part(job: ItemKey, fence: int, number: int) -> ItemKey:
    """Return the key of part ``number``, from 0, of the result written under ``fence``."""
    return ItemKey(job.pk, f"R#{fence}#{number}")


def capacity(table: str, sk: str) -> ItemKey:
    """Return the key of an item about the capacity of ``table``: RECORD, CLAIM or SCHEDULE."""
    return ItemKey(f"{CAPACITY}#{table}", sk)


def demand(table: str, process: str) -> ItemKey:
    """Return the key of the demand of ``process`` for the capacity of ``table``."""
    return ItemKey(f"{CAPACITY}#{table}", f"DEMAND#{process}")


def capacity_tables() -> ItemKey:
    """Return the key of the list of tables that have a record."""
    return ItemKey("CAPACITY", "TABLES")


def process_status(process: str) -> ItemKey:
    """Return the key of the report of a process, ``<host>#<pid>#<token>``."""
    return ItemKey(STATUS, process)


def usage(minute: int, table: str = "") -> ItemKey:
    """Return the key of the usage of ``table`` in a minute since the epoch."""
    return ItemKey(USAGE, f"{minute:010}#{table}")


def metrics_minute(minute: int) -> ItemKey:
    """Return the key of what was counted in a minute since the epoch."""
    return ItemKey(METRICS_MINUTES, f"{minute:010}")


def metrics_hour(hour: int) -> ItemKey:
    """Return the key of what was counted in an hour since the epoch."""
    return ItemKey(METRICS_HOURS, f"{hour:010}")


def decision(at: int, table: str = "") -> ItemKey:
    """Return the key of a decision about ``table`` at ``at``, in ms since the epoch."""
    return ItemKey(DECISIONS, f"{at:015}#{table}")


def action(token: str) -> ItemKey:
    """Return the key of the record that the form with ``token`` was carried out."""
    return ItemKey(f"{ACTIONS}#{token}", ACTIONS)


def notifications(using: str) -> ItemKey:
    """Return the key of the record of notifications that the alias ``using`` has sent."""
    return ItemKey(NOTIFICATIONS, using)


def stream_start(region: str, table: str, consumer: str) -> ItemKey:
    """Return the key of the item that says that ``consumer`` has begun to read ``table``."""
    return ItemKey(_stream(region, table, consumer), STREAM_START)


def stream_shard(region: str, table: str, consumer: str, label: str, shard: str) -> ItemKey:
    """Return the key of the position of ``consumer`` in a shard of the stream ``label``."""
    return ItemKey(_stream(region, table, consumer), f"{STREAM_SHARD}#{label}#{shard}")


def stream_worker(region: str, table: str, consumer: str, worker: str) -> ItemKey:
    """Return the key of the item of a worker of ``consumer``."""
    return ItemKey(_stream(region, table, consumer), f"{STREAM_WORKER}#{worker}")


def stream_failed(
    region: str, table: str, consumer: str, label: str, shard: str, sequence_number: str
) -> ItemKey:
    """Return the key of a record that ``consumer`` has set aside; sorted as in its shard."""
    pk = _stream(region, table, consumer, STREAM_FAILED)
    return ItemKey(pk, f"{label}#{shard}#{sequence_number.zfill(_SEQUENCE_NUMBER_DIGITS)}")


def _stream(region: str, table: str, consumer: str, kind: str = STREAM) -> str:
    # Each region has a stream of its own, also where the control table is replicated.
    return f"{kind}#{region}#{table}#{_short(consumer)}"


def stored_rate(resource: str) -> ItemKey:
    """Return the key of the limit of ``resource`` that is set for all processes."""
    return ItemKey(f"{STORED_RATE}#{_short(resource)}", CONFIG)


def stored_rates_index(resource: str) -> tuple[str, str]:
    """Return partition and sort key of the index for the stored limit of ``resource``."""
    return STORED_RATES, _short(resource)


def cache_prefix(prefix: str) -> str:
    """Return the beginning of the partition keys of all cache entries with ``prefix``."""
    return f"{CACHE}#{escape(prefix)}#"


def tags_prefix(prefix: str) -> str:
    """Return the beginning of the partition keys of all tags of ``prefix``."""
    return f"{TAG}#{escape(prefix)}#"


def cache_key(prefix: str, pk: str, original: bytes | None) -> str:
    """Return the key from which :func:`cache_entry` made ``pk``: ``original`` if it is hashed."""
    if original is not None:
        return original.decode(errors="surrogatepass")
    return pk.removeprefix(cache_prefix(prefix))


def cache_hashes(prefix: str) -> str:
    """Return the beginning of the partition keys of entries with a hashed key."""
    return cache_prefix(prefix) + _HASHED


def cache_part(pk: str, write: str, number: int) -> ItemKey:
    """Return the key of part ``number``, from 0, of the value that ``write`` stored."""
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
    """Return the sort key of ``pk``: its removal time in ms; entries without one are last."""
    moment = "9" * 15 if removal is None else f"{removal:015}"
    return f"{moment}#{hashlib.sha256(pk.encode()).hexdigest()[:16]}"


def escape(owner: str) -> str:
    """Return ``owner`` with ``#`` and ``%`` escaped, so different for every owner."""
    if "#" not in owner and "%" not in owner:
        return owner
    return owner.replace("%", "%25").replace("#", "%23")


def _short(name: object) -> str:
    escaped = escape(_as_text(name))
    encoded = escaped.encode(errors="surrogatepass")
    if len(encoded) <= _MAX_LIMITED_BYTES and _is_utf8(escaped):
        return escaped
    # An escaped name has no "#", so no name looks like this.
    return _HASHED + hashlib.sha256(encoded).hexdigest()


def _as_text(key: object) -> str:
    if key is None:
        raise TypeError("A key is None; expected a string, or another value that names the key.")
    return str(key)


def _item_key(kind: str, owner: str, key: str, sk: str) -> ItemKey:
    head = _head(kind, owner)
    pk = head + key
    # A character has at most four bytes, so short keys need not be encoded here.
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


@functools.lru_cache(maxsize=1024)
def _head(kind: str, owner: str) -> str:
    return f"{kind}#{escape(owner)}#"


def _is_utf8(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True
