"""A worker: takes its share of a stream's shards, reads them in turns, and gives them back."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

from .. import clock
from ..calls.policy import deadline
from ..exceptions import CALL_ERRORS, StoreUnavailable
from ..leases import Renewal
from .checkpoints import Checkpoints, LeaseLostError, Start
from .client import MAX_RECORDS, ShardMissingError, StreamsClient
from .handlers import Handler, plain
from .reader import Options, ShardReader
from .records import label_of_arn
from .shards import Shard, ShardId, fair_share, hidden, readable

logger = logging.getLogger(__name__)

# Seconds between two looks at the shards and the workers, as a part of a lease.
_LOOK = 1 / 3
# DynamoDB describes ten streams a second for a whole account.
_SHORTEST_LOOK = 1.0
_LONGEST_WAIT = 30.0
# Seconds for which the end of a worker waits for a renewal in progress.
_LAST_RENEWAL = 5.0
# Seconds for all requests by which the end of a worker saves positions and releases shards.
_LAST_REQUESTS = 10.0
# With more records than these that wait for their handler, in all shards, a request reads few.
_MOST_PENDING, _FEW_RECORDS = 5_000, 10
# Seconds between two looks when one shard after the other ends.
_BETWEEN_LOOKS = 0.25

# Called with a sentence about what a worker does.
Progress = Callable[[str], object]


class StreamWorker:
    """
    Hands the records of a table's stream to ``handler``, together with other workers of the same
    consumer. A consumer that begins starts at the oldest records, or with ``from_latest`` at those
    that are written from then on.

    :meth:`run` does so until :meth:`stop` is called.
    """

    def __init__(
        self,
        client: StreamsClient,
        checkpoints: Checkpoints,
        handler: Handler,
        options: Options | None = None,
        *,
        from_latest: bool = False,
        progress: Progress = lambda line: None,
    ) -> None:
        self._client = client
        self._checkpoints = checkpoints
        self._handler = plain(handler)
        self._options = options or Options()
        self._from_latest = from_latest
        self._progress = progress
        self._readers: dict[ShardId, ShardReader] = {}
        # Those whose leases the renewal found to be lost.
        self._lost: list[ShardReader] = []
        self._is_reported = False
        self._lock = threading.Lock()
        self._look_at = self._looked_at = clock.monotonic()
        self._look_wait = _SHORTEST_LOOK
        self._is_stopping = False
        # Of an Event, set() in a signal handler may wait for a wait() that it has interrupted.
        self._stopped: SimpleQueue[None] = SimpleQueue()

    def run(self) -> None:
        """
        Read until :meth:`stop` is called; then release the shards. Raises ConfigurationError for a
        table without stream, and HandlerFailedError.
        """
        renewal = Renewal(self._renew, self._checkpoints.seconds, "shard of a stream")
        try:
            # Errors of the first look are the caller's.
            self._look()
            renewal.start()
            while not self._is_stopping:
                wait = self.turn()
                if wait > 0 and not self._is_stopping:
                    with contextlib.suppress(Empty):
                        self._stopped.get(timeout=wait)
        finally:
            renewal.stop()
            if renewal.is_alive():
                # It would say that this worker is still there.
                renewal.join(_LAST_RENEWAL)
            self.release()

    def stop(self) -> None:
        """Stop after the present batch. May be called by a signal handler."""
        self._is_stopping = True
        self._stopped.put(None)

    def turn(self) -> float:
        """Do what is due; return the seconds until something is due again."""
        for reader in self._take_lost():
            self._drop(reader)
        if clock.monotonic() >= self._look_at:
            self._look_again()
        for reader in list(self._readers.values()):
            if self._is_stopping:
                return 0.0
            if reader.due_at <= clock.monotonic():
                self._work(reader)
        due = min([self._look_at, *(reader.due_at for reader in self._readers.values())])
        return max(0.0, due - clock.monotonic())

    def release(self) -> None:
        """Save what was handled, release all shards, and leave the other workers."""
        with self._lock:
            readers = list(self._readers.values())
            self._readers.clear()
        errors: list[Exception] = []
        with deadline(_LAST_REQUESTS):
            for reader in readers:
                with contextlib.suppress(LeaseLostError):
                    try:
                        reader.stop()
                    except CALL_ERRORS as exc:
                        errors.append(exc)
            try:
                if self._is_reported:
                    self._checkpoints.leave()
            except CALL_ERRORS as exc:
                logger.warning("This worker's item was not deleted; it ends by itself: %s", exc)
        if errors:
            logger.warning(
                "%d shards of %s were not released; their leases end in %.0f s at most, and what "
                "was handled and not saved is handled again: %s",
                len(errors), self._client.table, self._checkpoints.seconds, errors[0],
            )  # fmt: skip

    def _work(self, reader: ShardReader) -> None:
        """Read, handle and save, so that few records wait and soon are saved."""
        for _ in range(3):
            self._step(reader)
            if self._is_stopping or not (self._is_read(reader) and reader.is_busy):
                return

    def _is_read(self, reader: ShardReader) -> bool:
        return self._readers.get(reader.shard) is reader

    def _limit(self) -> int:
        with self._lock:
            pending = sum(reader.pending for reader in self._readers.values())
        return min(MAX_RECORDS, max(_FEW_RECORDS, _MOST_PENDING - pending))

    def _step(self, reader: ShardReader) -> None:
        try:
            reader.step()
        except LeaseLostError:
            self._drop(reader)
        if reader.is_finished:
            with self._lock:
                self._readers.pop(reader.shard, None)
            # Its children may be read now.
            self._look_at = max(clock.monotonic(), self._looked_at + _BETWEEN_LOOKS)

    def _look_again(self) -> None:
        try:
            self._look()
        except StoreUnavailable as exc:
            wait = random.uniform(self._look_wait / 2, self._look_wait)
            self._look_wait = min(self._look_wait * 2, _LONGEST_WAIT)
            self._look_at = clock.monotonic() + wait
            logger.warning(
                "The shards of %s could not be listed; the next try is in %.1f s: %s",
                self._client.table, wait, exc,
            )  # fmt: skip
        else:
            self._look_wait = _SHORTEST_LOOK

    def _look(self) -> None:
        """List the shards, and take or give back some, so that this worker has its share."""
        self._looked_at = clock.monotonic()
        now = self._checkpoints.now()
        arns = {label_of_arn(arn): arn for arn in self._client.streams()}
        listed = [shard for arn in arns.values() for shard in self._shards(arn)]
        checkpoints = self._checkpoints
        state = checkpoints.read()
        if not state.is_begun:
            self._begin(listed, arns)
            state = checkpoints.read()
        for label in hidden(arns, state.shards, now):
            raise self._client.hidden(f"The stream {label}")
        checkpoints.register(
            [shard for shard in listed if shard.id not in state.shards], state.seen
        )
        self._note_open(listed, now)
        self._is_reported = True
        checkpoints.report()
        found = readable(listed, state.shards)
        parents = {shard.id: shard.parent for shard in listed}
        share = fair_share(len(found), state.workers, checkpoints.worker)
        self._give_back(len(self._readers) - share)
        for shard in found:
            if len(self._readers) >= share or self._is_stopping:
                break
            known = state.shards.get(shard)
            if shard not in self._readers and not (known and known.owner):
                self._take(
                    shard,
                    parents.get(shard),
                    # The ARN of a stream that is not listed any more differs in its end only.
                    arns.get(shard.label) or _sibling(next(iter(arns.values())), shard.label),
                )
        pause = max(_SHORTEST_LOOK, checkpoints.seconds * _LOOK)
        self._look_at = clock.monotonic() + random.uniform(0.8, 1.0) * pause

    def _note_open(self, listed: list[Shard], now: float) -> None:
        for shard in listed:
            if not shard.is_closed and shard.id in self._readers:
                self._readers[shard.id].opened = now

    def _shards(self, arn: str) -> list[Shard]:
        try:
            return self._client.shards(arn)
        except ShardMissingError:
            # A disabled stream whose last records were trimmed just now.
            return []

    def _begin(self, listed: list[Shard], arns: dict[str, str]) -> None:
        newest = max(arns)
        starts: list[tuple[Shard, Start | None]] = []
        if self._from_latest:
            for shard in listed:
                is_read = shard.id.label == newest and not shard.is_closed
                iterator = self._client.latest(arns[newest], shard.id.name) if is_read else None
                starts.append((shard, Start(iterator=iterator) if is_read else None))
            # What is written from now on is behind the iterators.
            now = float(int(self._checkpoints.now()))
            starts = [
                (shard, start and Start(iterator=start.iterator, since=now))
                for shard, start in starts
            ]
        else:
            starts = [(shard, Start()) for shard in listed]
        self._checkpoints.begin(starts)
        self._progress(f"The consumer {self._checkpoints.consumer!r} has begun.")

    def _take(self, shard: ShardId, parent: ShardId | None, arn: str) -> None:
        began_at = clock.monotonic()
        taken = self._checkpoints.take(shard, parent)
        if taken is None:
            return
        lease, start = taken
        reader = ShardReader(
            shard, arn, lease, start,
            self._client, self._checkpoints, self._handler, self._options,
            leased_until=began_at + self._checkpoints.seconds, limit=self._limit,
        )  # fmt: skip
        with self._lock:
            self._readers[shard] = reader
        self._progress(f"Reads shard {shard.name}.")

    def _give_back(self, count: int) -> None:
        for _ in range(count):
            with self._lock:
                _, reader = self._readers.popitem()
            self._release(reader)
            self._progress(f"Leaves shard {reader.shard.name} to another worker.")

    def _release(self, reader: ShardReader) -> None:
        try:
            reader.stop()
        except LeaseLostError:
            pass
        except CALL_ERRORS as exc:
            logger.warning(
                "Shard %s of %s was not released; its lease ends in %.0f s at most: %s",
                reader.shard.name, self._client.table, self._checkpoints.seconds, exc,
            )  # fmt: skip

    def _drop(self, reader: ShardReader) -> None:
        with self._lock:
            is_read = self._is_read(reader)
            if is_read:
                del self._readers[reader.shard]
        if is_read:
            logger.warning(
                "Another worker has taken shard %s of %s; what this one had not saved is handled "
                "again.",
                reader.shard.name, self._client.table,
            )  # fmt: skip

    def _take_lost(self) -> list[ShardReader]:
        with self._lock:
            lost, self._lost = self._lost, []
        return lost

    def _renew(self) -> bool:
        """Extend all leases; called by a thread, because a handler may take longer than a lease."""
        with self._lock:
            readers = list(self._readers.values())
        errors = []
        try:
            self._checkpoints.report()
        except CALL_ERRORS as exc:
            errors.append(exc)
        for reader in readers:
            try:
                reader.extend()
            except LeaseLostError:
                with self._lock:
                    self._lost.append(reader)
            except CALL_ERRORS as exc:
                errors.append(exc)
        if errors:
            raise errors[0]
        return True


def _sibling(arn: str, label: str) -> str:
    return f"{arn.partition('/stream/')[0]}/stream/{label}"
