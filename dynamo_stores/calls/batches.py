"""
Batches of items: chunks within DynamoDB's limits, parallel calls, leftovers returned.

The connection (:mod:`.connection`) sends the unprocessed part of a batch again; these functions
return what is still unprocessed at the deadline.
"""

from __future__ import annotations

import functools
import itertools
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from ..concurrency.effects import Computation, run
from ..concurrency.together import together
from ..conf.rules import NOT_NEGATIVE, POSITIVE
from ..exceptions import (
    ConfigurationError,
    ItemTooLargeError,
    OperationTimeoutError,
    StoreUnavailable,
    ThrottlingError,
)
from .connection import Caller
from .item_size import MAX_BATCH_BYTES, MAX_ITEM_BYTES, item_size

if TYPE_CHECKING:
    from pynamodb.models import Model

T = TypeVar("T")
R = TypeVar("R")
Item = dict[str, Any]

MAX_READS = 100
MAX_WRITES = 25
_BATCHES_AT_ONCE = 4


def chunks(
    items: Iterable[T],
    count: int,
    *,
    max_bytes: int | None = None,
    size_of: Callable[[T], int] = lambda item: 0,
) -> Iterator[list[T]]:
    """
    Yield ``items`` in order, in lists of at most ``count`` items and ``max_bytes`` bytes.

    An item that is over ``max_bytes`` by itself is in a list of its own.
    """
    chunk: list[T] = []
    size = 0
    for item in items:
        own = size_of(item) if max_bytes is not None else 0
        if chunk and (len(chunk) >= count or (max_bytes is not None and size + own > max_bytes)):
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += own
    if chunk:
        yield chunk


async def batch_get(
    connection: Caller,
    table: str,
    keys: Iterable[Item],
    *,
    consistent: bool = False,
    attributes: Mapping[str, Any] | None = None,
    timeout: float | None = None,
) -> list[Item]:
    """
    Return the existing items of ``keys`` (DynamoDB-JSON, no duplicates), in no order: one
    BatchGetItem per 100 keys, several in parallel. A verb.

    ``attributes`` has the request's parameters of a projection (``ProjectionExpression``, …). Each
    request has ``timeout`` seconds at most. Raises StoreUnavailable with ``responses`` (the items
    that were read, by table) and ``unprocessed``.
    """

    async def read(chunk: list[Item]) -> list[Item]:
        request = {"Keys": chunk, "ConsistentRead": consistent, **(attributes or {})}
        answer = await connection.call("BatchGetItem", {"RequestItems": {table: request}}, timeout)
        items: list[Item] = answer["Responses"].get(table, [])
        return items

    wanted = list(chunks(keys, MAX_READS))
    if len(wanted) <= 1:
        return await read(wanted[0]) if wanted else []
    found: list[Item] = []
    failure: StoreUnavailable | None = None
    left: list[Item] = []

    async def read_or_keep(chunk: list[Item]) -> tuple[list[Item], StoreUnavailable | None]:
        try:
            return await read(chunk), None
        except StoreUnavailable as exc:
            return list((exc.responses or {}).get(table, [])), exc

    read_chunks = await together(wanted, read_or_keep, max_concurrency=_BATCHES_AT_ONCE)
    for items, exc in read_chunks:
        found += items
        if exc is not None:
            failure = exc
            left += (exc.unprocessed or {}).get(table, {}).get("Keys", [])
    if failure is not None:
        failure.responses = {table: found}
        failure.unprocessed = {table: {"Keys": left}}
        raise failure
    return found


async def batch_write(
    connection: Caller,
    table: str,
    requests: Iterable[Item],
    *,
    timeout: float | None = None,
) -> tuple[list[Item], StoreUnavailable | None]:
    """
    Write ``requests`` (``PutRequest`` and ``DeleteRequest``, one per key), at most 25 a call,
    several calls in parallel. A verb.

    Return the requests that were unprocessed at the deadline, and the error that is the reason
    (``[], None`` if all were processed). Raises StoreUnavailable without an answer, or if no batch
    was answered in time; its ``unprocessed`` has all unprocessed requests.
    """
    failures: list[StoreUnavailable] = []

    async def write(chunk: list[Item]) -> tuple[list[Item], StoreUnavailable | None]:
        if failures:
            return chunk, failures[0]
        try:
            request = {"RequestItems": {table: chunk}}
            await connection.call("BatchWriteItem", request, timeout)
        except StoreUnavailable as exc:
            if not isinstance(exc, ThrottlingError):
                failures.append(exc)
            return (exc.unprocessed or {table: chunk}).get(table, []), exc
        return [], None

    # 25 items of 400 KB are less than the 16 MB that a request may have.
    todo = list(chunks(requests, MAX_WRITES))
    done = await together(todo, write, max_concurrency=_BATCHES_AT_ONCE)
    left = [request for unprocessed, _ in done for request in unprocessed]
    is_answered = any(exc is None or isinstance(exc, ThrottlingError) for _, exc in done)
    for failure in failures:
        if not (is_answered and isinstance(failure, OperationTimeoutError)):
            failure.unprocessed = {table: left}
            raise failure
    return left, next((exc for _, exc in done if exc is not None), None)


@dataclass(eq=False)
class _Taken(Generic[T]):
    """A batch by key, which is or was written."""

    items: dict[Any, T]
    is_done: bool = False


class BatchWriter(Generic[T]):
    """
    Collects items and writes them in batches; unprocessed ones stay in ``leftovers``.

    ``write`` is called with a list of items and returns the unprocessed ones (or None). With
    ``key_of``, an item is no longer among the leftovers when one with its key is written later.
    :meth:`for_model` makes a writer for PynamoDB models. As a context manager it flushes at the
    end of the block, and raises ThrottlingError if there are leftovers.
    """

    def __init__(
        self,
        write: Callable[[list[T]], Iterable[T] | None],
        *,
        batch_size: int = MAX_WRITES,
        key_of: Callable[[T], Any] | None = None,
    ) -> None:
        if not batch_size >= 1:
            raise ConfigurationError(f"batch_size is {batch_size!r}; expected 1 or more.")
        self._write = write
        self._batch_size = batch_size
        self._key_of = key_of
        self._pending: dict[Any, T] = {}
        self._leftovers: dict[Any, T] = {}
        # In their order, from the oldest that is being written.
        self._taken: list[_Taken[T]] = []
        self._added = itertools.count()
        self._lock = threading.Lock()

    @classmethod
    def for_model(cls, model: type[Model]) -> BatchWriter[Item]:
        """Return a writer of BatchWriteItem requests; add to it with ``put`` and ``delete``."""
        return _ModelWriter(model)

    @property
    def leftovers(self) -> list[T]:
        """The items that were not processed, and not written again later."""
        return list(self._leftovers.values())

    def add(self, item: T) -> None:
        """Add ``item``; writes a full batch. Of two items with one key the later is written."""
        with self._lock:
            key = self._key_for(item)
            self._pending.pop(key, None)
            self._pending[key] = item
            batch = self._take() if len(self._pending) >= self._batch_size else None
        if batch is not None:
            self._send(batch)

    def flush(self) -> list[T]:
        """Write the pending items; return all leftovers since the writer was made."""
        with self._lock:
            batch = self._take() if self._pending else None
        if batch is not None:
            self._send(batch)
        return self.leftovers

    def __del__(self) -> None:
        if getattr(self, "_pending", None):
            warnings.warn(
                f"A BatchWriter was dropped with {len(self._pending)} items that it did not write. "
                "Use it in a 'with' block, or call flush().",
                ResourceWarning,
                source=self,
                stacklevel=2,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        left = self.flush()
        if left and exc is None:
            raise ThrottlingError(
                f"{len(left)} items were not processed; they are in the writer's leftovers."
            )

    def _key_for(self, item: T) -> Any:
        return next(self._added) if self._key_of is None else self._key_of(item)

    def _take(self) -> _Taken[T]:
        batch, self._pending = _Taken(self._pending), {}
        self._taken.append(batch)
        for key in batch.items:
            self._leftovers.pop(key, None)
        return batch

    def _send(self, batch: _Taken[T]) -> None:
        items = list(batch.items.values())
        left: Iterable[T] | None = items
        try:
            left = self._write(items)
        finally:
            with self._lock:
                self._end(batch, left or ())

    def _end(self, batch: _Taken[T], left: Iterable[T]) -> None:
        newer = self._taken[self._taken.index(batch) + 1 :]
        for item in left:
            key = self._key_for(item)
            if not any(key in each.items for each in newer):
                self._leftovers[key] = item
        batch.is_done = True
        while self._taken and self._taken[0].is_done:
            del self._taken[0]


class _ModelWriter(BatchWriter[Item]):
    def __init__(self, model: type[Model]) -> None:
        table = model._get_connection()
        self._model = model
        super().__init__(self._write_requests, key_of=self._key)
        self._connection: Any = table.connection
        self._table = table.table_name
        schema = table.get_meta_table()
        self._key_names = [
            name for name in (schema.hash_keyname, schema.range_keyname) if name is not None
        ]

    def put(self, item: Model) -> None:
        """Put ``item``."""
        content = item.serialize()
        if item_size(content) > MAX_ITEM_BYTES:
            raise ItemTooLargeError(
                f"An item for {self._table} exceeds DynamoDB's limit of {MAX_ITEM_BYTES:,} bytes."
            )
        self.add({"PutRequest": {"Item": content}})

    def delete(self, item: Model) -> None:
        """Delete the stored item with the key of ``item``."""
        content = item.serialize()
        self.add({"DeleteRequest": {"Key": {name: content[name] for name in self._key_names}}})

    def _key(self, request: Item) -> Any:
        ((_, content),) = request.items()
        keyed = content.get("Item") or content["Key"]
        return tuple(str(keyed[name]) for name in self._key_names)

    def _write_requests(self, requests: list[Item]) -> list[Item]:
        left, _ = run(batch_write(self._connection, self._table, requests))
        return left


def execute_in_parallel(
    items: Iterable[T], function: Callable[[T], R], *, max_concurrency: int = 10
) -> list[R]:
    """
    Return ``[function(item) for item in items]``, at most ``max_concurrency`` at a time.

    Results are in the order of the items. Context variables (the deadline among them) are copied
    into the threads. The first error is raised as soon as the calls under way have ended; no new
    one is started after it.
    """

    async def call(item: T) -> R:
        found: R = await Computation(functools.partial(function, item))
        return found

    return run(together(items, call, max_concurrency=max_concurrency))


class AdaptiveDelayCalculator:
    """
    The delay between batches: longer after each throttle, shorter after each success.

    The delay doubles from ``base_delay`` up to ``max_delay`` (seconds) when throttled, and falls
    by a tenth for each success, to 0 if it were below ``base_delay``. Thread-safe.
    """

    def __init__(self, base_delay: float = 0.05, max_delay: float = 5.0) -> None:
        if not POSITIVE.accepts(base_delay) or not NOT_NEGATIVE.accepts(max_delay - base_delay):
            raise ConfigurationError(
                f"base_delay is {base_delay!r} and max_delay {max_delay!r}; expected seconds "
                "above 0, max_delay not below base_delay."
            )
        self._base, self._max, self._delay = base_delay, max_delay, 0.0
        self._lock = threading.Lock()

    @property
    def delay(self) -> float:
        """Seconds to wait before the next batch."""
        return self._delay

    def throttled(self) -> float:
        """Record that DynamoDB left items unprocessed; return the new delay."""
        with self._lock:
            self._delay = min(self._max, max(self._base, self._delay * 2))
            return self._delay

    def succeeded(self) -> float:
        """Record that DynamoDB processed all items; return the new delay."""
        with self._lock:
            shorter = self._delay * 0.9
            self._delay = shorter if shorter >= self._base else 0.0
            return self._delay


def calculate_optimal_batch_size(
    item_bytes: float, *, max_items: int = MAX_WRITES, max_bytes: int = MAX_BATCH_BYTES
) -> int:
    """
    Return how many items of ``item_bytes`` bytes on average fit into one request: at least 1, at
    most ``max_items`` (25 for BatchWriteItem, 100 for BatchGetItem), together under ``max_bytes``.
    """
    if not NOT_NEGATIVE.accepts(item_bytes):
        raise ConfigurationError(f"item_bytes is {item_bytes!r}; expected a number, 0 or more.")
    if item_bytes == 0:
        return max_items
    return max(1, min(max_items, int(max_bytes // item_bytes)))
