"""``manage.py dynamo_infrastructure``: what AWS needs, as a document or set at once."""

from __future__ import annotations

import io
import re
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterator
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from ...calls.control import get_control
from ...conf import get_config
from ...conf.rules import URL, or_none
from ...deployment.charges import charges
from ...deployment.description import Deployment, describe, place_name
from ...deployment.formats import FORMATS
from ...deployment.iam import MOST_CHARACTERS, ROLES, length_of, place_in, policy, render
from ...deployment.parameters import CLOUDTRAIL, OPTIONAL, PARAMETERS, USUAL, VPC_ENDPOINT
from ...deployment.requests import Services, Step, steps
from ...infrastructure.live import read_live
from ...infrastructure.replicas import Replication
from ...infrastructure.tables import TableSpec, differences_of_options
from ...monitoring.dashboard import local_endpoint
from ..confirmation import add_no_input, confirm
from ..options import check_options
from ..tables import (
    add_choice_of_tables,
    chosen_aliases,
    chosen_tables,
    command_errors,
    interruptible,
)

# How dynamo_update_tables says that it leaves differences, and which.
_DIFFER = "Tables still differ"
_LEFT = ("not without --allow-removal", "in a later run", "not possible")


class Command(BaseCommand):
    help = (
        "Prints what the tables of models and settings need at AWS, with alarms and a dashboard, "
        "as a document (--format); compares it with AWS (--diff, exit status 1 if it differs); or "
        "sets it (--apply), after a plan and a question."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument(
            "--format", choices=[*FORMATS, "iam"], help="Print a document; ask AWS nothing."
        )
        what.add_argument("--diff", action="store_true", help="Print what differs at AWS.")
        what.add_argument("--apply", action="store_true", help="Set what differs at AWS.")
        parser.add_argument(
            "--with",
            action="append",
            choices=OPTIONAL,
            dest="with_",
            default=[],
            help="Add a part; may be repeated.",
        )
        parser.add_argument(
            "--without",
            action="append",
            choices=USUAL,
            default=[],
            help="Leave a part out; may be repeated.",
        )
        parser.add_argument(
            "--parameter",
            action="append",
            metavar="NAME=VALUE",
            default=[],
            help=f"Another default; may be repeated: {', '.join(p.name for p in PARAMETERS)}.",
        )
        parser.add_argument(
            "--role", choices=ROLES, help="Of --format iam: only the policy of this role."
        )
        parser.add_argument(
            "--account",
            type=_account,
            metavar="ID",
            help="Of --format iam: the id of the AWS account.",
        )
        parser.add_argument(
            "--endpoint-url",
            metavar="URL",
            help="The endpoint of CloudWatch and the others, for --diff and --apply (default: that "
            "of the alias if it is on this machine, else AWS).",
        )
        add_no_input(parser)
        add_choice_of_tables(parser)

    def handle(
        self, *args: Any, table: list[str] | None, using: list[str] | None, **options: Any
    ) -> None:
        check_options(options, endpoint_url=or_none(URL))
        with command_errors():
            found = describe(
                chosen_tables(table, using),
                chosen_aliases(using),
                with_=_list(options["with_"]),
                without=_list(options["without"]),
                values=_values(_list(options["parameter"])),
                is_named=bool(table),
            )
        if options["format"] == "iam":
            self._print_policies(found, options["role"], options["account"])
            return
        notes = [note for each in found for note in each.notes]
        if not options["diff"]:
            notes += [note for each in found for note in charges(each)]
        for note in dict.fromkeys(notes):
            self.stderr.write(f"Note: {note}")
        if options["role"] or options["account"]:
            raise CommandError("--role and --account are for --format iam.")
        if options["format"] is not None:
            self._print(options["format"], found)
            return
        if only := {VPC_ENDPOINT, CLOUDTRAIL} & {part for each in found for part in each.parts}:
            raise CommandError(
                f"--with {' and '.join(sorted(only))} is for --format; --diff and --apply have the "
                "tables, alarms, dashboard, auto scaling and backups."
            )
        work = [_Work(each, self._line, options["endpoint_url"]) for each in found]
        if options["diff"]:
            self._diff(work)
        else:
            self._apply(work, interactive=options["interactive"])

    def _print_policies(
        self, found: list[Deployment], role: str | None, account: str | None
    ) -> None:
        chosen = dict.fromkeys(spec.using for each in found for spec in each.watched)
        for using in chosen:
            other = get_config(using).failover
            if other is not None and other not in chosen:
                self.stderr.write(
                    f"Note: processes also ask the tables of {other!r}, FAILOVER of {using!r}, "
                    f"which are not in these policies. Add --using {other}, or another policy."
                )
            if account is None and (endpoint := local_endpoint(using)) is not None:
                self.stderr.write(
                    f"Note: the policies are for the engine at {endpoint}, whose account is "
                    "000000000000. Give the id of an account at AWS by --account."
                )
        with command_errors():
            place_of = place_in(account)
            for each in ROLES:
                if (length := length_of(policy(each, found, place_of))) > MOST_CHARACTERS:
                    self.stderr.write(
                        f"Note: the policy of {each} has {length:,} characters, and IAM takes "
                        f"{MOST_CHARACTERS:,} in one. Divide its statements, or use --table."
                    )
            self.stdout.write(render(role, found, account))

    def _print(self, name: str, found: list[Deployment]) -> None:
        if len(found) > 1:
            places = "; ".join(
                f"{', '.join(each.aliases)}: {place_name(each.aliases[0])}" for each in found
            )
            raise CommandError(
                f"The aliases are of several regions, endpoints or accounts ({places}), and a "
                "document is for one. Name its aliases by --using."
            )
        with command_errors():
            self.stdout.write(FORMATS[name](found[0]))

    def _diff(self, work: list[_Work]) -> None:
        different = [line for each in work for line in each.differences()]
        if different:
            raise CommandError("AWS differs:\n  " + "\n  ".join(different))
        self._line("Nothing differs.")

    def _apply(self, work: list[_Work], *, interactive: bool) -> None:
        planned: list[tuple[str, Callable[[], object]]] = []
        for each in work:
            with command_errors("AWS"):
                planned += each.plan()
        if not planned:
            self._verify(work)
            self._line("Nothing differs.")
            return
        self._line("The plan:")
        for sentence, _ in planned:
            self._line(f"  {sentence}")
        if interactive:
            confirm(f"Apply {len(planned)} step{'s' if len(planned) > 1 else ''}?")
        with interruptible("What was done stays; run the command again to continue."):
            for number, (sentence, run) in enumerate(planned):
                self._line(f"{number + 1} of {len(planned)}: {sentence}")
                try:
                    with command_errors("AWS"):
                        run()
                except CommandError as exc:
                    raise CommandError(_failure(sentence, exc, planned[number + 1 :])) from exc
        self._verify(work)
        self._line("All is set.")

    @staticmethod
    def _verify(work: list[_Work]) -> None:
        for each in work:
            each.verify()

    def _line(self, line: str) -> None:
        self.stdout.write(line)
        # Tables take minutes, and the progress may be read from a file.
        self.stdout.flush()


def _account(text: str) -> str:
    if not re.fullmatch(r"\d{12}", text):
        raise ArgumentTypeError(f"{text!r} is not an id of an account; expected twelve digits.")
    return text


class _Work:
    """The comparison and the changes of one place."""

    def __init__(self, of: Deployment, write: Callable[[str], None], url: str | None) -> None:
        self._of = of
        self._write = write
        self._url = url

    def differences(self) -> list[str]:
        """Return what differs, as sentences, after printing what does not."""
        found = []
        for table in self._of.tables:
            try:
                self._tables("dynamo_verify", [table.spec])
            except CommandError as exc:
                # Its first line is a title.
                found += [line.strip() for line in str(exc).splitlines()[1:]]
        try:
            with command_errors("AWS"):
                found += [f"not done: {sentence}" for sentence, _ in self._replicas()]
                found += [f"not done: {step.sentence}" for step in self._steps()]
        except CommandError as exc:
            found.append(f"could not be compared: {exc}")
        return [*found, *self._differences_of_replicas()]

    def _differences_of_replicas(self) -> Iterator[str]:
        """Yield what differs in the options of replicas that exist."""
        for table in self._of.tables:
            for replica in table.replicas:
                where = f"{table.name} in {replica.region}"
                try:
                    with command_errors("AWS"):
                        live = read_live(replica.using, table.name, replica.options, with_ttl=False)
                except CommandError as exc:
                    yield f"{where} could not be compared: {exc}"
                    continue
                if live is not None:
                    for each in differences_of_options(replica.options, live):
                        yield f"{where}: {each}"

    def plan(self) -> list[tuple[str, Callable[[], object]]]:
        """Return the steps, each as a sentence and what does it."""
        others = [(step.sentence, step.run) for step in self._steps()]
        # Replicas of provisioned tables need auto scaling first.
        return [*self._of_tables(), *others, *self._replicas()]

    def verify(self) -> None:
        """Raise CommandError if a table differs from its model."""
        self._tables("dynamo_verify", [table.spec for table in self._of.tables])

    def _of_tables(self) -> list[tuple[str, Callable[[], object]]]:
        found: list[tuple[str, Callable[[], object]]] = []
        for table in self._of.tables:
            spec = table.spec
            exists = get_control(spec.using).describe(spec.name) is not None
            if not exists:
                found.append((f"create the table {spec.name}", self._runs("create", spec)))
                continue
            if changes := self._changes(spec):
                sentence = f"change the table {spec.name}: {'; '.join(changes)}"
                found.append((sentence, self._runs("update", spec)))
        return found

    def _changes(self, spec: TableSpec) -> list[str]:
        """Return what dynamo_update_tables would change, and print what it would not."""
        out = io.StringIO()
        try:
            call_command(
                "dynamo_update_tables",
                table=[spec.name],
                using=[spec.using],
                dry_run=True,
                stdout=out,
            )
        except CommandError as exc:
            if not str(exc).startswith(_DIFFER):
                raise
        lines = [line.strip() for line in out.getvalue().splitlines() if line.startswith("  ")]
        for line in lines:
            if line.startswith(_LEFT):
                self._write(f"{spec.name}: {line}")
        return [line for line in lines if not line.startswith(_LEFT)]

    def _runs(self, what: str, spec: TableSpec) -> Callable[[], object]:
        if what == "create":
            return lambda: self._tables("dynamo_create_tables", [spec])
        return lambda: self._update(spec)

    def _update(self, spec: TableSpec) -> None:
        try:
            self._tables("dynamo_update_tables", [spec], interactive=False)
        except CommandError as exc:
            if not str(exc).startswith(_DIFFER):
                raise
            # The comparison at the end says so, after the other steps.
            self._write(f"  {exc}")

    def _tables(self, command: str, specs: list[TableSpec], **options: Any) -> None:
        for using in dict.fromkeys(spec.using for spec in specs):
            names = [spec.name for spec in specs if spec.using == using]
            call_command(command, table=names, using=[using], stdout=_Lines(self._write), **options)

    def _replicas(self) -> list[tuple[str, Callable[[], object]]]:
        found: list[tuple[str, Callable[[], object]]] = []
        for table in self._of.tables:
            spec = table.spec
            if not table.replicas:
                continue
            replication = Replication(spec.using, spec.name, self._write)
            exists = get_control(spec.using).describe(spec.name) is not None
            regions = replication.regions() if exists else set()
            for replica in table.replicas:
                if replica.region not in regions:
                    sentence = f"add a replica of {spec.name} in {replica.region}"
                    found.append((sentence, _adding(replication, replica.region)))
        return found

    def _steps(self) -> list[Step]:
        of = self._of
        using = (*of.aliases, *(spec.using for spec in of.watched))[0]
        return steps(of, Services(using, self._url))


class _Lines(io.StringIO):
    """The output of another command, without its line about the alias."""

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__()
        self._write = write

    def write(self, text: str) -> int:
        for line in text.splitlines():
            if line.strip() and not line.startswith("Alias "):
                self._write(f"  {line}")
        return len(text)


def _adding(replication: Replication, region: str) -> Callable[[], object]:
    return lambda: replication.add(region)


def _failure(sentence: str, exc: CommandError, left: list[tuple[str, Any]]) -> str:
    text = f"Could not {sentence}: {exc}\nWhat was done stays; run the command again to continue."
    if left:
        text += "\nNot done:\n  " + "\n  ".join(each for each, _ in left)
    return text


def _list(value: list[str] | str) -> list[str]:
    # call_command may pass one as a string.
    return [value] if isinstance(value, str) else value


def _values(pairs: list[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign:
            raise CommandError(f"--parameter is {pair!r}; expected NAME=VALUE.")
        found[name] = value
    return found
