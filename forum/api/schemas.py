"""What the API takes and returns. Ids have the type that they had in an imported file."""

from __future__ import annotations

from typing import Annotated, Any

from ninja import Schema
from pydantic import AfterValidator, ConfigDict, Field, StrictInt, StringConstraints, WithJsonSchema

from ..accounts import MAX_BIO, MAX_NAME
from ..keys import MAX_ID_BYTES
from ..posting import MAX_TEXT, MAX_TITLE
from ..words import is_visible

# Strict, because true is no id.
Id = StrictInt | Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID_BYTES)]
Moment = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]


def _text(longest: int) -> Any:
    return Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=longest),
        AfterValidator(_visible),
    ]


def _visible(text: str) -> str:
    if not is_visible(text):
        raise ValueError("Write something that can be seen.")
    return text


def _example(**members: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [members]})


class _Described(Schema):
    model_config = ConfigDict(use_attribute_docstrings=True)


class _In(_Described):
    model_config = ConfigDict(extra="forbid")


class Invalid(_Described):
    """What is wrong in a request."""

    pointer: str
    """Where it is: `body`, `query` or `path`, and names, with slashes between them."""
    detail: str
    """What was expected."""


class Problem(_Described):
    """An error (RFC 9457)."""

    title: str
    """The name of the status."""
    status: int
    detail: str
    """What is wrong, and what to do."""
    errors: list[Invalid] = Field(default_factory=list)
    """With 422, if members or parameters are not valid."""
    retryAfter: int = Field(default_factory=int)
    """With 429 and 503: the seconds after which to try again."""


class UserOut(_Described):
    """A user."""

    model_config = _example(
        id="ada", username="ada", name="Ada Moreau", bio="Runs a small shop.",
        createdAt="2026-01-05T09:07:03.000000Z", version=1,
    )  # fmt: skip

    id: Id
    username: str
    """The user name of the account, or of an imported row; empty without one."""
    name: str
    bio: str
    createdAt: Moment
    version: int
    """How often the profile was written."""


class ThreadOut(_Described):
    """A thread."""

    model_config = _example(
        id="ttl-late", title="Expired items that still come back", createdBy="bo", description="",
        createdAt="2026-01-05T09:07:03.000000Z", activeAt="2026-01-06T10:00:00.000000Z", posts=4,
        version=1,
    )  # fmt: skip

    id: Id
    title: str
    createdBy: Id | None
    """The id of the user who has started it."""
    description: str
    """Of an imported thread; otherwise empty."""
    createdAt: Moment
    activeAt: Moment
    """When its newest post was written."""
    posts: int
    """How many posts it has."""
    version: int
    """How often its title was written. Replies do not count."""


class PostOut(_Described):
    """A post. A deleted one that has replies is left without its text."""

    model_config = _example(
        id="ttl-late-1", thread="ttl-late", text="Is TTL broken?", user="bo", title="",
        parent=None, replies=1, createdAt="2026-01-05T09:07:03.000000Z", editedAt=None,
        isDeleted=False, version=1,
    )  # fmt: skip

    id: Id
    thread: Id
    """The id of its thread."""
    text: str
    user: Id
    """The id of its author."""
    title: str
    """Of an imported post; otherwise empty."""
    parent: Id | None
    """The id of the post that it replies to."""
    replies: int
    """How many posts reply to it directly."""
    createdAt: Moment
    editedAt: Moment | None
    isDeleted: bool
    version: int
    """How often its text was written or deleted. Replies do not count."""


class UserIn(_In):
    """Changes of a profile: the name, the text about the user, or both."""

    model_config = _example(name="Ada Moreau", bio="Runs a small shop.")

    name: _text(MAX_NAME) | None = None  # type: ignore[valid-type]
    bio: Annotated[str, StringConstraints(max_length=MAX_BIO)] | None = None


class ThreadIn(_In):
    """A new thread with its first post."""

    model_config = _example(title="Expired items that still come back", text="Is TTL broken?")

    title: _text(MAX_TITLE)  # type: ignore[valid-type]
    text: _text(MAX_TEXT)  # type: ignore[valid-type]


class TitleIn(_In):
    """A new title."""

    model_config = _example(title="Expired items that still come back")

    title: _text(MAX_TITLE)  # type: ignore[valid-type]


class PostIn(_In):
    """A new post in a thread; with a parent a reply to that post."""

    model_config = _example(thread="ttl-late", text="Thanks!")

    thread: Id
    """The id of the thread."""
    text: _text(MAX_TEXT)  # type: ignore[valid-type]
    parent: Id | None = None
    """The id of the post that it replies to."""


class TextIn(_In):
    """A new text."""

    model_config = _example(text="Thanks!")

    text: _text(MAX_TEXT)  # type: ignore[valid-type]
