"""The log of what users did, which DynamoDB deletes after 90 days."""

from __future__ import annotations

import uuid
from typing import Any

from dynamo_stores import clock

from . import keys, times
from .adapters import Create, Operation, Page, Table, get_adapter
from .models import Support

KEPT_DAYS = 90

SIGNED_UP = "signed-up"
STARTED_THREAD, REPLIED = "started-thread", "replied"
EDITED, DELETED, MOVED = "edited", "deleted", "moved"


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
