"""``manage.py dynamo_cleanup``: delete what has expired now, instead of when DynamoDB does."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ... import clock
from ...cache.backend import DynamoDBCache
from ...cache.store.sweeps import Progress
from ...tasks import our_caches
from ..tables import command_errors

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
        parser.add_argument("--dry-run", action="store_true", help="Only count.")
        parser.add_argument(
            "--scan",
            action="store_true",
            help="Go over the whole table although there is an expiry index; finds lost parts.",
        )
        parser.add_argument("--segments", type=int, default=1, help="Side by side (%(default)s).")
        parser.add_argument(
            "--units-per-second",
            type=float,
            default=100.0,
            help="Read units that a segment may consume a second (%(default)s).",
        )
        parser.add_argument(
            "--state",
            type=Path,
            metavar="FILE",
            help="Keep the position here after each page, and go on from it after an interruption.",
        )

    def handle(self, *args: Any, cache: list[str] | None, **options: Any) -> None:
        for option in ("segments", "units_per_second"):
            if options[option] <= 0:
                raise CommandError(f"--{option.replace('_', '-')} must be above 0.")
        with command_errors():
            found = our_caches()
            if unknown := [name for name in cache or () if name not in found]:
                raise CommandError(
                    f"{unknown[0]!r} is not one of DynamoDBCache. "
                    f"There are: {', '.join(map(repr, found)) or 'none'}."
                )
            for name in cache or found:
                self._clean(name, found[name], options)

    def _clean(self, name: str, cache: DynamoDBCache, options: dict[str, Any]) -> None:
        state: Path | None = options["state"]
        # A position is one of these arguments: with others it would skip what was not looked at.
        arguments = {name: options[name] for name in ("segments", "scan", "dry_run")}
        kept = _read_state(state, name, arguments) if state is not None else {}

        said = clock.monotonic()

        def progress(done: Progress) -> None:
            nonlocal said
            if state is not None:
                own = {"arguments": arguments, "position": done.position}
                state.write_text(json.dumps({**kept, name: own}))
            if clock.monotonic() - said >= SECONDS_BETWEEN_LINES and options["verbosity"] > 0:
                said = clock.monotonic()
                self.stdout.write(f"{name}: {done.looked_at} looked at, {done.removed} expired")

        removed = cache.store.cleanup(
            dry_run=options["dry_run"],
            scan=options["scan"],
            segments=options["segments"],
            units_per_second=options["units_per_second"],
            position=kept.get(name, {}).get("position"),
            progress=progress,
        )
        if state is not None:
            state.unlink(missing_ok=True)
        verb = "would be removed" if options["dry_run"] else "removed"
        self.stdout.write(f"{name}: {removed} expired items {verb}")


def _read_state(state: Path, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    if not state.exists():
        return {}
    try:
        kept: dict[str, Any] = json.loads(state.read_text())
        before = kept.get(name, {}).get("arguments", arguments)
    except (ValueError, AttributeError) as exc:
        raise CommandError(f"{state} is no position of a cleanup; remove it.") from exc
    if before != arguments:
        raise CommandError(
            f"{state} holds the position of a cleanup with other arguments: {before}. "
            "Give the same ones, or remove it to begin anew."
        )
    return kept
