"""What a sink is: where the measurements of one alias go."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from ... import clock
from ...calls.observer import Operation
from ...conf import get_config
from ..metrics import Snapshot

# The units of CloudWatch: https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/
# API_MetricDatum.html
UNITS = frozenset(
    ["Seconds", "Microseconds", "Milliseconds", "Percent", "Count", "None", "Count/Second"]
    + [f"{size}{what}{per}" for size in ("", "Kilo", "Mega", "Giga", "Tera")
       for what in ("bytes", "bits") for per in ("", "/Second")]
)  # fmt: skip
_UNITS = {unit.lower(): unit[0].upper() + unit[1:] for unit in UNITS}


def _is_number(value: object) -> bool:
    """Return whether it is a finite number, also a Decimal or one of numpy."""
    try:
        return not isinstance(value, bool) and math.isfinite(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return False


class Metric(NamedTuple):
    """
    A value that the application recorded: ``unit`` as CloudWatch names it, such as ``Count``,
    ``Percent`` and ``Seconds``; ``at`` in seconds since the epoch.
    """

    name: str
    value: float
    unit: str
    dimensions: tuple[tuple[str, str], ...]
    at: float

    @classmethod
    def of(
        cls,
        name: str,
        value: float,
        unit: str,
        dimensions: Mapping[str, str] | None,
        timestamp: float | None,
    ) -> Metric:
        """Return a value; the arguments and errors are those of ``Monitor.record_metric``."""
        known = _UNITS.get(unit.lower()) if isinstance(unit, str) else None
        if known is None:
            raise ValueError(
                f"{unit!r} is not a unit. Expected one of CloudWatch's, such as Count, Percent, "
                "Seconds, Milliseconds, Bytes or None."
            )
        if not name:
            raise ValueError("A metric needs a name.")
        if not _is_number(value):
            raise ValueError(f"The value of the metric {name} must be a number, not {value!r}.")
        if not isinstance(dimensions, Mapping | None):
            raise ValueError(
                f"The dimensions of the metric {name} must be a dict of names and values, not "
                f"{type(dimensions).__name__}."
            )
        labels = tuple(sorted((str(key), str(text)) for key, text in (dimensions or {}).items()))
        at = clock.now() if timestamp is None else timestamp
        return cls(name, float(value), known, labels, at)


class Sink:
    """
    A sink of one alias in one process. Override the methods that the sink needs.

    :meth:`export` runs in a thread of the sink, all others in the thread of the call, where they
    must not block. What a sink raises is logged, and stops no other sink.
    """

    # Seconds between exports; None for METRICS["INTERVAL"].
    interval: float | None = None
    # The actions of IAM that it calls, such as "xray:PutTraceSegments", for the policies that
    # ``dynamo_infrastructure`` prints. They are allowed on every resource.
    actions: tuple[str, ...] = ()
    # The names of its options: a system check finds others. None: they are not checked. It holds
    # for the class itself, and not for its subclasses.
    option_names: tuple[str, ...] | None = None

    def __init__(self, using: str, options: Mapping[str, Any]) -> None:
        self.using = using
        self.options = options
        self.config = get_config(using).metrics

    def wants_operations(self) -> bool:
        """Return whether :meth:`operation` is to be called at present; for each operation."""
        return False

    def operation(self, operation: Operation) -> None:
        """Use one operation, chosen by METRICS["SAMPLING_RATE"]; for spans and log lines."""

    def count(self, operation: Operation) -> None:
        """Use every operation, if :meth:`wants_operations`; for exact figures."""

    def metric(self, metric: Metric) -> None:
        """Use a value of the application."""

    def block(
        self, name: str, attributes: Mapping[str, str]
    ) -> AbstractContextManager[object] | None:
        """Return a context for a block that ``monitor_operation`` measures, such as a span."""

    def is_due(self) -> bool:
        """
        Return whether to export at the end of a request, although the interval is not over; asked
        in AWS Lambda, where threads stand still between requests.
        """
        return False

    def export(self, snapshot: Snapshot, since: Snapshot) -> None:
        """
        Publish what was counted: ``snapshot`` since the process began, ``since`` after the last
        export that did not raise. May block.
        """

    def close(self) -> None:
        """Publish what is left; called when the process ends. Has a second or so."""
