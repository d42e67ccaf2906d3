"""A snapshot prepared for the status pages: cards, rows and sentences. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..capacity.history import CapacityDecision
from ..monitoring.formatting import ago, count_of, number, span
from ..monitoring.report import Report
from ..monitoring.status import AliasStatus, ResourceStatus, TableStatus
from .charts import Bar, Sparkline, bar, sparkline

# Throttling of so many minutes is reported in the summary.
_RECENT_MINUTES = 5
# A process that stopped reporting is in the summary for so many seconds.
_RECENTLY_LATE = 900.0
_OK, _NOTICE, _ALARM = "ok", "notice", "alarm"


@dataclass(frozen=True)
class Gauge:
    """The read or write side of a table or index."""

    kind: str
    short: str
    used: float
    capacity: int | None
    baseline: int | None
    maximum: int | None
    bar: Bar | None
    chart: Sparkline
    is_quiet: bool


@dataclass(frozen=True)
class ResourceCard:
    """A table's own capacity, or that of an index."""

    label: str
    gauges: tuple[Gauge, ...]
    is_quiet: bool
    decreases_left: int | None


@dataclass(frozen=True)
class Card:
    """One table: ``level`` is ok, notice or alarm; ``alerts`` are sentences for the summary."""

    status: TableStatus
    level: str
    state: str
    alerts: tuple[str, ...]
    resources: tuple[ResourceCard, ...]
    reasons: tuple[tuple[str, int], ...]
    can_scale: bool
    advice: str


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
        running = [each for each in status.reports if not each.has_ended]
        processes |= {each.process for each in running}
        tables += len(status.tables)
        opened = [row for row in status.breakers if row.state != "closed" and not row.is_late]
        for table in sorted({row.table for row in opened}):
            rows = [row for row in opened if row.table == table]
            since = min(row.since for row in rows)
            error = rows[0].error or "failures"
            sentences.append(
                f"The circuit breaker of {table} is open in {count_of(len(rows), 'process')} of "
                f"{len(running)}, for {span(status.at - since)}, after {error}."
            )
            alarmed = True
        for card in cards(status):
            sentences += card.alerts
            alarmed |= card.level == _ALARM
        # A process that is late for longer was probably stopped on purpose.
        late = [
            each
            for each in running
            if each.is_late(status.at) and status.at - each.at < _RECENTLY_LATE
        ]
        if late:
            sentences.append(
                f"{count_of(len(late), 'process')} did not report when expected: stopped, or "
                "unable to reach DynamoDB."
            )
        sentences += [f"{problem}." for problem in status.problems]
        alarmed |= bool(status.problems)
    if not sentences:
        counts = f"{count_of(tables, 'table')}, {count_of(len(processes), 'process')}"
        return _OK, [
            f"No problems: {counts}, no open breaker, no throttling in the last "
            f"{_RECENT_MINUTES} minutes."
        ]
    return (_ALARM if alarmed else _NOTICE), sentences


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
    recent = sum(each.throttled(_RECENT_MINUTES) for each in table.resources)
    alerts = []
    level = _OK
    state = "on demand" if table.is_on_demand and table.status == "ACTIVE" else table.status.lower()
    if table.status == "missing":
        level = _ALARM
        alerts.append(
            f"Table {table.table} is missing. Create it with 'manage.py dynamo_create_tables'."
        )
    elif recent:
        level = _ALARM
        alerts.append(_throttled(table, recent, status.at))
    elif table.status not in ("ACTIVE", "unknown"):
        level = _NOTICE
        alerts.append(f"Table {table.table} is {table.status}: its old capacity still applies.")
    elif table.status == "unknown":
        level = _NOTICE
    return Card(
        status=table,
        level=level,
        state=state,
        alerts=tuple(alerts),
        resources=tuple(_resource(each) for each in table.resources),
        reasons=tuple(sorted(table.reasons.items(), key=lambda item: -item[1])),
        can_scale=not table.is_on_demand and table.status == "ACTIVE",
        advice=_advice(table),
    )


def _throttled(table: TableStatus, recent: int, now: float) -> str:
    text = f"Table {table.table} is throttled: {count_of(recent, 'attempt')} in "
    text += f"{_RECENT_MINUTES} minutes"
    reason = max(table.reasons, key=lambda name: table.reasons[name], default="")
    if reason:
        text += f" ({reason})"
    if table.decision is None:
        return f"{text}. There is no scaling decision yet."
    done = describe_change(table.decision) if table.decision.is_taken else table.decision.code
    text += f". Last decision {ago(table.decision.at, now)}: {done}, because {table.decision.why}"
    if table.comes_down_at is not None:
        text += f". It will be lowered {ago(table.comes_down_at, now)}"
    return f"{text}."


def _advice(table: TableStatus) -> str:
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
                chart=sparkline(line.history, line.throttled, f"{kind.capitalize()}s"),
                is_quiet=not any(line.history) and not any(line.throttled),
            )
        )
    return ResourceCard(
        f"Index {resource.name}" if resource.name else "Table",
        tuple(gauges),
        all(gauge.is_quiet and gauge.bar is None for gauge in gauges),
        resource.decreases_left,
    )
