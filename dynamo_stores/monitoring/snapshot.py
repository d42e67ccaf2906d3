"""
A snapshot of an alias, from a bounded number of calls.

One Query each for the reports of all processes, the usage of the last hour and the decisions, one
BatchGetItem for the records of capacity, and a DescribeTable per table, in parallel and over
direct connections. Calls that fail are listed as problems; the rest of the snapshot is complete.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from .. import clock
from ..calls.connection import get_connection
from ..calls.direct import DIRECT_SECONDS
from ..capacity.description import TableCapacity
from ..capacity.history import CapacityDecision
from ..capacity.records import DirectRecords, Record
from ..capacity.update import describe
from ..capacity.usage import HOUR, MINUTES, Usage, UsageByMinute, UsageHistory, merged, minute_of
from ..concurrency.per_process import PerProcess
from ..conf import aliases
from ..conf.groups import ScalingConfig
from ..exceptions import (
    CALL_ERRORS,
    ConfigurationError,
    OperationTimeoutError,
    StoreError,
    StoreRefused,
    StoreUnavailable,
    ThrottlingError,
    system_error,
)
from ..infrastructure.tables import TableSpec, wanted_tables
from .decision_list import DecisionList, recorded_decision
from .formatting import clock_time, count_of, span
from .latency import Totals, summary, total_latencies
from .meter import get_meter
from .report import Report, total_usage, usage_of
from .report_store import ReportStore
from .status import (
    CAPACITY,
    DECISION,
    LOWERING,
    USAGE,
    AliasStatus,
    Outage,
    ResourceStatus,
    TableStatus,
    ThrottledTime,
    ThroughputStatus,
)
from .tally import QUIET
from .values import text_of, time_of

logger = logging.getLogger(__name__)

# Seconds for which a description is cached, and for which all answers are waited for.
_CACHE_SECONDS, _MAX_WAIT = 10.0, 2 * DIRECT_SECONDS + 0.5
# Processes that were throttled so many seconds apart at most were throttled at the same time.
LONGEST_GAP = 120.0
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


def read_all(own: Callable[[str], Report], names: Sequence[str] | None = None) -> list[AliasStatus]:
    """Return the snapshots of the aliases ``names``, by default all; see :func:`read_status`."""
    names = aliases() if names is None else names
    with ThreadPoolExecutor(len(names), "dynamo-stores-status") as threads:
        return list(threads.map(lambda using: read_status(using, own(using)), names))


_REPORTS, _USAGE = "the reports of other processes", "the usage of the last hour"
_DECISIONS, _RECORDS = "the decisions", "the records of capacity"


def read_status(using: str, own: Report) -> AliasStatus:
    """
    Return the snapshot of an alias; ``own`` is the report of this process. Errors of DynamoDB are
    in its ``problems``, never raised. Takes about five seconds at most.
    """
    specs = [spec for spec in wanted_tables() if spec.using == using]
    names = [spec.name for spec in specs]
    reads: dict[str, Callable[[], Any]] = {
        _REPORTS: ReportStore(using).latest_and_unreadable,
        _USAGE: UsageHistory(using).last_hour,
        _DECISIONS: DecisionList(using).latest_and_unreadable,
        _RECORDS: lambda: DirectRecords(using).get_many(names),
    }
    control = list(reads)
    descriptions = get_descriptions(using)
    for name in names:
        reads[f"table {name}"] = partial(descriptions.get, name)
    began = clock.now()
    found, failed = _run(reads)
    now = clock.now()
    others, unreadable_reports = found.get(_REPORTS, ([], 0))
    decisions, unreadable_decisions = found.get(_DECISIONS, ([], 0))
    use, unreadable_usage = _readable(found.get(_USAGE, {}))
    reports = [own, *(each for each in others if each.process != own.process)]
    outage = None
    is_outage = _is_outage(found, [failed.get(each) for each in control], began)
    get_meter(using).record_outcome(is_answered=not is_outage)
    if is_outage:
        outage = _outage(using, own, now, failed[_REPORTS])
        # What was described before the outage is not known now.
        found.clear()
    last = _last_whole_minute(reports, now)
    latencies = total_latencies(report.latencies for report in reports)
    recent = {minute: each for minute, each in latencies.items() if minute >= last - MINUTES}
    known = _Known(found, merged(use, total_usage(reports)), last, reports, decisions, recent)
    return AliasStatus(
        using,
        now,
        (outage.sentence(now).removesuffix("."),) if outage else _problems(failed, list(reads)),
        tuple(reports),
        tuple(_table(spec, known) for spec in specs),
        tuple(decisions),
        own.process,
        outage=outage,
        notes=(
            *_failovers(using, now),
            *_notes(
                (unreadable_reports, "process report"),
                (unreadable_decisions, "decision"),
                (unreadable_usage, "usage figure"),
            ),
        ),
        knows_others=_REPORTS in found,
        knows_decisions=_DECISIONS in found,
    )


class NoAnswerInTime(Exception):
    """A call for the status took too long; it is not waited for."""


def _is_unanswered(failure: Exception | None) -> bool:
    """Return whether a call got no answer. A throttle is one."""
    return isinstance(failure, StoreUnavailable | NoAnswerInTime) and not isinstance(
        failure, ThrottlingError
    )


def _is_outage(
    found: Mapping[str, Any], failures: Sequence[Exception | None], began: float
) -> bool:
    """Return whether no call was answered; a description may be remembered from before."""
    return all(map(_is_unanswered, failures)) and not any(
        described_at >= began for described_at, _ in found.values()
    )


def _outage(using: str, own: Report, now: float, failure: Exception) -> Outage:
    meter = get_meter(using)
    opened = [each for each in own.breakers if each.state != "closed"]
    # A breaker may be open from an earlier outage. Without reports it may be the first to know.
    begins = [each.since for each in opened if each.since > meter.answered_at]
    tries = [each.next_try for each in opened if each.next_try is not None]
    return Outage(
        place=get_connection(using).place,
        since=min([meter.unanswered_since or now, *begins]),
        reason=reason_of(failure),
        next_try=min(tries, default=None),
        is_refusal=isinstance(failure, StoreRefused),
    )


def _readable(use: UsageByMinute) -> tuple[UsageByMinute, int]:
    """Return the figures of usage that can be shown, and how many cannot."""
    found: dict[int, dict[str, Usage]] = {}
    unreadable = 0
    for minute, resources in use.items():
        for name, each in resources.items():
            try:
                found.setdefault(minute, {})[text_of(name)] = usage_of(list(each))
            except ValueError:
                unreadable += 1
    return found, unreadable


def _failovers(using: str, now: float) -> Iterator[str]:
    for each in get_connection(using).failed_over():
        yield (
            f"The alias {each.failover!r} answers requests of this process on {each.table} since "
            f"{clock_time(each.since, now)}, for {span(now - each.since)}, after {each.error}"
        )


def _notes(*counts: tuple[int, str]) -> tuple[str, ...]:
    return tuple(
        f"{count_of(count, what)} cannot be read: written by another version or other software"
        for count, what in counts
        if count
    )


def _run(reads: Mapping[str, Callable[[], Any]]) -> tuple[dict[str, Any], dict[str, Exception]]:
    found: dict[str, Any] = {}
    failed: dict[str, Exception] = {}
    threads = ThreadPoolExecutor(min(len(reads), 12), "dynamo-stores-status")
    try:
        futures: dict[Future[Any], str] = {
            threads.submit(read): what for what, read in reads.items()
        }
        done, late = wait(futures, timeout=_MAX_WAIT)
        for future in late:
            failed[futures[future]] = NoAnswerInTime(f"no answer in {_MAX_WAIT:g} s")
        for future in done:
            try:
                found[futures[future]] = future.result()
            except CALL_ERRORS as exc:
                failed[futures[future]] = exc
            except Exception as exc:
                # For example an item written by other software; the rest of the page is shown.
                logger.exception("The status pages could not read %s.", futures[future])
                failed[futures[future]] = exc
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
    return found, failed


def _problems(failed: Mapping[str, Exception], order: list[str]) -> tuple[str, ...]:
    by_reason: dict[str, list[str]] = {}
    for what in sorted(failed, key=order.index):
        by_reason.setdefault(reason_of(failed[what]), []).append(what)
    return tuple(
        f"DynamoDB did not return {_listed(what)}: {why.removesuffix('.')}"
        for why, what in sorted(by_reason.items())
    )


def reason_of(exc: Exception) -> str:
    """Return why a call failed, such as ``connection refused``, in a few words."""
    if isinstance(exc, ClientError):
        error = exc.response.get("Error", {})
        return str(error.get("Message") or error.get("Code") or type(exc).__name__)
    if isinstance(exc, ConfigurationError | StoreRefused | NoAnswerInTime):
        return str(exc).removesuffix(".")
    if found := system_error(exc):
        return found
    if isinstance(exc, OperationTimeoutError):
        return "no answer in time"
    return str(exc).removesuffix(".") if isinstance(exc, StoreError) else type(exc).__name__


def _listed(words: list[str]) -> str:
    if len(words) > 6:
        words = [*words[:5], f"{len(words) - 5} more"]
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _last_whole_minute(reports: list[Report], now: float) -> int:
    """Return the last minute that every running process has reported in full."""
    times = [each.at for each in reports if not each.has_ended and not each.is_late(now)]
    return max(minute_of(now) - 3, min(map(minute_of, times), default=minute_of(now)) - 1)


@dataclass(frozen=True)
class _Known:
    """What was read of an alias: ``found`` by the names of the reads."""

    found: Mapping[str, Any]
    use: UsageByMinute
    last: int
    reports: list[Report]
    decisions: list[CapacityDecision]
    latencies: Mapping[int, Totals]

    def missing(self, spec: TableSpec) -> frozenset[str]:
        """Return the parts of the status of ``spec`` that were not read."""
        parts = {
            CAPACITY: [f"table {spec.name}"],
            USAGE: [_REPORTS, _USAGE],
            DECISION: [_DECISIONS, _RECORDS],
            LOWERING: [_RECORDS],
        }
        return frozenset(
            part for part, reads in parts.items() if not self.found.keys() >= set(reads)
        )


def _table(spec: TableSpec, known: _Known) -> TableStatus:
    described: tuple[float, TableCapacity | None] | None = known.found.get(f"table {spec.name}")
    status_at, capacity = described or (clock.now(), None)
    config = spec.config.scaling
    reasons: dict[str, int] = {}
    for report in known.reports:
        for reason, count in report.reasons.get(spec.name, {}).items():
            reasons[reason] = reasons.get(reason, 0) + count
    record: Record | None = known.found.get(_RECORDS, {}).get(spec.name)
    decisions = [each for each in known.decisions if each.table == spec.name]
    if record is not None and record.decision:
        recorded = recorded_decision(spec.name, record.decision)
        if recorded is not None and (not decisions or recorded.at > decisions[0].at):
            decisions.insert(0, recorded)
    names = list(capacity.resources) if capacity else ["", *(each.name for each in spec.indexes)]
    return TableStatus(
        using=spec.using,
        table=spec.name,
        status=capacity.status if capacity else _MISSING if described else _UNKNOWN,
        status_at=status_at,
        is_on_demand=capacity.is_on_demand if capacity else spec.billing_mode != "PROVISIONED",
        scaling=_scaling(config),
        resources=tuple(
            _resource(name, spec.name, capacity, config, known.use, known.last) for name in names
        ),
        reasons=reasons,
        decision=decisions[0] if decisions else None,
        comes_down_at=_deadline(record),
        used_at=(known.last + 1) * 60.0,
        not_known=known.missing(spec),
        change=next((each for each in decisions if each.is_taken), None),
        throttling=_throttled_time(spec.name, known.reports),
        scale_down_delay=config.scale_down_delay,
        latency=summary(spec.name, known.latencies.values()),
    )


def _deadline(record: Record | None) -> float | None:
    try:
        return time_of(record.deadline) if record and record.deadline is not None else None
    except ValueError:
        return None


def _throttled_time(table: str, reports: list[Report]) -> ThrottledTime | None:
    """Return the last time in which the table throttled any process."""
    found = [(report, report.throttling[table]) for report in reports if table in report.throttling]
    if not found:
        return None
    last = max(each.last for _, each in found)
    same = [(report, each) for report, each in found if last - each.last <= LONGEST_GAP]
    kind = max(same, key=lambda pair: pair[1].asked)[1].kind
    asked = served = 0.0
    for report, each in same:
        if each.kind == kind:
            seconds = max(1.0, min(report.at, each.last + QUIET) - each.since)
            asked += each.asked / seconds
            served += each.served / seconds
    return ThrottledTime(kind, min(each.since for _, each in same), last, asked, served)


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
