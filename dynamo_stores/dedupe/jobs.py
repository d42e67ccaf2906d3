"""Jobs with an owner, a lease and a fence, and their results."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from pynamodb.attributes import (
    BinaryAttribute,
    UnicodeAttribute,
)

from .. import clock, keys
from ..calls.batches import batch_get, batch_write, chunks
from ..calls.policy import deadline
from ..concurrency.threads import in_thread
from ..conf import get_config
from ..conf.groups import DedupeConfig
from ..exceptions import DedupeError, DedupeFailedError, StoreUnavailable
from ..item_access import ConditionFailed, Store
from ..keys import ItemKey
from ..models import IntegerAttribute, RawItem, StoreItem, ttl_of


class DedupeJob(StoreItem):
    """
    A job that runs once: its ``state`` (``P`` in progress, ``C`` completed, ``F`` failed), which
    counts ``until`` a moment in ms since the epoch: the end of the lease, or when the result is
    forgotten. ``fence`` only ever rises.
    """

    owner = UnicodeAttribute(null=True, attr_name="o")
    fence = IntegerAttribute(null=True, attr_name="f")
    state = UnicodeAttribute(null=True, attr_name="s")
    until = IntegerAttribute(null=True, attr_name="u")
    payload = UnicodeAttribute(null=True, attr_name="h")
    result = BinaryAttribute(null=True, attr_name="r", legacy_encoding=False)
    parts = IntegerAttribute(null=True, attr_name="p")
    error = UnicodeAttribute(null=True, attr_name="e")


logger = logging.getLogger(__name__)

RUNNING, COMPLETED, FAILED = "P", "C", "F"
# A result in the job itself makes each refused claim dearer: by a write unit per KB.
_INLINE_BYTES = 4 * 1024
_PART_BYTES = 380 * 1024
_PARTS_PER_REQUEST = 10


class Claim(NamedTuple):
    """A job that was got, under ``fence``; or, without one, the ``item`` that somebody else has."""

    fence: int | None
    item: RawItem | None


class JobStore(Store[DedupeJob]):
    """What happens to a job: it is claimed, renewed, completed or failed, and looked at."""

    kind = DedupeJob

    def register(self, key: str, *, payload: str | None = None) -> int | None:
        """
        Take the job, and return its fence; None if it is in progress or has an outcome.

        One conditional write. A job whose owner's lease ended is taken over.
        """
        return self.claim(key, payload).fence

    def complete(self, key: str, result: Any, *, fence: int, ttl: float | None = None) -> bool:
        """Store the result for ``ttl`` seconds; False if the job is no longer the fence's."""
        return self.complete_encoded(key, encode(result), fence, ttl)

    def fail(self, key: str, error: BaseException, *, fence: int, ttl: float | None = None) -> bool:
        """
        Let waiters have the error for ``ttl`` seconds, 0: let the next one try. False if the job
        is no longer the fence's.
        """
        seconds = self.settings.failure_ttl if ttl is None else ttl
        until = clock.now_ms() + math.ceil(seconds * 1000)
        name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
        actions = [
            DedupeJob.state.set(FAILED),
            DedupeJob.until.set(until),
            DedupeJob.ttl.set(ttl_of(until)),
            DedupeJob.error.set(json.dumps([name, str(error)[:1000]])),
        ]
        return self._change_own(key, fence, actions, FAILED)

    def extend(self, key: str, fence: int) -> bool:
        """Renew the lease; False if the job is no longer the fence's."""
        return self._change_own(key, fence, self._lease_actions(clock.now_ms()), RUNNING)

    def is_in_progress(self, key: str) -> bool:
        """Return whether somebody is working on the job now; a strong read."""
        item = self.look(key)
        return item is not None and state_of(item) == RUNNING and time_left(item) > 0

    async def aregister(self, key: str, *, payload: str | None = None) -> int | None:
        """See :meth:`register`."""
        return await in_thread(self.using, self.register, key, payload=payload)

    async def acomplete(
        self, key: str, result: Any, *, fence: int, ttl: float | None = None
    ) -> bool:
        """See :meth:`complete`."""
        return await in_thread(self.using, self.complete, key, result, fence=fence, ttl=ttl)

    async def afail(
        self, key: str, error: BaseException, *, fence: int, ttl: float | None = None
    ) -> bool:
        """See :meth:`fail`."""
        return await in_thread(self.using, self.fail, key, error, fence=fence, ttl=ttl)

    async def ais_in_progress(self, key: str) -> bool:
        """See :meth:`is_in_progress`."""
        return await in_thread(self.using, self.is_in_progress, key)

    def claim(self, key: str, payload: str | None = None) -> Claim:
        """Take the job if nobody has it and it has no outcome that counts."""
        item_key = keys.dedupe_job(key)
        owner = os.urandom(12).hex()
        now = clock.now_ms()
        fence, ahead = now, DedupeJob.fence.does_not_exist() | (DedupeJob.fence < now)
        while True:
            actions = [
                DedupeJob.owner.set(owner),
                DedupeJob.fence.set(fence),
                DedupeJob.state.set(RUNNING),
                *self._lease_actions(now),
                DedupeJob.result.remove(),
                DedupeJob.parts.remove(),
                DedupeJob.error.remove(),
                DedupeJob.payload.remove()
                if payload is None
                else DedupeJob.payload.set(self.payload_hash(payload)),
            ]
            is_free = DedupeJob.until.does_not_exist() | (DedupeJob.until <= now)
            try:
                with self._in_time():
                    self._update(item_key, actions, is_free & ahead)
            except ConditionFailed as refused:
                old = refused.old or {}
                if old.get("o", {}).get("S") == owner:
                    # The answer to our own write was lost, and we met it when we tried again.
                    return Claim(fence, None)
                if time_left(old) > 0:
                    return Claim(None, old)
                seen = int(old.get("f", {}).get("N", "0"))
                fence, ahead = max(seen + 1, now), DedupeJob.fence == seen
            else:
                return Claim(fence, None)

    def look(self, key: str) -> RawItem | None:
        """Return the job as it is, read strongly."""
        with self._in_time():
            return self._get(keys.dedupe_job(key), consistent=True)

    def complete_encoded(self, key: str, data: bytes, fence: int, ttl: float | None = None) -> bool:
        """Store a result that :func:`encode` made; large ones in parts, written first."""
        item_key = keys.dedupe_job(key)
        seconds = self.settings.ttl if ttl is None else ttl
        until = clock.now_ms() + math.ceil(seconds * 1000)
        actions = [
            DedupeJob.state.set(COMPLETED),
            DedupeJob.until.set(until),
            DedupeJob.ttl.set(ttl_of(until)),
        ]
        if len(data) <= _INLINE_BYTES:
            actions.append(DedupeJob.result.set(data))
        else:
            parts = [data[at : at + _PART_BYTES] for at in range(0, len(data), _PART_BYTES)]
            self._write_parts(item_key, fence, parts, ttl_of(until))
            actions.append(DedupeJob.parts.set(len(parts)))
        return self._change_own(key, fence, actions, COMPLETED)

    def read_result(self, key: str, item: RawItem) -> bytes | None:
        """Return the encoded result of a completed job; None if its parts are gone."""
        if "p" not in item:
            data: bytes | None = item.get("r", {}).get("B")
            return data
        fence, count = int(item["f"]["N"]), int(item["p"]["N"])
        item_key = keys.dedupe_job(key)
        wanted = [keys.dedupe_part(item_key, fence, number) for number in range(count)]
        found: dict[str, bytes] = {}
        table = self._table
        for group in chunks(wanted, _PARTS_PER_REQUEST):
            with self._in_time():
                items = batch_get(
                    table.connection, table.table_name, self._raw_keys(group), consistent=True
                )
            found.update({each["SK"]["S"]: each["v"]["B"] for each in items})
        if len(found) < count:
            return None
        return b"".join(found[each.sk] for each in wanted)

    def heartbeat(self, key: str, fence: int) -> Heartbeat:
        """Return a thread that renews the lease until it is stopped."""
        return Heartbeat(self, key, fence, self.settings.lease / 3)

    @staticmethod
    def payload_hash(payload: str) -> str:
        """Return what a job keeps of its payload."""
        return hashlib.sha256(payload.encode(errors="surrogatepass")).hexdigest()

    @property
    def settings(self) -> DedupeConfig:
        """``DEDUPE``, as it is now."""
        return get_config(self.using).dedupe

    def _lease_actions(self, now: int) -> list[Any]:
        own = self.settings
        until = now + math.ceil(own.lease * 1000)
        return [DedupeJob.until.set(until), DedupeJob.ttl.set(ttl_of(until) + math.ceil(own.ttl))]

    def _change_own(self, key: str, fence: int, actions: Sequence[Any], state: str) -> bool:
        is_ours = (DedupeJob.fence == fence) & (DedupeJob.state == RUNNING)
        try:
            with self._in_time():
                self._update(keys.dedupe_job(key), actions, is_ours)
        except ConditionFailed as refused:
            old = refused.old or {}
            # The answer to our own write was lost, and we met it when we tried again.
            return state != RUNNING and state_of(old) == state and old["f"]["N"] == str(fence)
        return True

    def _write_parts(self, job: ItemKey, fence: int, parts: Sequence[bytes], ttl: int) -> None:
        table = self._table
        for group in chunks(enumerate(parts), _PARTS_PER_REQUEST):
            requests = []
            for number, part in group:
                key = keys.dedupe_part(job, fence, number)
                item = {"PK": {"S": key.pk}, "SK": {"S": key.sk}, "v": {"B": part}}
                requests.append({"PutRequest": {"Item": {**item, "TTL": {"N": str(ttl)}}}})
            with self._in_time():
                _, why = batch_write(table.connection, table.table_name, requests)
            if why is not None:
                raise why

    def _in_time(self) -> deadline:
        return deadline(get_config(self.using).operation_timeout)


class Heartbeat(threading.Thread):
    """Renews the lease of a job while its owner works."""

    def __init__(self, store: JobStore, key: str, fence: int, interval: float) -> None:
        super().__init__(name="dynamo-stores-dedupe", daemon=True)
        self._store, self._key, self._fence = store, key, fence
        self._interval = interval
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.wait(self._interval):
            try:
                if not self._store.extend(self._key, self._fence):
                    return
            except StoreUnavailable as exc:
                logger.warning("The lease of a job was not renewed, and is tried again: %s", exc)

    def stop(self) -> None:
        """Let the lease end by itself."""
        self._stopping.set()


def encode(result: Any) -> bytes:
    """Return a result as JSON; raises DedupeError for what JSON cannot say."""
    try:
        text = json.dumps(result, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as exc:
        raise DedupeError(
            f"The result of a deduplicated job must be what JSON can say: {exc}. Return strings, "
            "numbers, booleans, None, and lists and dicts of them."
        ) from exc
    return text.encode(errors="surrogatepass")


def decode(data: bytes) -> Any:
    """Return what :func:`encode` was given, as JSON gives it back."""
    return json.loads(data.decode(errors="surrogatepass"))


def state_of(item: RawItem) -> str:
    """Return the state of a job, ``""`` for none."""
    return str(item.get("s", {}).get("S", ""))


def time_left(item: RawItem) -> float:
    """Return for how many seconds the state of a job counts, 0 or less for no longer."""
    return (int(item.get("u", {}).get("N", "0")) - clock.now_ms()) / 1000


def error_of(item: RawItem) -> DedupeFailedError:
    """Return the error of a failed job."""
    return DedupeFailedError(*json.loads(item["e"]["S"]))
