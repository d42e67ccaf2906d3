"""A thread that hands every new record to a handler in this process, without saving positions."""

from __future__ import annotations

import logging
import random
import threading
from queue import Empty, SimpleQueue

from .. import clock
from ..conf import DEFAULT_ALIAS, get_config
from ..exceptions import CALL_ERRORS
from .client import ExpiredIteratorError, ShardMissingError, StreamsClient, TrimmedError
from .handlers import Handler, plain
from .records import label_of_arn
from .shards import Known, ShardId, plan

logger = logging.getLogger(__name__)

# Seconds between two requests for records of a shard: one reader of two, and nearly live.
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.25, 1.0
# Seconds between two looks for new shards, and the longest wait after errors.
_LOOK, _LONGEST_WAIT = 10.0, 30.0


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
        self._arns: dict[str, str] = {}
        self._look_at = clock.monotonic()
        self._has_begun = False
        self._pause = _SHORTEST_PAUSE

    def stop(self) -> None:
        """Stop after the present batch."""
        self._is_stopping = True
        self._stopped.put(None)

    def run(self) -> None:
        error_wait = 0.5
        while not self._is_stopping:
            try:
                wait = self.turn()
                error_wait = 0.5
            except CALL_ERRORS as exc:
                wait = random.uniform(error_wait / 2, error_wait)
                error_wait = min(error_wait * 2, _LONGEST_WAIT)
                logger.warning("The stream is not followed for %.1f s: %s", wait, exc)
            try:
                self._stopped.get(timeout=wait)
            except Empty:
                continue
        self._client.close()

    def turn(self) -> float:
        """Read each shard once; return the seconds until the next turn."""
        if clock.monotonic() >= self._look_at:
            self._look()
        count = sum(self._read(shard) for shard in list(self._iterators))
        self._pause = _SHORTEST_PAUSE if count else min(self._pause * 1.5, _LONGEST_PAUSE)
        return self._pause

    def _look(self) -> None:
        self._arns = {label_of_arn(arn): arn for arn in self._client.streams()}
        newest = max(self._arns)
        listed = self._client.shards(self._arns[newest])
        if not self._has_begun:
            for shard in listed:
                if shard.is_closed:
                    self._known[shard.id] = Known(shard.parent, True)
                else:
                    latest = self._client.latest(self._arns[newest], shard.id.name)
                    self._iterators[shard.id] = latest
            self._has_begun = True
        parents = {shard.id: shard.parent for shard in listed}
        # Of trimmed shards nothing needs to be known any more.
        self._known = {shard: known for shard, known in self._known.items() if shard in parents}
        for shard_id in plan(listed, self._known).readable:
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
            except Exception as exc:  # noqa: BLE001 - a handler may raise anything
                logger.error(
                    "The handler of the stream of %s failed on %d records (%s); a follower does "
                    "not try again.",
                    self._client.table, len(page.records), type(exc).__name__,
                )  # fmt: skip
        if page.iterator is None:
            self._finish(shard)
        else:
            self._iterators[shard] = page.iterator
        return len(page.records)

    def _finish(self, shard: ShardId) -> None:
        del self._iterators[shard]
        self._known[shard] = Known(None, True)
        self._look_at = clock.monotonic()
