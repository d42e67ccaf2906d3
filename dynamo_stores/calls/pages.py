"""Query and Scan page by page, with a limit of read units a second."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from .. import clock
from ..concurrency.effects import Verb, Wait

Call = Callable[[dict[str, Any]], Verb[dict[str, Any]]]


async def pages(
    call: Call, request: dict[str, Any], *, units_per_second: float | None = None
) -> AsyncIterator[dict[str, Any]]:
    """
    Yield the answers to ``call`` (a Query or Scan with these arguments), up to the last page, in a
    verb.

    With ``units_per_second`` the pages are requested so slowly that they consume no more. Each
    answer's ``LastEvaluatedKey`` can be used as ``ExclusiveStartKey`` to resume.
    """
    request = {**request, "ReturnConsumedCapacity": "INDEXES"}
    while True:
        started = clock.monotonic()
        page = await call(dict(request))
        yield page
        if not page.get("LastEvaluatedKey"):
            return
        request["ExclusiveStartKey"] = page["LastEvaluatedKey"]
        if units_per_second is not None:
            units = (page.get("ConsumedCapacity") or {}).get("CapacityUnits", 0.0)
            wait = started + units / units_per_second - clock.monotonic()
            if wait > 0:
                await Wait(wait)
