"""
What a visitor has just written or deleted, in the session: indexes may not show it yet, so it is
read by key.
"""

from __future__ import annotations

from typing import Any

from dynamo_stores import clock

# Seconds, and how many writes are kept: more than the limits let a user make in that time.
FOR, MOST = 90, 60

_NAME = "recent"


def remember(request: Any, thread_id: str, post_id: str | None = None) -> None:
    """Keep that the visitor has just written or deleted a thread, or a post of it."""
    new = [clock.now(), thread_id, post_id]
    request.session[_NAME] = [*_kept(request), new][-MOST:]


def threads(request: Any) -> list[str]:
    """Return the ids of threads that the visitor has just written, or written posts of."""
    return list(dict.fromkeys(thread_id for _, thread_id, _ in _kept(request)))


def posts(request: Any) -> list[tuple[str, str]]:
    """Return the keys of posts that the visitor has just written: ids of post and thread."""
    found = ((post_id, thread_id) for _, thread_id, post_id in _kept(request) if post_id)
    return list(dict.fromkeys(found))


def _kept(request: Any) -> list[Any]:
    since = clock.now() - FOR
    return [each for each in request.session.get(_NAME, []) if each[0] > since]
