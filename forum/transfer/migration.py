"""Writing of an imported forum: what is missing, in an order in which no reader sees half of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from dynamo_stores.calls.batches import chunks
from dynamo_stores.models import DynamoModel

from .. import keys, threads
from ..accounts import EMAIL, USER_NAME, plain
from ..adapters import Create, Item, ItemExists, get_adapter, get_database
from ..adapters.base import MAX_OPERATIONS, without_none
from ..models import Post, Support, Thread, User
from ..trees import Place, place_item, reply
from ..words import entry, words_of
from .importing import Forum

# Items that are compared and written at a time.
_SOME = 500

Progress = Callable[[str, int], None]


class Differs(Exception):
    """
    Items exist with another content, names belong to other profiles, ids of posts to other
    threads, or threads are still being deleted: ``problems``, each with its file and row.
    ``is_written`` says whether anything was written.
    """

    def __init__(self, problems: list[str], *, is_written: bool = False) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
        self.is_written = is_written


@dataclass
class Count:
    """
    Of the items of one kind, how many were written, were there, and were left out: posts that a
    thread that exists does not have, because users have deleted them or the file has grown.
    """

    written: int = 0
    unchanged: int = 0
    left_out: int = 0


@dataclass
class _Kind:
    """Items of one kind, and those that are missing."""

    name: str
    model: type[DynamoModel]
    items: list[Item]
    is_same: Callable[[Item, Item], bool]
    # What to say of an item that is not the same.
    problem: Callable[[Item], str]
    # Whether an item belongs to what was imported as a whole before, and is not written again.
    is_done: Callable[[Item], bool] = lambda item: False
    missing: list[Item] = field(default_factory=list)
    count: Count = field(default_factory=Count)


class Migration:
    """
    The items of a forum, and how many of them are missing. ``progress`` gets what is done, and with
    how many items of all.
    """

    def __init__(self, forum: Forum, progress: Progress) -> None:
        self._forum = forum
        self._progress = progress
        self._posts, self._places = _placed(forum)
        self._rows = _RowsOf(forum)
        self._done = 0
        # Those that exist were imported with all their posts, because threads are written last.
        self._users, self._threads = set[str](), set[str]()

    def write(self, *, dry_run: bool = False) -> dict[str, Count]:
        """
        Write what is missing and read all of it again; return the counts by kind.

        Raises Differs if items of the same keys have another content, if another profile has a
        name, another thread the id of a post, or if a thread is still being deleted; nothing is
        written then.
        """
        self._users = _existing(User, self._forum.users)
        self._threads = _existing(Thread, self._forum.threads)
        self._find_deletions()
        kinds = self._kinds()
        self._compare("Compared", kinds)
        self._find_in_other_threads(next(kind for kind in kinds if kind.name == "posts"))
        for kind in kinds:
            kind.count = Count(
                written=sum(not kind.is_done(item) for item in kind.missing),
                left_out=sum(map(kind.is_done, kind.missing)),
            )
            kind.count.unchanged = len(kind.items) - len(kind.missing)
        if not dry_run:
            self._done = 0
            for kind in kinds:
                self._write(kind)
            threads.forget_lists()
            self._verify(kinds)
        return {kind.name: kind.count for kind in kinds}

    def size(self) -> int:
        """Return how many items there are."""
        return sum(len(kind.items) for kind in self._kinds())

    def _kinds(self) -> list[_Kind]:
        """
        Return the items in the order in which they are written: names before their users, so that
        no other user gets them, and threads last, so that they are seen with all their posts.
        """
        users, found = self._users, self._threads
        places = [
            (post["threadId"], item) for post, item in zip(self._posts, self._places, strict=True)
        ]
        of_place = {(item["PK"], item["SK"]): thread_id for thread_id, item in places}
        rows = self._rows
        return [
            _Kind(
                "names",
                Support,
                list(_reservations(self._forum)),
                _same_unless(users, "holder"),
                rows.of_name,
                lambda item: item["holder"] in users,
            ),
            _Kind("users", User, self._forum.users, _same_user, rows.of_user),
            _Kind(
                "posts",
                Post,
                self._posts,
                _same_post,
                rows.of_post,
                lambda item: item["threadId"] in found,
            ),
            _Kind(
                "places",
                Support,
                self._places,
                lambda item, other: of_place[item["PK"], item["SK"]] in found or _same(item, other),
                lambda item: rows.of_place(item, of_place[item["PK"], item["SK"]]),
                lambda item: of_place[item["PK"], item["SK"]] in found,
            ),
            _Kind(
                "words",
                Support,
                list(_words(self._forum)),
                _same_unless(found, "threadId"),
                rows.of_thread,
                lambda item: item["threadId"] in found,
            ),
            _Kind("threads", Thread, list(self._counted()), _same_thread, rows.of_thread),
        ]

    def _compare(self, phase: str, kinds: list[_Kind]) -> None:
        """Find what is missing. Raises Differs."""
        problems: list[str] = []
        self._done = 0
        for kind in kinds:
            adapter, kind.missing = get_adapter(kind.model), []
            for some in chunks(kind.items, _SOME):
                found = {
                    tuple(adapter.table.key_of(item).values()): item
                    for item in adapter.get_many(some, consistent=True)
                }
                for item in some:
                    key = tuple(adapter.table.key_of(item).values())
                    if key not in found:
                        kind.missing.append(item)
                    elif not kind.is_same(item, found[key]):
                        problems.append(kind.problem(item))
                self._count(phase, len(some))
        if problems:
            raise Differs(list(dict.fromkeys(problems)), is_written=phase == "Verified")

    def _find_deletions(self) -> None:
        """Raise Differs for threads whose deletion has not ended. It would delete new posts."""
        new = [item["threadId"] for item in self._forum.threads]
        works = [keys.work(each) for each in new if each not in self._threads]
        found = [
            item["SK"]
            for some in chunks(works, _SOME)
            for item in get_adapter(Support).get_many(some, consistent=True)
        ]
        if found:
            raise Differs(list(map(self._rows.of_deletion, found)))

    def _find_in_other_threads(self, posts: _Kind) -> None:
        """
        Raise Differs if other threads have the ids of new posts. A post is found by its whole key
        alone, so this reads the keys of all posts from an index: one call for each MB of them.
        """
        new = {item["postId"]: item for item in posts.missing if not posts.is_done(item)}
        if not new:
            return
        others = {
            found["postId"]: found["threadId"]
            for found in get_adapter(Post).get_keys("ThreadIndex")
            if found["postId"] in new and found["threadId"] != new[found["postId"]]["threadId"]
        }
        if others:
            raise Differs(
                [self._rows.of_id(new[each], others[each]) for each in new if each in others]
            )

    def _write(self, kind: _Kind) -> None:
        adapter = get_adapter(kind.model)
        new = [item for item in kind.missing if not kind.is_done(item)]
        if kind.name == "names":
            for some in chunks(new, MAX_OPERATIONS):
                try:
                    get_database().transact([Create(adapter.table, item) for item in some])
                except ItemExists as exc:
                    problem = kind.problem(some[exc.position])
                    raise Differs([problem], is_written=True) from exc
        else:
            for some in chunks(new, _SOME):
                adapter.put_all(some)
                self._count("Written", len(some))

    def _verify(self, kinds: list[_Kind]) -> None:
        self._compare("Verified", kinds)
        if missing := [kind for kind in kinds if len(kind.missing) != kind.count.left_out]:
            raise Differs(
                [f"{kind.name}: items are missing that were written." for kind in missing],
                is_written=True,
            )

    def _count(self, phase: str, count: int) -> None:
        self._done += count
        self._progress(phase, self._done)

    def _counted(self) -> Iterator[Item]:
        """Yield the threads with the counts of their posts."""
        counts: dict[str, int] = {}
        children: dict[str, int] = {}
        latest: dict[str, str] = {}
        for post in self._posts:
            thread_id = post["threadId"]
            counts[thread_id] = counts.get(thread_id, 0) + (not post.get("isDeleted"))
            children[thread_id] = children.get(thread_id, 0) + ("parent" not in post)
            latest[thread_id] = max(latest.get(thread_id, ""), post["createdAt"])
        for thread in self._forum.threads:
            count = counts.get(thread["threadId"], 0)
            yield {
                **thread,
                "activeAt": latest.get(thread["threadId"], thread["createdAt"]),
                "posts": count,
                "children": children.get(thread["threadId"], 0),
                "changes": count,
                "mark": threads.new_mark(),
            }


class _RowsOf:
    """What to say of an item that exists with another content, with the file and row of it."""

    def __init__(self, forum: Forum) -> None:
        self._files = forum.files
        self._users = {item["userId"]: n for n, item in enumerate(forum.users, 1)}
        self._threads = {item["threadId"]: n for n, item in enumerate(forum.threads, 1)}
        self._posts = {_key_of(item): n for n, item in enumerate(forum.posts, 1)}

    def of_name(self, item: Item) -> str:
        kind, _, value = item["PK"].partition("#")
        what = "user name" if kind == USER_NAME else "e-mail address"
        return f"{self._user(item['holder'])}: the {what} {value!r} belongs to another profile."

    def of_user(self, item: Item) -> str:
        return f"{self._user(item['userId'])}: the user exists with another content."

    def of_post(self, item: Item) -> str:
        return f"{self._post(*_key_of(item))}: the post exists with another content."

    def of_id(self, item: Item, thread_id: str) -> str:
        post_id = item["postId"]
        return (
            f"{self._post(*_key_of(item))}: the thread {thread_id!r} has a post with the id "
            f"{post_id!r}; give this one another id."
        )

    def of_place(self, item: Item, thread_id: str) -> str:
        return f"{self._post(thread_id, item['postId'])}: another post has its place in the tree."

    def of_thread(self, item: Item) -> str:
        return f"{self._thread(item['threadId'])}: the thread exists with another content."

    def of_deletion(self, thread_id: str) -> str:
        return (
            f"{self._thread(thread_id)}: the thread was deleted, and some of its posts are not "
            "yet. Try again when the task forum.finish_moves has deleted them."
        )

    def _thread(self, thread_id: str) -> str:
        return f"{self._files['threads']}, row {self._threads[thread_id]}"

    def _user(self, user_id: str) -> str:
        return f"{self._files['users']}, row {self._users[user_id]}"

    def _post(self, thread_id: str, post_id: str) -> str:
        return f"{self._files['posts']}, row {self._posts[thread_id, post_id]}"


def _key_of(post: Item) -> tuple[str, str]:
    return post["threadId"], post["postId"]


def _existing(model: type[DynamoModel], items: list[Item]) -> set[str]:
    """Return the ids of those items that exist."""
    adapter = get_adapter(model)
    name = adapter.table.keys[0]
    return {
        str(found[name])
        for some in chunks(items, _SOME)
        for found in adapter.get_many(some, consistent=True, attributes=[name])
    }


def _placed(forum: Forum) -> tuple[list[Item], list[Item]]:
    """Return the posts with their places, and the items of the places."""
    # Of a thread, and of each post of it, how many replies were placed.
    numbers: dict[tuple[str, str], int] = {}
    found: dict[tuple[str, str], Place] = {}
    for post in forum.posts:
        thread_id, parent = post["threadId"], post.get("parent", "")
        number = numbers.get((thread_id, parent), 0)
        numbers[thread_id, parent] = number + 1
        above = found[thread_id, parent] if parent else None
        found[thread_id, post["postId"]] = reply(above, number, post["postId"])
    posts, places = [], []
    for post in forum.posts:
        key = post["threadId"], post["postId"]
        count = numbers.get(key, 0)
        attributes = without_none(found[key].attributes())
        posts.append({**post, **attributes, "children": count, "replies": count})
        places.append(without_none(place_item(post["threadId"], post, found[key])))
    return posts, places


def _reservations(forum: Forum) -> Iterator[Item]:
    for user in forum.users:
        for kind, value in ((USER_NAME, user.get("username")), (EMAIL, user.get("email"))):
            if value:
                yield {**keys.reservation(kind, plain(value)), "holder": user["userId"]}


def _words(forum: Forum) -> Iterator[Item]:
    for thread in forum.threads:
        for word in words_of(thread["title"]):
            yield entry(word, thread)


def _same(item: Item, found: Item) -> bool:
    return all(found.get(name) == value for name, value in item.items())


def _same_unless(existing: set[str], name: str) -> Callable[[Item, Item], bool]:
    """Return a comparison that is true of what belongs to an item that users may have changed."""
    return lambda item, found: item[name] in existing or _same(item, found)


def _without(*always: str, changed: tuple[str, ...]) -> Callable[[Item, Item], bool]:
    """Return a comparison without ``always``; of what users have changed, without ``changed``."""

    def is_same(item: Item, found: Item) -> bool:
        left_out = always if found.get("version") == 1 else (*always, *changed)
        return _same({name: v for name, v in item.items() if name not in left_out}, found)

    return is_same


_same_user = _without("version", changed=("username", "name", "bio", "email"))
_same_post = _without(
    "version", "children", "replies", "branch", "place", "depth", "ownBranch",
    changed=("content", "title", "parent", "isDeleted", "editedAt"),
)  # fmt: skip
_same_thread = _without(
    "version", "posts", "children", "changes", "activeAt", "mark", changed=("title", "description")
)
