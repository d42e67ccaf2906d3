"""``manage.py dynamo_cleanup``: delete expired items now, earlier than DynamoDB's TTL does."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ... import clock
from ...cache.backend import DynamoDBCache
from ...cache.store.sweeps import Progress
from ...conf.rules import POSITIVE
from ...tasks import dynamodb_caches
from ..options import check_options, whole_between
from ..tables import add_choice_of_aliases, chosen_aliases, command_errors, for_each_alias

SECONDS_BETWEEN_LINES = 2.0


class Command(BaseCommand):
    help = (
        "Deletes expired cache entries and the parts that overwritten values left behind. "
        "DynamoDB's own TTL deletes expired entries for free, up to days late."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--cache", action="append", metavar="NAME", help="Only this cache; may be repeated."
        )
        add_choice_of_aliases(parser)
        parser.add_argument(
            "--dry-run", action="store_true", help="Count expired items without deleting them."
        )
        parser.add_argument(
            "--scan",
            action="store_true",
            help="Scan the whole table instead of the expiry index; also finds orphaned parts.",
        )
        parser.add_argument(
            "--segments", type=int, default=1, help="Parallel segments (default: %(default)s)."
        )
        parser.add_argument(
            "--units-per-second",
            type=float,
            default=100.0,
            help="Read units, and write units, a second for each segment (default: %(default)s).",
        )
        parser.add_argument(
            "--state",
            type=Path,
            metavar="FILE",
            help="Save the position in this file after each page, and resume from it.",
        )

    def handle(
        self, *args: Any, cache: list[str] | None, using: list[str] | None, **options: Any
    ) -> None:
        # DynamoDB scans in at most so many segments.
        check_options(options, segments=whole_between(1, 1_000_000), units_per_second=POSITIVE)
        state: Path | None = options["state"]
        if state is not None and not state.parent.is_dir():
            raise CommandError(
                f"--state is {state}; expected a file in a folder that exists. "
                f"Create {state.parent}."
            )
        if state is not None:
            _check_writable(state)
        with command_errors():
            found = dynamodb_caches()
            if unknown := [name for name in cache or () if name not in found]:
                raise CommandError(
                    f"CACHES has no DynamoDB cache {unknown[0]!r}. "
                    f"Known: {', '.join(map(repr, found)) or 'none'}."
                )
            aliases = chosen_aliases(using)
        names: dict[str, list[str]] = {}
        for name in cache or found:
            names.setdefault(found[name].store.using, []).append(name)

        if cache and (others := set(names).difference(aliases)):
            raise CommandError(
                f"The cache {names[min(others)][0]!r} is of the alias {min(others)!r}; expected "
                f"one of {', '.join(map(repr, aliases))}, by --using."
            )

        def clean(alias: str) -> None:
            for name in names.get(alias, ()):
                self._clean(name, found[name], options)
            if using and alias not in names:
                self.stdout.write(f"No cache of CACHES uses the alias {alias}.")

        if failed := for_each_alias(aliases, clean):
            raise CommandError("\n".join(failed))

    def _clean(self, name: str, cache: DynamoDBCache, options: dict[str, Any]) -> None:
        state: Path | None = options["state"]
        # A position is valid only with the same arguments; with others it would skip items.
        arguments = {name: options[name] for name in ("segments", "scan", "dry_run")}
        kept = _read_state(state, name, arguments) if state is not None else {}

        printed_at = clock.monotonic()

        def progress(done: Progress) -> None:
            nonlocal printed_at
            if state is not None:
                own = {"arguments": arguments, "position": done.position}
                state.write_text(json.dumps({**kept, name: own}))
            if clock.monotonic() - printed_at >= SECONDS_BETWEEN_LINES and options["verbosity"] > 0:
                printed_at = clock.monotonic()
                self.stdout.write(f"{name}: {done.looked_at} items read, {done.removed} expired")

        removed = cache.store.cleanup(
            dry_run=options["dry_run"],
            scan=options["scan"],
            segments=options["segments"],
            units_per_second=options["units_per_second"],
            position=kept.get(name, {}).get("position"),
            progress=progress,
        )
        if state is not None:
            # The positions of caches whose cleanup failed are kept.
            if others := {other: own for other, own in kept.items() if other != name}:
                state.write_text(json.dumps(others))
            else:
                state.unlink(missing_ok=True)
        verb = "would be removed" if options["dry_run"] else "removed"
        self.stdout.write(f"{name}: {removed} expired items {verb}")


def _check_writable(state: Path) -> None:
    is_new = not state.exists()
    try:
        with state.open("a"):
            pass
        if is_new:
            state.unlink()
    except OSError as exc:
        raise CommandError(
            f"--state is {state}; expected a file that can be written: {exc.strerror}."
        ) from exc


def _read_state(state: Path, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    if not state.exists():
        return {}
    try:
        kept: dict[str, Any] = json.loads(state.read_text())
        before = kept.get(name, {}).get("arguments", arguments)
        _check_position(kept.get(name, {}).get("position"), arguments["segments"])
    except (ValueError, AttributeError, TypeError, KeyError) as exc:
        raise CommandError(
            f"{state} is not a file that --state wrote. Delete it, or use another file."
        ) from exc
    if before != arguments:
        raise CommandError(
            f"{state} has the position of a cleanup with other arguments: {before}. "
            "Use the same arguments, or delete the file to start again."
        )
    return kept


def _check_position(position: Any, segments: int) -> None:
    """Raise ValueError or TypeError unless each segment has a key, or None if it is done."""
    if position is None:
        return
    for segment, key in dict(position).items():
        if not 0 <= int(segment) < segments:
            raise ValueError(segment)
        for value in dict(key or {}).values():
            if not isinstance(value, dict):
                raise TypeError(value)
