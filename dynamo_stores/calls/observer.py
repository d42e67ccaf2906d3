"""
What happened in calls of DynamoDB, published to observers; no result depends on them.

Each attempt makes a Measurement, and each call an Operation.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from operator import itemgetter
from typing import Any, NamedTuple

from .. import signals
from ..exceptions import ThrottlingReason

logger = logging.getLogger(__name__)

READS = frozenset(["GetItem", "BatchGetItem", "Query", "Scan", "TransactGetItems"])


class Measurement(NamedTuple):
    """
    One request to DynamoDB and its outcome.

    ``consumed`` is ``ConsumedCapacity`` of the answer, None without it: see :attr:`units`.
    ``error`` is the class name of the error, ``""`` for an answer; ``reasons`` are those that
    DynamoDB returned when it throttled; ``attempt`` counts from 1 within the operation, and
    ``waited`` are the seconds from the begin of the operation to it. Where one partition was
    throttled, ``partition`` is its key.
    """

    using: str
    table: str
    operation: str
    seconds: float
    attempt: int = 1
    consumed: Any = None
    error: str = ""
    reasons: tuple[ThrottlingReason, ...] = ()
    throttled: bool = False
    partition: str = ""
    waited: float = 0.0

    def __repr__(self) -> str:
        fields = zip(self._fields, self, strict=True)
        shown = ", ".join(f"{name}={value!r}" for name, value in fields if name != "partition")
        return f"Measurement({shown})"

    @property
    def units(self) -> dict[str, float]:
        """The capacity units that it consumed, by table and ``table/index``."""
        return units_in(self.consumed)

    @property
    def is_operation(self) -> bool:
        """Whether it is a whole operation: the first attempt was answered without an error."""
        return self.attempt == 1 and not self.error

    @property
    def kind(self) -> str:
        """``"Read"`` or ``"Write"``: which capacity the operation consumes."""
        return "Read" if self.operation in READS else "Write"


def answered(
    using: str,
    table: str,
    operation: str,
    seconds: float,
    attempt: int,
    consumed: Any,
    waited: float,
) -> Measurement:
    """Return the measurement of a request that was answered; at less cost than by keywords."""
    fields = (using, table, operation, seconds, attempt, consumed, "", (), False, "", waited)
    return tuple.__new__(Measurement, fields)


def kind_of(operation: str) -> str:
    """Return which capacity the operation consumes, ``"Read"`` or ``"Write"``."""
    return "Read" if operation in READS else "Write"


class Operation(NamedTuple):
    """
    One call, with all its attempts, which is what a caller waits for.

    ``seconds`` are from its begin to its end, with the waits between attempts; ``ended`` is its end
    in seconds since the epoch. ``error`` is the class name of the error that was raised, ``""`` for
    an answer. ``request`` is what was sent and ``answer`` what DynamoDB returned, None without one:
    both have keys and values, which are not for logs.
    """

    using: str
    table: str
    operation: str
    seconds: float
    ended: float
    attempts: tuple[Measurement, ...]
    error: str
    request: Mapping[str, Any]
    answer: Mapping[str, Any] | None

    def __repr__(self) -> str:
        fields = zip(self._fields, self, strict=True)
        hidden = ("request", "answer")
        shown = ", ".join(f"{name}={value!r}" for name, value in fields if name not in hidden)
        return f"Operation({shown})"

    @property
    def kind(self) -> str:
        """``"Read"`` or ``"Write"``: which capacity the operation consumes."""
        return kind_of(self.operation)

    @property
    def units(self) -> dict[str, float]:
        """The capacity units of all attempts, by table and ``table/index``."""
        found: dict[str, float] = {}
        for attempt in self.attempts:
            for name, units in attempt.units.items():
                found[name] = found.get(name, 0.0) + units
        return found

    @property
    def throttles(self) -> int:
        """How many attempts were throttled."""
        return sum(attempt.throttled for attempt in self.attempts)


Observer = Callable[[Measurement], None]
# Takes the table, the operation, the seconds and ConsumedCapacity of a call that was answered at
# its first attempt.
Recorder = Callable[[str, str, float, Any], None]
OperationObserver = Callable[[Operation], None]

# With a function from an alias to the recorder that may be called instead of the observer.
_observers: dict[Observer, Callable[[str], Recorder] | None] = {}
# The only one of those functions, if every observer has it, and the recorders that it returned.
_recorder_of: Callable[[str], Recorder] | None = None
_recorders: dict[str, Recorder] = {}
# With a function that returns whether the observer wants every operation at present.
_operation_observers: dict[OperationObserver, Callable[[], bool]] = {}
# Those functions, without the ones that never do.
_wanting: tuple[Callable[[], bool], ...] = ()


def subscribe(observer: Observer, *, recorder_of: Callable[[str], Recorder] | None = None) -> None:
    """
    Call ``observer`` with every measurement of this process, in the thread of the request.

    ``recorder_of`` returns a function for an alias, which is called instead with calls that were
    answered at their first attempt while nobody else wants their measurements: those cost more.
    """
    _observers.setdefault(observer, recorder_of)
    forget_recorders()


def unsubscribe(observer: Observer) -> None:
    """Stop calling ``observer``."""
    _observers.pop(observer, None)
    forget_recorders()


def forget_recorders() -> None:
    """Ask for recorders again: those of another process, or other settings, are not to be used."""
    global _recorder_of, _recorders
    seen = None
    # Again if another thread has changed the observers meanwhile: a lock would not survive a fork.
    while (found := tuple(_observers.values())) != seen:
        _recorder_of = found[0] if len({*found}) == 1 else None
        # Not cleared: another thread may store what it was just given.
        _recorders = {}
        seen = found


def record(using: str, table: str, operation: str, seconds: float, consumed: Any) -> bool:
    """
    Record a call that was answered at its first attempt; return whether that is all: nobody wants
    its measurement. Never raises.
    """
    # The recorders first: what is made for those that were just forgotten is not kept.
    recorders, make = _recorders, _recorder_of
    if make is None:
        return False
    try:
        # As is_every_operation_observed(), at less cost.
        for wanted in _wanting:
            if wanted():
                return False
    except Exception:  # noqa: BLE001 - it is logged there
        if is_every_operation_observed():
            return False
    try:
        found = recorders.get(using)
        if found is None:
            found = recorders[using] = make(using)
        found(table, operation, seconds, consumed)
    except Exception:  # noqa: BLE001 - it is logged
        _log_failure("calls")
    return True


def subscribe_operations(
    observer: OperationObserver, *, every: bool | Callable[[], bool] = True
) -> None:
    """
    Call ``observer`` with the operations of this process, in the thread of the call: on an event
    loop, on the loop. It must not block.

    While ``every`` is False, or returns False, only with those that are not one measurement for
    which ``is_operation`` is True: they failed, were refused, or had several attempts. The others
    cost nothing then.
    """
    wanted = every if callable(every) else _always if every else _never
    _operation_observers.setdefault(observer, wanted)
    _set_wanting()


def unsubscribe_operations(observer: OperationObserver) -> None:
    """Stop calling ``observer``."""
    _operation_observers.pop(observer, None)
    _set_wanting()


def _set_wanting() -> None:
    global _wanting
    seen = None
    # As in forget_recorders().
    while (found := tuple(_operation_observers.values())) != seen:
        _wanting = tuple(each for each in found if each is not _never)
        seen = found


def _always() -> bool:
    return True


def _never() -> bool:
    return False


@contextmanager
def measuring() -> Iterator[list[Measurement]]:
    """Collect the measurements of all threads of this process while the block runs."""
    found: list[Measurement] = []
    subscribe(found.append)
    try:
        yield found
    finally:
        unsubscribe(found.append)


@contextmanager
def recording() -> Iterator[list[Operation]]:
    """Collect the operations of all threads of this process while the block runs."""
    found: list[Operation] = []

    def append(operation: Operation) -> None:
        found.append(operation)

    subscribe_operations(append)
    try:
        yield found
    finally:
        unsubscribe_operations(append)


def is_observed() -> bool:
    """Return whether there are observers; consumed units are requested only then."""
    return bool(_observers or _operation_observers)


def is_every_operation_observed() -> bool:
    """Return whether an observer wants every operation; never raises."""
    for wanted in _wanting:
        try:
            if wanted():
                return True
        except Exception:  # noqa: BLE001 - it is logged
            _log_failure("operations")
    return False


def observe_operation(operation: Operation) -> None:
    """Pass ``operation`` to its observers; the error of one is logged and stops no other."""
    attempts = operation.attempts
    is_one = len(attempts) == 1 and attempts[0].is_operation and not operation.error
    for observer, wanted in tuple(_operation_observers.items()):
        try:
            if not is_one or wanted():
                observer(operation)
        except Exception:  # noqa: BLE001 - it is logged
            _log_failure("operations")


def observe(measurement: Measurement) -> None:
    """Pass ``measurement`` to all observers; the error of one is logged and stops no other."""
    for observer in tuple(_observers):
        try:
            observer(measurement)
        except Exception:  # noqa: BLE001 - it is logged
            _log_failure("calls")
    if measurement.throttled:
        try:
            signals.throttled.send_robust(Measurement, measurement=measurement)
        except RuntimeError:
            # On an event loop, with a receiver that is a coroutine function.
            logger.exception("The signal throttled could not be sent.")


_logging = threading.local()


def _log_failure(what: str) -> None:
    # A handler of logs may make calls, which fail to be observed too.
    if getattr(_logging, "is_on", False):
        return
    _logging.is_on = True
    try:
        logger.exception("An observer of DynamoDB %s failed.", what)
    finally:
        _logging.is_on = False


_TABLE_NAME, _CAPACITY_UNITS = itemgetter("TableName"), itemgetter("CapacityUnits")
_INDEXED = ("GlobalSecondaryIndexes", "LocalSecondaryIndexes")


def units_of(answer: Mapping[str, Any]) -> dict[str, float]:
    """Return the units in ``ConsumedCapacity`` of a response, by table and ``table/index``."""
    return units_in(answer.get("ConsumedCapacity"))


def units_in(consumed: Any) -> dict[str, float]:
    """Return the units in ``ConsumedCapacity`` by table and ``table/index``; empty for None."""
    units: dict[str, float] = {}
    if consumed:
        add_units(units, consumed)
    return units


def units_in_all(answers: Sequence[Any]) -> dict[str, float]:
    """Return the units in the ``ConsumedCapacity`` of answers, each of which may be None."""
    # Totals of one table, which most calls request, are added up without a call for each.
    if set(map(type, answers)) == {dict} and set(map(len, answers)) == {2}:
        with suppress(KeyError):
            if len(set(map(_TABLE_NAME, answers))) == 1:
                return {_name_of(answers[0]): float(sum(map(_CAPACITY_UNITS, answers)))}
    units: dict[str, float] = {}
    for consumed in answers:
        if consumed:
            add_units(units, consumed)
    return units


def add_units(units: dict[str, float], consumed: Any) -> None:
    """Add the units in ``ConsumedCapacity`` to ``units``."""
    if type(consumed) is dict and len(consumed) == 2:
        _add(units, _name_of(consumed), consumed)
        return
    for each in (consumed,) if isinstance(consumed, Mapping) else consumed:
        table, own = _name_of(each), each.get("Table")
        _add(units, table, own if own is not None else each)
        for kind in _INDEXED:
            for index, capacity in (each.get(kind) or {}).items():
                _add(units, f"{table}/{index}", capacity)


def _name_of(consumed: Mapping[str, Any]) -> str:
    name: str = consumed.get("TableName", "")
    # Of an ARN, the name in it.
    return name.rpartition("/")[2] if "/" in name else name


def _add(units: dict[str, float], name: str, capacity: Mapping[str, Any]) -> None:
    units[name] = units.get(name, 0.0) + float(capacity.get("CapacityUnits", 0.0))
