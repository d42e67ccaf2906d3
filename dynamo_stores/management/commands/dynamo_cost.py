"""``manage.py dynamo_cost``: what the tables cost in a month, and which mode is cheaper."""

from __future__ import annotations

import dataclasses
import json
from argparse import ArgumentParser
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ...capacity.update import describe
from ...conf.rules import URL, or_none
from ...cost.cloudwatch import read_cloudwatch
from ...cost.estimate import number
from ...cost.load import Load, assumed
from ...cost.measured import MOST_DAYS, backups_of, load_of, read_measured
from ...cost.prices import read_prices, rounded
from ...cost.report import CostReport, cost_report
from ...cost.sample import Sample, sample
from ...cost.settings import prices_of
from ...cost.waste import LEAST_HOURS
from ...monitoring.formatting import count_of, exact
from ..options import between, check_options, whole_between
from ..tables import add_choice_of_tables, chosen_tables, command_errors, for_each_alias

_MANY = 10**15
_ASSUMED = ("reads_per_day", "writes_per_day", "storage_mb")


def decimal(text: str) -> Decimal:
    try:
        found = Decimal(text)
    except InvalidOperation:
        raise ValueError(text) from None
    if not found.is_finite():
        raise ValueError(text)
    return found


class Command(BaseCommand):
    help = (
        "Prints what the tables cost in a month, by what the processes reported, by CloudWatch "
        "(--cloudwatch), or by assumptions (--reads-per-day and the like); compares on-demand, "
        "provisioned and reserved capacity and a managed Redis; and lists what is of no use."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_choice_of_tables(parser)
        parser.add_argument(
            "--days", type=int, metavar="N", help="Days that are measured (default: 30)."
        )
        parser.add_argument(
            "--cloudwatch", action="store_true", help="Measured by CloudWatch, which is charged."
        )
        parser.add_argument("--cloudwatch-endpoint-url", metavar="URL")
        assumptions = parser.add_argument_group("assumptions, instead of what was measured")
        for name, text in (
            ("reads-per-day", "Read units a day."),
            ("writes-per-day", "Write units a day."),
            ("storage-mb", "MB of 1,000,000 bytes that are stored."),
        ):
            assumptions.add_argument(f"--{name}", type=decimal, metavar="N", help=text)
        assumptions.add_argument(
            "--indexes", type=int, metavar="N", help="Indexes with every item (default: 0)."
        )
        assumptions.add_argument(
            "--peak",
            type=decimal,
            metavar="FACTOR",
            help="How much busier the busiest minute is than the average one (default: 1).",
        )
        more = parser.add_argument_group("assumptions, or changes of what was measured")
        more.add_argument("--replicas", type=int, metavar="N", help="Replicas in other regions.")
        more.add_argument(
            "--stream-reads-per-day", type=decimal, metavar="N", help="Reads of each stream."
        )
        more.add_argument("--backups", action="store_true", help="One full backup is kept.")
        more.add_argument(
            "--point-in-time-recovery", action="store_true", help="It is on for each table."
        )
        prices = parser.add_argument_group("prices")
        prices.add_argument(
            "--prices",
            metavar="FILE",
            help="A JSON file of prices, or 2024 for those of that year (default: the package's).",
        )
        prices.add_argument("--region", help="The region (default: that of the alias).")
        prices.add_argument(
            "--price-region", metavar="REGION", help="Take the prices of another region."
        )
        prices.add_argument(
            "--factor", type=decimal, help="Multiply prices (default: that of COST, 1)."
        )
        parser.add_argument(
            "--sample",
            type=int,
            metavar="N",
            help="Read N items of each table for what is wasted; it costs read units.",
        )
        parser.add_argument(
            "--sample-rate",
            type=float,
            default=5.0,
            metavar="UNITS",
            help="Read units a second of the sample (default: 5).",
        )
        parser.add_argument(
            "--by-day", action="store_true", help="Print the cost per table per day."
        )
        parser.add_argument("--json", action="store_true", help="Print one JSON object.")

    def handle(self, *args: Any, table: list[str] | None, **options: Any) -> None:
        _check({**options, "table": table})
        reports: dict[str | None, CostReport] = {}
        with command_errors():
            if any(options[name] is not None for name in _ASSUMED):
                reports[None] = _assumed(options)
                tables: dict[str, list[str] | None] = {}
            else:
                tables = _tables(table, options["using"])

        def measure(using: str) -> None:
            reports[using] = self._measured(using, tables[using], options)

        failures = for_each_alias(tables, measure)
        self._print(reports, options)
        if failures:
            raise CommandError("\n".join(failures))

    def _print(self, reports: dict[str | None, CostReport], options: dict[str, Any]) -> None:
        if options["json"]:
            found = [{"using": using, **each.as_json()} for using, each in reports.items()]
            self.stdout.write(json.dumps({"costs": found}, indent=1))
            return
        for using, report in reports.items():
            if using is not None and len(reports) > 1:
                self.stdout.write(self.style.MIGRATE_HEADING(f"Alias {using}"))
            for line in _days(report) if options["by_day"] else _lines(report):
                self.stdout.write(line)

    def _measured(
        self, using: str, tables: list[str] | None, options: dict[str, Any]
    ) -> CostReport:
        prices = prices_of(
            using,
            path=options["prices"],
            region=options["region"],
            price_region=options["price_region"],
            factor=options["factor"],
        )
        if options["cloudwatch"]:
            measured, capacities = read_cloudwatch(
                using,
                tables=tables,
                days=options["days"] or 30,
                endpoint_url=options["cloudwatch_endpoint_url"],
            )
        else:
            measured = read_measured(using, days=options["days"] or 30)
            capacities = {}
        load = load_of(
            using,
            measured,
            lambda name: capacities.get(name) or describe(using, name),
            source="cloudwatch" if options["cloudwatch"] else "reports",
            tables=tables,
            backups=backups_of(using),
        )
        load = _changed(load, options)
        samples: list[Sample] = []
        for each in load.tables if options["sample"] else ():
            found = sample(using, each.table, options["sample"], options["sample_rate"])
            samples.append(found)
            self.stderr.write(
                f"Read {count_of(found.items, 'item')} of {each.table} for {found.units:g} read "
                f"units ({prices.money(Decimal(str(found.units)) * prices.on_demand.read / 10**6)})"
            )
        return cost_report(load, prices, measured=measured, samples=samples)


def _check(options: dict[str, Any]) -> None:
    check_options(
        {name: value for name, value in options.items() if value is not None}
        | {name: 1 for name in ("days", "sample", "indexes", "replicas") if options[name] is None},
        days=whole_between(1, MOST_DAYS),
        sample=whole_between(1, 1_000_000),
        indexes=whole_between(0, 20),
        replicas=whole_between(0, 30),
        sample_rate=between(0.5, 40_000),
    )
    check_options(options, cloudwatch_endpoint_url=or_none(URL))
    for name in (*_ASSUMED, "stream_reads_per_day", "peak", "factor"):
        value, least = options[name], Decimal(1) if name == "peak" else Decimal(0)
        if value is not None and not least <= value <= _MANY:
            raise CommandError(
                f"--{name.replace('_', '-')} is {value}; expected a number from {least} to "
                f"{_MANY:,}."
            )
    if options["factor"] == 0:
        raise CommandError("--factor is 0; expected a number above 0.")
    is_assumed = any(options[name] is not None for name in _ASSUMED)
    measured_only = ("cloudwatch", "by_day", "sample", "days", "table", "using")
    for name in measured_only if is_assumed else ("indexes", "peak"):
        if options.get(name) not in (None, False):
            other = "assumptions" if is_assumed else "what was measured"
            raise CommandError(f"--{name.replace('_', '-')} cannot be used with {other}.")


def _assumed(options: dict[str, Any]) -> CostReport:
    zero = Decimal(0)
    load = assumed(
        reads_per_day=options["reads_per_day"] or zero,
        writes_per_day=options["writes_per_day"] or zero,
        storage_mb=options["storage_mb"] or zero,
        replicas=options["replicas"] or 0,
        indexes=options["indexes"] or 0,
        stream_reads_per_day=options["stream_reads_per_day"] or zero,
        backups=int(options["backups"]),
        point_in_time_recovery=options["point_in_time_recovery"],
        peak=options["peak"] or Decimal(1),
    )
    prices = read_prices(
        options["prices"],
        options["region"],
        price_region=options["price_region"],
        factor=options["factor"] or Decimal(1),
    )
    return cost_report(load, prices)


def _tables(names: list[str] | None, using: list[str] | None) -> dict[str, list[str] | None]:
    found: dict[str, list[str]] = {}
    for spec in chosen_tables(names, using):
        found.setdefault(spec.using, []).append(spec.name)
    # Without a choice, also the tables that are used and in no model.
    return {alias: each if names else None for alias, each in found.items()}


def _changed(load: Load, options: dict[str, Any]) -> Load:
    changes: dict[str, Any] = {}
    if options["replicas"] is not None:
        changes["replicas"] = options["replicas"]
    if options["point_in_time_recovery"]:
        changes["point_in_time_recovery"] = True
    tables = []
    for table in load.tables:
        changed = dataclasses.replace(table, **changes)
        if options["stream_reads_per_day"] is not None and table.has_stream:
            changed = dataclasses.replace(changed, stream_reads=options["stream_reads_per_day"])
        if options["backups"]:
            changed = dataclasses.replace(changed, backup_size=table.own.size)
        tables.append(changed)
    return dataclasses.replace(load, tables=tuple(tables))


def _lines(report: CostReport) -> Iterator[str]:
    load, money = report.load, report.prices.money
    yield from _heading(report)
    yield ""
    resources = {line.resource for line in report.lines}
    width = max((len(line.what) for line in report.lines), default=0)
    for resource in sorted(resources, key=lambda each: (each == "all tables", each)):
        if len(resources) > 1:
            yield f"{resource}:"
        for line in report.lines:
            if line.resource == resource:
                yield f"  {line.what + ':':<{width + 1}} {line.arithmetic} = {money(line.amount)}"
    known = "" if report.has_load else ", without reads and writes"
    amounts = f"{money(rounded(report.total))} a month ({money(report.total)} before rounding)"
    yield f"Total: {amounts}{known}."
    if report.has_load:
        yield from _compared(report)
    else:
        yield ""
        yield "Other modes and a managed Redis are compared once reads and writes are known."
    if load.is_measured:
        yield ""
        if report.waste:
            yield "What could be saved:"
        elif load.measured_hours < LEAST_HOURS:
            yield f"What could be saved is found from {LEAST_HOURS} measured hours on."
        else:
            yield "No waste was found in these figures."
        for waste in report.waste:
            saving = "" if waste.saving is None else f" Up to {money(waste.saving)} a month."
            yield f"  {waste.resource}: {waste.message} {waste.advice}{saving}"


def _compared(report: CostReport) -> Iterator[str]:
    money = report.prices.money
    yield ""
    yield "The same units in other modes, without storage and the like:"
    for mode in report.comparison.modes:
        yield f"  {mode.name}: {money(mode.amount)} ({report.about(mode)})"
    yield from report.advice()
    yield ""
    if report.redis:
        yield "The same load on a managed Redis, which keeps all data in memory:"
        for each in report.redis:
            failover = "" if each.has_failover else ", without failover"
            yield f"  {each.name}: {each.arithmetic} = {money(each.amount)}{failover}"
    else:
        yield "The price file has no prices of a managed Redis for this region."


def _heading(report: CostReport) -> Iterator[str]:
    prices, load = report.prices, report.load
    yield f"Prices: {prices.title}. Source: {prices.source}."
    if not load.is_measured:
        yield "Load: assumptions from the command line."
        return
    source = "CloudWatch" if load.source == "cloudwatch" else "the reports of the processes"
    if load.first is None or load.last is None:
        yield f"Load: {source}, which have no figures; sizes are known."
    else:
        yield (
            f"Load: {source}, {exact(load.first)} to {exact(load.last)}; "
            f"{number(load.measured_hours)} hours are known, {report.measured_share:.1%} of a "
            "month."
        )
    for note in load.notes:
        yield f"  {note}"


def _days(report: CostReport) -> Iterator[str]:
    yield from _heading(report)
    if not report.days:
        yield "No day was measured."
        return
    money = report.prices.money
    for day in report.days:
        hours, rest = divmod(day.minutes, 60)
        known = count_of(day.minutes, "minute") if rest else count_of(hours, "hour")
        part = "" if hours == 24 else f" ({known} measured)"
        yield f"{day.date}{part}: {money(day.total)}"
        for table, cost in sorted(day.costs.items(), key=lambda each: -each[1]):
            yield f"  {table}: {money(cost)}"
