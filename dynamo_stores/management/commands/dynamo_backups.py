"""``manage.py dynamo_backups``: DynamoDB's own backups, restores, recovery and exports to S3."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.dateparse import parse_datetime

from ... import clock
from ...calls.control import get_control
from ...conf import DEFAULT_ALIAS
from ...conf.rules import POSITIVE, or_none
from ...exceptions import StoreError
from ...infrastructure.service_backups import Export, ServiceBackups, Source
from ...infrastructure.tables import set_recovery, wanted_tables
from ..confirmation import add_no_input, confirm
from ..options import check_options
from ..restoring import restore
from ..tables import (
    add_choice_of_aliases,
    chosen_aliases,
    command_errors,
    for_each_alias,
    interruptible,
    name_in_dynamodb,
)

_NAME = re.compile(r"[A-Za-z0-9_.-]{3,255}")
_LATEST = "latest"


class Command(BaseCommand):
    help = (
        "DynamoDB's own backups: on-demand backups, point-in-time recovery, restores into new "
        "tables, and exports to S3. The content never passes through this process."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

        def action(name: str, text: str, default: str) -> ArgumentParser:
            found: ArgumentParser = actions.add_parser(name, help=text, description=text)
            add_choice_of_aliases(found, default=default)
            return found

        of_table = "that of the table, else 'default'"
        found = action("list", "Lists backups, and to which times tables can be restored.", "all")
        found.add_argument("--table", help="Only those of this table.")
        found.add_argument("--all", action="store_true", help="Also backups of other tables.")
        found = action("create", "Makes an on-demand backup of each table.", of_table)
        found.add_argument("tables", nargs="+", metavar="TABLE")
        found.add_argument("--name", help="The name of the backup (default: table and time).")
        _add_waiting(found)
        found = action("delete", "Deletes a backup.", DEFAULT_ALIAS)
        found.add_argument("arn", metavar="ARN")
        add_no_input(found)
        found = action("restore", "Restores into a new table, with TTL, tags and so on.", of_table)
        source = found.add_mutually_exclusive_group(required=True)
        source.add_argument("--backup", metavar="ARN", help="Restore this backup.")
        source.add_argument("--table", help="Restore this table as it was --at a time.")
        found.add_argument(
            "--at", default=_LATEST, metavar="TIME", help="ISO 8601, or 'latest' (the default)."
        )
        found.add_argument("--target", required=True, help="The name of the new table.")
        found.add_argument("--timeout", type=float, help="Wait at most so many seconds.")
        found = action("pitr", "Switches point-in-time recovery of tables on or off.", of_table)
        found.add_argument("state", choices=["on", "off"])
        found.add_argument("tables", nargs="+", metavar="TABLE")
        found.add_argument("--allow-removal", action="store_true", help="Required for 'off'.")
        found = action("export", "Exports a table to S3.", of_table)
        found.add_argument("table", metavar="TABLE")
        found.add_argument("--bucket", required=True)
        found.add_argument("--prefix", help="The beginning of the keys in the bucket.")
        found.add_argument(
            "--at", default=_LATEST, metavar="TIME", help="ISO 8601, or 'latest' (the default)."
        )
        _add_waiting(found)
        found = action("watch", "Waits for an export that was started before.", DEFAULT_ALIAS)
        found.add_argument("arn", metavar="ARN")
        found.add_argument("--timeout", type=float, help="Wait at most so many seconds.")

    def handle(self, *args: Any, action: str, using: list[str] | None, **options: Any) -> None:
        options.setdefault("timeout", None)
        check_options(options, timeout=or_none(POSITIVE))
        work: Callable[[str, dict[str, Any]], None] = getattr(self, f"_{action}")
        _check(action, options)
        with command_errors():
            aliases = _aliases(action, using, options)
        with interruptible(
            "What was requested goes on in DynamoDB. The same 'restore' again continues it, and "
            "'watch' waits for an export."
        ):
            failed = for_each_alias(aliases, lambda each: work(each, _named(each, options)))
        if failed:
            raise CommandError("\n".join(failed))

    def _line(self, line: str) -> None:
        self.stdout.write(line)
        # A restore may take hours, and its progress may be read from a file.
        self.stdout.flush()

    def _backups(self, using: str, options: dict[str, Any]) -> ServiceBackups:
        return ServiceBackups(using, self._line, timeout=options["timeout"])

    def _list(self, using: str, options: dict[str, Any]) -> None:
        backups, table = self._backups(using, options), options["table"]
        self._line(f"Alias {using}: {get_control(using).place}")
        names = [table] if table else [s.name for s in wanted_tables() if s.using == using]
        for name in names:
            if get_control(using).describe(name) is None:
                self._line(f"{name}: does not exist")
                continue
            window = backups.window(name)
            times = f"from {_time(window[0])} to {_time(window[1])}" if window else "off"
            self._line(f"{name}: point-in-time recovery {times}")
        for backup in backups.list(table):
            if backup.table not in names and not options["all"]:
                continue
            self._line(
                f"{backup.table}: backup {backup.name} of {_time(backup.created)}, "
                f"{backup.status}, {backup.size:,} bytes, {backup.arn}"
            )

    def _create(self, using: str, options: dict[str, Any]) -> None:
        backups = self._backups(using, options)

        def create(table: str) -> None:
            at = datetime.fromtimestamp(clock.now(), UTC)
            # A name has 255 characters at most, and so may that of the table.
            name = options["name"] or f"{table[:230]}-{at:%Y%m%d-%H%M%S}"
            made = backups.create(table, name, wait=options["wait"])
            self._line(f"{table}: backup {made.name} is {made.status}, {made.arn}")

        _for_each(options["tables"], create)

    def _delete(self, using: str, options: dict[str, Any]) -> None:
        backups = self._backups(using, options)
        found, _ = backups.describe(options["arn"])
        if options["interactive"]:
            confirm(f"Delete the backup {found.name} of {found.table}, {_time(found.created)}?")
        backups.delete(found.arn)
        self._line(f"{found.table}: the backup {found.name} is deleted")

    def _restore(self, using: str, options: dict[str, Any]) -> None:
        backups, target = self._backups(using, options), options["target"]
        source = Source(arn=options["backup"])
        if options["table"]:
            at = _moment(options["at"])
            _check_window(backups, options["table"], at)
            source = Source(table=options["table"], at=at)
        done = restore(backups, source, target, self._line, timeout=options["timeout"])
        self._line(f"{target}: restored")
        for resource in done.scaled:
            self._line(f"{target}: Application Auto Scaling is set again for {resource}")
        self._line(
            f"{target}: set these yourself: policies of IAM that name the table, alarms of "
            "CloudWatch, triggers of its stream, replicas"
        )
        if done.refused:
            raise CommandError(
                f"{target} is restored, but DynamoDB refused to " + "; to ".join(done.refused)
            )

    def _pitr(self, using: str, options: dict[str, Any]) -> None:
        is_on = options["state"] == "on"

        def switch(table: str) -> None:
            set_recovery(get_control(using), table, is_on=is_on)
            self._line(f"{table}: point-in-time recovery is {options['state']}")

        _for_each(options["tables"], switch)

    def _export(self, using: str, options: dict[str, Any]) -> None:
        backups, table = self._backups(using, options), options["table"]
        at = _moment(options["at"])
        _check_window(backups, table, at)
        description = get_control(using).describe(table)
        if description is None:
            raise StoreError(f"The table {table} does not exist.")
        export = backups.export(
            description["TableArn"], options["bucket"], prefix=options["prefix"], at=at
        )
        self._line(f"{table}: the export {export.arn} is {export.status}")
        if options["wait"]:
            self._report(backups.watch(export.arn))

    def _watch(self, using: str, options: dict[str, Any]) -> None:
        self._report(self._backups(using, options).watch(options["arn"]))

    def _report(self, export: Export) -> None:
        items = "" if export.items is None else f", {export.items:,} items"
        size = "" if export.size is None else f", {export.size:,} bytes"
        self._line(f"The export is {export.status}{items}{size}: {export.manifest or export.arn}")


def _add_waiting(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--no-wait", action="store_false", dest="wait", help="Do not wait until it is done."
    )
    parser.add_argument("--timeout", type=float, help="Wait at most so many seconds.")


def _check(action: str, options: dict[str, Any]) -> None:
    """Raise CommandError for options that contradict each other, before any work."""
    if action == "create" and options["name"] and not _NAME.fullmatch(options["name"]):
        raise CommandError(
            f"--name is {options['name']!r}; expected 3 to 255 of A-Z, a-z, 0-9, '_', '-', '.'."
        )
    if action == "pitr" and options["state"] == "off" and not options["allow_removal"]:
        raise CommandError(
            "'off' needs --allow-removal: the times to which the tables can be restored are lost."
        )
    if action == "restore" and options["backup"] and options["at"] != _LATEST:
        raise CommandError("--at is for --table; a backup has one time.")
    if action in ("restore", "export"):
        _moment(options["at"])


def _named(using: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options with the tables' names in DynamoDB."""
    found = {
        option: name_in_dynamodb(using, options[option])
        for option in ("table", "target")
        if options.get(option)
    }
    tables = [name_in_dynamodb(using, name) for name in options.get("tables") or ()]
    return {**options, **found, "tables": tables}


def _aliases(action: str, using: list[str] | None, options: dict[str, Any]) -> list[str]:
    if using or action == "list":
        return chosen_aliases(using)
    names = {*(options.get("tables") or ()), options.get("table"), options.get("target")}
    found = {
        spec.using
        for spec in wanted_tables()
        if spec.name in {name_in_dynamodb(spec.using, name) for name in names if name}
    }
    if len(found) > 1:
        raise CommandError(
            f"The tables are of the aliases {', '.join(sorted(found))}; name one by --using."
        )
    return list(found) or [DEFAULT_ALIAS]


def _for_each(tables: list[str], work: Callable[[str], None]) -> None:
    """Call ``work`` for each table; raise CommandError with a sentence for each that failed."""
    failed = []
    for table in tables:
        try:
            with command_errors():
                work(table)
        except CommandError as exc:
            failed.append(f"{table}: {exc}")
    if failed:
        raise CommandError("\n".join(failed))


def _check_window(backups: ServiceBackups, table: str, at: float | None) -> None:
    window = backups.window(table)
    if window is None:
        raise CommandError(
            f"Point-in-time recovery of {table} is off. 'dynamo_backups pitr on {table}' switches "
            "it on; times before that cannot be restored or exported."
        )
    # The latest time moves on, and DynamoDB knows it best.
    if at is not None and (at < window[0] or at > clock.now()):
        raise CommandError(
            f"--at is {_time(at)}; expected a time from {_time(window[0])} to {_time(window[1])}."
        )


def _moment(text: str) -> float | None:
    """Return a time in seconds since the epoch, UTC if ``text`` has no offset; None for latest."""
    if text == _LATEST:
        return None
    try:
        found = parse_datetime(text)
    except ValueError:
        found = None
    if found is None:
        raise CommandError(
            f"--at is {text!r}; expected 'latest' or a time such as 2027-01-31T12:30:00+00:00."
        )
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
