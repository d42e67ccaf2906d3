"""``manage.py dynamo_benchmark``: the cost of an operation compared with a bare boto3 client."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ... import conf
from ...conf.rules import WHOLE_POSITIVE
from ...testing.engine import EngineError
from ..benchmark.operations import SUBJECTS, names_of
from ..options import between, check_options, whole_between
from ..tables import command_errors

# Without --processes: those that measure, or for the scenario status those that report.
_MEASURING, _REPORTING = 3, 100
# The scenarios whose figures an option writes in another form.
_COMPARED = ("calls", "growth", "cold-start")
_OUTPUTS = {"json": (*_COMPARED, "metrics"), "markdown": _COMPARED, "svg": _COMPARED}


class Command(BaseCommand):
    help = (
        "Compares the stores and other clients with a bare boto3 client that makes the least "
        "equivalent call. The clients take turns, in several processes. Works on tables of its "
        "own, which it deletes."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--scenario",
            choices=["calls", "growth", "cold-start", "metrics", "scaling", "status"],
            default="calls",
            help="calls: compared with a bare client. growth: with the size of values, batches and "
            "the table, and with concurrency. cold-start: fresh processes until their first get. "
            "metrics: what measuring adds to a get. scaling: a throttled table under load, on an "
            "embedded engine behind a throttling relay. status: the status pages while many "
            "processes report, on an embedded engine (default: %(default)s).",
        )
        parser.add_argument("--using", default=conf.DEFAULT_ALIAS, help="Alias to measure.")
        parser.add_argument(
            "--engine",
            choices=["alias", "embedded", "canned"],
            default="alias",
            help="The endpoint of the alias, an embedded engine, or a server that answers from a "
            "dict, so that little but the client is measured (default: %(default)s).",
        )
        parser.add_argument("--tls", action="store_true", help="Use HTTPS, with --engine canned.")
        parser.add_argument(
            "--rounds", type=int, default=15, help="Rounds of each client (default: %(default)s)."
        )
        parser.add_argument(
            "--calls", type=int, default=200, help="Calls in a round (default: %(default)s)."
        )
        parser.add_argument(
            "--bytes", type=int, default=1000, help="Size of a value (default: %(default)s)."
        )
        parser.add_argument(
            "--processes",
            type=int,
            help="Number of processes that measure one after the other, of which the best is "
            f"shown (default: {_MEASURING}); for status, of those that report "
            f"(default: {_REPORTING}).",
        )
        parser.add_argument(
            "--operation",
            action="append",
            metavar="NAME",
            help="Only this line of the table, such as 'get'; may be repeated.",
        )
        parser.add_argument(
            "--subject",
            action="append",
            metavar="NAME",
            help=f"Only this client beside boto3; may be repeated. One of: {', '.join(SUBJECTS)}.",
        )
        parser.add_argument(
            "--items",
            type=int,
            default=10_000,
            help="Size to which growth fills the table (default: %(default)s).",
        )
        parser.add_argument("--redis", metavar="URL", help="Measure Django's cache on this Redis.")
        parser.add_argument(
            "--memcached", metavar="HOST:PORT", help="Measure Django's cache on this Memcached."
        )
        parser.add_argument(
            "--allow-remote",
            action="store_true",
            help="Allow an endpoint on another machine, where calls cost money.",
        )
        output = parser.add_mutually_exclusive_group()
        output.add_argument("--json", action="store_true", help="Write the figures as JSON.")
        output.add_argument(
            "--markdown", action="store_true", help="Write a short table of ratios as Markdown."
        )
        parser.add_argument("--svg", type=Path, metavar="FILE", help="Write a chart to this file.")
        parser.add_argument(
            "--kind",
            choices=["puts", "gets", "batches"],
            default="puts",
            help="Kind of operation, for scaling (default: %(default)s).",
        )
        parser.add_argument("--rate", type=int, default=160, help="Values a second, for scaling.")
        parser.add_argument("--seconds", type=float, default=20.0, help="Duration, for scaling.")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["processes"] is None:
            is_status = options["scenario"] == "status"
            options["processes"] = _REPORTING if is_status else _MEASURING
        check_options(
            options,
            rounds=WHOLE_POSITIVE,
            calls=WHOLE_POSITIVE,
            # Larger values are stored in parts, which a bare client does not do.
            bytes=whole_between(1, 300_000),
            processes=WHOLE_POSITIVE,
            items=whole_between(0, 1_000_000),
            rate=WHOLE_POSITIVE,
            seconds=between(0.1, 3600),
        )
        _check_names(options)
        with _exit_at_sigterm(), command_errors():
            try:
                self._run(options)
            except EngineError as exc:
                raise CommandError(str(exc)) from exc

    def _run(self, options: dict[str, Any]) -> None:
        if options["scenario"] == "scaling":
            self._benchmark_scaling(options)
        elif options["scenario"] == "status":
            from ..status_benchmark import status_benchmark

            status_benchmark(
                self.stdout.write, processes=options["processes"], rounds=options["rounds"]
            )
        elif options["scenario"] == "metrics":
            from ..metrics_benchmark import as_lines, metrics_benchmark

            found = metrics_benchmark(options)
            self.stdout.write(json.dumps(found) if options["json"] else "\n".join(as_lines(found)))
        else:
            self._measure(options)

    def _benchmark_scaling(self, options: dict[str, Any]) -> None:
        try:
            from ..scaling_benchmark import scaling_benchmark

            scaling_benchmark(
                self.stdout.write,
                rate=options["rate"],
                seconds=options["seconds"],
                kind=options["kind"],
            )
        except (EngineError, ImportError) as exc:
            raise CommandError(f"{exc} Install dynamo-stores[local] for this scenario.") from exc

    def _measure(self, options: dict[str, Any]) -> None:
        from ..benchmark import report
        from ..benchmark.scenarios import about, measure

        # Standard output has nothing but the figures.
        progress = self.stderr.write if options["verbosity"] > 1 else lambda line: None
        rows, skipped = measure(options, progress)
        described = about(options)
        if options["svg"]:
            options["svg"].write_text(report.as_svg(described, rows))
        if options["json"]:
            self.stdout.write(report.as_json(described, rows, skipped))
            return
        if options["markdown"]:
            self.stdout.write(report.as_markdown(rows))
        else:
            measured = (
                "medians of fresh processes."
                if options["scenario"] == "cold-start"
                else "medians of the rounds, of the process with the lowest CPU ratio."
            )
            self.stdout.write(f"CPU and wall time in µs, with their ratios to boto3: {measured}")
            self.stdout.write(report.as_table(rows))
        for name, reason in skipped.items():
            self.stderr.write(f"{name} is skipped: {reason}.")


def _check_names(options: dict[str, Any]) -> None:
    """Raise CommandError for options that name nothing, or do not go together."""
    if options["tls"] and options["engine"] != "canned":
        raise CommandError(
            "--tls is given without --engine canned. The URL of another endpoint says whether it "
            "uses TLS."
        )
    for name in options["subject"] or ():
        if name not in SUBJECTS:
            raise CommandError(f"--subject is {name}; expected one of: {', '.join(SUBJECTS)}.")
    known = names_of(options["scenario"])
    for name in options["operation"] or ():
        if not known:
            raise CommandError(
                "--operation is given for a scenario that has none to choose; expected it with "
                "--scenario calls or growth."
            )
        if name not in known:
            raise CommandError(f"--operation is {name}; expected one of: {'; '.join(known)}.")
    for name, scenarios in _OUTPUTS.items():
        if options[name] and options["scenario"] not in scenarios:
            raise CommandError(
                f"--{name} is given for the scenario {options['scenario']}; expected it with "
                f"--scenario {' or '.join(scenarios)}."
            )
    if options["svg"] and not options["svg"].resolve().parent.is_dir():
        raise CommandError(f"--svg is {options['svg']}; expected a file in a folder that exists.")


@contextlib.contextmanager
def _exit_at_sigterm() -> Iterator[None]:
    """Let SIGTERM raise SystemExit, so that the tables are deleted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
