"""
What is wrong in the forum's tables, and its repair.

Transactions keep the tables right. Restores of single tables, other programs and processes that
were killed while they deleted a thread do not. All tables are read page by page; of the largest
thread the ids of its posts are in memory. What a page shows as wrong is read again, strongly,
because users write meanwhile; threads of which posts are being moved are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from dynamo_stores.models import DynamoModel

from . import keys
from .accounts import RESERVED, plain, release, reserving
from .adapters import (
    MISSING,
    Check,
    Create,
    Delete,
    Item,
    Operation,
    Table,
    Update,
    WriteRefused,
    get_adapter,
    get_database,
)
from .models import Post, Support, Thread, User
from .sql import Account
from .trees import NoSuchPost, NoSuchThread, Place, Tree, TreeBusy, place_item, read_page
from .words import entry, words_of

# Items that are read at a time.
_SOME = 200
# Branches of a thread that are known to be below its top.
_KNOWN = 10_000

UNFINISHED = "unfinished moves and deletions"
NO_THREAD = "posts of no thread"
NO_PLACE = "posts without a place"
TAKEN_PLACE = "posts at the place of another post"
NO_PARENT = "replies to no post"
WRONG_PLACE = "replies that are not below their post"
CYCLE = "posts below themselves"
NO_POST = "places without a post"
POSTS = "threads with a wrong number of posts"
REPLIES = "posts with a wrong number of replies"
MISSING_WORD = "words of titles that are missing"
STALE_WORD = "words of titles that are stale"
RESERVATION = "reservations without a profile"
NO_RESERVATION = "names of profiles that are not reserved"
TWO_PROFILES = "names of profiles that another one has reserved"
NO_ACCOUNT = "profiles of accounts that do not exist"
KINDS = (
    UNFINISHED, NO_THREAD, NO_PLACE, TAKEN_PLACE, NO_PARENT, WRONG_PLACE, CYCLE, NO_POST, POSTS,
    REPLIES, MISSING_WORD, STALE_WORD, RESERVATION, NO_RESERVATION, TWO_PROFILES, NO_ACCOUNT,
)  # fmt: skip

# Called with how many items were read.
Paced = Callable[[int], None]


@dataclass(frozen=True)
class Problem:
    """
    Something wrong. ``repair`` raises WriteRefused if it was changed meanwhile; it is None if
    somebody has to decide.
    """

    kind: str
    key: str
    repair: Callable[[], object] | None


def repaired(problem: Problem) -> bool:
    """Repair a problem; return False if users have changed it meanwhile, or have to."""
    if problem.repair is None:
        return False
    try:
        problem.repair()
    except (WriteRefused, TreeBusy, NoSuchThread, NoSuchPost):
        return False
    return True


def find_problems(paced: Paced = lambda count: None) -> Iterator[Problem]:
    """Yield what is wrong. Repairs that are made meanwhile are seen."""
    yield from _of_posts(paced)
    yield from _of_threads(paced)
    yield from _of_users(paced)
    yield from _of_support(paced)


def misplaced(post: Item, parent: Item | None, row: Item | None) -> str | None:
    """Return what is wrong with the place of a post whose place has the item ``row``."""
    if "place" not in post or row is None:
        return NO_PLACE
    if row["postId"] != post["postId"]:
        return TAKEN_PLACE
    if post.get("parent") and parent is None:
        return NO_PARENT
    return None if _is_below(post, parent) else WRONG_PLACE


def _is_below(post: Item, parent: Item | None) -> bool:
    place = Place.of(post)
    if parent is None:
        return not place.branch and place.depth == 1
    if "place" not in parent:
        return False
    above = Place.of(parent)
    if above.own:
        return place.branch == above.own and place.depth == 1
    return above.contains(place.branch, place.path) and place.depth == above.depth + 1


def _pages(model: type[DynamoModel], paced: Paced, *attributes: str) -> Iterator[list[Item]]:
    adapter, after = get_adapter(model), None
    while True:
        page = adapter.scan(size=_SOME, after=after, attributes=attributes)
        paced(len(page.items))
        if page.items:
            yield page.items
        if (after := page.after) is None:
            return


def _by_key(model: type[DynamoModel], wanted: Iterable[Any], *attributes: str) -> dict[Any, Item]:
    """Return the items of these keys by key, read strongly."""
    adapter = get_adapter(model)
    names = adapter.table.keys
    found = adapter.get_many(
        [*dict.fromkeys(wanted)], consistent=True, attributes=[*names, *attributes]
    )
    return {tuple(item[name] for name in names): item for item in found}


_PLACED = ("parent", "branch", "place", "depth", "ownBranch", "isDeleted")


def _of_posts(paced: Paced) -> Iterator[Problem]:
    for posts in _pages(Post, paced, *_PLACED):
        threads = _by_key(Thread, [(post["threadId"],) for post in posts], "work")
        for post, kind in _wrong(posts):
            thread = threads.get((post["threadId"],))
            key = (post["postId"], post["threadId"])
            if thread is None:
                # The post may be newer than the read of its thread.
                if get_adapter(Thread).get_by_id(post["threadId"], consistent=True) is None:
                    yield Problem(NO_THREAD, post["postId"], partial(_remove, key))
                continue
            if "work" in thread:
                continue
            if kind is not None and (kind := _wrong_now(key)) is not None:
                yield Problem(kind, post["postId"], partial(_place, key))


def _wrong(posts: list[Item]) -> Iterator[tuple[Item, str | None]]:
    """Yield each of the posts with what is wrong with its place."""
    rows = _by_key(
        Support,
        [tuple(_place_key(post).values()) for post in posts if "place" in post],
        "postId",
    )
    parents = _by_key(
        Post,
        [(post["parent"], post["threadId"]) for post in posts if post.get("parent")],
        *_PLACED,
    )
    tops: dict[tuple[str, str], bool] = {}
    for post in posts:
        row = rows.get(tuple(_place_key(post).values())) if "place" in post else None
        parent = parents.get((post.get("parent"), post["threadId"]))
        kind = misplaced(post, parent, row)
        if kind is None and not _reaches_top(post, tops):
            kind = CYCLE
        yield post, kind


def _reaches_top(post: Item, known: dict[tuple[str, str], bool]) -> bool:
    """Return whether a post is below the top of its thread, not in a circle of branches."""
    thread_id, branch = post["threadId"], post.get("branch", "")
    passed: list[tuple[str, str]] = []
    while branch and (thread_id, branch) not in known:
        if (thread_id, branch) in passed:
            return False
        passed.append((thread_id, branch))
        root = get_adapter(Post).get_by_id((branch.partition("#")[2], thread_id), consistent=True)
        if root is None:
            return False
        branch = root.get("branch", "")
    if len(known) < _KNOWN:
        known.update(dict.fromkeys(passed, True))
    return True


def _wrong_now(key: tuple[str, str]) -> str | None:
    """Return what is wrong with the place of a post now, None while posts are being moved."""
    thread = get_adapter(Thread).get_by_id(key[1], consistent=True)
    post = get_adapter(Post).get_by_id(key, consistent=True)
    if thread is None or "work" in thread or post is None:
        return None
    return next(_wrong([post]))[1]


def _place(key: tuple[str, str]) -> None:
    """Give a post its place, or another one if it is wrong."""
    kind, post = _wrong_now(key), get_adapter(Post).get_by_id(key, consistent=True)
    if kind is None or post is None:
        return
    parent_id = post.get("parent")
    parent = (
        get_adapter(Post).get_by_id((parent_id, key[1]), consistent=True) if parent_id else None
    )
    is_known = (parent_id is None) == (parent is None)
    if kind == NO_PLACE and "place" in post and is_known and _is_below(post, parent):
        # The place is right, and only its item is missing.
        posts, support = Table.of(Post), Table.of(Support)
        expect: Item = {name: post[name] for name in ("place", "branch") if name in post}
        get_database().transact(
            [
                Check(posts, posts.key_of(post), expect),
                Create(support, place_item(key[1], post, Place.of(post))),
                _changed(key[1]),
            ]
        )
        return
    Tree(get_database()).place_again(key[1], key[0], at_top=kind == CYCLE)


def _remove(key: tuple[str, str]) -> None:
    Tree(get_database()).remove_thread(key[1])
    get_adapter(Post).delete_all([key])


def _of_threads(paced: Paced) -> Iterator[Problem]:
    names = ("title", "createdAt", "posts", "changes", "work")
    for threads in _pages(Thread, paced, *names):
        yield from _missing_words(threads)
        for thread in threads:
            thread_id = thread["threadId"]
            if "work" in thread:
                finish = partial(Tree(get_database()).finish, thread_id)
                yield Problem(UNFINISHED, thread_id, finish)
            else:
                yield from _wrong_counts(thread_id, paced)


def _missing_words(threads: list[Item]) -> Iterator[Problem]:
    wanted = {
        (item["PK"], item["SK"]): (item, thread)
        for thread in threads
        for item in (entry(word, thread) for word in words_of(thread["title"]))
    }
    found = _by_key(Support, wanted, "title")
    for key, (item, thread) in wanted.items():
        if found.get(key, {}).get("title") != item["title"]:
            now = get_adapter(Thread).get_by_id(thread["threadId"], consistent=True)
            if now is not None and now["title"] == thread["title"]:
                yield Problem(MISSING_WORD, thread["threadId"], partial(_enter, item))


def _enter(item: Item) -> None:
    support, threads = Table.of(Support), Table.of(Thread)
    rest = {name: item[name] for name in ("threadId", "title")}
    get_database().transact(
        [
            Check(threads, {"threadId": item["threadId"]}, {"title": item["title"]}),
            Update(support, support.key_of(item), rest, upsert=True),
        ]
    )


def _wrong_counts(thread_id: str, paced: Paced) -> Iterator[Problem]:
    """Yield the wrong counts of a thread, unless its posts change while they are counted."""
    threads, posts = get_adapter(Thread), get_adapter(Post)
    thread = threads.get_by_id(thread_id, consistent=True)
    if thread is None or "work" in thread:
        return
    count, stored, replies = 0, dict[str, int](), Counter[str]()
    after: Any = None
    while True:
        page = read_page(get_adapter(Support), thread_id, size=_SOME, after=after)
        paced(len(page.nodes))
        found = posts.get_many(
            [(node.post_id, thread_id) for node in page.nodes],
            consistent=True,
            attributes=["isDeleted", "replies"],
        )
        count += sum(not item.get("isDeleted") for item in found)
        stored |= {item["postId"]: int(item.get("replies", 0)) for item in found}
        replies.update(node.parent for node in page.nodes if node.post_id in stored)
        if (after := page.after) is None:
            break
    now = threads.get_by_id(thread_id, consistent=True)
    if now is None or "work" in now or now.get("changes") != thread.get("changes"):
        return
    if (shown := int(thread.get("posts", 0))) != count:
        expect = {"posts": shown, "changes": thread.get("changes", 0)}
        update = Update(threads.table, {"threadId": thread_id}, {"posts": count}, expect=expect)
        yield Problem(POSTS, thread_id, partial(get_database().transact, [update]))
    for post_id, number in stored.items():
        if number != replies[post_id]:
            key = posts.table.key_of((post_id, thread_id))
            operations: list[Operation] = [
                Update(posts.table, key, {"replies": replies[post_id]}, {}, {"replies": number}),
                _changed(thread_id),
            ]
            yield Problem(REPLIES, post_id, partial(get_database().transact, operations))


def _of_users(paced: Paced) -> Iterator[Problem]:
    for users in _pages(User, paced, *RESERVED, "account"):
        # First, because its repair frees names.
        yield from _without_account(users)
        yield from _not_reserved(users)


def _without_account(users: list[Item]) -> Iterator[Problem]:
    owned = [user for user in users if "account" in user]
    if not owned:
        return
    accounts = Account.objects.filter(user__in=[user["account"] for user in owned])
    profiles = dict(accounts.values_list("user", "profile_id"))
    for user in owned:
        user_id, account = user["userId"], user["account"]
        if profiles.get(account) != user_id:
            now = get_adapter(User).get_by_id(user_id, consistent=True)
            if now is not None and now.get("account") == account:
                yield Problem(NO_ACCOUNT, user_id, partial(release, user_id, account))


def _not_reserved(users: list[Item]) -> Iterator[Problem]:
    named = [
        (user, name, keys.reservation(kind, plain(user[name])))
        for user in users
        for name, kind in RESERVED.items()
        if user.get(name)
    ]
    found = _by_key(Support, [tuple(key.values()) for _, _, key in named], "holder", "expiresAt")
    for user, name, key in named:
        user_id, item = user["userId"], found.get(tuple(key.values()), {})
        if item.get("holder") == user_id and "expiresAt" not in item:
            continue
        now = get_adapter(User).get_by_id(user_id, consistent=True)
        if now is None or now.get(name) != user[name]:
            continue
        operation = reserving(name, user[name], user_id)
        if operation is None:
            what = f"{name} of {user_id!r}, reserved by {item.get('holder')!r}"
            yield Problem(TWO_PROFILES, what, None)
        else:
            has_it = Check(Table.of(User), {"userId": user_id}, {name: user[name]})
            transact = partial(get_database().transact, [has_it, operation])
            yield Problem(NO_RESERVATION, user_id, transact)


def _of_support(paced: Paced) -> Iterator[Problem]:
    names = ("postId", "threadId", "title", "holder", "expiresAt")
    for items in _pages(Support, paced, *names):
        by_kind: dict[str, list[Item]] = {}
        for item in items:
            by_kind.setdefault(item["PK"].partition("#")[0], []).append(item)
        yield from _stale_places(by_kind.get("tree", []))
        yield from _stale_words(by_kind.get("word", []))
        for name, kind in RESERVED.items():
            yield from _stale_reservations(by_kind.get(kind, []), kind, name)


def _stale_places(rows: list[Item]) -> Iterator[Problem]:
    posts = _by_key(Post, [(row["postId"], keys.tree_of(row["PK"])[0]) for row in rows], *_PLACED)
    for row in rows:
        post = posts.get((row["postId"], keys.tree_of(row["PK"])[0]))
        # The place may be newer than the read of its post, or its post is being moved.
        if not _is_at(post, row) and _unused(row) is not None:
            yield Problem(NO_POST, row["postId"], partial(_delete_place, row))


def _is_at(post: Item | None, row: Item) -> bool:
    """Return whether a post is at the place of ``row``."""
    branch = keys.tree_of(row["PK"])[1]
    return post is not None and (post.get("branch", ""), post.get("place")) == (branch, row["SK"])


def _unused(row: Item) -> list[Operation] | None:
    """Return the operations that delete a place that no post has; None for one that is used."""
    threads, posts, support = Table.of(Thread), Table.of(Post), Table.of(Support)
    thread_id = keys.tree_of(row["PK"])[0]
    key = posts.key_of((row["postId"], thread_id))
    thread = get_adapter(Thread).get_by_id(thread_id, consistent=True)
    now = get_adapter(Support).get_by_id(row, consistent=True)
    post = get_adapter(Post).get_by_id(key, consistent=True)
    if now is None or now["postId"] != row["postId"] or _is_at(post, row):
        return None
    found: list[Operation] = [Delete(support, support.key_of(row), {"postId": row["postId"]})]
    if thread is not None:
        if "work" in thread:
            return None
        expect = {name: thread.get(name, MISSING) for name in ("work", "moves")}
        found.append(Check(threads, threads.key_of(thread), expect))
    if post is not None:
        expect = {name: post.get(name, MISSING) for name in ("place", "branch")}
        found.append(Check(posts, key, expect))
    return found


def _delete_place(row: Item) -> None:
    if (operations := _unused(row)) is not None:
        get_database().transact(operations)


def _stale_words(items: list[Item]) -> Iterator[Problem]:
    threads = _by_key(Thread, [(item["threadId"],) for item in items], "title", "createdAt")
    for item in items:
        thread = threads.get((item["threadId"],))
        word = item["SK"].partition("#")[0]
        is_right = (
            thread is not None
            and word in words_of(thread["title"])
            and entry(word, thread)["SK"] == item["SK"]
        )
        # One with another title is written again, as one that is missing.
        if not is_right and get_adapter(Support).get_by_id(item, consistent=True) is not None:
            yield Problem(STALE_WORD, item["threadId"], partial(_delete, item, "threadId"))


def _stale_reservations(items: list[Item], kind: str, name: str) -> Iterator[Problem]:
    # A sign-up that is not finished holds its names for some minutes.
    kept = [item for item in items if "expiresAt" not in item]
    users = _by_key(User, [(item["holder"],) for item in kept], name)
    for item in kept:
        user = users.get((item["holder"],))
        if user is None or item["PK"] != f"{kind}#{plain(user.get(name, ''))}":
            now = get_adapter(Support).get_by_id(item, consistent=True)
            if now is not None and now["holder"] == item["holder"]:
                yield Problem(RESERVATION, item["holder"], partial(_delete, item, "holder"))


def _delete(item: Item, name: str) -> None:
    get_adapter(Support).delete(item, expect={name: item[name]})


def _changed(thread_id: str) -> Operation:
    return Update(Table.of(Thread), {"threadId": thread_id}, add={"changes": 1})


def _place_key(post: Item) -> Item:
    return keys.place(post["threadId"], post.get("branch", ""), post["place"])
