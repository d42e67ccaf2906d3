"""Puts and deletes of any number of items in several tables."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from ..calls.background import Pace
from ..calls.batches import MAX_WRITES, AdaptiveDelayCalculator, chunks
from ..calls.item_size import MAX_BATCH_BYTES, MAX_ITEM_BYTES, item_size
from ..calls.observer import units_of
from ..calls.policy import time_left
from ..concurrency.effects import Wait
from ..concurrency.together import together
from ..conf.rules import POSITIVE
from ..exceptions import (
    BatchIncompleteError,
    InvalidRequestError,
    ItemTooLargeError,
    StoreError,
    StoreUnavailable,
    ThrottlingError,
)
from .operations import BatchWrite, Delete, Put
from .requests import Requests
from .values import RAW_LEVELS, from_raw_item, identity_of, too_deep

# Operations that are in memory at once; of those with one key only the last is sent.
_WINDOW = 1000

Identity = tuple[Any, ...]


class _Request(NamedTuple):
    """``table`` is the name in DynamoDB, ``given`` the operation of the caller."""

    given: BatchWrite
    table: str
    raw: dict[str, Any]
    size: int

    @property
    def operation(self) -> BatchWrite:
        """The operation as it was read; its item may have been changed since then."""
        ((kind, content),) = self.raw.items()
        try:
            if kind == "PutRequest":
                return Put(self.given.table, from_raw_item(content["Item"]))
            return Delete(self.given.table, from_raw_item(content["Key"]))
        except RecursionError:
            # It is nested so deeply that DynamoDB refused it.
            return self.given


Window = dict[Identity, _Request]


class Batches:
    """
    Writes the operations of one call. Batches are written side by side; the next operations follow
    when all of them have ended, so that no write overtakes an earlier one of its key.
    """

    def __init__(
        self,
        requests: Requests,
        *,
        batch_size: int,
        max_concurrency: int,
        units_per_second: float | None,
    ) -> None:
        if not isinstance(batch_size, int) or not 1 <= batch_size <= MAX_WRITES:
            raise InvalidRequestError(
                f"batch_size is {batch_size!r}; expected 1 to {MAX_WRITES}, DynamoDB's limit."
            )
        if not isinstance(max_concurrency, int) or max_concurrency < 1:
            raise InvalidRequestError(
                f"max_concurrency is {max_concurrency!r}; expected 1 or more."
            )
        if units_per_second is not None and not POSITIVE.accepts(units_per_second):
            raise InvalidRequestError(
                f"units_per_second is {units_per_second!r}; expected {POSITIVE.expected}, or None."
            )
        self._requests = requests
        self._batch_size = batch_size
        self._max_concurrency = max_concurrency
        self._pace = None if units_per_second is None else Pace(units_per_second)
        self._delays = AdaptiveDelayCalculator()
        self._leftovers: dict[Identity, BatchWrite] = {}
        self._failure: StoreError | None = None
        self._has_stopped = False

    async def write(self, operations: Iterable[BatchWrite]) -> int:
        """
        Write them, and return how many items were put or deleted: of operations with one key in a
        thousand, the last. Raises BatchIncompleteError, and InvalidRequestError or
        ItemTooLargeError for an operation among the first thousand.
        """
        read = written = 0
        refused: list[BatchWrite] = []
        left_to_read = iter(operations)
        while True:
            window: Window = {}
            first = read
            try:
                for operation in itertools.islice(left_to_read, _WINDOW):
                    read += 1
                    refused = [operation]
                    identity, request = await self._prepare(operation, f"Operation {read - 1}")
                    # A later operation takes the place of an earlier one.
                    window[identity] = request
                    self._leftovers.pop(identity, None)
                    refused = []
            except Exception as exc:
                # An error of the caller, or of the iterable.
                if not first:
                    raise
                self._leave(window)
                raise self._incomplete(read, written, exc, refused) from exc
            if not window:
                break
            left = await self._write_window(window)
            written += len(window) - len(left)
            self._leave(left)
            if self._has_stopped:
                break
        if self._failure is not None and self._leftovers:
            raise self._incomplete(read, written, self._failure) from self._failure
        return written

    def _leave(self, window: Window) -> None:
        self._leftovers |= {identity: each.operation for identity, each in window.items()}

    def _incomplete(
        self, read: int, written: int, why: Exception, refused: Iterable[BatchWrite] = ()
    ) -> BatchIncompleteError:
        reason = str(why) if isinstance(why, StoreError) else f"{type(why).__name__}."
        leftovers = [*self._leftovers.values(), *refused]
        return BatchIncompleteError(
            f"{len(leftovers)} of the {read} operations that were read were not processed: "
            f"{reason} The attributes 'leftovers' and 'read' of this error say with which to go "
            "on.",
            leftovers=leftovers, written=written, read=read,
        )  # fmt: skip

    async def _prepare(self, operation: BatchWrite, name: str) -> tuple[Identity, _Request]:
        if not isinstance(operation, Put | Delete) or operation.condition is not None:
            raise InvalidRequestError(
                f"{name} is {_described(operation)}; expected Put or Delete without a condition. "
                "Those of transactions have conditions."
            )
        requests = self._requests
        table = requests.name_of(operation.table)
        try:
            content = operation.as_request(requests.name_of)
        except InvalidRequestError as exc:
            raise InvalidRequestError(f"{name}: {exc}") from exc
        names = await requests.key_names(table)
        if isinstance(operation, Delete):
            key, size = content["Key"], 0
            raw = {"DeleteRequest": {"Key": key}}
        else:
            key = content["Item"]
            size, raw = _size_of(key, name), {"PutRequest": {"Item": key}}
        if missing := [each for each in names if each not in key]:
            raise InvalidRequestError(f"{name} lacks {', '.join(missing)}, of the key of {table}.")
        if size > MAX_ITEM_BYTES:
            raise ItemTooLargeError(
                f"{name} puts an item of {size:,} bytes into {table}; DynamoDB's limit is "
                f"{MAX_ITEM_BYTES:,}."
            )
        return _identity(table, names, key), _Request(operation, table, raw, size)

    async def _write_window(self, window: Window) -> Window:
        """Return what was not processed."""
        batches = list(self._batches(window))
        left = await together(batches, self._write_batch, max_concurrency=self._max_concurrency)
        return {identity: each for some in left for identity, each in some.items()}

    def _batches(self, window: Window) -> Iterator[Window]:
        for table in dict.fromkeys(each.table for each in window.values()):
            own = [(identity, each) for identity, each in window.items() if each.table == table]
            for chunk in chunks(
                own, self._batch_size, max_bytes=MAX_BATCH_BYTES, size_of=lambda each: each[1].size
            ):
                yield dict(chunk)

    async def _write_batch(self, batch: Window) -> Window:
        if self._has_stopped:
            return batch
        await self._wait_before_batch()
        table = next(iter(batch.values())).table
        raw = [each.raw for each in batch.values()]
        request = {"RequestItems": {table: raw}, "ReturnConsumedCapacity": "INDEXES"}
        try:
            answer = await self._requests.ask("BatchWriteItem", request)
        except StoreError as exc:
            self._failure = self._failure or exc
            unprocessed = exc.unprocessed if isinstance(exc, StoreUnavailable) else None
            if isinstance(exc, ThrottlingError):
                self._delays.throttled()
            else:
                # Without an answer no further batch is sent.
                self._has_stopped = True
            left = raw if unprocessed is None else unprocessed.get(table, [])
            return await self._of(batch, table, left)
        self._delays.succeeded()
        if self._pace is not None:
            self._pace.seconds_for(sum(units_of(answer).values()))
        return {}

    async def _wait_before_batch(self) -> None:
        # What earlier batches consumed is waited for here, so that nothing waits after the last.
        owed = 0.0 if self._pace is None else self._pace.seconds_for(0)
        if (seconds := max(owed, self._delays.delay)) > 0:
            await Wait(time_left(seconds))

    async def _of(self, batch: Window, table: str, raw: list[dict[str, Any]]) -> Window:
        names = await self._requests.key_names(table)
        found = {}
        for each in raw:
            ((_, content),) = each.items()
            identity = _identity(table, names, content.get("Item") or content["Key"])
            found[identity] = batch[identity]
        return found


def _identity(table: str, names: Iterable[str], key: dict[str, Any]) -> Identity:
    return (table, *identity_of(key, names))


def _size_of(item: dict[str, Any], name: str) -> int:
    try:
        return item_size(item)
    except RecursionError as exc:
        raise too_deep(exc, item, f"{name}: item", RAW_LEVELS) from None


def _described(operation: object) -> str:
    kind = type(operation).__name__
    return f"{kind} with a condition" if isinstance(operation, Put | Delete) else kind
