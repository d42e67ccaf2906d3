"""What the API returns, read with a bounded number of calls."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..adapters import DatabaseAdapter, Item, Page, get_adapter
from ..adapters.base import AnyKey
from ..content import number_of
from ..keys import MAX_ID_BYTES
from ..models import LISTING, Post, Thread, User
from ..profiles import get_profiles
from ..trees import NoSuchPost, NoSuchThread
from .schemas import PostOut, ThreadOut, UserOut

# A page ends with the row by which its JSON has so many bytes. Posts may be long.
MAX_BYTES = 1_000_000
# Items whose sizes tell how many of a page are read.
_FIRST = 10
_USER = ["userId", "number", "name", "username", "bio", "createdAt", "version"]


class NoSuchUser(Exception):
    """The user does not exist."""


@dataclass(frozen=True)
class Found:
    """Some of a list, and where the next page begins: None at the end."""

    rows: list[Any]
    after: Item | None


def list_users(size: int, after: Any) -> Found:
    """Return users by one Scan, those of a page by their time."""
    adapter = get_adapter(User)
    page = adapter.scan(size=size, after=after, attributes=_USER)
    return _by_time(_ended(adapter, None, page, page.items, list(map(user_out, page.items))))


def list_threads(size: int, after: Any, *, newest: bool) -> Found:
    """Return threads by their time: a Query, and a BatchGetItem of threads and of authors."""
    adapter = get_adapter(Thread)
    index = "CreatedAtIndex"
    page = adapter.page(LISTING, index=index, size=size, after=after, descending=newest)
    items, is_all = _first_of(adapter, [item["threadId"] for item in page.items])
    return _ended(adapter, index, page, items, thread_outs(items), is_all=is_all)


def list_posts(size: int, after: Any) -> Found:
    """Return posts by one Scan, those of a page by their time, and what their ids need."""
    adapter = get_adapter(Post)
    page = adapter.scan(size=size, after=after)
    return _by_time(_ended(adapter, None, page, page.items, post_outs(page.items)))


def list_posts_of(index: str, value: str, size: int, after: Any) -> Found:
    """Return the posts of a thread or user by their time: a Query, a BatchGetItem of posts."""
    if not is_id(value):
        return Found([], None)
    adapter = get_adapter(Post)
    page: Page = adapter.page(value, index=index, size=size, after=after)
    keys = [(item["postId"], item["threadId"]) for item in page.items]
    items, is_all = _first_of(adapter, keys)
    return _ended(adapter, index, page, items, post_outs(items), is_all=is_all)


def get_user(user_id: str) -> Item:
    """Return the item of a user, read strongly. Raises NoSuchUser."""
    if is_id(user_id) and (found := get_adapter(User).get_by_id(user_id, consistent=True)):
        return found
    raise NoSuchUser


def get_thread(thread_id: str) -> Item:
    """Return the item of a thread, read strongly. Raises NoSuchThread."""
    if is_id(thread_id) and (found := get_adapter(Thread).get_by_id(thread_id, consistent=True)):
        return found
    raise NoSuchThread


def get_post(post_id: str) -> Item:
    """Return the item of a post, read strongly. Raises NoSuchPost."""
    if is_id(post_id) and (found := get_adapter(Post).get_by_id(post_id, consistent=True)):
        return found
    raise NoSuchPost


def user_out(item: Item) -> UserOut:
    """Return what the API shows of a user."""
    return UserOut(
        id=_id_of(item, "userId"),
        username=item.get("username") or "",
        name=item["name"],
        bio=item.get("bio") or "",
        createdAt=item["createdAt"],
        version=int(item.get("version", 1)),
    )


def thread_outs(items: Sequence[Item]) -> list[ThreadOut]:
    """Return what the API shows of threads; reads their authors through the cache."""
    authors = _user_ids(item.get("createdBy") for item in items)
    return [
        ThreadOut(
            id=_id_of(item, "threadId"),
            title=item["title"],
            createdBy=authors.get(item.get("createdBy") or "", item.get("createdBy")),
            description=item.get("description") or "",
            createdAt=item["createdAt"],
            activeAt=item.get("activeAt") or item["createdAt"],
            posts=int(item.get("posts", 0)),
            version=int(item.get("version", 1)),
        )
        for item in items
    ]


def post_outs(items: Sequence[Item]) -> list[PostOut]:
    """
    Return what the API shows of posts; reads the ids of their threads, authors and parents as they
    were in an imported file: a BatchGetItem each at most.
    """
    authors = _user_ids(item["userId"] for item in items)
    thread_ids = sorted({item["threadId"] for item in items})
    threads = {
        item["threadId"]: _id_of(item, "threadId")
        for item in get_adapter(Thread).get_many(thread_ids, attributes=["threadId", "number"])
    }
    known = {(item["postId"], item["threadId"]): item for item in items}
    missing = {
        (item["parent"], item["threadId"]) for item in items if item.get("parent")
    } - known.keys()
    for item in get_adapter(Post).get_many(sorted(missing), attributes=["number"]):
        known[item["postId"], item["threadId"]] = item
    parents = {key: _id_of(item, "postId") for key, item in known.items()}
    return [
        PostOut(
            id=_id_of(item, "postId"),
            thread=threads.get(item["threadId"], str(item["threadId"])),
            text=item.get("content") or "",
            user=authors.get(item["userId"], str(item["userId"])),
            title=item.get("title") or "",
            parent=parents.get((item.get("parent") or "", item["threadId"]), item.get("parent")),
            replies=int(item.get("replies", 0)),
            createdAt=item["createdAt"],
            editedAt=item.get("editedAt"),
            isDeleted=bool(item.get("isDeleted")),
            version=int(item.get("version", 1)),
        )
        for item in items
    ]


def is_id(text: str) -> bool:
    """Return whether a text can be the id of anything."""
    return 0 < len(text.encode(errors="surrogatepass")) <= MAX_ID_BYTES


def _user_ids(user_ids: Iterable[str | None]) -> dict[str, int | str]:
    found = get_profiles(user_ids)
    return {
        user_id: user_id if each.number is None else each.number for user_id, each in found.items()
    }


def _id_of(item: Item, name: str) -> int | str:
    number = number_of(item)
    return str(item[name]) if number is None else number


def _first_of(adapter: DatabaseAdapter, keys: Sequence[AnyKey]) -> tuple[list[Item], bool]:
    """
    Return the items of a page, and whether these are all: of large ones about as many as end it.
    The first are read by one BatchGetItem, which shows how large they are, the others by the next.
    """
    found, size, at = list[Item](), 0, 0
    count = _FIRST
    while at < len(keys) and size < MAX_BYTES:
        some = adapter.get_many(keys[at : at + count])
        at += count
        found += some
        size += sum(len(json.dumps(item, default=str)) for item in some)
        count = math.ceil(max(0, MAX_BYTES - size) * at / max(1, size)) + 1
    return found, at >= len(keys)


def _ended(
    adapter: DatabaseAdapter,
    index: str | None,
    page: Page,
    items: Sequence[Item],
    rows: list[Any],
    *,
    is_all: bool = True,
) -> Found:
    """
    Return the ``rows`` of the ``items`` of a page. If they are large or not all, the page ends
    early, and the next one begins after the key of the last item.
    """
    size = 0
    for count, row in enumerate(rows, start=1):
        # With what is between two rows.
        size += len(json.dumps(row.model_dump())) + 2
        is_last = count == len(rows)
        if (is_last and not is_all) or (size >= MAX_BYTES and not is_last):
            names = [*adapter.table.keys, *adapter.table.keys_of(index)]
            return Found(rows[:count], {name: items[count - 1][name] for name in names})
    return Found(rows, page.after)


def _by_time(found: Found) -> Found:
    return Found(sorted(found.rows, key=lambda row: str(row.createdAt)), found.after)
