"""``manage.py forum_verify``: look for what is wrong in the forum's tables, and repair it."""

from __future__ import annotations

from argparse import ArgumentParser
from collections import Counter
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from dynamo_stores import clock
from dynamo_stores.calls.backpressure import background
from dynamo_stores.exceptions import StoreError
from dynamo_stores.management.meter import Meter
from forum.management.users import sql_tables
from forum.verification import (
    KINDS,
    NO_ACCOUNT,
    NO_THREAD,
    TWO_PROFILES,
    find_problems,
    repaired,
)

# A repair can show what was behind it: the places of replies after that of their post.
_RUNS = 10
# What is not repaired unless it is wanted, and what to do.
_KEPT = {
    NO_THREAD: "Posts of no thread are left. Restore the threads, or add --delete-posts.",
    NO_ACCOUNT: "Profiles of no account are left. Restore the SQL database, or add --free-names.",
    TWO_PROFILES: "Names of two profiles are left. Give one of the two another name.",
}


class Command(BaseCommand):
    help = (
        "Looks for posts without a place, wrong counts, stale words and reservations, and what a "
        "process that ended has left. The exit status is 1 if anything is wrong. Users may read "
        "and write meanwhile, but no forum_migrate may run. References to nothing are found by "
        "dynamo_verify --references."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--repair",
            action="store_true",
            help="Repair what is wrong, and delete no post.",
        )
        parser.add_argument(
            "--delete-posts",
            action="store_true",
            help="With --repair, delete the posts of threads that do not exist. A restore of the "
            "threads would bring them back.",
        )
        parser.add_argument(
            "--free-names",
            action="store_true",
            help="With --repair, free user names and e-mail addresses of accounts that the SQL "
            "database does not have. A restore of it would bring them back.",
        )
        parser.add_argument(
            "--items-per-second",
            type=int,
            default=1_000,
            metavar="N",
            help="Read no more items of the tables: %(default)s.",
        )

    def handle(
        self,
        *args: Any,
        repair: bool = False,
        delete_posts: bool = False,
        free_names: bool = False,
        items_per_second: int = 1_000,
        **options: Any,
    ) -> None:
        for option, is_given in (("--delete-posts", delete_posts), ("--free-names", free_names)):
            if is_given and not repair:
                raise CommandError(f"{option} is given without --repair.")
        if items_per_second < 1:
            raise CommandError("--items-per-second must be 1 or more.")
        self._rate, self._read, self._began = items_per_second, 0, clock.monotonic()
        self._meter = Meter(self.stdout, 0)
        self._undecided: list[str] = []
        wanted = {NO_THREAD: delete_posts, NO_ACCOUNT: free_names}
        kept = {kind for kind in _KEPT if not wanted.get(kind)}
        try:
            with background(), sql_tables():
                found, left = self._run(repair=repair, kept=kept)
        except StoreError as exc:
            raise CommandError(f"Not all was read. {exc}") from exc
        finally:
            self._meter.end()
        for kind in KINDS:
            if found[kind]:
                done = f", {found[kind] - left[kind]} repaired" if repair else ""
                self.stdout.write(f"{kind}: {found[kind]}{done}")
        for line in self._undecided:
            self.stdout.write(f"  {line}")
        if not found:
            self.stdout.write(f"Nothing is wrong in {self._read:,} items.")
        elif not repair:
            raise CommandError("Run the command with --repair to repair it.")
        elif left and kept.issuperset(left):
            raise CommandError(" ".join(_KEPT[kind] for kind in KINDS if left[kind]))
        elif left:
            raise CommandError("Not all was repaired, because users wrote. Run it again.")

    def _run(self, *, repair: bool, kept: set[str]) -> tuple[Counter[str], Counter[str]]:
        """Return how many problems of each kind were found, and how many are left."""
        found, left = Counter[str](), Counter[str]()
        for _ in range(_RUNS if repair else 1):
            left, has_repaired = Counter[str](), False
            self._undecided.clear()
            for problem in find_problems(self._pace):
                if problem.repair is None:
                    self._undecided.append(problem.key)
                if repair and problem.kind not in kept and repaired(problem):
                    found[problem.kind] += 1
                    has_repaired = True
                else:
                    left[problem.kind] += 1
            if not has_repaired:
                break
        return found + left, left

    def _pace(self, count: int) -> None:
        self._read += count
        self._meter.update("Read", self._read)
        ahead = self._read / self._rate - (clock.monotonic() - self._began)
        if ahead > 0:
            clock.sleep(ahead)
