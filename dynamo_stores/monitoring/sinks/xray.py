"""X-Ray: a subsegment for each operation; needs the package ``aws-xray-sdk``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from aws_xray_sdk.core import xray_recorder
from aws_xray_sdk.core.models.entity import Entity

from ...calls.connection import get_connection
from ...calls.observer import Operation
from ..correlation import current
from ..tally import REFUSALS
from .base import Sink


class XRaySink(Sink):
    """
    Makes a subsegment for each sampled operation while there is a segment, which X-Ray's own
    middleware makes. Blocks of ``monitor_operation`` are subsegments.
    """

    actions = ("xray:PutTelemetryRecords", "xray:PutTraceSegments")
    option_names = ()

    def wants_operations(self) -> bool:
        return _parent() is not None

    def operation(self, operation: Operation) -> None:
        found = xray_recorder.begin_subsegment("DynamoDB", namespace="aws")
        if found is None:
            return
        found.start_time = operation.ended - operation.seconds
        found.set_aws(
            {
                "operation": operation.operation,
                "region": get_connection(operation.using).region_name,
                "table_name": operation.table,
                "retries": max(0, len(operation.attempts) - 1),
            }
        )
        found.put_annotation("throttles", operation.throttles)
        found.put_annotation("units", sum(operation.units.values()))
        if operation.error and operation.error not in REFUSALS:
            found.add_fault_flag()
            found.put_annotation("error", operation.error)
        if operation.throttles:
            found.add_throttle_flag()
        if correlation := current():
            found.put_annotation("correlation_id", correlation)
        xray_recorder.end_subsegment(operation.ended)

    def block(
        self, name: str, attributes: Mapping[str, str]
    ) -> AbstractContextManager[object] | None:
        return None if _parent() is None else _subsegment(name, attributes)


def _parent() -> Entity | None:
    # Without a segment the recorder would log an error, or raise.
    entities: Any = getattr(xray_recorder.context._local, "entities", None)
    return entities[-1] if entities else None


@contextmanager
def _subsegment(name: str, attributes: Mapping[str, str]) -> Iterator[None]:
    with xray_recorder.in_subsegment(name) as found:
        for key, value in attributes.items():
            found.put_annotation(key, value)
        yield
