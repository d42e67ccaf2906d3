"""What is known of jobs without their keys and results: their states, times, owners and errors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial

from .. import keys
from ..calls.pages import pages
from ..models import RawItem, integer_of, seconds_of, string_of
from .items import (
    COMPLETED,
    FAILED,
    RUNNING,
    DedupeJob,
    fence_of,
    part_count_of,
    result_of,
    state_of,
)
from .jobs import Jobs

IN_PROGRESS, ABANDONED, DONE, ERROR, OVER = (
    "in_progress",
    "abandoned",
    "completed",
    "failed",
    "over",
)
# A page of a Scan is a megabyte.
_UNITS_PER_SECOND = 1000.0


@dataclass(frozen=True)
class JobDescription:
    """
    A job as it is in the table, without its result. The table has no keys of jobs; ``digest`` is
    the SHA-256 of the key, in hexadecimal digits.

    ``state`` is ``in_progress``; ``abandoned``: its owner's lease ended without an outcome;
    ``completed`` or ``failed``; ``over``: the time of its outcome has passed. The next caller runs
    an abandoned job and one that is over. ``began_at`` and ``until`` (the end of the lease, or of
    the outcome) are in seconds since the epoch, 0 if not known. ``size`` is the bytes of a result
    in the job itself, None for one in ``parts``. ``error_type`` and ``error_message`` are those of
    a failed job.
    """

    digest: str
    state: str
    owner: str
    fence: int
    began_at: float
    until: float
    size: int | None
    parts: int
    error_type: str = ""
    error_message: str = ""


@dataclass(frozen=True)
class JobList:
    """
    The jobs that were found in the first ``pages`` of the table, the oldest first.

    ``items_read`` and ``units`` are what that cost; ``is_whole``: whether the whole table was read.
    """

    jobs: tuple[JobDescription, ...]
    pages: int
    items_read: int
    units: float
    is_whole: bool


async def describe(jobs: Jobs, key: str) -> JobDescription | None:
    """Return the job, read strongly; None if it does not exist. A verb."""
    item = await jobs.get_job(key)
    return None if item is None else _description(jobs, item)


async def list_jobs(jobs: Jobs, most_pages: int, page_size: int | None) -> JobList:
    """Return the jobs in progress and those that failed, of the first pages of a Scan. A verb."""
    found: list[RawItem] = []
    count = items_read = 0
    units, is_whole = 0.0, True
    scan = partial(jobs.items.call, "Scan")
    request = _REQUEST if page_size is None else {**_REQUEST, "Limit": page_size}
    async for page in pages(scan, request, units_per_second=_UNITS_PER_SECOND):
        found += page["Items"]
        count += 1
        items_read += int(page.get("ScannedCount", 0))
        units += float((page.get("ConsumedCapacity") or {}).get("CapacityUnits", 0.0))
        is_whole = not page.get("LastEvaluatedKey")
        if count >= most_pages:
            break
    described = (_description(jobs, item) for item in found)
    kept = [each for each in described if each.state != OVER]
    kept.sort(key=lambda each: (each.began_at, each.digest))
    return JobList(tuple(kept), count, items_read, units, is_whole)


_SHOWN = (DedupeJob.state, DedupeJob.owner, DedupeJob.fence, DedupeJob.until, DedupeJob.error)
_REQUEST = {
    "FilterExpression": (
        f"SK = :job AND begins_with(PK, :jobs) AND {DedupeJob.state.attr_name} IN (:running, "
        ":failed)"
    ),
    "ExpressionAttributeValues": {
        ":job": {"S": keys.JOB},
        ":jobs": {"S": f"{keys.DEDUPE}#"},
        ":running": {"S": RUNNING},
        ":failed": {"S": FAILED},
    },
    "ProjectionExpression": ", ".join(["PK", "SK", *(each.attr_name for each in _SHOWN)]),
}


def _description(jobs: Jobs, item: RawItem) -> JobDescription:
    state, is_valid = state_of(item), jobs.seconds_left(item) > 0
    shown = {
        (RUNNING, True): IN_PROGRESS,
        (RUNNING, False): ABANDONED,
        (COMPLETED, True): DONE,
        (FAILED, True): ERROR,
    }.get((state, is_valid), OVER)
    error = _error_of(item) if state == FAILED else ("", "")
    fence, parts = fence_of(item), part_count_of(item)
    return JobDescription(
        digest=keys.dedupe_digest(item["PK"]["S"]),
        state=shown,
        owner=string_of(item, DedupeJob.owner),
        fence=fence,
        # A fence is the time in ms at which the job was taken, unless fences were ahead of it.
        began_at=seconds_of(fence) or 0.0,
        until=seconds_of(integer_of(item, DedupeJob.until)) or 0.0,
        size=None if parts else len(result_of(item) or b""),
        parts=parts,
        error_type=error[0],
        error_message=error[1],
    )


def _error_of(item: RawItem) -> tuple[str, str]:
    try:
        name, message = json.loads(string_of(item, DedupeJob.error))
    except (TypeError, ValueError):
        return "", ""
    return str(name), str(message)
