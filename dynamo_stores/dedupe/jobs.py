"""Jobs with an owner, a lease and a fence, and their results."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from .. import clock, keys
from ..concurrency.threads import in_thread
from ..conf import get_config
from ..conf.groups import DedupeConfig
from ..exceptions import CircuitBreakerOpenError, DedupeError
from ..expressions import Change, equals, put, remove
from ..item_access import ConditionFailed, Store
from ..leases import LATE, Lease, Renewal, end_after, new_owner, release_later
from ..models import RawItem, ttl_of
from ..serialization import dump_json
from .items import (
    COMPLETED,
    FAILED,
    LEASE,
    RUNNING,
    DedupeJob,
    ResultPart,
    data_of,
    describe_error,
    fence_of,
    part_count_of,
    result_of,
    seconds_left,
    state_of,
)

# A result in the job itself costs each failed claim one write unit per KB.
_INLINE_BYTES = 4 * 1024
_PART_BYTES = 380 * 1024
# An outcome that could not be stored is tried again with waits up to the second, in seconds, for as
# long as the third.
_FIRST_WAIT, _LONGEST_WAIT, _TRIES = 0.5, 10.0, 300.0

_BEGIN = put(DedupeJob.state, RUNNING) + remove(DedupeJob.result, DedupeJob.parts, DedupeJob.error)
_IS_RUNNING = equals(DedupeJob.state, RUNNING)

logger = logging.getLogger(__name__)


class Claim(NamedTuple):
    """The ``fence`` of a claimed job; or None, and the ``item`` of the job as it is."""

    fence: int | None
    item: RawItem | None


class JobStore(Store[DedupeJob]):
    """Claims, renews, completes, fails and reads jobs."""

    kind = DedupeJob

    def register(self, key: str, *, payload: str | None = None) -> int | None:
        """
        Take the job and return its fence; None if it is in progress or has an outcome.

        One conditional write. A job whose owner's lease ended is taken over.
        """
        return self.claim(key, payload).fence

    def complete(self, key: str, result: Any, *, fence: int, ttl: float | None = None) -> bool:
        """Store the result for ``ttl`` seconds; False if another fence has the job."""
        return self.complete_encoded(key, encode(result), fence, ttl)

    def fail(self, key: str, error: BaseException, *, fence: int, ttl: float | None = None) -> bool:
        """
        Store the error for ``ttl`` seconds (0: the next caller runs the job again). Return False if
        another fence has the job.
        """
        seconds = self.settings.failure_ttl if ttl is None else ttl
        # An error that no caller can read any more is not stored.
        text = describe_error(error) if seconds else None
        return self._change_own(key, fence, self._failure(key, seconds, text), FAILED)

    def extend(self, key: str, fence: int) -> bool:
        """Renew the lease; False if another fence has the job."""
        end = end_after(self._learned_times(keys.dedupe_job(key)), self.settings.lease)
        change = put(DedupeJob.until, end) + self._ttl_of_lease(end)
        return self._change_own(key, fence, change, RUNNING)

    def is_in_progress(self, key: str) -> bool:
        """Return whether the job is in progress now, read strongly."""
        item = self.get_job(key)
        return item is not None and state_of(item) == RUNNING and self.seconds_left(item) > 0

    def seconds_left(self, item: RawItem) -> float:
        """Return for how many seconds the state of a job may be valid, by DynamoDB's time."""
        return seconds_left(item, self._server_clock.times())

    async def aregister(self, key: str, *, payload: str | None = None) -> int | None:
        """See :meth:`register`. A task that is cancelled meanwhile does not keep the job."""
        owner = new_owner()
        try:
            claim = await in_thread(self.using, self.claim, key, payload, owner=owner)
        except asyncio.CancelledError:
            self.free_later(key, owner)
            raise
        return claim.fence

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

    def claim(self, key: str, payload: str | None = None, *, owner: str | None = None) -> Claim:
        """
        Take the job for ``owner`` if it has neither an owner nor a valid outcome.

        After an error, a job that was taken all the same is freed in the background.
        """
        item_key, mine = keys.dedupe_job(key), owner or new_owner()
        changes = _BEGIN + (
            remove(DedupeJob.payload)
            if payload is None
            else put(DedupeJob.payload, self.payload_hash(payload))
        )
        try:
            with self._in_time():
                taken = LEASE.take(
                    lambda change, condition: self._update(item_key, change, condition),
                    self.settings.lease,
                    lambda end: changes + self._ttl_of_lease(end),
                    owner=mine,
                    times=self._learned_times(item_key),
                )
        except CircuitBreakerOpenError:
            raise
        except BaseException:
            self.free_later(key, mine)
            raise
        return Claim(taken.fence, None) if isinstance(taken, Lease) else Claim(None, taken)

    def free_later(self, key: str, owner: str) -> None:
        """Free the job in the background if ``owner`` has it, or takes it later. Does not wait."""

        def free() -> bool:
            is_owned = equals(DedupeJob.owner, owner) & _IS_RUNNING
            try:
                with self._in_time():
                    self._update(keys.dedupe_job(key), self._failure(key, 0.0, None), is_owned)
            except ConditionFailed:
                return False
            return True

        untaken = get_config(self.using).operation_timeout + LATE
        release_later(self.using, free, self.settings.lease + LATE, untaken=untaken)

    def get_job(self, key: str) -> RawItem | None:
        """Return the job's item, read strongly; None if it does not exist."""
        with self._in_time():
            return self._get(keys.dedupe_job(key), consistent=True)

    def complete_encoded(self, key: str, data: bytes, fence: int, ttl: float | None = None) -> bool:
        """Store a result of :func:`encode`; large ones in parts, which are written first."""
        item_key = keys.dedupe_job(key)
        seconds = self.settings.ttl if ttl is None else ttl
        until = end_after(self._learned_times(item_key), seconds)
        change = put(DedupeJob.state, COMPLETED) + put(DedupeJob.until, until)
        change += put(DedupeJob.ttl, ttl_of(until))
        if len(data) <= _INLINE_BYTES:
            change += put(DedupeJob.result, data)
        else:
            parts = [data[at : at + _PART_BYTES] for at in range(0, len(data), _PART_BYTES)]
            self._put_in_groups(
                [
                    ResultPart.make_raw(
                        keys.dedupe_part(item_key, fence, number), part, ttl_of(until)
                    )
                    for number, part in enumerate(parts)
                ]
            )
            change += put(DedupeJob.parts, len(parts))
        return self._change_own(key, fence, change, COMPLETED)

    def read_result(self, key: str, item: RawItem) -> bytes | None:
        """Return the encoded result of a completed job; None if a part is missing."""
        count, fence = part_count_of(item), fence_of(item)
        if not count:
            return result_of(item)
        item_key = keys.dedupe_job(key)
        wanted = [keys.dedupe_part(item_key, fence, number) for number in range(count)]
        found = {each["SK"]["S"]: data_of(each) for each in self._get_in_groups(wanted)}
        parts = [found.get(each.sk) for each in wanted]
        return None if None in parts else b"".join(part for part in parts if part is not None)

    def renewal(self, key: str, fence: int, *, longest: float = math.inf) -> Renewal:
        """Return a thread that renews the lease until it is stopped, or for ``longest`` seconds."""
        return Renewal(lambda: self.extend(key, fence), self.settings.lease, "job", longest=longest)

    @staticmethod
    def payload_hash(payload: str) -> str:
        """Return the hash that a job stores of its payload."""
        return hashlib.sha256(payload.encode(errors="surrogatepass")).hexdigest()

    @property
    def settings(self) -> DedupeConfig:
        """The present setting ``DEDUPE``."""
        return get_config(self.using).dedupe

    def _ttl_of_lease(self, end: int) -> Change:
        # The item is kept longer than its lease, so that the next fence is larger.
        return put(DedupeJob.ttl, ttl_of(end) + math.ceil(self.settings.ttl))

    def _failure(self, key: str, seconds: float, error: str | None) -> Change:
        end = end_after(self._learned_times(keys.dedupe_job(key)), seconds)
        change = put(DedupeJob.state, FAILED) + put(DedupeJob.until, end if seconds else 0)
        change += put(DedupeJob.ttl, ttl_of(end))
        return change + (remove(DedupeJob.error) if error is None else put(DedupeJob.error, error))

    def _change_own(self, key: str, fence: int, change: Change, state: str) -> bool:
        is_ours = equals(DedupeJob.fence, fence) & _IS_RUNNING
        try:
            with self._in_time():
                self._update(keys.dedupe_job(key), change, is_ours)
        except ConditionFailed as refused:
            old = refused.old or {}
            # The answer to this call's own write was lost, and the write was repeated.
            return state != RUNNING and state_of(old) == state and fence_of(old) == fence
        return True


def finish_later(write: Callable[[], object], renewal: Renewal) -> None:
    """
    Call ``write``, which stores the outcome of a job, in a thread of its own until it succeeds, for
    some minutes at most. The lease is renewed meanwhile.
    """

    def finish() -> None:
        until, wait = clock.monotonic() + _TRIES, _FIRST_WAIT
        pause = threading.Event()
        try:
            while clock.monotonic() < until:
                try:
                    write()
                    break
                except Exception as exc:  # noqa: BLE001 - tried again
                    logger.warning("The outcome of a job was not stored; tried again: %s", exc)
                pause.wait(wait)
                wait = min(wait * 2, _LONGEST_WAIT)
        finally:
            renewal.stop()

    threading.Thread(target=finish, name="dynamo-stores-outcome", daemon=True).start()


def encode(result: Any) -> bytes:
    """Return a result as JSON. Raises DedupeError if it is not JSON serializable."""
    try:
        return dump_json(result)
    except (TypeError, ValueError, RecursionError) as exc:
        raise DedupeError(
            f"The result of a deduplicated job must be JSON serializable: {exc}. Return strings, "
            "numbers, booleans, None, and lists and dicts of them."
        ) from exc
