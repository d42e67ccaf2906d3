"""The log of what users did, which DynamoDB deletes after 90 days."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dynamo_stores import clock

from . import keys, threads, times
from .adapters import Create, Item, Operation, Page, Table, get_adapter
from .models import Support

KEPT_DAYS = 90

SIGNED_UP = "signed-up"
STARTED_THREAD, REPLIED = "started-thread", "replied"
EDITED, DELETED, MOVED = "edited", "deleted", "moved"

# What is said of a post and of a thread, before the title of the thread; and without one.
_OF_POST = {
    REPLIED: "Replied in",
    EDITED: "Edited a post in",
    DELETED: "Deleted a post in",
    MOVED: "Moved a post in",
}
_OF_THREAD = {STARTED_THREAD: "Started", EDITED: "Edited the title of"}
_OF_NEITHER = {SIGNED_UP: "Signed up", EDITED: "Edited the profile", DELETED: "Deleted a thread"}


@dataclass(frozen=True)
class Activity:
    """
    What a user did, in words, and the thread whose title follows them; ``""`` if none does. The
    title of a deleted thread is None.
    """

    words: str
    at: datetime
    thread_id: str = ""
    title: str | None = None


def record(user_id: str, kind: str, **details: Any) -> Operation:
    """Return the operation that records what a user does, for the transaction that does it."""
    at = times.now()
    return Create(
        Table.of(Support),
        {
            "PK": keys.activities(user_id),
            "SK": f"{at}#{uuid.uuid4().hex}",
            "kind": kind,
            "at": at,
            **details,
            "expiresAt": int(clock.now()) + KEPT_DAYS * 86_400,
        },
    )


def page(user_id: str, *, size: int, after: Any = None) -> Page:
    """
    Return a page of the activities of a user, the latest first: one Query. Those that are expired
    and not deleted yet are left out.
    """
    found = get_adapter(Support).page(
        keys.activities(user_id), size=size, after=after, descending=True
    )
    now = clock.now()
    return Page([item for item in found.items if item["expiresAt"] > now], found.after)


def described(items: Iterable[Item]) -> list[Activity]:
    """Return activities in words, with the titles of their threads: a BatchGetItem."""
    items = list(items)
    titles = threads.titles_of(each["threadId"] for each in items if "threadId" in each)
    return [_described(each, titles) for each in items]


def _described(item: Item, titles: dict[str, str]) -> Activity:
    kind, at, thread_id = item["kind"], times.moment_of(item["at"]), item.get("threadId", "")
    if "postId" in item:
        return Activity(_OF_POST[kind], at, thread_id, titles.get(thread_id))
    if thread_id and kind in _OF_THREAD:
        return Activity(_OF_THREAD[kind], at, thread_id, titles.get(thread_id))
    return Activity(_OF_NEITHER[kind], at)
