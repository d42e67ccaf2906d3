"""Keys of the items of the table ``forum-support``."""

from __future__ import annotations

from typing import Any

Key = dict[str, Any]

# Bytes of an id. Sort keys are made of ids and have 1,024 bytes, partition keys of two 2,048.
MAX_ID_BYTES = 255


def tree(thread_id: str, branch: str = "") -> str:
    """Return the partition of the places in a tree, or in a branch: that of the post ``branch``."""
    # An id may contain any character; its length says where it ends.
    return f"tree#{len(thread_id)}#{thread_id}#{branch}"


def place(thread_id: str, branch: str, place: str) -> Key:
    """Return the key of a place in a tree."""
    return {"PK": tree(thread_id, branch), "SK": place}


# The partition of the threads of which a subtree is being moved or deleted.
WORK = "work"


def work(thread_id: str) -> Key:
    """Return the key that says that a subtree of a thread is being moved or deleted."""
    return {"PK": WORK, "SK": thread_id}


def reservation(kind: str, value: str) -> Key:
    """Return the key that reserves a user name or an e-mail address."""
    return {"PK": f"{kind}#{value}", "SK": "reservation"}


def request(request_id: str) -> Key:
    """Return the key that says that a request with a key of its own has written an item."""
    return {"PK": f"request#{request_id}", "SK": "key"}


def words(word: str) -> str:
    """Return the partition of the titles that have a word with the beginning of ``word``."""
    return f"word#{word[:2]}"


def activities(user_id: str) -> str:
    """Return the partition of the log of a user's activities."""
    return f"activity#{user_id}"


def tree_of(partition: str) -> tuple[str, str]:
    """Return the thread and the branch of a partition of :func:`tree`."""
    _, length, rest = partition.split("#", 2)
    return rest[: int(length)], rest[int(length) + 1 :]
