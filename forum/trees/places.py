"""Places in a tree as text that sorts in the order of the tree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BASE = len(_DIGITS)
# Of a code's first digit: how many digits follow it, for so many first digits.
_CLASSES = ((0, 56), (1, 2), (2, 2), (3, 1), (6, 1))
# Characters. The sort key has 1,024 bytes at most; a short one makes reads cheaper.
MAX_PLACE = 100
# Sorts after all places that begin with the place before it.
END = "~"


def code(number: int) -> str:
    """
    Return text for a number from 0, so that the texts sort as the numbers do and none is the
    beginning of another: 1 character below 56, 2 below 180, 3 below 7,868.
    """
    first = 0
    for digits, count in _CLASSES:
        if number < count * _BASE**digits:
            upper, rest = divmod(number, _BASE**digits)
            return _DIGITS[first + upper] + _fixed(rest, digits)
        number -= count * _BASE**digits
        first += count
    raise ValueError("A post has no more than 57 billion replies.")


def _fixed(number: int, digits: int) -> str:
    found = ""
    for _ in range(digits):
        number, digit = divmod(number, _BASE)
        found = _DIGITS[digit] + found
    return found


def first_codes(path: str, count: int) -> str:
    """Return the first ``count`` codes of a path: the path of an ancestor."""
    end = 0
    for _ in range(count):
        first = _DIGITS.index(path[end])
        for digits, firsts in _CLASSES:
            if first < firsts:
                end += 1 + digits
                break
            first -= firsts
    return path[:end]


@dataclass(frozen=True, slots=True)
class Place:
    """
    Where a post is: its path in ``branch``, which is ``""`` for that of the thread, and how deep it
    is there, from 1. ``own`` is the branch that holds its replies, ``""`` if it is the same one.
    """

    branch: str
    path: str
    depth: int
    own: str = ""

    @classmethod
    def of(cls, item: Mapping[str, Any]) -> Self:
        """Return the place of a post."""
        return cls(item.get("branch", ""), item["place"], item["depth"], item.get("ownBranch", ""))

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of a post at this place."""
        return {
            "branch": self.branch or None,
            "place": self.path,
            "depth": self.depth,
            "ownBranch": self.own or None,
        }

    def contains(self, branch: str, path: str) -> bool:
        """Return whether a place in ``branch`` is this one or below it, in this branch."""
        return branch == self.branch and path.startswith(self.path)


# Digits of the longest code.
_LONGEST = 7


def reply(parent: Place | None, number: int, post_id: str) -> Place:
    """
    Return the place of a post, the reply with a number to the post at ``parent``; None is the
    thread.
    """
    if parent is None:
        branch, base, depth = "", "", 0
    elif parent.own:
        branch, base, depth = parent.own, "", 0
    else:
        branch, base, depth = parent.branch, parent.path, parent.depth
    path = base + code(number)
    is_long = len(path) > MAX_PLACE - _LONGEST
    return Place(branch, path, depth + 1, own=branch_of(post_id) if is_long else "")


def branch_of(post_id: str, change: str = "") -> str:
    """
    Return the name of a branch for the replies to a post. Each move makes another one, by the id of
    the ``change``, so that what one process still writes is never in the branch of another.
    """
    return f"{change}#{post_id}"


def root_of(branch: str) -> str:
    """Return the id of the post whose replies are in a branch."""
    return branch.partition("#")[2]
