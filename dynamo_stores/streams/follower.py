"""A thread that hands every new record to a handler in this process, without saving positions."""

from __future__ import annotations

import functools
import logging
import random
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import NamedTuple, Self, TypeVar

from .. import clock
from ..conf import DEFAULT_ALIAS, get_config
from ..exceptions import CALL_ERRORS
from .client import ExpiredIteratorError, ShardMissingError, StreamsClient, TrimmedError
from .handlers import Handler, HandlerResultError, cause_of, plain
from .records import label_of_arn
from .shards import Known, ShardId, readable

logger = logging.getLogger(__name__)

# Seconds between two requests for records of a shard: one reader of two, and nearly live.
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.25, 1.0
# Seconds between two looks for new shards, and the longest wait after errors.
_LOOK, _LONGEST_WAIT = 10.0, 30.0
_FIRST_WAIT = 0.5

T = TypeVar("T")


class _Wait(NamedTuple):
    """A wait after an error, until a monotonic time; the next one is twice ``seconds``."""

    until: float
    seconds: float


class StreamFollower(threading.Thread):
    """
    A thread that hands the records of a table's stream to ``handler`` from its start on, all shards
    in this one process: for what this process keeps in memory.

    It saves nothing, and what its handler raises is logged and not tried again. DynamoDB allows two
    readers for each shard, so at most two processes may follow a stream, workers included. It is a
    daemon thread; start it after the server has forked.
    """

    def __init__(
        self,
        table: str,
        handler: Handler,
        using: str = DEFAULT_ALIAS,
        *,
        stream_endpoint: str | None = None,
    ) -> None:
        name = get_config(using).name_in_dynamodb(table)
        super().__init__(name=f"dynamo-stores-follower-{name}", daemon=True)
        self._client = StreamsClient(name, using, stream_endpoint)
        self._handler = plain(handler)
        self._stopped: SimpleQueue[None] = SimpleQueue()
        self._is_stopping = False
        self._known: dict[ShardId, Known] = {}
        # The next iterator of each shard that is read, None for its oldest record.
        self._iterators: dict[ShardId, str | None] = {}
        # Shards of the beginning that have no iterator yet; their old records are left out.
        self._from_latest: set[ShardId] = set()
        # The shards that wait after an error; None stands for the look at the shards.
        self._waits: dict[ShardId | None, _Wait] = {}
        self._arns: dict[str, str] = {}
        self._look_at = clock.monotonic()
        self._has_begun = False
        self._pause = _SHORTEST_PAUSE

    @classmethod
    def of_store(
        cls,
        handler: Handler,
        using: str = DEFAULT_ALIAS,
        *,
        stream_endpoint: str | None = None,
    ) -> Self:
        """Return a follower of the table of the stores, which has the cache, of an alias."""
        table = get_config(using).store_table
        return cls(table, handler, using, stream_endpoint=stream_endpoint)

    def stop(self) -> None:
        """Stop after the present batch."""
        self._is_stopping = True
        self._stopped.put(None)

    def run(self) -> None:
        while not self._is_stopping:
            wait = self.turn()
            try:
                self._stopped.get(timeout=wait)
            except Empty:
                continue
        self._client.close()

    def turn(self) -> float:
        """
        Read each shard once, but for those that wait after an error; return the seconds until the
        next turn.
        """
        if clock.monotonic() >= self._look_at:
            self._attempt(None, self._look)
        count = 0
        for shard in list(self._iterators):
            if self._is_stopping:
                break
            count += self._attempt(shard, functools.partial(self._read, shard)) or 0
        self._pause = _SHORTEST_PAUSE if count else min(self._pause * 1.5, _LONGEST_PAUSE)
        return self._pause

    def _attempt(self, shard: ShardId | None, work: Callable[[], T]) -> T | None:
        """Return the result, None after an error: then only this work waits."""
        now = clock.monotonic()
        before = self._waits.get(shard)
        if before is not None and now < before.until:
            return None
        try:
            result = work()
        except CALL_ERRORS as exc:
            seconds = _FIRST_WAIT if before is None else min(before.seconds * 2, _LONGEST_WAIT)
            wait = random.uniform(seconds / 2, seconds)
            self._waits[shard] = _Wait(now + wait, seconds)
            logger.warning(
                "%s of %s is not followed for %.1f s: %s",
                "The stream" if shard is None else f"Shard {shard.name}",
                self._client.table, wait, exc,
            )  # fmt: skip
            return None
        self._waits.pop(shard, None)
        return result

    def _look(self) -> None:
        self._arns = {label_of_arn(arn): arn for arn in self._client.streams()}
        newest = max(self._arns)
        listed = self._client.shards(self._arns[newest])
        if not self._has_begun:
            for shard in listed:
                if shard.is_closed:
                    self._known[shard.id] = Known(shard.parent, True)
                else:
                    self._iterators[shard.id] = None
                    self._from_latest.add(shard.id)
            self._has_begun = True
        parents = {shard.id: shard.parent for shard in listed}
        # Of trimmed shards nothing needs to be known any more.
        self._known = {shard: known for shard, known in self._known.items() if shard in parents}
        for shard_id in readable(listed, self._known):
            self._iterators.setdefault(shard_id, None)
        self._look_at = clock.monotonic() + _LOOK

    def _read(self, shard: ShardId) -> int:
        """Read a shard once; return the number of records."""
        arn = self._arns.get(shard.label)
        if arn is None:
            # All records of an earlier stream are trimmed.
            self._finish(shard)
            return 0
        try:
            if shard in self._from_latest:
                # A later try must not leave out what is written until then.
                self._iterators[shard] = self._client.latest(arn, shard.name)
                self._from_latest.remove(shard)
            iterator = self._iterators[shard] or self._client.iterator(arn, shard.name)
            page = self._client.records(arn, iterator)
        except (ExpiredIteratorError, TrimmedError):
            logger.warning(
                "Records of the stream of %s were left out: its follower was too slow.",
                self._client.table,
            )
            self._iterators[shard] = self._client.latest(arn, shard.name)
            return 0
        except ShardMissingError:
            self._finish(shard)
            return 0
        if page.records:
            try:
                self._handler(page.records)
            except HandlerResultError as exc:
                logger.error("The stream of %s is not followed. %s", self._client.table, exc)
            except Exception as exc:
                cause = cause_of(exc)
                # Its message may quote keys and values.
                logger.debug("The handler of %s raised.", self._client.table, exc_info=cause)
                logger.error(
                    "The handler of the stream of %s failed on %d records (%s); a follower does "
                    "not try again. Its traceback: logger %s, level DEBUG.",
                    self._client.table, len(page.records), type(cause).__name__, __name__,
                )  # fmt: skip
        if page.iterator is None:
            self._finish(shard)
        else:
            self._iterators[shard] = page.iterator
        return len(page.records)

    def _finish(self, shard: ShardId) -> None:
        del self._iterators[shard]
        self._from_latest.discard(shard)
        self._waits.pop(shard, None)
        self._known[shard] = Known(None, True)
        self._look_at = clock.monotonic()
