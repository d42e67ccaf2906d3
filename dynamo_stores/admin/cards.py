"""A snapshot prepared for the status pages: cards, rows and sentences. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..capacity.history import CapacityDecision
from ..capacity.usage import HOUR
from ..monitoring.formatting import ago, clock_time, count_of, milliseconds, number, span
from ..monitoring.report import Report
from ..monitoring.status import (
    CAPACITY,
    DECISION,
    USAGE,
    AliasStatus,
    BreakerRow,
    ResourceStatus,
    TableStatus,
)
from .actions import ACTIONS, LOWER, RAISE
from .charts import Bar, Sparkline, bar, sparkline

# Throttling of so many minutes is reported in the summary.
_RECENT_MINUTES = 5
# A process that stopped reporting is in the summary for so many seconds.
_RECENTLY_LATE = 900.0
# A table throttles if its last throttle was so many seconds ago: reports come once a minute.
_STILL = 150.0
_OK, _NOTICE, _ALARM = "ok", "notice", "alarm"
SYMBOLS = {_OK: "●", _NOTICE: "◆", _ALARM: "▲"}


@dataclass(frozen=True)
class Gauge:
    """The read or write side of a table or index; ``top`` is the upper end of its chart."""

    kind: str
    short: str
    used: float
    capacity: int | None
    baseline: int | None
    maximum: int | None
    bar: Bar | None
    chart: Sparkline
    is_quiet: bool
    top: float


@dataclass(frozen=True)
class ResourceCard:
    """A table's own capacity, or that of an index."""

    label: str
    gauges: tuple[Gauge, ...]
    is_quiet: bool
    decreases_left: int | None


@dataclass(frozen=True)
class Card:
    """
    One table. ``level`` is ok, notice or alarm, shown by ``symbol``; ``alerts`` are sentences for
    the summary. ``line`` has its capacity and usage in a few words; ``is_open``: whether all of the
    card is shown at first. The usage is of a time that ended at ``until``; its chart begins at
    ``first``.
    """

    status: TableStatus
    level: str
    symbol: str
    state: str
    line: str
    alerts: tuple[str, ...]
    resources: tuple[ResourceCard, ...]
    reasons: tuple[tuple[str, int], ...]
    actions: tuple[tuple[str, str], ...]
    advice: str
    is_open: bool
    is_overdue: bool
    knows_usage: bool
    knows_decision: bool
    first: str
    until: str


def cards(status: AliasStatus) -> list[Card]:
    """Return a card for each table, those that need attention first."""
    order = {_ALARM: 0, _NOTICE: 1, _OK: 2}
    found = [_card(table, status) for table in status.tables]
    return sorted(found, key=lambda card: (order[card.level], card.status.table))


@dataclass(frozen=True)
class ProcessRow:
    """A row of the table of processes; ``hits`` is the cache hit rate as text."""

    using: str
    report: Report
    now: float
    is_here: bool
    is_late: bool
    attempts: int
    errors: int
    throttled: int
    hits: str


def processes(status: AliasStatus) -> list[ProcessRow]:
    """Return a row for each process, this one first, those that ended last."""
    found = []
    for report in status.reports:
        lookups = report.cache_hits + report.cache_misses
        found.append(
            ProcessRow(
                using=status.using,
                report=report,
                now=status.at,
                is_here=report.process == status.here,
                is_late=report.is_late(status.at),
                attempts=sum(each.attempts for each in report.calls.values()),
                errors=sum(each.errors for each in report.calls.values()),
                throttled=sum(each.throttled for each in report.calls.values()),
                hits=f"{100 * report.cache_hits / lookups:.0f}% of {lookups:,}" if lookups else "",
            )
        )
    return sorted(
        found,
        key=lambda row: (not row.is_here, row.report.has_ended, not row.is_late, -row.attempts),
    )


def summary(statuses: Iterable[AliasStatus]) -> tuple[str, list[str]]:
    """Return the highest level of all aliases, and the sentences that explain it."""
    sentences: list[str] = []
    processes, tables, alarmed = set(), 0, False
    for status in statuses:
        processes |= {each.process for each in status.reporting}
        tables += len(status.tables)
        if status.outage is not None:
            sentences += [f"{problem}." for problem in status.problems]
        opened = [row for row in status.breakers if row.state != "closed" and not row.is_late]
        for table in sorted({row.table for row in opened}):
            sentences.append(_opened([row for row in opened if row.table == table], status))
        found = cards(status)
        sentences += [alert for card in found for alert in card.alerts]
        # A process that is late for longer was probably stopped on purpose.
        late = [
            each
            for each in status.reports
            if each.is_late(status.at) and status.at - each.at < _RECENTLY_LATE
        ]
        if late:
            sentences.append(
                f"{count_of(len(late), 'process')} did not report when expected: stopped, or "
                "unable to reach DynamoDB."
            )
        if status.outage is None:
            sentences += [f"{problem}." for problem in status.problems]
        sentences += [f"{note}." for note in status.notes]
        alarmed |= bool(opened or status.problems) or any(c.level == _ALARM for c in found)
    if not sentences:
        counts = f"{count_of(tables, 'table')}, {count_of(len(processes), 'process')}"
        return _OK, [
            f"No problems: {counts}, no open breaker, no throttling in the last "
            f"{_RECENT_MINUTES} minutes."
        ]
    return (_ALARM if alarmed else _NOTICE), sentences


def _opened(rows: list[BreakerRow], status: AliasStatus) -> str:
    """Return the sentence about the open breakers of one table."""
    since = min(row.since for row in rows)
    where = f"{count_of(len(rows), 'process')} of {len(status.reporting)}"
    if not status.knows_others:
        where = "this process"
    tries = [row.next_try for row in rows if row.next_try is not None]
    then = f"; next try at {clock_time(min(tries), status.at)}" if tries else ""
    return (
        f"The circuit breaker of {rows[0].table} is open in {where} since "
        f"{clock_time(since, status.at)}, for {span(status.at - since)}, after "
        f"{rows[0].error or 'failures'}{then}."
    )


def describe_change(decision: CapacityDecision) -> str:
    """Return ``10 → 40 WCU`` for each capacity that changed, or ``not changed``."""
    parts = []
    for name, after in decision.after.items():
        before = decision.before.get(name, after)
        for index, unit in ((0, "RCU"), (1, "WCU")):
            if before[index] != after[index]:
                where = f"{name}: " if name else ""
                parts.append(f"{where}{number(before[index])} → {number(after[index])} {unit}")
    return ", ".join(parts) or "not changed"


def _card(table: TableStatus, status: AliasStatus) -> Card:
    knows_usage = USAGE not in table.not_known
    recent = sum(each.throttled(_RECENT_MINUTES) for each in table.resources)
    is_overdue = table.is_overdue(status.at)
    level, state = _state(table, recent=bool(recent), is_overdue=is_overdue)
    alerts = []
    if table.status == "missing":
        alerts.append(
            f"Table {table.table} is missing. Create it with 'manage.py dynamo_create_tables'."
        )
    elif recent and status.outage is None:
        alerts.append(_throttled(table, recent, status.at))
    elif table.status not in ("ACTIVE", "unknown"):
        alerts.append(f"Table {table.table} is {table.status}: its old capacity still applies.")
    if is_overdue and table.comes_down_at is not None:
        alerts.append(
            f"Table {table.table} should have been lowered {ago(table.comes_down_at, status.at)}: "
            "nothing runs dynamo_reconcile."
        )
    return Card(
        status=table,
        level=level,
        symbol=SYMBOLS[level],
        state=state,
        line=_line(table),
        alerts=tuple(alerts),
        resources=tuple(_resource(each) for each in table.resources),
        reasons=tuple(sorted(table.reasons.items(), key=lambda item: -item[1])),
        actions=_actions(table),
        advice=_advice(table),
        is_open=CAPACITY not in table.not_known
        and (level != _OK or table.comes_down_at is not None),
        is_overdue=is_overdue,
        knows_usage=knows_usage,
        knows_decision=DECISION not in table.not_known,
        first=clock_time(table.used_at - 60.0 * HOUR, status.at),
        until=clock_time(table.used_at, status.at),
    )


def _state(table: TableStatus, *, recent: bool, is_overdue: bool) -> tuple[str, str]:
    """Return the level of the table, and its state in a word."""
    match table.status:
        case "missing":
            return _ALARM, "missing"
        case "unknown":
            return _NOTICE, "not known"
    if recent:
        return _ALARM, "throttled"
    if is_overdue:
        return _ALARM, "not lowered in time"
    if table.status != "ACTIVE":
        return _NOTICE, table.status.lower()
    return _OK, "on demand" if table.is_on_demand else "active"


def _line(table: TableStatus) -> str:
    own = table.resources[0]
    parts = []
    if own.read.capacity is not None and own.write.capacity is not None:
        parts.append(f"{number(own.read.capacity)} RCU, {number(own.write.capacity)} WCU")
    if table.status not in ("missing", "unknown"):
        known = USAGE not in table.not_known
        used = f"{number(own.read.used)}/s read, {number(own.write.used)}/s written"
        parts.append(used if known else "usage not known")
        if known and table.latency:
            busiest = table.latency[0]
            parts.append(f"{busiest.operation} p99 {milliseconds(busiest.p99)}")
    return " · ".join(parts)


def _actions(table: TableStatus) -> tuple[tuple[str, str], ...]:
    """Return the names and labels of the actions that can change the table."""
    if table.is_on_demand or table.status != "ACTIVE":
        return ()
    lines = [line for each in table.resources for line in (each.read, each.write)]
    is_raised = any((line.capacity or 0) > (line.baseline or 0) for line in lines)
    names = (RAISE, LOWER) if is_raised else (RAISE,)
    return tuple((name, ACTIONS[name].label) for name in names)


def _throttled(table: TableStatus, recent: int, now: float) -> str:
    """Return since when, how much was asked for and served, what was done and what to do."""
    time = table.throttling
    text = f"Table {table.table} is throttled"
    if time is not None and now - time.last < _STILL:
        text += f" since {clock_time(time.since, now)}, for {span(now - time.since)}"
    elif time is not None:
        text = f"Table {table.table} was throttled from {clock_time(time.since, now)} to "
        text += clock_time(time.last, now)
    if time is not None:
        units = f"{time.kind.lower()} units a second"
        text += f": {number(time.asked)} {units} asked for, {number(time.served)} served"
    reason = max(table.reasons, key=lambda name: table.reasons[name], default="")
    text += f" ({count_of(recent, 'attempt')} in {_RECENT_MINUTES} minutes"
    text += f", {reason})." if reason else ")."
    return " ".join([text, *_done(table, now), *_to_do(table)])


def _done(table: TableStatus, now: float) -> list[str]:
    if DECISION in table.not_known:
        return ["The last decision is not known."]
    if table.decision is None:
        return ["There is no scaling decision yet."]
    found = []
    if (change := table.change) is not None:
        found.append(
            f"Changed {describe_change(change)} at {clock_time(change.at, now)}, because "
            f"{change.why}."
        )
    if table.decision != change and not (table.decision.code == "at_maximum" and _full(table)):
        why, at = table.decision.why, clock_time(table.decision.at, now)
        found.append(f"Last decision at {at}: not changed, because {why}.")
    return found


def _full(table: TableStatus) -> list[tuple[str, int]]:
    """Return the kinds that throttle at the maximum of the settings, with their capacity."""
    kinds = [table.throttling.kind] if table.throttling else ["Read", "Write"]
    found = {}
    for kind in kinds:
        for resource in table.resources:
            line = resource.read if kind == "Read" else resource.write
            if line.capacity and line.maximum and line.capacity >= line.maximum:
                found[kind] = line.capacity
    return list(found.items())


def _to_do(table: TableStatus) -> list[str]:
    found = [
        f"{number(capacity)} {'RCU' if kind == 'Read' else 'WCU'} is MAX_{kind.upper()}_CAPACITY: "
        "raise that setting, or send fewer requests."
        for kind, capacity in _full(table)
    ]
    if not found and table.scaling == "off" and not table.is_on_demand:
        found.append("Scaling is off: raise the table, or send fewer requests.")
    if table.comes_down_at is not None:
        delay = span(table.scale_down_delay)
        found.append(f"It will be lowered {delay} after the last throttle at the earliest.")
    return found


def _advice(table: TableStatus) -> str:
    if CAPACITY in table.not_known:
        return ""
    if table.is_on_demand:
        return "On demand: DynamoDB manages the capacity and bills each request."
    if table.scaling == "off":
        return (
            "Scaling is off for this table: set "
            f"DYNAMO_STORES[{table.using!r}]['SCALING'] = {{'ENABLED': True}}."
        )
    if table.scaling == "dry run":
        return "Scaling only records what it would do: SCALING['DRY_RUN'] is True."
    return ""


def _resource(resource: ResourceStatus) -> ResourceCard:
    gauges = []
    # Both charts have one scale, so that they can be compared.
    top = max(1.0, *resource.read.history, *resource.write.history)
    for kind, short, line in (("read", "RCU", resource.read), ("write", "WCU", resource.write)):
        gauges.append(
            Gauge(
                kind=kind,
                short=short,
                used=line.used,
                capacity=line.capacity,
                baseline=line.baseline,
                maximum=line.maximum,
                bar=bar(line, kind),
                chart=sparkline(line.history, line.throttled, f"{kind.capitalize()}s", top),
                is_quiet=not any(line.history) and not any(line.throttled),
                top=top,
            )
        )
    return ResourceCard(
        f"Index {resource.name}" if resource.name else "Table",
        tuple(gauges),
        all(gauge.is_quiet and gauge.bar is None for gauge in gauges),
        resource.decreases_left,
    )
