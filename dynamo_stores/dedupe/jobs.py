"""Jobs with an owner, a lease and a fence, and their results."""

from __future__ import annotations

import hashlib
import logging
import math
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from .. import clock, keys
from ..calls.counters import get_counters
from ..concurrency.effects import Verb, run
from ..conf import DEFAULT_ALIAS, get_config
from ..conf.groups import DedupeConfig
from ..conf.rules import NOT_NEGATIVE, check_seconds
from ..exceptions import CALL_ERRORS, CircuitBreakerOpenError, DedupeError
from ..expressions import Change, Condition, equals, put, remove
from ..item_access import ConditionFailed, Items
from ..keys import ItemKey
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


class Jobs:
    """
    Claims, renews, completes, fails and reads the jobs of one alias.

    Its coroutines are verbs (:mod:`..concurrency.effects`). Durations in seconds.
    """

    def __init__(self, using: str = DEFAULT_ALIAS) -> None:
        self.using = using
        self.items = Items(DedupeJob, using)

    @property
    def settings(self) -> DedupeConfig:
        """The present setting ``DEDUPE``."""
        return get_config(self.using).dedupe

    async def claim(self, key: str, payload: str | None = None) -> Claim:
        """
        Take the job if it has neither an owner nor a valid outcome. A verb.

        One conditional write. After an error, a job that was taken all the same is freed in the
        background.
        """
        item_key, owner, settings = keys.dedupe_job(key), new_owner(), self.settings
        begin = _BEGIN + (
            remove(DedupeJob.payload)
            if payload is None
            else put(DedupeJob.payload, payload_hash(payload))
        )

        def update(change: Change, condition: Condition) -> Verb[RawItem]:
            return self.items.update(item_key, change, condition)

        def changes(end: int) -> Change:
            return begin + _ttl_of_lease(end, settings)

        try:
            with self.items.in_time():
                times = await self.items.learned_times(item_key)
                taken = await LEASE.take(update, settings.lease, changes, owner=owner, times=times)
        except CircuitBreakerOpenError:
            raise
        except BaseException:
            # DynamoDB may carry out the request all the same.
            self._free_later(key, owner)
            raise
        if isinstance(taken, Lease):
            get_counters(self.using).add("jobs", "begun")
            return Claim(taken.fence, None)
        return Claim(None, taken)

    async def extend(self, key: str, fence: int) -> bool:
        """Renew the lease; False if another fence has the job. A verb."""
        item_key, settings = keys.dedupe_job(key), self.settings
        end = end_after(await self.items.learned_times(item_key), settings.lease)
        change = put(DedupeJob.until, end) + _ttl_of_lease(end, settings)
        return await self._change_own(item_key, fence, change, RUNNING)

    async def complete_encoded(
        self, key: str, data: bytes, fence: int, ttl: float | None = None
    ) -> bool:
        """
        Store a result of :func:`encode` for ``ttl`` seconds; large ones in parts, which are written
        first. Return False if another fence has the job. A verb.
        """
        check_ttls(ttl)
        item_key = keys.dedupe_job(key)
        seconds = self.settings.ttl if ttl is None else ttl
        until = end_after(await self.items.learned_times(item_key), seconds)
        change = put(DedupeJob.state, COMPLETED) + put(DedupeJob.until, until)
        change += put(DedupeJob.ttl, ttl_of(until))
        if len(data) <= _INLINE_BYTES:
            change += put(DedupeJob.result, data)
        else:
            parts = [data[at : at + _PART_BYTES] for at in range(0, len(data), _PART_BYTES)]
            await self.items.put_large(
                [
                    ResultPart.make_raw(
                        keys.dedupe_part(item_key, fence, number), part, ttl_of(until)
                    )
                    for number, part in enumerate(parts)
                ]
            )
            change += put(DedupeJob.parts, len(parts))
        return await self._change_own(item_key, fence, change, COMPLETED)

    async def fail(
        self, key: str, error: BaseException, *, fence: int, ttl: float | None = None
    ) -> bool:
        """
        Store the error for ``ttl`` seconds (0: the next caller runs the job again). Return False if
        another fence has the job. A verb.
        """
        if ttl is not None:
            check_seconds("ttl", ttl, NOT_NEGATIVE)
        item_key = keys.dedupe_job(key)
        seconds = self.settings.failure_ttl if ttl is None else ttl
        # An error that no caller can read any more is not stored.
        text = describe_error(error) if seconds else None
        change = await self._failure(item_key, seconds, text)
        return await self._change_own(item_key, fence, change, FAILED)

    async def release(self, item_key: ItemKey, fence: int) -> bool:
        """
        Let the next caller run a job that is in progress or failed; False if another fence has it,
        or it is completed. A verb.
        """
        can_be = equals(DedupeJob.fence, fence) & (
            _IS_RUNNING | equals(DedupeJob.state, FAILED, "failed")
        )
        change = await self._failure(item_key, 0.0, None)
        try:
            await self.items.update(item_key, change, can_be)
        except ConditionFailed:
            return False
        return True

    async def get_job(self, key: str) -> RawItem | None:
        """Return the job's item, read strongly; None if it does not exist. A verb."""
        return await self.items.get(keys.dedupe_job(key), consistent=True)

    async def is_in_progress(self, key: str) -> bool:
        """Return whether the job is in progress now, read strongly. A verb."""
        item = await self.get_job(key)
        return item is not None and state_of(item) == RUNNING and self.seconds_left(item) > 0

    async def read_result(self, key: str, item: RawItem) -> bytes | None:
        """Return the encoded result of a completed job; None if a part is missing. A verb."""
        count, fence = part_count_of(item), fence_of(item)
        if not count:
            return result_of(item)
        item_key = keys.dedupe_job(key)
        wanted = [keys.dedupe_part(item_key, fence, number) for number in range(count)]
        found = {each["SK"]["S"]: data_of(each) for each in await self.items.get_large(wanted)}
        parts = [found.get(each.sk) for each in wanted]
        return None if None in parts else b"".join(part for part in parts if part is not None)

    def seconds_left(self, item: RawItem) -> float:
        """Return for how many seconds the state of a job may be valid, by DynamoDB's time."""
        return seconds_left(item, self.items.server_clock.times())

    def renewal(self, key: str, fence: int, *, longest: float = math.inf) -> Renewal:
        """Return a thread that renews the lease until it is stopped, or for ``longest`` seconds."""
        return Renewal(
            lambda: run(self.extend(key, fence)), self.settings.lease, "job", longest=longest
        )

    def _free_later(self, key: str, owner: str) -> None:
        """Free the job in the background if ``owner`` has it, or takes it later. Does not wait."""
        config = get_config(self.using)
        untaken = config.operation_timeout + LATE
        release_later(
            self.using,
            lambda: run(self._free(key, owner)),
            config.dedupe.lease + LATE,
            untaken=untaken,
        )

    async def _free(self, key: str, owner: str) -> bool:
        item_key = keys.dedupe_job(key)
        is_owned = equals(DedupeJob.owner, owner) & _IS_RUNNING
        try:
            with self.items.in_time():
                change = await self._failure(item_key, 0.0, None)
                await self.items.update(item_key, change, is_owned)
        except ConditionFailed:
            return False
        return True

    async def _failure(self, item_key: ItemKey, seconds: float, error: str | None) -> Change:
        end = end_after(await self.items.learned_times(item_key), seconds)
        change = put(DedupeJob.state, FAILED) + put(DedupeJob.until, end if seconds else 0)
        change += put(DedupeJob.ttl, ttl_of(end))
        return change + (remove(DedupeJob.error) if error is None else put(DedupeJob.error, error))

    async def _change_own(self, item_key: ItemKey, fence: int, change: Change, state: str) -> bool:
        is_ours = equals(DedupeJob.fence, fence) & _IS_RUNNING
        try:
            await self.items.update(item_key, change, is_ours)
        except ConditionFailed as refused:
            old = refused.old or {}
            # The answer to this call's own write was lost, and the write was repeated.
            if state == RUNNING or state_of(old) != state or fence_of(old) != fence:
                return False
        if state != RUNNING:
            get_counters(self.using).add("jobs", "failed" if state == FAILED else "completed")
        return True


def _ttl_of_lease(end: int, settings: DedupeConfig) -> Change:
    # The item is kept longer than its lease, so that the next fence is larger.
    return put(DedupeJob.ttl, ttl_of(end) + math.ceil(settings.ttl))


def check_ttls(ttl: float | None, failure_ttl: float | None = None) -> None:
    """Raise ConfigurationError for seconds that ``DEDUPE`` would not accept, either."""
    if ttl is not None:
        check_seconds("ttl", ttl)
    if failure_ttl is not None:
        check_seconds("failure_ttl", failure_ttl, NOT_NEGATIVE)


def payload_hash(payload: str) -> str:
    """Return the hash that a job stores of its payload."""
    return hashlib.sha256(payload.encode(errors="surrogatepass")).hexdigest()


def finish_later(write: Callable[[], Verb[object]], renewal: Renewal) -> None:
    """
    Run the verb ``write``, which stores the outcome of a job, in a thread of its own until it
    succeeds, for some minutes at most. The lease is renewed meanwhile. An error that neither
    DynamoDB nor the system has raised is logged, and not tried again.
    """

    def finish() -> None:
        until, wait = clock.monotonic() + _TRIES, _FIRST_WAIT
        pause = threading.Event()
        try:
            while clock.monotonic() < until:
                try:
                    run(write())
                    break
                except (*CALL_ERRORS, OSError, RuntimeError) as exc:
                    logger.warning("The outcome of a job was not stored; tried again: %s", exc)
                except Exception:
                    logger.exception(
                        "The outcome of a job was not stored, and is not tried again. The next "
                        "caller runs the job when its lease ends."
                    )
                    break
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
