"""The page of costs: what tables cost in a month and on each day, and which mode is cheaper."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from .. import clock
from ..calls.direct import DIRECT_SECONDS
from ..capacity.description import TableCapacity
from ..conf import aliases
from ..cost.estimate import Line, number
from ..cost.load import TableLoad
from ..cost.measured import Measured, load_of, read_measured
from ..cost.prices import Prices, read_prices, rounded
from ..cost.report import CostReport, cost_report
from ..cost.settings import prices_of
from ..exceptions import CALL_ERRORS
from ..monitoring.formatting import exact
from ..monitoring.snapshot import NoAnswerInTime, get_descriptions, reason_of
from ..monitoring.status import AliasStatus
from .charts import SOLID, LineChart, Series, line_chart

logger = logging.getLogger(__name__)

# Seconds for which answers are waited for, as long as for those of the snapshot.
_MAX_WAIT = 2 * DIRECT_SECONDS + 0.5
# So many tables have a chart, those that cost the most.
_MOST_CHARTS = 5


class Reading:
    """Reads the measured hours of every alias in threads: one Query each for a megabyte."""

    def __init__(self) -> None:
        names = aliases()
        self._began = clock.monotonic()
        self._threads = ThreadPoolExecutor(len(names), "dynamo-stores-cost")
        self._found = {name: self._threads.submit(read_measured, name) for name in names}

    def measured(self, statuses: Sequence[AliasStatus]) -> dict[str, Measured]:
        """
        Return what was measured, with the reason in the notes where it was not read; never raises.
        Ends about five seconds after the reading began at most.
        """
        try:
            wait(
                self._found.values(),
                timeout=max(0.0, _MAX_WAIT - (clock.monotonic() - self._began)),
            )
            return {status.using: _result(self._found[status.using]) for status in statuses}
        finally:
            self._threads.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class TableRow:
    """A table with its cost in a month, and the lines of it with the amounts as text."""

    table: str
    mode: str
    reads: str
    writes: str
    size: str
    amount: str
    lines: tuple[tuple[Line, str], ...]


@dataclass(frozen=True)
class AliasCost:
    """The cost of the tables of one alias. ``problems`` are sentences about what is not known."""

    using: str
    report: CostReport
    problems: tuple[str, ...]
    rows: tuple[TableRow, ...]
    charts: tuple[LineChart, ...]

    @property
    def total(self) -> str:
        """The cost in a month, to the cent, so far as it is known."""
        if not self.rows:
            return "not known"
        amount = self.report.prices.money(rounded(self.report.total))
        return f"{amount} a month" + ("" if self.report.has_load else ", without reads and writes")

    @property
    def period(self) -> str:
        """When the load was measured, and how much of a month that is; empty if it was not."""
        load = self.report.load
        if load.first is None or load.last is None:
            return ""
        return (
            f"{exact(load.first)} to {exact(load.last)}, {number(load.measured_hours)} hours of "
            f"it, {self.report.measured_share:.1%} of a month"
        )

    @property
    def modes(self) -> list[tuple[str, str, str]]:
        """Name, cost in a month, and reason of each mode, the cheapest first."""
        money = self.report.prices.money
        return [
            (each.name, money(each.amount), self.report.about(each))
            for each in self.report.comparison.modes
        ]

    @property
    def redis(self) -> list[tuple[str, str, str]]:
        """Name, cost in a month, and arithmetic of a managed Redis, the cheapest first."""
        money = self.report.prices.money
        return [
            (
                each.name if each.has_failover else f"{each.name}, without failover",
                money(each.amount),
                each.arithmetic,
            )
            for each in self.report.redis
        ]

    @property
    def waste(self) -> list[tuple[str, str, str]]:
        """Resource, message with advice, and saving of each finding, the largest first."""
        money = self.report.prices.money
        return [
            (
                each.resource,
                f"{each.message} {each.advice}",
                "not known" if each.saving is None else f"up to {money(each.saving)}",
            )
            for each in self.report.waste
        ]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {"using": self.using, "problems": list(self.problems), **self.report.as_json()}


def costs(statuses: Sequence[AliasStatus], measured: Mapping[str, Measured]) -> list[AliasCost]:
    """Return the costs of each alias; no call but those of the snapshot is made."""
    return [_cost(status, measured[status.using]) for status in statuses]


def _cost(status: AliasStatus, measured: Measured) -> AliasCost:
    prices, problem = _prices(status.using)
    known = dict(_capacities(status))
    load = load_of(status.using, measured, known.get, tables=sorted(known))
    report = cost_report(load, prices, measured=measured)
    unknown = [each.table for each in status.tables if each.table not in known]
    others = {name.partition("/")[0] for name in measured.names()} - {*known, *unknown}
    problems = [problem] if problem else []
    if unknown:
        problems.append(f"Not known, and not counted: {', '.join(sorted(unknown))}.")
    if others:
        problems.append(
            f"Tables without a model are not counted: {', '.join(sorted(others))}. The command "
            "dynamo_cost counts them."
        )
    rows = sorted(load.tables, key=lambda table: -report.of_table(table.table))
    return AliasCost(
        status.using,
        report,
        (*problems, *load.notes),
        tuple(_row(table, report) for table in rows),
        tuple(_charts(report, [each.table for each in rows], status.at)),
    )


def _prices(using: str) -> tuple[Prices, str]:
    """Return the prices; instead of missing ones those of the package, and a sentence about it."""
    try:
        return prices_of(using), ""
    except CALL_ERRORS as exc:
        prices = read_prices()
        hint = f"The prices of {prices.region} are shown. See the setting COST."
        return prices, f"{str(exc).partition(' Give a file')[0]} {hint}"


def _capacities(status: AliasStatus) -> Iterator[tuple[str, TableCapacity]]:
    if status.outage is not None:
        return
    descriptions = get_descriptions(status.using)
    for each in status.tables:
        try:
            # Just described for the snapshot.
            _, capacity = descriptions.get(each.table)
        except CALL_ERRORS:
            continue
        if capacity is not None:
            yield each.table, capacity


def _row(table: TableLoad, report: CostReport) -> TableRow:
    money = report.prices.money

    def units(kind: str) -> str:
        return number(table.units(kind)) if report.has_load else "not known"

    return TableRow(
        table.table,
        "on demand" if table.is_on_demand else "provisioned",
        units("read"),
        units("write"),
        f"{number(table.gb)} GB",
        money(report.of_table(table.table)),
        tuple((line, money(line.amount)) for line in report.lines if line.table == table.table),
    )


def _charts(report: CostReport, tables: list[str], now: float) -> Iterator[LineChart]:
    if not report.days:
        return
    names = [None, *tables[:_MOST_CHARTS]] if len(tables) > 1 else tables
    times = [day.at for day in report.days]
    for name in names:
        costs = [day.total if name is None else day.costs[name] for day in report.days]
        # A table that costs next to nothing would be a line without meaning.
        if sum(costs) * 100 > sum(day.total for day in report.days):
            yield line_chart(
                "All tables, by day" if name is None else f"{name}, by day",
                times,
                [Series("cost", SOLID, [float(each) for each in costs])],
                lambda value: report.prices.money(Decimal(str(value))),
                now=now,
            )


def _result(future: Future[Measured]) -> Measured:
    if not future.done():
        reason = reason_of(NoAnswerInTime(f"no answer in {_MAX_WAIT:g} s"))
    else:
        try:
            return future.result()
        except CALL_ERRORS as exc:
            reason = reason_of(exc)
        except Exception as exc:
            # For example an item written by other software; the rest of the page is shown.
            logger.exception("The page of costs could not read what was measured.")
            reason = reason_of(exc)
    return Measured(notes=(f"What was measured was not read: {reason}.",))
