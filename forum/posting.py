"""Writing of threads and posts, each in one transaction with all that belongs to it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import uuid
from collections.abc import Callable
from typing import Any

from dynamo_stores import clock

from . import activities, keys, threads, times
from .adapters import (
    MISSING,
    Conflict,
    Create,
    Delete,
    Item,
    ItemExists,
    ItemMissing,
    Operation,
    Table,
    Update,
    WriteRefused,
    get_adapter,
    get_database,
)
from .models import LISTING, Post, Support, Thread
from .trees import (
    NoSuchPost,
    NoSuchThread,
    Tree,
    TreeBusy,
    TreeUnfinished,
    first_post,
    removal_of_thread,
)
from .words import MAX_WORDS, entry, words_of

MAX_TITLE, MAX_TEXT = 120, 20_000
# Seconds after which a request leaves a large move or deletion to ``forum.finish_moves``.
PATIENCE = 5.0
# A deletion is tried so often while others change the thread.
_TRIES = 10
# How long the key of a request is known, if what it has written is deleted.
KEY_SECONDS = 86_400
# What a deleted post with replies loses.
_EMPTIED = ["content", "title"]


class TooManyWords(ValueError):
    """A title has too many words."""


class KeyUsed(Exception):
    """
    The key of a request has written another content before, ``item``, or what was deleted since
    then, None. A post that stays without its text is deleted, too.
    """

    def __init__(self, item: Item | None = None) -> None:
        super().__init__("The key was used for something else.")
        self.item = None if item is None or item.get("isDeleted") else item


def check_title(title: str) -> None:
    """Raise TooManyWords if the words of a title are more than can be indexed."""
    if len(words_of(title)) > MAX_WORDS:
        raise TooManyWords(f"Use {MAX_WORDS} different words at most.")


def create_thread(author: str, title: str, text: str, *, key: str = "") -> Item:
    """
    Write a thread and its first post; return the thread.

    With a ``key`` the same call again, by any process, returns the same thread and writes nothing.
    Raises KeyUsed for another content, or if the thread was deleted less than a day after it was
    written, and TooManyWords.
    """
    check_title(title)
    now, thread_id = times.now(), _new_id(author, key)
    post = _post(_new_id(author, key, "post"), thread_id, author, text, now)
    thread = {
        "threadId": thread_id,
        "title": title,
        "createdBy": author,
        "createdAt": now,
        "activeAt": now,
        "listing": LISTING,
        "posts": 1,
        "children": 1,
        "changes": 1,
        "mark": threads.new_mark(),
        "version": 1,
        "madeFrom": _made_from(key, title, text),
    }
    operations: list[Operation] = [
        Create(Table.of(Thread), thread),
        *first_post(post),
        *(Create(Table.of(Support), entry(word, thread)) for word in words_of(title)),
        activities.record(author, activities.STARTED_THREAD, threadId=thread_id),
        *_known(key, thread_id),
    ]
    try:
        get_database().transact(operations)
    except ItemExists as exc:
        if not key:
            raise
        if _forgot(thread_id, exc.item):
            return create_thread(author, title, text, key=key)
        if exc.position or exc.item is None:
            # The thread is not there any more; its posts may be.
            raise KeyUsed from exc
        return _same(exc.item, thread)
    threads.forget_lists()
    return thread


def create_post(
    author: str, thread_id: str, text: str, *, parent: str | None = None, key: str = ""
) -> Item:
    """
    Write a post, a reply to ``parent`` or to the thread; return it.

    With a ``key`` the same call again returns the same post and writes nothing. Raises KeyUsed for
    another content, or if the post was deleted less than a day after it was written, or stays
    without its text; NoSuchThread, NoSuchPost, or TreeBusy while the parent is being moved.
    """
    post = _post(_new_id(author, key, thread_id), thread_id, author, text, times.now())
    post["parent"] = parent
    post["madeFrom"] = _made_from(key, text, parent or "")
    if key:
        existing = get_adapter(Post).get_by_id((post["postId"], thread_id), consistent=True)
        if existing is not None:
            return _same(existing, post)
    details = {"threadId": thread_id, "postId": post["postId"]}
    # Not of the thread: the key is that of one post.
    request_id = _new_id(author, key, "reply")
    try:
        return Tree(get_database()).add(
            post,
            [
                activities.record(author, activities.REPLIED, **details),
                *_known(key, request_id, **details),
            ],
        )
    except ItemExists as exc:
        if not key or exc.item is None:
            raise
        if _forgot(request_id, exc.item):
            return create_post(author, thread_id, text, parent=parent, key=key)
        if _is_known(request_id, exc.item):
            # It has written a post of another thread, or one that is deleted.
            first = (exc.item["postId"], exc.item["threadId"])
            raise KeyUsed(get_adapter(Post).get_by_id(first, consistent=True)) from exc
        if exc.item.get("postId") != post["postId"]:
            raise
        return _same(exc.item, post)


def edit_post(author: str, post: Item, text: str, *, version: int) -> Item:
    """
    Replace the text of a post that was read with a ``version``; return it. Raises Conflict if it
    was changed since then, NoSuchPost if it was deleted.
    """
    if post.get("isDeleted"):
        raise NoSuchPost
    table, key = Table.of(Post), Table.of(Post).key_of(post)
    changed = {"content": text, "editedAt": times.now()}
    operations: list[Operation] = [
        Update(table, key, changed, {"version": 1}, {"version": version}),
        _changed(post["threadId"]),
        activities.record(
            author, activities.EDITED, threadId=post["threadId"], postId=post["postId"]
        ),
    ]
    try:
        get_database().transact(operations)
    except Conflict as exc:
        return exc.own_change(version, {"content": text})
    return {**post, **changed, "version": version + 1}


def delete_post(author: str, post: Item, *, version: int) -> None:
    """
    Delete a post; one with replies stays without its text. Raises NoSuchPost, TreeBusy, or Conflict
    if it was changed since it was read with the ``version``.
    """
    details = {"threadId": post["threadId"], "postId": post["postId"]}
    Tree(get_database()).remove(
        {**post, "version": version},
        _EMPTIED,
        [activities.record(author, activities.DELETED, **details)],
    )


def edit_thread(author: str, thread: Item, title: str, *, version: int) -> Item:
    """
    Replace the title of a thread that was read with a ``version``; return it. Raises Conflict if it
    was changed since then, TooManyWords for a title that cannot be indexed.
    """
    check_title(title)
    table, support = Table.of(Thread), Table.of(Support)
    new = {**thread, "title": title, "version": version + 1}
    old_words, words = words_of(thread["title"]), words_of(title)
    gone = [entry(word, thread) for word in old_words if word not in words]
    operations: list[Operation] = [
        Update(
            table,
            table.key_of(thread),
            {"title": title},
            {"version": 1, "changes": 1},
            {"version": version, "title": thread["title"]},
        ),
        *(Delete(support, support.key_of(item)) for item in gone),
        *(_entered(entry(word, new)) for word in words),
        activities.record(author, activities.EDITED, threadId=thread["threadId"]),
    ]
    try:
        get_database().transact(operations)
    except Conflict as exc:
        new = exc.own_change(version, {"title": title})
    threads.forget_lists()
    return new


def delete_thread(author: str, thread: Item, *, version: int | None = None) -> bool:
    """
    Delete a thread with all its posts; return whether all are deleted already. Raises NoSuchThread,
    or with a ``version`` Conflict if that is not the present one.

    No page shows the thread after the first transaction. What is left of the posts, also by a
    process that is killed, the task ``forum.finish_moves`` deletes.
    """
    thread_id = thread["threadId"]
    for _ in range(_TRIES):
        if version not in (None, thread.get("version", 1)):
            raise Conflict("The thread was changed.", item=thread)
        try:
            get_database().transact(_removals(author, thread, version))
        except ItemMissing as exc:
            raise NoSuchThread from exc
        except Conflict as exc:
            # It was changed, or a subtree is moved.
            thread = exc.item or thread
        else:
            break
    else:
        raise TreeBusy("The thread was changed all the time.")
    threads.forget_lists()
    return _is_done(lambda tree: tree.remove_thread(thread_id))


def _removals(author: str, thread: Item, version: int | None) -> list[Operation]:
    """
    Return the operations that delete a thread if nothing was changed of what they delete, nor, with
    a ``version``, the version of the thread.
    """
    table, support = Table.of(Thread), Table.of(Support)
    names = ("title", "work") if version is None else ("title", "work", "version")
    expect = {name: thread.get(name, MISSING) for name in names}
    return [
        Delete(table, table.key_of(thread), expect),
        *(
            Delete(support, support.key_of(entry(word, thread)))
            for word in words_of(thread["title"])
        ),
        activities.record(author, activities.DELETED, threadId=thread["threadId"]),
        removal_of_thread(thread),
    ]


def move_post(author: str, thread_id: str, post_id: str, parent: str | None) -> bool:
    """
    Move a post with all its replies below another post of its thread, or to the thread; return
    whether it is moved already. Raises NoSuchThread, NoSuchPost, WouldBeCycle or TreeBusy.
    """
    is_done = _is_done(lambda tree: tree.move(thread_id, post_id, parent))
    _log(author, activities.MOVED, threadId=thread_id, postId=post_id)
    return is_done


def delete_replies(author: str, thread_id: str, post_id: str) -> bool:
    """
    Delete a post with all its replies; return whether all are deleted already. Raises NoSuchThread,
    NoSuchPost or TreeBusy.
    """
    is_done = _is_done(lambda tree: tree.remove_all(thread_id, post_id))
    _log(author, activities.DELETED, threadId=thread_id, postId=post_id)
    return is_done


def _made_from(key: str, *content: str) -> str | None:
    """
    Return what tells the content of a request with a ``key`` from another, None without a key. It
    does not tell the text of a deleted post to those who do not know the key.
    """
    return _digest(json.dumps([key, *content])) if key else None


def _known(key: str, request_id: str, **details: str) -> list[Operation]:
    """
    Return the operation that makes a key known, also when what it has written, as ``details`` say,
    is deleted.
    """
    if not key:
        return []
    ends = int(clock.now()) + KEY_SECONDS
    return [Create(Table.of(Support), {**keys.request(request_id), **details, "expiresAt": ends})]


def _is_known(request_id: str, found: Item) -> bool:
    """Return whether an item is the one that makes the key of a request known."""
    return found.items() >= keys.request(request_id).items()


def _forgot(request_id: str, found: Item | None) -> bool:
    """
    Return whether an item made the key of a request known until a time that is over. It is deleted,
    which DynamoDB does up to some days later.
    """
    if found is None or not _is_known(request_id, found) or found["expiresAt"] >= clock.now():
        return False
    # If another request uses the key by now, its item is refused to this one.
    with contextlib.suppress(WriteRefused):
        get_adapter(Support).delete(found, expect={"expiresAt": found["expiresAt"]})
    return True


def _same(written: Item, new: Item) -> Item:
    """Return the item that was written with the key of a new one. Raises KeyUsed."""
    if written.get("isDeleted") or written.get("madeFrom") != new["madeFrom"]:
        raise KeyUsed(written)
    return written


def _is_done(change: Callable[[Tree], None]) -> bool:
    """Change a tree; return False if the rest is left to ``forum.finish_moves``."""
    try:
        change(Tree(get_database(), patience=PATIENCE))
    except TreeUnfinished:
        return False
    return True


def _log(author: str, kind: str, **details: Any) -> None:
    get_database().transact([activities.record(author, kind, **details)])


def _entered(item: Item) -> Operation:
    table = Table.of(Support)
    rest = {name: value for name, value in item.items() if name not in table.keys}
    return Update(table, table.key_of(item), rest, upsert=True)


def _changed(thread_id: str) -> Operation:
    return Update(Table.of(Thread), {"threadId": thread_id}, add={"changes": 1})


def _post(post_id: str, thread_id: str, author: str, text: str, now: str) -> Item:
    return {
        "postId": post_id,
        "threadId": thread_id,
        "userId": author,
        "content": text,
        "createdAt": now,
        "version": 1,
    }


def _new_id(author: str, key: str, *more: str) -> str:
    """Return a new id, or with a key always the same one."""
    if not key:
        return uuid.uuid4().hex
    return _digest("\0".join((author, key, *more)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
