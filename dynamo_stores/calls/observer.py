"""One Measurement per attempt, published to observers; no result depends on them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from .. import signals
from ..exceptions import ThrottlingReason

logger = logging.getLogger(__name__)

READS = frozenset(["GetItem", "BatchGetItem", "Query", "Scan", "TransactGetItems"])
_NO_UNITS: Final[Mapping[str, float]] = MappingProxyType({})


class Measurement(NamedTuple):
    """
    One request to DynamoDB and its outcome.

    ``units`` maps a table's name, or ``table/index``, to the capacity units that it consumed;
    ``error`` is the class name of the error, ``""`` for an answer; ``reasons`` are those that
    DynamoDB returned when it throttled; ``attempt`` counts from 1 within the operation. Where one
    partition was throttled, ``partition`` is its key.
    """

    using: str
    table: str
    operation: str
    seconds: float
    attempt: int = 1
    units: Mapping[str, float] = _NO_UNITS
    error: str = ""
    reasons: tuple[ThrottlingReason, ...] = ()
    throttled: bool = False
    partition: str = ""

    def __repr__(self) -> str:
        fields = zip(self._fields, self, strict=True)
        shown = ", ".join(f"{name}={value!r}" for name, value in fields if name != "partition")
        return f"Measurement({shown})"

    @property
    def kind(self) -> str:
        """``"Read"`` or ``"Write"``: which capacity the operation consumes."""
        return "Read" if self.operation in READS else "Write"


def kind_of(operation: str) -> str:
    """Return which capacity the operation consumes, ``"Read"`` or ``"Write"``."""
    return "Read" if operation in READS else "Write"


Observer = Callable[[Measurement], None]

_observers: list[Observer] = []


def subscribe(observer: Observer) -> None:
    """Call ``observer`` with every measurement of this process, in the thread of the request."""
    if observer not in _observers:
        _observers.append(observer)


def unsubscribe(observer: Observer) -> None:
    """Stop calling ``observer``."""
    if observer in _observers:
        _observers.remove(observer)


@contextmanager
def measuring() -> Iterator[list[Measurement]]:
    """Collect the measurements of all threads of this process while the block runs."""
    found: list[Measurement] = []
    subscribe(found.append)
    try:
        yield found
    finally:
        unsubscribe(found.append)


def is_observed() -> bool:
    """Return whether there are observers; consumed units are requested only then."""
    return bool(_observers) or logger.isEnabledFor(logging.DEBUG)


def observe(measurement: Measurement) -> None:
    """Pass ``measurement`` to all observers; the error of one is logged and stops no other."""
    for observer in tuple(_observers):
        try:
            observer(measurement)
        except Exception:
            logger.exception("An observer of DynamoDB calls failed.")
    if measurement.throttled:
        try:
            signals.throttled.send_robust(Measurement, measurement=measurement)
        except RuntimeError:
            # On an event loop, with a receiver that is a coroutine function.
            logger.exception("The signal throttled could not be sent.")
    if logger.isEnabledFor(logging.DEBUG):
        logger.debug(
            "%s on %s took %.1f ms%s.",
            measurement.operation,
            measurement.table,
            measurement.seconds * 1000,
            f" and ended in {measurement.error}" if measurement.error else "",
            extra={
                "dynamodb_operation": measurement.operation,
                "dynamodb_table": measurement.table,
                "dynamodb_seconds": measurement.seconds,
                "dynamodb_attempt": measurement.attempt,
                "dynamodb_units": dict(measurement.units),
            },
        )


_INDEXED = ("GlobalSecondaryIndexes", "LocalSecondaryIndexes")


def units_of(answer: Mapping[str, Any]) -> dict[str, float]:
    """Return the units in ``ConsumedCapacity`` of a response, by table and ``table/index``."""
    consumed = answer.get("ConsumedCapacity") or ()
    units: dict[str, float] = {}
    if (
        type(consumed) is dict
        and "GlobalSecondaryIndexes" not in consumed
        and "LocalSecondaryIndexes" not in consumed
    ):
        _add(units, _name_of(consumed), consumed.get("Table") or consumed)
        return units
    for each in (consumed,) if isinstance(consumed, Mapping) else consumed:
        table, own = _name_of(each), each.get("Table")
        _add(units, table, own if own is not None else each)
        for kind in _INDEXED:
            for index, capacity in (each.get(kind) or {}).items():
                _add(units, f"{table}/{index}", capacity)
    return units


def _name_of(consumed: Mapping[str, Any]) -> str:
    name: str = consumed.get("TableName", "")
    # Of an ARN, the name in it.
    return name.rpartition("/")[2] if "/" in name else name


def _add(units: dict[str, float], name: str, capacity: Mapping[str, Any]) -> None:
    units[name] = units.get(name, 0.0) + float(capacity.get("CapacityUnits", 0.0))
