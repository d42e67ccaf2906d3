"""``manage.py dynamo_simulate``: simulate a table under load; sends nothing to DynamoDB."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ..options import between, check_options, whole_between
from ..scale.simulation import CAUSES, Minute, Result, Simulation, Table
from ..scale.units import NEW_TABLE, TABLE_QUOTA, Units
from ..scale.verdict import verdict_on
from ..scale.workload import Workload

ON_DEMAND, PROVISIONED = "PAY_PER_REQUEST", "PROVISIONED"
# The rows of the table, besides the first and the last minute.
_ROWS = 6
_HEADING = "Requests a second, by minute; throttled for a key, for the table or for a partition:"
_COLUMNS = (
    ("minute", 6),
    ("offered", 10),
    ("in process", 10),
    ("served", 10),
    *((cause, 9) for cause in CAUSES),
    ("partitions", 10),
    ("hottest", 7),
    ("RCU", 7),
    ("WCU", 7),
)
_RULES = {
    "requests": between(1, 10_000_000),
    "write_share": between(0, 1),
    "keys": whole_between(1, 10**12),
    "zipf": between(0, 5),
    "hot_share": between(0, 1),
    "item_bytes": whole_between(1, 400 * 1024),
    "new_share": between(0, 1),
    "minutes": whole_between(1, 1_440),
    "ramp": whole_between(0, 1_440),
    "shards": whole_between(1, 1_000),
    "block": whole_between(1, 1_000_000),
    "window": between(1, 86_400),
    "processes": whole_between(1, 1_000_000),
    "near_timeout": between(0, 86_400),
    "near_entries": whole_between(0, 10**9),
    "read_units": between(1, 100_000_000),
    "write_units": between(1, 100_000_000),
    "quota": between(1, 100_000_000),
    "growth_minutes": whole_between(1, 1_440),
    "split_minutes": whole_between(1, 1_440),
    "burst_seconds": whole_between(0, 3_600),
}


class Command(BaseCommand):
    help = (
        "Simulates what a table serves and throttles, by a model of DynamoDB's partitions. Sends "
        "nothing. docs/scale.md describes the model and its assumptions."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        def add(name: str, default: float, help_text: str) -> None:
            kind = type(default)
            metavar = "N" if kind is int else "X"
            help_text = f"{help_text} (%(default)s)."
            parser.add_argument(name, type=kind, default=default, metavar=metavar, help=help_text)

        add("--requests", 1_000_000.0, "Requests a second")
        add("--write-share", 0.1, "Share of the requests that write, 0 to 1")
        add("--keys", 1_000_000, "Keys, all of which exist")
        add("--zipf", 0.0, "Exponent of the keys' distribution; 0 is uniform")
        add("--hot-share", 0.0, "Share of the requests that go to one key")
        add("--item-bytes", 1_024, "Size of an item")
        add("--new-share", 0.0, "Share of the writes that add an item")
        parser.add_argument("--strong", action="store_true", help="Read strongly.")
        add("--minutes", 60, "Minutes to simulate")
        add("--ramp", 0, "Minutes in which the requests grow to --requests")
        add("--shards", 1, "Items of each key, as SHARDS of a limit")
        add("--block", 1, "Requests that a process counts at once, as BLOCK of a limit")
        add("--window", 60.0, "Seconds of the limit, for --block")
        add("--processes", 100, "Processes that share the requests")
        add("--near-timeout", 0.0, "Seconds of the near tier, as LOCAL_TIMEOUT of a cache")
        add("--near-entries", 1_000, "Keys in the near tier, as LOCAL_MAX_ENTRIES")
        parser.add_argument(
            "--billing-mode",
            default=ON_DEMAND,
            metavar="MODE",
            help=f"{ON_DEMAND} or {PROVISIONED} (%(default)s).",
        )
        add("--read-units", NEW_TABLE.read, "Provisioned or warm read units a second")
        add("--write-units", NEW_TABLE.write, "Provisioned or warm write units a second")
        add("--quota", float(TABLE_QUOTA), "Units a second that AWS allows one table")
        add("--growth-minutes", 30, "Minutes until an on-demand table carries twice its peak")
        add("--split-minutes", 5, "Minutes until a hot partition is split")
        add("--burst-seconds", 300, "Seconds of unused capacity that a provisioned table keeps")
        add("--seed", 0, "Seed of the items' places among the partitions")
        parser.add_argument("--json", action="store_true", help="Print every minute as JSON.")

    def handle(self, *args: Any, **options: Any) -> None:
        check_options(options, **_RULES)
        if options["billing_mode"] not in (ON_DEMAND, PROVISIONED):
            raise CommandError(
                f"--billing-mode is {options['billing_mode']}; expected {ON_DEMAND} or "
                f"{PROVISIONED}."
            )
        for name in ("read_units", "write_units"):
            if options[name] > options["quota"]:
                raise CommandError(
                    f"--{name.replace('_', '-')} is {options[name]:,.0f}; expected at most "
                    f"--quota, {options['quota']:,.0f}."
                )
        workload, table = _workload_of(options), _table_of(options)
        result = Simulation(workload, table, options["seed"]).run(options["minutes"])
        write = _as_json if options["json"] else _as_text
        self.stdout.write(write(result, verdict_on(result, table)))


def _workload_of(options: dict[str, Any]) -> Workload:
    names = Workload.__dataclass_fields__
    return Workload(**{name: options[name] for name in names})


def _table_of(options: dict[str, Any]) -> Table:
    return Table(
        provisioned=options["billing_mode"] == PROVISIONED,
        capacity=Units(options["read_units"], options["write_units"]),
        quota=options["quota"],
        growth=60 * options["growth_minutes"],
        heat=60 * options["split_minutes"],
        burst=options["burst_seconds"],
    )


def _as_json(result: Result, verdict: list[str]) -> str:
    minutes = []
    for minute in result.minutes:
        found = asdict(minute)
        found["units"] = minute.units._asdict()
        minutes.append(_rounded(found))
    first = None
    if result.first:
        asked, carried = result.first.asked._asdict(), result.first.carried._asdict()
        first = _rounded(result.first._asdict() | {"asked": asked, "carried": carried})
    units = {kind: round(value) for kind, value in result.units._asdict().items()}
    return json.dumps(
        {"minutes": minutes, "first": first, "units": units, "verdict": " ".join(verdict)}, indent=2
    )


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    # Adding 0 makes a 0 of -0.
    return round(value, 3) + 0.0 if isinstance(value, float) else value


def _as_text(result: Result, verdict: list[str]) -> str:
    lines = [_HEADING, " ".join(name.rjust(width) for name, width in _COLUMNS)]
    every = max(1, len(result.minutes) // _ROWS)
    for minute in result.minutes:
        if minute.number in (1, len(result.minutes)) or minute.number % every == 0:
            cells = zip(_cells(minute), _COLUMNS, strict=True)
            lines.append(" ".join(cell.rjust(width) for cell, (_, width) in cells))
    lines.append(
        f"All that was served: {result.units.read:,.0f} read units, "
        f"{result.units.write:,.0f} write units."
    )
    return "\n".join([*lines, *verdict])


def _cells(minute: Minute) -> list[str]:
    rates = [minute.offered, minute.in_process, minute.served, *minute.throttled.values()]
    return [
        str(minute.number),
        *(f"{abs(round(rate)):,}" for rate in rates),
        f"{minute.partitions:,}",
        f"{minute.hottest:.0%}",
        *(f"{units:,.0f}" for units in minute.units),
    ]
