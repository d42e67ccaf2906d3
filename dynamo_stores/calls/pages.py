"""Query and Scan page by page, with a limit of read units a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .. import clock

Call = Callable[[dict[str, Any]], dict[str, Any]]


def pages(
    call: Call, kwargs: dict[str, Any], *, units_per_second: float | None = None
) -> Iterator[dict[str, Any]]:
    """
    Yield the answers to ``call`` (a Query or Scan with these arguments), up to the last page.

    With ``units_per_second`` the pages are requested so slowly that they consume no more. Each
    answer's ``LastEvaluatedKey`` can be used as ``ExclusiveStartKey`` to resume.
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
