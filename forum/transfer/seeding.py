"""A forum of any size for tests of load, always the same for a number."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

_FIRST = [
    "Ada",
    "Bo",
    "Chidi",
    "Dana",
    "Emi",
    "Farid",
    "Greta",
    "Hana",
    "Ivo",
    "Jun",
    "Kofi",
    "Lia",
]
_LAST = ["Moreau", "Lindqvist", "Okafor", "Reyes", "Tanaka", "Haddad", "Novak", "Silva", "Weber"]
_WORDS = [
    "a",
    "batch",
    "cache",
    "call",
    "capacity",
    "condition",
    "cost",
    "counter",
    "deploy",
    "event",
    "expiry",
    "index",
    "item",
    "job",
    "key",
    "latency",
    "lease",
    "limit",
    "lock",
    "page",
    "partition",
    "query",
    "queue",
    "read",
    "replica",
    "request",
    "retry",
    "scan",
    "shard",
    "stream",
    "table",
    "throttle",
    "timeout",
    "token",
    "transaction",
    "unit",
    "update",
    "version",
    "worker",
    "write",
]
# A post is a reply with this probability, mostly to one of the last so many posts of its thread.
_REPLIES, _NEAR = 0.7, 12

Rows = list[dict[str, Any]]


def make_forum(users: int, threads: int, posts: int, seed: int) -> Mapping[str, Rows]:
    """
    Return the rows of three files. A few threads have most of the posts, and the posts are trees of
    replies. Rows of different seeds have different ids.
    """
    chance = random.Random(f"{seed}")
    user_ids = [f"seed{seed}-user-{number}" for number in range(1, users + 1)]
    thread_ids = [f"seed{seed}-thread-{number}" for number in range(1, threads + 1)]
    weights = [1 / number for number in range(1, threads + 1)]
    found: dict[str, Rows] = {
        "users": [
            {
                "id": user_id,
                "username": user_id,
                "name": f"{chance.choice(_FIRST)} {chance.choice(_LAST)}",
                "bio": _sentence(chance, 4, 10),
            }
            for user_id in user_ids
        ],
        "threads": [
            {
                "id": thread_id,
                "title": _sentence(chance, 3, 8).rstrip("."),
                "createdBy": chance.choice(user_ids),
            }
            for thread_id in thread_ids
        ],
        "posts": [],
    }
    earlier: dict[str, list[str]] = {thread_id: [] for thread_id in thread_ids}
    for number in range(1, posts + 1):
        thread_id = chance.choices(thread_ids, weights)[0]
        known, post_id = earlier[thread_id], f"seed{seed}-post-{number}"
        row = {
            "id": post_id,
            "thread": thread_id,
            "user": chance.choice(user_ids),
            "text": " ".join(_sentence(chance, 5, 15) for _ in range(chance.randint(1, 4))),
        }
        if known and chance.random() < _REPLIES:
            row["parent"] = chance.choice(known[-_NEAR:])
        known.append(post_id)
        found["posts"].append(row)
    return found


def _sentence(chance: random.Random, shortest: int, longest: int) -> str:
    words = chance.choices(_WORDS, k=chance.randint(shortest, longest))
    return " ".join(words).capitalize() + "."
