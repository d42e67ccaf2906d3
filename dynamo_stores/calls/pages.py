"""Query and Scan page by page, no faster than asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .. import clock

Call = Callable[[dict[str, Any]], dict[str, Any]]


def pages(
    call: Call, kwargs: dict[str, Any], *, units_per_second: float | None = None
) -> Iterator[dict[str, Any]]:
    """
    Yield the answers to ``call`` (a Query or Scan with these arguments), to the last page.

    With ``units_per_second`` the next page is asked for when what the last one consumed has come
    in at that rate. Each answer's ``LastEvaluatedKey`` is an ``ExclusiveStartKey`` to go on from.
    """
    kwargs = {**kwargs, "ReturnConsumedCapacity": "TOTAL"}
    while True:
        started = clock.monotonic()
        page = call(dict(kwargs))
        yield page
        if not page.get("LastEvaluatedKey"):
            return
        kwargs["ExclusiveStartKey"] = page["LastEvaluatedKey"]
        if units_per_second is not None:
            units = (page.get("ConsumedCapacity") or {}).get("CapacityUnits", 0.0)
            wait = started + units / units_per_second - clock.monotonic()
            if wait > 0:
                clock.sleep(wait)
