"""What the pages say of a snapshot: pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..capacity.history import CapacityDecision
from ..monitoring.formatting import ago, count_of, number
from ..monitoring.report import Report
from ..monitoring.status import AliasStatus, ResourceStatus, TableStatus
from .charts import Bar, Sparkline, bar, sparkline

# Throttling of the last minutes is news, what was before is history.
_NEWS = 5
_LATELY = 900.0
_CALM, _NOTICE, _ALARM = "calm", "notice", "alarm"


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
    """One table: ``mood`` is calm, notice or alarm; ``news`` is what to know first."""

    status: TableStatus
    mood: str
    state: str
    news: tuple[str, ...]
    resources: tuple[ResourceCard, ...]
    reasons: tuple[tuple[str, int], ...]
    can_scale: bool
    advice: str


def cards(status: AliasStatus) -> list[Card]:
    """Return a card for each table, those that need somebody first."""
    order = {_ALARM: 0, _NOTICE: 1, _CALM: 2}
    found = [_card(table, status) for table in status.tables]
    return sorted(found, key=lambda card: (order[card.mood], card.status.table))


@dataclass(frozen=True)
class ProcessRow:
    """What the table of processes says of one; ``hits`` is a share of lookups, in words."""

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
    """Return the mood of everything, and the sentences that say why."""
    sentences: list[str] = []
    processes, tables, alarmed = set(), 0, False
    for status in statuses:
        there = [each for each in status.reports if not each.has_ended]
        processes |= {each.process for each in there}
        tables += len(status.tables)
        opened = [row for row in status.breakers if row.state != "closed" and not row.is_late]
        for table in sorted({row.table for row in opened}):
            rows = [row for row in opened if row.table == table]
            since = min(row.since for row in rows)
            error = rows[0].error or "failures"
            sentences.append(
                f"The circuit breaker of {table} is open in {count_of(len(rows), 'process')} of "
                f"{len(there)} since {ago(since, status.at)}, after {error}."
            )
            alarmed = True
        for card in cards(status):
            sentences += card.news
            alarmed |= card.mood == _ALARM
        # Later than that it was stopped on purpose, or somebody knows.
        late = [each for each in there if each.is_late(status.at) and status.at - each.at < _LATELY]
        if late:
            sentences.append(
                f"{count_of(len(late), 'process')} did not report when expected: stopped, or "
                "without DynamoDB."
            )
        sentences += [f"{problem}." for problem in status.problems]
        alarmed |= bool(status.problems)
    if not sentences:
        calm = f"All calm: {count_of(tables, 'table')}, {count_of(len(processes), 'process')}, "
        return _CALM, [f"{calm}no open breaker, nothing throttled in the last minutes."]
    return (_ALARM if alarmed else _NOTICE), sentences


def what_was_done(decision: CapacityDecision) -> str:
    """Return ``10 → 40 WCU`` for each thing that changed, or that nothing was."""
    parts = []
    for name, after in decision.after.items():
        before = decision.before.get(name, after)
        for index, unit in ((0, "RCU"), (1, "WCU")):
            if before[index] != after[index]:
                where = f"{name}: " if name else ""
                parts.append(f"{where}{number(before[index])} → {number(after[index])} {unit}")
    return ", ".join(parts) or "not changed"


def _card(table: TableStatus, status: AliasStatus) -> Card:
    lately = sum(each.throttled(_NEWS) for each in table.resources)
    news = []
    mood = _CALM
    state = "on demand" if table.is_on_demand and table.status == "ACTIVE" else table.status.lower()
    if table.status == "missing":
        mood = _ALARM
        news.append(f"Table {table.table} is missing: manage.py dynamo_create_tables makes it.")
    elif lately:
        mood = _ALARM
        news.append(_throttled(table, lately, status.at))
    elif table.status not in ("ACTIVE", "unknown"):
        mood = _NOTICE
        news.append(f"Table {table.table} is {table.status}: it works on at its old rates.")
    elif table.status == "unknown":
        mood = _NOTICE
    return Card(
        status=table,
        mood=mood,
        state=state,
        news=tuple(news),
        resources=tuple(_resource(each) for each in table.resources),
        reasons=tuple(sorted(table.reasons.items(), key=lambda item: -item[1])),
        can_scale=not table.is_on_demand and table.status == "ACTIVE",
        advice=_advice(table),
    )


def _throttled(table: TableStatus, lately: int, now: float) -> str:
    said = f"Table {table.table} is throttled: {count_of(lately, 'attempt')} in {_NEWS} minutes"
    reason = max(table.reasons, key=lambda name: table.reasons[name], default="")
    if reason:
        said += f" ({reason})"
    if table.decision is None:
        return f"{said}; nothing was decided about it yet."
    did = what_was_done(table.decision) if table.decision.is_taken else table.decision.code
    said += f"; {ago(table.decision.at, now)}: {did}, because {table.decision.why}"
    if table.comes_down_at is not None:
        said += f"; it comes down {ago(table.comes_down_at, now)}"
    return f"{said}."


def _advice(table: TableStatus) -> str:
    if table.is_on_demand:
        return "On demand: DynamoDB sizes it by itself, and bills each request."
    if table.scaling == "off":
        return (
            "Scaling is off for this table: set "
            f"DYNAMO_STORES[{table.using!r}]['SCALING'] = {{'ENABLED': True}}."
        )
    if table.scaling == "dry run":
        return "Scaling only says what it would do: DRY_RUN is set."
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
