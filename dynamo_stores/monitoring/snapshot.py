"""
A snapshot of an alias, from a bounded number of calls.

One Query each for the reports of all processes, the usage of the last hour and the decisions, one
BatchGetItem for the records of capacity, and a DescribeTable per table, in parallel and over
direct connections. Calls that fail are listed as problems; the rest of the snapshot is complete.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from .. import clock
from ..calls.direct import DIRECT_SECONDS
from ..capacity.description import TableCapacity
from ..capacity.history import CapacityDecision, Decisions, decision_of
from ..capacity.records import DirectRecords, Record
from ..capacity.update import describe
from ..capacity.usage import HOUR, Usage, UsageByMinute, UsageHistory, merged, minute_of
from ..concurrency.per_process import PerProcess
from ..conf import aliases
from ..conf.groups import ScalingConfig
from ..exceptions import CALL_ERRORS
from ..infrastructure.tables import TableSpec, wanted_tables
from .report import Report, total_usage
from .report_store import ReportStore
from .status import AliasStatus, ResourceStatus, TableStatus, ThroughputStatus

logger = logging.getLogger(__name__)

# Seconds for which a description is cached, and for which all answers are waited for.
_CACHE_SECONDS, _MAX_WAIT = 10.0, 2 * DIRECT_SECONDS + 0.5
_MISSING, _UNKNOWN = "missing", "unknown"


class Descriptions:
    """Descriptions of the tables of an alias, cached for ten seconds."""

    def __init__(self, using: str) -> None:
        self._using = using
        self._known: dict[str, tuple[float, float, TableCapacity | None]] = {}

    def get(self, table: str) -> tuple[float, TableCapacity | None]:
        """Return when ``table`` was described, and its capacity, None if it does not exist."""
        known = self._known.get(table)
        if known is None or clock.monotonic() - known[0] >= _CACHE_SECONDS:
            found = describe(self._using, table, seconds=DIRECT_SECONDS)
            known = self._known[table] = (clock.monotonic(), clock.now(), found)
        return known[1:]

    def clear(self) -> None:
        """Discard all descriptions."""
        self._known.clear()

    def forget(self, table: str) -> None:
        """Discard the description of ``table``, because the table was changed."""
        self._known.pop(table, None)


_descriptions = PerProcess(Descriptions)


def get_descriptions(using: str) -> Descriptions:
    """Return the cached descriptions of this process."""
    return _descriptions.get(using)


def read_all(own: Callable[[str], Report]) -> list[AliasStatus]:
    """Return the snapshots of all aliases; see :func:`read_status`."""
    names = aliases()
    with ThreadPoolExecutor(len(names), "dynamo-stores-status") as threads:
        return list(threads.map(lambda using: read_status(using, own(using)), names))


def read_status(using: str, own: Report) -> AliasStatus:
    """
    Return the snapshot of an alias; ``own`` is the report of this process. Errors of DynamoDB are
    in its ``problems``, never raised. Takes about five seconds at most.
    """
    specs = [spec for spec in wanted_tables() if spec.using == using]
    names = [spec.name for spec in specs]
    reads: dict[str, Callable[[], Any]] = {
        "the reports of other processes": ReportStore(using).latest,
        "the usage of the last hour": UsageHistory(using).last_hour,
        "the decisions": Decisions(using).latest,
        "the records of capacity": lambda: DirectRecords(using).get_many(names),
    }
    descriptions = get_descriptions(using)
    for name in names:
        reads[f"table {name}"] = partial(descriptions.get, name)
    found, problems = _run(reads)
    others, use, decisions, records = (found.get(what) for what in list(reads)[:4])
    reports = [own, *(each for each in others or () if each.process != own.process)]
    now = clock.now()
    known_use = merged(use or {}, total_usage(reports))
    last = _last_whole_minute(reports, now)
    tables = tuple(
        _table(
            spec,
            found.get(f"table {spec.name}"),
            known_use,
            last,
            reports,
            (records or {}).get(spec.name),
            next((each for each in decisions or () if each.table == spec.name), None),
        )
        for spec in specs
    )
    return AliasStatus(
        using, now, problems, tuple(reports), tables, tuple(decisions or ()), own.process
    )


def _run(reads: Mapping[str, Callable[[], Any]]) -> tuple[dict[str, Any], tuple[str, ...]]:
    found: dict[str, Any] = {}
    failed: dict[str, list[str]] = {}
    threads = ThreadPoolExecutor(min(len(reads), 12), "dynamo-stores-status")
    try:
        futures: dict[Future[Any], str] = {
            threads.submit(read): what for what, read in reads.items()
        }
        done, late = wait(futures, timeout=_MAX_WAIT)
        for future in late:
            failed.setdefault(f"no answer in {_MAX_WAIT:g} s", []).append(futures[future])
        for future in done:
            try:
                found[futures[future]] = future.result()
            except CALL_ERRORS as exc:
                failed.setdefault(_reason(exc), []).append(futures[future])
            except Exception as exc:
                # For example an item written by other software; the rest of the page is shown.
                logger.exception("The status pages could not read %s.", futures[future])
                failed.setdefault(type(exc).__name__, []).append(futures[future])
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
    order = list(reads)
    return found, tuple(
        f"DynamoDB did not return {_listed(sorted(what, key=order.index))}: {why}"
        for why, what in sorted(failed.items())
    )


def _reason(exc: Exception) -> str:
    if isinstance(exc, ClientError):
        error = exc.response.get("Error", {})
        return str(error.get("Message") or error.get("Code") or type(exc).__name__)
    cause = exc.__cause__
    return f"{type(cause or exc).__name__}" if cause is not None else str(exc)


def _listed(words: list[str]) -> str:
    if len(words) > 6:
        words = [*words[:5], f"{len(words) - 5} more"]
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _last_whole_minute(reports: list[Report], now: float) -> int:
    """Return the last minute that every running process has reported in full."""
    times = [each.at for each in reports if not each.has_ended and not each.is_late(now)]
    return max(minute_of(now) - 3, min(map(minute_of, times), default=minute_of(now)) - 1)


def _table(
    spec: TableSpec,
    described: tuple[float, TableCapacity | None] | None,
    use: UsageByMinute,
    last: int,
    reports: list[Report],
    record: Record | None,
    decision: CapacityDecision | None,
) -> TableStatus:
    status_at, capacity = described or (clock.now(), None)
    config = spec.config.scaling
    reasons: dict[str, int] = {}
    for report in reports:
        for reason, count in report.reasons.get(spec.name, {}).items():
            reasons[reason] = reasons.get(reason, 0) + count
    if record is not None and record.decision:
        recorded = decision_of(spec.name, record.decision)
        if decision is None or recorded.at > decision.at:
            decision = recorded
    names = list(capacity.resources) if capacity else ["", *(each.name for each in spec.indexes)]
    return TableStatus(
        using=spec.using,
        table=spec.name,
        status=capacity.status if capacity else _MISSING if described else _UNKNOWN,
        status_at=status_at,
        is_on_demand=capacity.is_on_demand if capacity else spec.billing_mode != "PROVISIONED",
        scaling=_scaling(config),
        resources=tuple(_resource(name, spec.name, capacity, config, use, last) for name in names),
        reasons=reasons,
        decision=decision,
        comes_down_at=record.deadline if record is not None else None,
        used_at=(last + 1) * 60.0,
    )


def _scaling(config: ScalingConfig) -> str:
    if not config.enabled:
        return "off"
    return "dry run" if config.dry_run else "on"


def _resource(
    name: str,
    table: str,
    capacity: TableCapacity | None,
    config: ScalingConfig,
    use: UsageByMinute,
    last: int,
) -> ResourceStatus:
    full = f"{table}/{name}" if name else table
    minutes = [
        use.get(minute, {}).get(full, Usage()) for minute in range(last - HOUR + 1, last + 1)
    ]
    is_provisioned = capacity is not None and not capacity.is_on_demand
    units = capacity.resources[name].units if capacity is not None and is_provisioned else None
    read = _throughput(
        [each.read / 60 for each in minutes], [each.throttled_reads for each in minutes]
    )
    write = _throughput(
        [each.write / 60 for each in minutes], [each.throttled_writes for each in minutes]
    )
    left = None
    if capacity is not None and units is not None:
        read = replace(
            read,
            capacity=units.read,
            baseline=config.base_read_capacity,
            maximum=config.max_read_capacity,
        )
        write = replace(
            write,
            capacity=units.write,
            baseline=config.base_write_capacity,
            maximum=config.max_write_capacity,
        )
        left = capacity.resources[name].decreases_left(clock.now())
    later = [resources.get(full, Usage()) for minute, resources in use.items() if minute > last]
    since = sum(each.throttled_reads + each.throttled_writes for each in later)
    return ResourceStatus(name, read, write, left, since)


def _throughput(history: list[float], throttled: list[int]) -> ThroughputStatus:
    return ThroughputStatus(None, None, None, history[-1], tuple(history), tuple(throttled))
