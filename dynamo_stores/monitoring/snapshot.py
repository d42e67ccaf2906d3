"""
One snapshot of an alias, out of a bounded number of calls.

One Query each for the reports of all processes, the use of the last hour and the decisions, one
BatchGetItem for the records of capacity, and a DescribeTable per table, all side by side and
through the side door. What could not be asked is said, and the rest is there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from .. import clock
from ..calls.direct import DIRECT_SECONDS
from ..capacity.description import TableCapacity
from ..capacity.history import CapacityDecision, Decisions, decision_of
from ..capacity.records import DirectRecords, Record
from ..capacity.update import describe
from ..concurrency.per_process import PerProcess
from ..conf import aliases
from ..conf.groups import ScalingConfig
from ..exceptions import StoreError
from ..infrastructure.tables import TableSpec, wanted_tables
from .report import Report, Use, UseByMinute, total_use
from .report_store import ReportStore
from .status import AliasStatus, Line, ResourceStatus, TableStatus
from .usage import HOUR, UseHistory, merged, minute_of

logger = logging.getLogger(__name__)

# A description is gone by so many seconds, and all answers are waited for so long.
_REMEMBERED, _PATIENCE = 10.0, 2 * DIRECT_SECONDS + 0.5
_MISSING, _UNKNOWN = "missing", "unknown"


class Descriptions:
    """What DescribeTable said of the tables of an alias in the last ten seconds."""

    def __init__(self, using: str) -> None:
        self._using = using
        self._known: dict[str, tuple[float, float, TableCapacity | None]] = {}

    def get(self, table: str) -> tuple[float, TableCapacity | None]:
        """Return when it was said, and what; None where there is no such table."""
        known = self._known.get(table)
        if known is None or clock.monotonic() - known[0] >= _REMEMBERED:
            found = describe(self._using, table, seconds=DIRECT_SECONDS)
            known = self._known[table] = (clock.monotonic(), clock.now(), found)
        return known[1:]

    def clear(self) -> None:
        """Ask again about all of them."""
        self._known.clear()

    def forget(self, table: str) -> None:
        """Ask again: it was changed."""
        self._known.pop(table, None)


_descriptions = PerProcess(Descriptions)


def get_descriptions(using: str) -> Descriptions:
    """Return this process's memory of what tables have."""
    return _descriptions.get(using)


def read_all(own: Callable[[str], Report]) -> list[AliasStatus]:
    """Return the snapshots of all aliases; see :func:`read_status`."""
    names = aliases()
    with ThreadPoolExecutor(len(names), "dynamo-stores-status") as threads:
        return list(threads.map(lambda using: read_status(using, own(using)), names))


def read_status(using: str, own: Report) -> AliasStatus:
    """
    Return the snapshot of an alias; ``own`` is what this process says of itself. Never raises for
    what DynamoDB does, and takes some five seconds at most.
    """
    specs = [spec for spec in wanted_tables() if spec.using == using]
    names = [spec.name for spec in specs]
    questions: dict[str, Callable[[], Any]] = {
        "what other processes report": ReportStore(using).latest,
        "the use of the last hour": UseHistory(using).last_hour,
        "the decisions": Decisions(using).latest,
        "the records of capacity": lambda: DirectRecords(using).get_many(names),
    }
    descriptions = get_descriptions(using)
    for name in names:
        questions[f"table {name}"] = partial(descriptions.get, name)
    found, problems = _ask(questions)
    others, use, decisions, records = (found.get(what) for what in list(questions)[:4])
    reports = [own, *(each for each in others or () if each.process != own.process)]
    now = clock.now()
    known_use = merged(use or {}, total_use(reports))
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


def _ask(questions: Mapping[str, Callable[[], Any]]) -> tuple[dict[str, Any], tuple[str, ...]]:
    found: dict[str, Any] = {}
    failed: dict[str, list[str]] = {}
    threads = ThreadPoolExecutor(min(len(questions), 12), "dynamo-stores-status")
    try:
        futures: dict[Future[Any], str] = {
            threads.submit(question): what for what, question in questions.items()
        }
        done, late = wait(futures, timeout=_PATIENCE)
        for future in late:
            failed.setdefault(f"no answer in {_PATIENCE:g} s", []).append(futures[future])
        for future in done:
            try:
                found[futures[future]] = future.result()
            except (BotoCoreError, ClientError, StoreError) as exc:
                failed.setdefault(_why(exc), []).append(futures[future])
            except Exception as exc:
                # An item that somebody else wrote, say: the rest of the page is there.
                logger.exception("The status pages could not read %s.", futures[future])
                failed.setdefault(type(exc).__name__, []).append(futures[future])
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
    order = list(questions)
    return found, tuple(
        f"DynamoDB could not be asked for {_listed(sorted(what, key=order.index))}: {why}"
        for why, what in sorted(failed.items())
    )


def _why(exc: Exception) -> str:
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
    """Return the last minute of which every process that is there has told."""
    told = [each.at for each in reports if not each.has_ended and not each.is_late(now)]
    return max(minute_of(now) - 3, min(map(minute_of, told), default=minute_of(now)) - 1)


def _table(
    spec: TableSpec,
    described: tuple[float, TableCapacity | None] | None,
    use: UseByMinute,
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
    use: UseByMinute,
    last: int,
) -> ResourceStatus:
    full = f"{table}/{name}" if name else table
    minutes = [use.get(minute, {}).get(full, Use()) for minute in range(last - HOUR + 1, last + 1)]
    is_provisioned = capacity is not None and not capacity.is_on_demand
    units = capacity.resources[name].units if capacity is not None and is_provisioned else None
    read = _line([each.read / 60 for each in minutes], [each.throttled_reads for each in minutes])
    write = _line(
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
    later = [resources.get(full, Use()) for minute, resources in use.items() if minute > last]
    since = sum(each.throttled_reads + each.throttled_writes for each in later)
    return ResourceStatus(name, read, write, left, since)


def _line(history: list[float], throttled: list[int]) -> Line:
    return Line(None, None, None, history[-1], tuple(history), tuple(throttled))
