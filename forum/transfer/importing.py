"""
Import of three JSON files as items, all checked before anything is written.

Each row has one of two forms: ``{"id", "username", "name", "bio"}``,
``{"id", "title", "createdBy"}``, ``{"thread", "user", "text"}``; or that of the stored items
(``userId``, ``threadId``, ``postId``, ``content``, ``createdAt``, …). Missing ids and times are
derived from the position in the file, so that the same file always gives the same items. An id that
is a number is text in the keys, and kept as ``number`` beside it.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dynamo_stores.calls.item_size import MAX_ITEM_BYTES, item_size
from dynamo_stores.client.values import to_raw_item
from dynamo_stores.conf.rules import suggestion

from ..accounts import MAX_EMAIL, plain
from ..adapters.base import Item, without_none
from ..keys import MAX_ID_BYTES
from ..models import LISTING
from ..posting import MAX_TITLE
from ..times import moment_of, stamp
from ..words import MAX_WORDS, words_of
from .positions import PostPositions, time_of_thread, time_of_user

# The members of rows. What stored items have beside them is derived again.
_MEMBERS = {
    "users": ("id", "userId", "username", "name", "bio", "email", "createdAt"),
    "threads": ("id", "threadId", "title", "description", "createdBy", "userId", "createdAt"),
    "posts": (
        *("id", "postId", "thread", "threadId", "user", "userId", "parent", "title", "text"),
        *("content", "createdAt", "editedAt", "isDeleted"),
    ),
}
# Names of one member, of which a row has one, or the same value under each.
_SAME = {
    "users": (("id", "userId"),),
    "threads": (("id", "threadId"), ("createdBy", "userId")),
    "posts": (("id", "postId"), ("thread", "threadId"), ("user", "userId"), ("text", "content")),
}
_DERIVED = frozenset(
    [
        *("number", "version", "account", "activeAt", "listing", "posts", "children", "changes"),
        *("moves", "place", "branch", "ownBranch", "depth", "replies"),
    ]
)
MAX_USERNAME = 150
# Times from here on, to leave room for those that are derived of them.
_YEARS = range(1970, 9000)
# DynamoDB's numbers have so many digits.
_MAX_NUMBER = 10**38
MAX_PROBLEMS = 20


class ImportRefused(Exception):
    """The files cannot be imported; each of ``problems`` names the file and row."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass
class Forum:
    """The content of three files, in their order."""

    users: list[Item] = field(default_factory=list)
    threads: list[Item] = field(default_factory=list)
    posts: list[Item] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)


def read_forum(users: Path, threads: Path, posts: Path) -> Forum:
    """Return the content of the files. Raises ImportRefused with all problems."""
    problems: list[str] = []
    forum = Forum(files={"users": users, "threads": threads, "posts": posts})
    rows = {name: _read_rows(path, name, problems) for name, path in forum.files.items()}
    if not problems:
        found = {
            name: _Rows(path, rows[name], problems, _MEMBERS[name], _SAME[name])
            for name, path in forum.files.items()
        }
        forum.users = _read_users(found["users"])
        forum.threads = _read_threads(found["threads"], forum, users)
        forum.posts = _read_posts(found["posts"], forum, users, threads)
    if problems:
        more = len(problems) - MAX_PROBLEMS
        raise ImportRefused(problems[:MAX_PROBLEMS] + ([f"… and {more} more."] if more > 0 else []))
    return forum


def _read_rows(path: Path, name: str, problems: list[str]) -> list[Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problems.append(f"{path}: the file does not exist.")
    except (OSError, UnicodeDecodeError) as exc:
        problems.append(f"{path}: cannot be read as UTF-8 text ({type(exc).__name__}).")
    except json.JSONDecodeError as exc:
        problems.append(f"{path}, line {exc.lineno}, column {exc.colno}: not JSON ({exc.msg}).")
    except RecursionError:
        problems.append(f"{path}: nested too deeply.")
    except ValueError:
        problems.append(f"{path}: has a number with thousands of digits.")
    else:
        rows = content.get(name) if isinstance(content, Mapping) else content
        if isinstance(rows, list):
            return rows
        problems.append(f'{path}: expected {{"{name}": […]}}, a list of rows.')
    return []


class _Rows:
    """
    The rows of one file, with ``members``, some of them the ``same`` ones; ``problems`` collects
    their errors.
    """

    def __init__(
        self,
        path: Path,
        rows: list[Any],
        problems: list[str],
        members: tuple[str, ...],
        same: tuple[tuple[str, str], ...],
    ) -> None:
        self._path = path
        self._members = members
        self._same = same
        self._rows = rows
        self._problems = problems
        self._number = 0
        self._seen: dict[str, int] = {}
        self._row: Mapping[str, Any] = {}

    def __iter__(self) -> Iterator[int]:
        for number, row in enumerate(self._rows, start=1):
            self._number = number
            if isinstance(row, Mapping):
                self._row = row
                for name in row.keys() - _DERIVED - {*self._members}:
                    hint = suggestion(name, self._members).rstrip(".")
                    self.add_error(f"{name!r} is no member of these rows{hint}")
                for one, other in self._same:
                    if one in row and other in row and row[one] != row[other]:
                        what = f"{one} and {other} are one member and differ"
                        self.add_error(f"{what}; leave out one of them")
                yield self._number
            else:
                self.add_error(f"expected an object, got {type(row).__name__}")

    def add_error(self, what: str) -> None:
        end = "" if what.endswith("?") else "."
        self._problems.append(f"{self._path}, row {self._number}: {what}{end}")

    def lacks(self, *names: str) -> bool:
        """Return whether nothing is under the first of ``names`` that the row has."""
        return self._row.get(self._first(names)) is None

    def reference(self, *names: str) -> str | None:
        """Return the id under the first of ``names`` that the row has, None without one."""
        name = self._first(names)
        value = self._row.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            self.add_error(f"{name} must be a string that is not empty, or a whole number")
            return None
        if isinstance(value, int) and abs(value) >= _MAX_NUMBER:
            self.add_error(f"{name} has more than 38 digits")
            return None
        text = str(value)
        if self._is_text(name, text) and len(text.encode()) > MAX_ID_BYTES:
            self.add_error(f"{name} is over {MAX_ID_BYTES:,} bytes")
        if any(unicodedata.category(each) == "Cc" for each in text):
            # Paths of the API do not match a line feed, for one.
            self.add_error(f"{name} {text!r} has a control character; use any others in all files")
        return text

    def own_id(self, *names: str, otherwise: str | None = None) -> str | None:
        """Return the row's own id, which must be unique in the file."""
        found = self.reference(*names)
        if found is None:
            if otherwise is None:
                if self.lacks(*names):
                    self.add_error(f"{names[0]} is missing")
                return None
            found = otherwise
        if found in self._seen:
            self.add_error(f"{names[0]} {found!r} is already the id of row {self._seen[found]}")
            return None
        self._seen[found] = self._number
        return found

    def text(
        self, *names: str, required: bool = False, filled: bool = False, most: int | None = None
    ) -> str | None:
        """
        Return the text under the first of ``names`` that the row has, with ``most`` characters.
        """
        name = self._first(names)
        value = self._row.get(name)
        if value is None:
            if required:
                self.add_error(f"{name} is missing")
            return None
        if not isinstance(value, str):
            self.add_error(f"{name} must be a string")
            return None
        if filled and not value.strip():
            self.add_error(f"{name} is empty")
            return None
        if most is not None and len(value) > most:
            self.add_error(f"{name} is over {most} characters")
            return None
        return value if self._is_text(name, value) else None

    def moment(self, name: str) -> datetime | None:
        """Return the time under ``name``, in UTC if it has no zone."""
        value = self._row.get(name)
        if value is None:
            return None
        try:
            found = datetime.fromisoformat(value)
            found = found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
        except (TypeError, ValueError, OverflowError):
            self.add_error(f"{name} must be a time such as '2024-11-23T10:00:00Z'")
            return None
        if found.year not in _YEARS:
            self.add_error(f"{name} must be in the years from 1970 to 8999")
            return None
        return found

    def flag(self, name: str) -> bool:
        """Return whether the row says true under ``name``."""
        value = self._row.get(name, False)
        if not isinstance(value, bool):
            self.add_error(f"{name} must be true or false")
        return value is True

    def number(self, *names: str) -> int | None:
        """Return the id as it is in the file, if it is a number."""
        value = self._row.get(self._first(names))
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def check_type(self, *names: str, number: int | None) -> None:
        """Find a reference that is text though the id is a ``number``, or the other way round."""
        if self.number(*names) != number:
            name = self._first(names)
            given = self._row[name]
            expected = str(given) if number is None else number
            # Export and API have each id with one type.
            self.add_error(f"{name} {given!r} must be {expected!r}, as that id is")

    def fits(self, item: Item) -> bool:
        """Return whether ``item`` is within DynamoDB's limit of size."""
        if item_size(to_raw_item(item, "item")) <= MAX_ITEM_BYTES:
            return True
        self.add_error(f"the item is too large: DynamoDB's limit is {MAX_ITEM_BYTES:,} bytes")
        return False

    def _first(self, names: tuple[str, ...]) -> str:
        return next((name for name in names if name in self._row), names[0])

    def _is_text(self, name: str, text: str) -> bool:
        try:
            text.encode()
        except UnicodeEncodeError:
            self.add_error(f"{name} contains a lone surrogate")
            return False
        return True


def _read_users(rows: _Rows) -> list[Item]:
    users = []
    taken: dict[tuple[str, str], int] = {}
    for number in rows:
        user_id = rows.own_id("id", "userId")
        username = rows.text("username", most=MAX_USERNAME)
        name = rows.text("name", filled=True) or username
        if name is None and user_id is not None:
            rows.add_error("name is missing")
        email = rows.text("email", filled=True, most=MAX_EMAIL)
        for kind, value in (("username", username), ("email", email)):
            if value and (row := taken.setdefault((kind, plain(value)), number)) != number:
                rows.add_error(f"{kind} {value!r} is already that of row {row}")
        bio = rows.text("bio")
        moment = rows.moment("createdAt") or time_of_user(number)
        if user_id is not None and name is not None:
            user = without_none(
                {
                    "userId": user_id,
                    "number": rows.number("id", "userId"),
                    "name": name,
                    "username": username,
                    "bio": bio,
                    "email": email,
                    "createdAt": stamp(moment),
                    "version": 1,
                }
            )
            if rows.fits(user):
                users.append(user)
    return users


def _read_threads(rows: _Rows, forum: Forum, users_file: Path) -> list[Item]:
    user_ids = _numbers(forum.users, "userId")
    threads = []
    for number in rows:
        thread_id = rows.own_id("id", "threadId")
        title = rows.text("title", required=True, filled=True, most=MAX_TITLE)
        if title is not None and len(words_of(title)) > MAX_WORDS:
            rows.add_error(f"title has more than {MAX_WORDS} different words")
        description = rows.text("description")
        created_by = rows.reference("createdBy", "userId")
        if created_by is not None:
            if created_by in user_ids:
                rows.check_type("createdBy", "userId", number=user_ids[created_by])
            else:
                rows.add_error(f"createdBy {created_by!r} is not a user of {users_file}")
        moment = rows.moment("createdAt") or time_of_thread(number)
        if thread_id is not None and title is not None:
            thread = without_none(
                {
                    "threadId": thread_id,
                    "number": rows.number("id", "threadId"),
                    "title": title,
                    "description": description,
                    "createdBy": created_by,
                    "createdAt": stamp(moment),
                    "listing": LISTING,
                    "version": 1,
                }
            )
            if rows.fits(thread):
                threads.append(thread)
    return threads


def _read_posts(rows: _Rows, forum: Forum, users_file: Path, threads_file: Path) -> list[Item]:
    user_ids = _numbers(forum.users, "userId")
    thread_ids = _numbers(forum.threads, "threadId")
    created = {each["threadId"]: moment_of(each["createdAt"]) for each in forum.threads}
    positions = PostPositions(created)
    # Of the earlier posts: the thread, and the id if it is a number.
    earlier: dict[str, tuple[str, int | None]] = {}
    posts = []
    for _ in rows:
        thread_id = _known(rows, "thread", "threadId", known=thread_ids, file=threads_file)
        user_id = _known(rows, "user", "userId", known=user_ids, file=users_file)
        title = rows.text("title")
        is_deleted = rows.flag("isDeleted")
        content = rows.text("text", "content", required=not is_deleted, filled=not is_deleted)
        given, edited = rows.moment("createdAt"), rows.moment("editedAt")
        parent = rows.reference("parent")
        if thread_id is None:
            continue
        if parent is not None:
            parent_thread, parent_number = earlier.get(parent, ("", None))
            if parent_thread == thread_id:
                rows.check_type("parent", number=parent_number)
            else:
                rows.add_error(f"parent {parent!r} is not an earlier post of the same thread")
        post_id = rows.own_id("id", "postId", otherwise=positions.next_id(thread_id))
        moment = positions.add(thread_id, given)
        if post_id is None:
            continue
        earlier[post_id] = thread_id, rows.number("id", "postId")
        if user_id is not None and (content is not None or is_deleted):
            post = without_none(
                {
                    "postId": post_id,
                    "threadId": thread_id,
                    "number": rows.number("id", "postId"),
                    "userId": user_id,
                    "title": title,
                    "content": content,
                    "parent": parent,
                    "isDeleted": is_deleted or None,
                    "createdAt": stamp(moment),
                    "editedAt": None if edited is None else stamp(edited),
                    "version": 1,
                }
            )
            if rows.fits(post):
                posts.append(post)
    return posts


def _numbers(items: list[Item], name: str) -> dict[str, int | None]:
    """Return the ids of items, and which of them are numbers."""
    return {item[name]: item.get("number") for item in items}


def _known(rows: _Rows, *names: str, known: dict[str, int | None], file: Path) -> str | None:
    found = rows.reference(*names)
    if found is None:
        if rows.lacks(*names):
            rows.add_error(f"{names[0]} is missing")
        return None
    if found not in known:
        rows.add_error(f"{names[0]} {found!r} is not in {file}")
        return None
    rows.check_type(*names, number=known[found])
    return found
