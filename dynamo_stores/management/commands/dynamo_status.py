"""``manage.py dynamo_status``: the snapshot of the status pages as text or JSON."""

from __future__ import annotations

import contextlib
import json
from argparse import ArgumentParser
from dataclasses import replace
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ... import clock
from ...conf import aliases
from ...monitoring.formatting import (
    ago,
    clock_time,
    count_of,
    exact,
    milliseconds,
    number,
    span,
)
from ...monitoring.reporter import get_reporter
from ...monitoring.snapshot import read_all
from ...monitoring.status import DECISION, USAGE, AliasStatus, BreakerRow, TableStatus, as_json
from ..options import between, check_options
from ..tables import add_choice_of_aliases, chosen_aliases, chosen_tables, command_errors

_CLEAR = "\x1b[2J\x1b[H"


class Command(BaseCommand):
    help = (
        "Shows for each table and index the capacity, the baseline and maximum, the usage, the "
        "throttled attempts, the last decision with its reason, and when it will be lowered; then "
        "the processes that report, and their open breakers."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--table", action="append", metavar="NAME", help="Only this table; may be repeated."
        )
        add_choice_of_aliases(parser)
        parser.add_argument("--json", action="store_true", help="Print one JSON object.")
        parser.add_argument(
            "--watch",
            nargs="?",
            type=float,
            const=5.0,
            metavar="SECONDS",
            help="Repeat every SECONDS (5 if not given), until Ctrl-C.",
        )

    def handle(
        self,
        *args: Any,
        table: list[str] | None,
        using: list[str] | None,
        watch: float | None,
        **options: Any,
    ) -> None:
        if watch is None:
            self._show(table, using, as_object=options["json"])
            return
        check_options({"watch": watch}, watch=between(0.1, 86_400))
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                try:
                    if not options["json"]:
                        self.stdout.write(_CLEAR, ending="")
                    self._show(table, using, as_object=options["json"])
                except CommandError as exc:
                    self.stderr.write(str(exc))
                clock.sleep(watch)

    def _show(self, names: list[str] | None, using: list[str] | None, *, as_object: bool) -> None:
        with command_errors():
            wanted = {(spec.using, spec.name) for spec in chosen_tables(names, using)}
            # An alias may share its tables with another one, under which they are listed.
            shown = {*chosen_aliases(using), *(alias for alias, _ in wanted)}
            found = read_all(
                lambda alias: get_reporter(alias).report(),
                [alias for alias in aliases() if alias in shown],
            )
        statuses = [_without_process(each) for each in found]
        tables = [
            each
            for status in statuses
            for each in status.tables
            if (each.using, each.table) in wanted
        ]
        problems = [
            f"Alias {status.using!r}: {problem}."
            for status in statuses
            for problem in status.problems
        ]
        is_unknown = any(each.status == "unknown" for each in tables)
        if as_object:
            data = as_json(statuses)
            data["capacity"] = [
                each for each in data["capacity"] if (each["using"], each["table"]) in wanted
            ]
            self.stdout.write(json.dumps(data, indent=1))
        else:
            for line in self._lines(statuses, tables, with_problems=not is_unknown):
                self.stdout.write(line)
        if is_unknown:
            raise CommandError("\n".join(problems))
        if missing := [each.table for each in tables if each.status == "missing"]:
            raise CommandError(
                f"These tables do not exist: {', '.join(missing)}. "
                "Create them with 'manage.py dynamo_create_tables'."
            )

    @staticmethod
    def _lines(
        statuses: list[AliasStatus], tables: list[TableStatus], *, with_problems: bool
    ) -> list[str]:
        now = clock.now()
        lines = [line for table in tables for line in table_lines(table, now)]
        for status in statuses:
            others = [
                each
                for each in status.reports
                if not each.has_ended and each.process != status.here
            ]
            late = sum(each.is_late(status.at) for each in others)
            lines.append(
                f"alias {status.using}: {count_of(len(others) - late, 'process')} reporting"
                f"{f', {late} late' if late else ''}"
                if status.knows_others
                else f"alias {status.using}: other processes are not known"
            )
            lines += [_breaker(row, now) for row in status.breakers if row.state != "closed"]
            problems = status.problems if with_problems else ()
            lines += [f"  {each}" for each in (*problems, *status.notes)]
        return lines


def _without_process(status: AliasStatus) -> AliasStatus:
    """
    Return ``status`` without what its outage is to this process. The process of a command has
    only begun, and its breakers are not those of the application.
    """
    if status.outage is None:
        return status
    outage = replace(status.outage, since=None, next_try=None)
    return replace(status, outage=outage, problems=(outage.sentence(status.at).removesuffix("."),))


def table_lines(table: TableStatus, now: float) -> list[str]:
    """Return the lines about a table."""
    if table.status == "missing":
        return [f"{table.table}: does not exist"]
    if table.status == "unknown":
        return [f"{table.table}: unknown, because DynamoDB did not answer"]
    if table.is_on_demand:
        lines = [f"{table.table}: {table.status}, on demand"]
    else:
        read, write = table.resources[0].read, table.resources[0].write
        lines = [
            f"{table.table}: {table.status}, baseline {read.baseline} RCU and {write.baseline} "
            f"WCU, maximum {read.maximum} and {write.maximum}, scaling {table.scaling}"
        ]
    for resource in table.resources:
        what = f"index {resource.name}" if resource.name else "table"
        used = f"{number(resource.read.used)}/s read and {number(resource.write.used)}/s written"
        if USAGE in table.not_known:
            used = "usage not known"
        if resource.read.capacity is None:
            lines.append(f"  {what}: {used}")
            continue
        lines.append(
            f"  {what}: {resource.read.capacity} RCU and {resource.write.capacity} WCU, "
            f"{count_of(resource.decreases_left or 0, 'decrease')} left now, {used}"
        )
    if table.throttled and USAGE not in table.not_known:
        reasons = ", ".join(f"{name}: {count}" for name, count in table.reasons.items())
        lines.append(
            f"  throttled: {count_of(table.throttled, 'attempt')} in the last hour"
            f"{f' ({reasons})' if reasons else ''}"
        )
    if USAGE not in table.not_known:
        lines += [
            f"  {each.operation}: {milliseconds(each.p50)} (p50), {milliseconds(each.p95)} (p95), "
            f"{milliseconds(each.p99)} (p99), {count_of(each.calls, 'call')} in five minutes"
            for each in table.latency
        ]
    return lines + _decision_lines(table, now)


def _decision_lines(table: TableStatus, now: float) -> list[str]:
    lines = []
    if DECISION in table.not_known:
        lines.append("  last decision: not known")
    elif table.decision is not None:
        lines.append(
            f"  last decision: {table.decision.code}, {ago(table.decision.at, now)}: "
            f"{table.decision.why}"
        )
    elif not table.is_on_demand:
        lines.append("  no decision yet")
    if table.comes_down_at is not None and table.is_overdue(now):
        lines.append(
            f"  should have been lowered {ago(table.comes_down_at, now)}: nothing runs "
            "dynamo_reconcile"
        )
    elif table.comes_down_at is not None:
        lines.append(f"  will be lowered at {exact(table.comes_down_at)}")
    return lines


def _breaker(row: BreakerRow, now: float) -> str:
    then = f"; next try at {clock_time(row.next_try, now)}" if row.next_try is not None else ""
    return (
        f"  breaker of {row.table} is {row.state} in {row.process} ({row.role}) since "
        f"{clock_time(row.since, now)}, for {span(now - row.since)}, after "
        f"{row.error or 'failures'}{then}"
    )
