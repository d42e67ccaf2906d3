"""The page of deduplicated jobs: one by its key, a bounded list, and the release of a job."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..calls.policy import deadline
from ..dedupe.inspection import (
    ABANDONED,
    DONE,
    ERROR,
    IN_PROGRESS,
    OVER,
    JobDescription,
    JobList,
)
from ..exceptions import CALL_ERRORS
from ..monitoring.snapshot import reason_of
from ..stores import DedupeStore
from .actions import Action, BadAction, Effect, Outcome, Target, check_alias, problem_of, short
from .entries import ACT_SECONDS, LOOK_SECONDS, NO_ANSWER

# A list reads so many pages of a megabyte, 128 read units each, in about three seconds.
LIST_PAGES, PAGE_UNITS = 20, 128
# Not every engine ends a page after a megabyte.
_PAGE_ITEMS = 10_000
_LIST_SECONDS = 10.0
# So many jobs of a list are shown.
_MOST_SHOWN = 200
_DIGEST, _FENCE = re.compile(r"[0-9a-f]{64}"), re.compile(r"\d{1,18}")

STATES = {
    IN_PROGRESS: "in progress",
    ABANDONED: "abandoned",
    DONE: "completed",
    ERROR: "failed",
    OVER: "over",
}
SYMBOLS = {IN_PROGRESS: "◆", ABANDONED: "▲", DONE: "●", ERROR: "▲", OVER: "○"}


@dataclass(frozen=True)
class JobRow:
    """A job; ``message`` is that of its error, ``""`` for users who may not see it."""

    job: JobDescription
    message: str = ""

    @property
    def state(self) -> str:
        """The state in words."""
        return STATES[self.job.state]

    @property
    def symbol(self) -> str:
        """The sign of the state."""
        return SYMBOLS[self.job.state]

    @property
    def can_be_released(self) -> bool:
        """Whether it is in progress, or its failure is returned to callers."""
        return self.job.state in (IN_PROGRESS, ERROR)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {**asdict(self.job), "error_message": self.message}


@dataclass(frozen=True)
class JobLookup:
    """The answer to a look-up: a ``row``, None if there is no such job; or a ``problem``."""

    using: str
    key: str
    row: JobRow | None = None
    problem: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {
            "using": self.using,
            "key": self.key,
            "job": self.row and self.row.as_json(),
            "problem": self.problem,
        }


@dataclass(frozen=True)
class JobListing:
    """The jobs of the first pages of an alias's table, ``rows`` the oldest of them."""

    using: str
    rows: Sequence[JobRow] = ()
    found: JobList | None = None
    problem: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        found = self.found
        return {
            "using": self.using,
            "jobs": [row.as_json() for row in self.rows],
            "count": found and len(found.jobs),
            "pages": found and found.pages,
            "items_read": found and found.items_read,
            "units": found and found.units,
            "is_whole": found and found.is_whole,
            "problem": self.problem,
        }


def look_up(using: str, key: str, *, shows_messages: bool, dead: Collection[str] = ()) -> JobLookup:
    """
    Return the job with this key. Takes about four seconds at most; no time for a ``dead`` alias.

    Raises BadAction for an unknown alias.
    """
    check_alias(using)
    problem = problem_of("key", key) or ("" if key else "The key is empty.")
    if problem:
        return JobLookup(using, key[:200], problem=problem)
    if using in dead:
        return JobLookup(using, key, problem=f"The job was not read: {NO_ANSWER}.")
    try:
        with deadline(LOOK_SECONDS):
            job = DedupeStore(using).describe(key)
    except CALL_ERRORS as exc:
        return JobLookup(using, key, problem=f"The job was not read: {reason_of(exc)}.")
    if job is None:
        return JobLookup(using, key)
    return JobLookup(using, key, JobRow(job, job.error_message if shows_messages else ""))


def list_jobs(using: str, *, dead: Collection[str] = ()) -> JobListing:
    """
    Return the jobs in progress and those that failed, of the first pages of the table. Takes about
    ten seconds at most; no time for a ``dead`` alias.

    Raises BadAction for an unknown alias.
    """
    check_alias(using)
    if using in dead:
        return JobListing(using, problem=f"The table was not read: {NO_ANSWER}.")
    try:
        with deadline(_LIST_SECONDS):
            found = DedupeStore(using).list_jobs(most_pages=LIST_PAGES, page_size=_PAGE_ITEMS)
    except CALL_ERRORS as exc:
        return JobListing(using, problem=f"The table was not read: {reason_of(exc)}.")
    return JobListing(using, [JobRow(each) for each in found.jobs[:_MOST_SHOWN]], found)


def _check(target: Target) -> None:
    check_alias(target.using)
    if not _DIGEST.fullmatch(target.job) or not _FENCE.fullmatch(target.fence):
        raise BadAction("The action 'release_job' requires the digest and the fence of a job.")


def _release(target: Target) -> Outcome:
    name = f"The job {target.job[:12]}"
    with deadline(ACT_SECONDS):
        is_released = DedupeStore(target.using).release(digest=target.job, fence=int(target.fence))
    if not is_released:
        return Outcome(
            f"{name} was not released: it is completed, or another process has it by now.",
            is_good=False,
        )
    return Outcome(f"{name} is released: the next caller runs it.")


RELEASE_JOB = "release_job"

ACTIONS = {
    RELEASE_JOB: Action(
        RELEASE_JOB,
        "Release the job",
        lambda target: f"Release the job {short(target.job[:12])} of alias {target.using}?",
        lambda target: Effect(
            "The next caller runs the job. An owner that still works loses it, and its result is "
            "not stored: what the job does may be done twice."
        ),
        _release,
        _check,
        "manage_data",
    ),
}
