"""
Export of the forum as the rows of three files, which the import reads.

What the import derives from the position of a row is left out, and what it needs is kept: imported
files come back as they were. Posts are in the order of their times, those of a thread with replies
in the order of its tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from dynamo_stores.calls.batches import chunks

from ..adapters import Item, get_adapter
from ..adapters.base import without_none
from ..content import number_of
from ..models import Post, Thread, User
from ..times import moment_of, stamp
from .positions import PostPositions, time_of_thread, time_of_user

# Posts that are read at a time.
_SOME = 500

Row = dict[str, Any]
Key = tuple[str, str]


class Export:
    """
    The rows of the forum as it is while it is read. Users, threads, and the keys and places of the
    posts are in memory; the texts of the posts are not.

    ``left_out`` counts posts whose thread or author does not exist.
    """

    def __init__(self) -> None:
        self.left_out = 0
        self._users = sorted(get_adapter(User).get_all(), key=_age("userId"))
        self._threads = sorted(get_adapter(Thread).get_all(), key=_age("threadId"))
        self._user_ids = {item["userId"]: _id_of(item, "userId") for item in self._users}
        self._thread_ids = {item["threadId"]: _id_of(item, "threadId") for item in self._threads}

    def users(self) -> Iterator[Row]:
        """Yield the rows of the users."""
        for row, item in enumerate(self._users, start=1):
            yield without_none(
                {
                    "id": _id_of(item, "userId"),
                    "username": item.get("username"),
                    "name": item["name"],
                    "bio": item.get("bio"),
                    "email": item.get("email"),
                    "createdAt": _unless(item, time_of_user(row)),
                }
            )

    def threads(self) -> Iterator[Row]:
        """Yield the rows of the threads."""
        for row, item in enumerate(self._threads, start=1):
            author = item.get("createdBy")
            yield without_none(
                {
                    "id": _id_of(item, "threadId"),
                    "title": item["title"],
                    "createdBy": self._user_ids.get(author or ""),
                    "description": item.get("description"),
                    "createdAt": _unless(item, time_of_thread(row)),
                }
            )

    def posts(self) -> Iterator[Row]:
        """Yield the rows of the posts."""
        adapter = get_adapter(Post)
        names = ["postId", "threadId", "userId", "number", "parent", "place", "createdAt"]
        found = list(adapter.get_all(attributes=names))
        known = [
            item
            for item in found
            if item["threadId"] in self._thread_ids and item["userId"] in self._user_ids
        ]
        self.left_out = len(found) - len(known)
        ids = {_key(item): _id_of(item, "postId") for item in known}
        positions = PostPositions(
            {item["threadId"]: moment_of(item["createdAt"]) for item in self._threads}
        )
        for some in chunks(in_order(known), _SOME):
            for item in adapter.get_many(some, consistent=True):
                yield self._post(item, ids, positions)

    def _post(self, item: Item, ids: dict[Key, int | str], positions: PostPositions) -> Row:
        thread_id, own_id = item["threadId"], ids[_key(item)]
        derived, moment = positions.next_id(thread_id), positions.next_time(thread_id)
        created = _unless(item, moment)
        positions.add(thread_id, None if created is None else moment_of(created))
        return without_none(
            {
                "id": None if own_id == derived else own_id,
                "thread": self._thread_ids[thread_id],
                "text": item.get("content"),
                "user": self._user_ids[item["userId"]],
                "parent": ids.get((item.get("parent") or "", thread_id)),
                "title": item.get("title"),
                "createdAt": created,
                "editedAt": item.get("editedAt"),
                "isDeleted": item.get("isDeleted"),
            }
        )


def in_order(posts: Iterable[Item]) -> list[Key]:
    """
    Return the keys of posts so that each comes after its parent: threads by the times of their
    posts, the replies to a post by their places.
    """
    of_thread: dict[str, list[Item]] = {}
    for post in posts:
        of_thread.setdefault(post["threadId"], []).append(post)
    found = []
    for some in of_thread.values():
        latest = ""
        for number, post in enumerate(_tree_order(some)):
            latest = max(latest, post["createdAt"])
            found.append((latest, post["threadId"], number, _key(post)))
    return [key for *_, key in sorted(found)]


def _tree_order(posts: list[Item]) -> Iterator[Item]:
    known = {post["postId"] for post in posts}
    below: dict[str, list[Item]] = {}
    for post in posts:
        parent = post.get("parent") or ""
        below.setdefault(parent if parent in known else "", []).append(post)
    for replies in below.values():
        replies.sort(key=lambda post: str(post.get("place", "")), reverse=True)
    left = below.get("", [])[:]
    while left:
        post = left.pop()
        yield post
        left += below.get(post["postId"], [])


def _age(name: str) -> Any:
    return lambda item: (item["createdAt"], item[name])


def _key(item: Item) -> Key:
    return item["postId"], item["threadId"]


def _id_of(item: Item, name: str) -> int | str:
    number = number_of(item)
    return str(item[name]) if number is None else number


def _unless(item: Item, derived: datetime) -> str | None:
    """Return the time of an item, None if the import derives the same."""
    return None if item["createdAt"] == stamp(derived) else str(item["createdAt"])
