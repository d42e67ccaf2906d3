"""
One shard that this worker reads: one step at a time, so that a worker can read many.

A step is short, but for the handler. It ends with a wait, during which other shards are read.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from .. import clock, signals
from ..exceptions import StoreUnavailable
from ..leases import Lease
from .checkpoints import Checkpoints, Start
from .client import (
    MAX_RECORDS,
    ExpiredIteratorError,
    ShardMissingError,
    StreamsClient,
    TrimmedError,
)
from .failures import failed_item, kept
from .handlers import Handler, HandlerFailedError, HandlerResultError, cause_of, failed_position
from .pending import Outcome, Pending
from .records import StreamRecord
from .shards import RETENTION, ShardId

logger = logging.getLogger(__name__)

# Seconds between two requests for records of a shard, which DynamoDB allows five times a second;
# while there are none, the wait grows to the second number.
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.2, 1.0
# The waits after errors: of the streams API and the control table, and of the handler.
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
# Seconds by which the approximate time of a record may be early.
_MARGIN = 60.0


@dataclass(frozen=True)
class Options:
    """
    How records are handled: ``tries`` of a record before it is set aside, with waits that grow from
    ``first_wait`` to ``longest_wait`` seconds, or stay the same if ``first_wait`` is longer. With
    ``stops_on_error`` the worker stops instead; with ``keeps_images`` the record's images are set
    aside, too.
    """

    tries: int = 5
    first_wait: float = 1.0
    longest_wait: float = 60.0
    stops_on_error: bool = False
    keeps_images: bool = False


class _Save(NamedTuple):
    """What is to be saved before more records are handled."""

    position: str
    failed: StreamRecord | None = None
    error: Exception | None = None


class ShardReader:
    """
    Reads a shard whose lease this worker has. ``due_at`` is when :meth:`step` is to be called, in
    monotonic seconds; ``is_finished`` is whether the shard was read to its end and released;
    ``opened`` is when it was last seen open, in seconds since the epoch. ``leased_until`` is
    monotonic; ``limit`` returns how many records may be read.

    Methods raise LeaseLostError if another worker has taken the shard; nothing was written then.
    """

    def __init__(
        self,
        shard: ShardId,
        arn: str,
        lease: Lease,
        start: Start,
        client: StreamsClient,
        checkpoints: Checkpoints,
        handler: Handler,
        options: Options,
        *,
        leased_until: float,
        limit: Callable[[], int] = lambda: MAX_RECORDS,
    ) -> None:
        self.shard = shard
        self.lease = lease
        self.due_at = clock.monotonic()
        self.is_finished = False
        self.opened = start.opened
        self._arn = arn
        self._client = client
        self._checkpoints = checkpoints
        self._handler = handler
        self._options = options
        self._pending = Pending(options.tries)
        self._position = start.position
        self._iterator = start.iterator
        self._since = start.since - _MARGIN
        self._registered = start.registered
        self._limit = limit
        self._is_at_end = False
        self._unsaved: _Save | None = None
        self._leased_until = leased_until
        self._pause = _SHORTEST_PAUSE
        self._read_at = clock.monotonic()
        self._error_wait = _FIRST_WAIT
        self._handler_wait = options.first_wait

    @property
    def pending(self) -> int:
        """How many records wait for the handler."""
        return len(self._pending)

    @property
    def is_busy(self) -> bool:
        """Whether there is something to handle or to save at once."""
        return self.due_at <= clock.monotonic() and bool(self._pending or self._unsaved)

    def step(self) -> None:
        """Save what was handled, or hand records to the handler, or read records, or finish."""
        try:
            if clock.monotonic() >= self._leased_until:
                self.extend()
            if self._unsaved is not None:
                self._save()
            elif self._pending:
                self._handle()
            elif self._is_at_end:
                self._checkpoints.finish(self.shard, self.lease, self._position)
                self.is_finished = True
            elif clock.monotonic() < self._read_at:
                self.due_at = self._read_at
            else:
                self._read()
        except StoreUnavailable as exc:
            self._wait_after(exc)
        else:
            self._error_wait = _FIRST_WAIT

    def extend(self) -> None:
        """Let the lease end later."""
        began_at = clock.monotonic()
        self._checkpoints.extend(self.shard, self.lease, self.opened)
        self._leased_until = began_at + self._checkpoints.seconds

    def stop(self) -> None:
        """Save what was handled and release the shard."""
        if self.is_finished:
            return
        if self._unsaved is not None:
            self._save()
        self._checkpoints.release(self.shard, self.lease)

    def _read(self) -> None:
        iterator = self._iterator or self._new_iterator()
        if iterator is None:
            return
        try:
            page = self._client.records(self._arn, iterator, self._limit())
        except ExpiredIteratorError:
            self._iterator = None
            return
        except TrimmedError:
            self._restart_after_trimming()
            return
        except ShardMissingError:
            self._end_of_missing()
            return
        self._iterator, self._is_at_end = page.iterator, page.iterator is None
        records = [each for each in page.records if each.created_at >= self._since]
        self._pending.add(records)
        if page.records and not records:
            # They are from before the consumer began.
            self._unsaved = _Save(page.records[-1].sequence_number)
        longer = min(self._pause * 1.5, _LONGEST_PAUSE)
        self._pause = _SHORTEST_PAUSE if page.records else longer
        self._read_at = clock.monotonic() + self._pause

    def _new_iterator(self) -> str | None:
        is_late = self._checkpoints.now() - self._registered > RETENTION
        if self._position is None and is_late:
            # The oldest record that there is says nothing about those before it.
            self._tell_trimmed()
        try:
            return self._client.iterator(self._arn, self.shard.name, after=self._position)
        except TrimmedError:
            self._restart_after_trimming()
        except ShardMissingError:
            self._end_of_missing()
        return None

    def _restart_after_trimming(self) -> None:
        self._tell_trimmed()
        self._position = self._iterator = None
        self._read_at = clock.monotonic() + _SHORTEST_PAUSE

    def _end_of_missing(self) -> None:
        if self._checkpoints.now() - self.opened < RETENTION:
            raise self._client.hidden(f"Shard {self.shard.name} of the stream")
        self._tell_trimmed()
        self._is_at_end = True

    def _tell_trimmed(self) -> None:
        self._registered = self._checkpoints.now()
        logger.warning(
            "Records of the stream of %s may have been trimmed before they were read: shard %s. "
            "Reading goes on at the oldest record that there is.",
            self._checkpoints.table, self.shard.name,
            extra={"dynamodb_table": self._checkpoints.table},
        )  # fmt: skip
        signals.stream_trimmed.send_robust(ShardReader, **self._names())

    def _handle(self) -> None:
        pending = self._pending
        batch = pending.batch()
        try:
            self._handler(batch)
        except HandlerResultError:
            # A mistake in the code is no fault of the records.
            raise
        except Exception as exc:  # noqa: BLE001 - a handler may raise anything
            cause = cause_of(exc)
            # A store that does not answer is no fault of a record.
            counts = not isinstance(cause, StoreUnavailable)
            handled = failed_position(exc, batch)
            outcome = pending.failed(handled, counts=counts)
            if handled and pending.position is not None:
                self._unsaved = _Save(pending.position)
                self._handler_wait = self._options.first_wait
            self._after_error(cause, outcome)
        else:
            pending.succeeded()
            self._handler_wait = self._options.first_wait
            if pending.position is not None:
                self._unsaved = _Save(pending.position)

    def _after_error(self, exc: BaseException, outcome: Outcome) -> None:
        name = type(exc).__name__
        # Its message may quote keys and values.
        logger.debug("The handler of %s raised.", self._checkpoints.table, exc_info=exc)
        if outcome is Outcome.WAIT:
            wait = random.uniform(self._handler_wait / 2, self._handler_wait)
            options = self._options
            longest = max(options.first_wait, options.longest_wait)
            self._handler_wait = min(self._handler_wait * 2, longest)
            self._wait(wait)
            logger.warning(
                "The handler of the stream of %s failed on %d records of shard %s (%s); the next "
                "try is in %.1f s. Its traceback: logger %s, level DEBUG.",
                self._checkpoints.table, len(self._pending.batch()), self.shard.name, name, wait,
                __name__,
            )  # fmt: skip
        elif outcome is Outcome.HALVE:
            self._handler_wait = self._options.first_wait
        elif outcome is Outcome.GIVE_UP:
            self._handler_wait = self._options.first_wait
            if self._options.stops_on_error:
                record = self._pending.batch()[0]
                raise HandlerFailedError(
                    f"The handler failed {self._options.tries} times on the record "
                    f"{record.sequence_number} of shard {self.shard.name} ({name}). Everything "
                    "before it is handled; correct the handler and start again."
                ) from exc
            failed = self._pending.set_aside()
            error = exc if isinstance(exc, Exception) else RuntimeError(name)
            self._unsaved = _Save(failed.sequence_number, failed, error)

    def _save(self) -> None:
        save = self._unsaved
        if save is None:
            return
        began_at = clock.monotonic()
        if save.failed is None:
            self._checkpoints.save(self.shard, self.lease, save.position)
        else:
            self._save_failed(save.position, save.failed, save.error or RuntimeError())
        self._leased_until = began_at + self._checkpoints.seconds
        self._position, self._unsaved = save.position, None

    def _save_failed(self, position: str, failed: StreamRecord, error: Exception) -> None:
        checkpoints = self._checkpoints
        keeps = self._options.keeps_images
        stored = kept(failed, keeps_images=keeps)
        key = checkpoints.failed_key(self.shard, failed.sequence_number)
        item = failed_item(key, stored, error)
        checkpoints.save_failed(self.shard, self.lease, position, item)
        reason = "they are too large" if keeps else "--keep-images is not set"
        logger.error(
            "A record of the stream of %s was set aside after %d tries (%s): %s of shard %s.%s "
            "Its traceback: logger %s, level DEBUG.",
            checkpoints.table, self._options.tries, type(error).__name__,
            failed.sequence_number, self.shard.name,
            "" if stored is failed else f" Its images are not kept: {reason}.",
            __name__,
            extra={"dynamodb_table": checkpoints.table},
        )  # fmt: skip
        signals.stream_record_failed.send_robust(
            ShardReader, record=failed, error=error, **self._names()
        )

    def _wait_after(self, exc: StoreUnavailable) -> None:
        wait = random.uniform(self._error_wait / 2, self._error_wait)
        logger.log(
            logging.WARNING if self._error_wait > _FIRST_WAIT else logging.INFO,
            "Shard %s of %s waits %.1f s: %s", self.shard.name, self._checkpoints.table, wait, exc,
        )  # fmt: skip
        self._error_wait = min(self._error_wait * 2, _LONGEST_WAIT)
        self._wait(wait)

    def _wait(self, seconds: float) -> None:
        self.due_at = clock.monotonic() + seconds

    def _names(self) -> dict[str, str]:
        checkpoints = self._checkpoints
        return {
            "using": checkpoints.using,
            "table": checkpoints.table,
            "consumer": checkpoints.consumer,
            "shard": self.shard.name,
        }
