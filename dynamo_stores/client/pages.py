"""The items that a Query or Scan finds, for callers with and without ``await``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..concurrency.effects import arun, run, twins
from ..exceptions import InvalidRequestError
from .requests import Requests
from .values import from_raw_item, to_raw_item

Item = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """The items of one request, and the ``start`` of the next page: None after the last one."""

    items: list[Item]
    last_key: Item | None = None


class Listing:
    """
    The items that a Query or Scan finds, for ``for`` and ``async for``. Each iteration begins
    again; one request per page is sent, when the iteration reaches it.
    """

    def __init__(
        self,
        requests: Requests,
        operation: str,
        request: dict[str, Any],
        *,
        limit: int | None,
        page_size: int | None,
        start: Mapping[str, Any] | None,
    ) -> None:
        for name, value in (("limit", limit), ("page_size", page_size)):
            if value is not None and (not isinstance(value, int) or value < 1):
                raise InvalidRequestError(f"{name} is {value!r}; expected 1 or more, or None.")
        self._requests = requests
        self._operation = operation
        self._request = request
        self._limit = limit
        # DynamoDB's limit counts what it reads, before the filter.
        if limit is not None and "FilterExpression" not in request:
            page_size = min(limit, page_size or limit)
        if page_size is not None:
            request["Limit"] = page_size
        self._start = None if start is None else to_raw_item(start, "start")

    def __iter__(self) -> Iterator[Item]:
        left, start = self._limit, self._start
        while True:
            items, start = run(self._read(start))
            for item in items[:left]:
                yield from_raw_item(item)
            left = None if left is None else left - len(items)
            if start is None or (left is not None and left <= 0):
                return

    async def __aiter__(self) -> AsyncIterator[Item]:
        left, start = self._limit, self._start
        while True:
            items, start = await arun(self._read(start))
            for item in items[:left]:
                yield from_raw_item(item)
            left = None if left is None else left - len(items)
            if start is None or (left is not None and left <= 0):
                return

    async def _page(self) -> Page:
        """
        Return the items of one request, and the key after which the next page begins: the ``start``
        of another call with the same arguments. With a filter a page may be empty and have a next
        one, and ``limit`` does not bound it.
        """
        items, last = await self._read(self._start)
        return Page(list(map(from_raw_item, items)), from_raw_item(last) if last else None)

    async def _all(self) -> list[Item]:
        """Return all items."""
        found: list[Item] = []
        start = self._start
        while True:
            items, start = await self._read(start)
            found += map(from_raw_item, items)
            if start is None or (self._limit is not None and len(found) >= self._limit):
                return found[: self._limit]

    page, apage = twins(_page)
    all, aall = twins(_all)

    async def _read(self, start: Item | None) -> tuple[list[Item], Item | None]:
        request = dict(self._request)
        if start is not None:
            request["ExclusiveStartKey"] = start
        answer = await self._requests.ask(self._operation, request)
        return answer["Items"], answer.get("LastEvaluatedKey") or None
