"""What the API takes and returns. Ids have the type that they had in an imported file."""

from __future__ import annotations

from typing import Annotated, Any

from ninja import Schema
from pydantic import ConfigDict, StrictInt, StringConstraints

from ..accounts import MAX_BIO, MAX_NAME
from ..importing import MAX_ID_BYTES
from ..posting import MAX_TEXT, MAX_TITLE

# Strict, because true is no id.
Id = StrictInt | Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID_BYTES)]


def _text(longest: int) -> Any:
    return Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=longest)
    ]


class _In(Schema):
    model_config = ConfigDict(extra="forbid")


class Problem(Schema):
    """An error (RFC 9457)."""

    title: str
    status: int
    detail: str


class UserOut(Schema):
    """A user."""

    id: Id
    username: str
    name: str
    bio: str
    createdAt: str
    version: int


class ThreadOut(Schema):
    """A thread; ``posts`` counts its posts. ``createdBy`` is the id of a user."""

    id: Id
    title: str
    createdBy: Id | None
    description: str
    createdAt: str
    activeAt: str
    posts: int
    version: int


class PostOut(Schema):
    """
    A post; ``thread``, ``user`` and ``parent`` are ids. A deleted post that has replies is left
    without its text.
    """

    id: Id
    thread: Id
    text: str
    user: Id
    title: str
    parent: Id | None
    replies: int
    createdAt: str
    editedAt: str | None
    isDeleted: bool
    version: int


class UserIn(_In):
    """Changes of a profile; what is left out stays as it is."""

    name: _text(MAX_NAME) | None = None  # type: ignore[valid-type]
    bio: Annotated[str, StringConstraints(max_length=MAX_BIO)] | None = None


class ThreadIn(_In):
    """A new thread with its first post."""

    title: _text(MAX_TITLE)  # type: ignore[valid-type]
    text: _text(MAX_TEXT)  # type: ignore[valid-type]


class TitleIn(_In):
    """A new title."""

    title: _text(MAX_TITLE)  # type: ignore[valid-type]


class PostIn(_In):
    """A new post in a thread; with ``parent`` a reply to that post."""

    thread: Id
    text: _text(MAX_TEXT)  # type: ignore[valid-type]
    parent: Id | None = None


class TextIn(_In):
    """A new text."""

    text: _text(MAX_TEXT)  # type: ignore[valid-type]
