"""Lists of threads and posts, and the pages of a thread."""

from __future__ import annotations

import contextlib
import dataclasses
import uuid
from collections.abc import Collection, Iterable, Sequence
from typing import Any, TypeVar

from dynamo_stores.exceptions import StoreUnavailable

from . import caching, keys
from .adapters import Item, get_adapter, get_database
from .caching import Page
from .content import PostList, PostView, ThreadLine, ThreadList, ThreadPage
from .models import LISTING, Post, Support, Thread
from .profiles import Profile, get_profiles
from .trees import (
    NoSuchPost,
    NoSuchThread,
    Root,
    Tree,
    TreePage,
    hidden_place,
    place_now,
    read_page,
)
from .words import has_words, words_of

A = TypeVar("A", ThreadLine, PostView)

THREADS_PER_PAGE = 25
POSTS_PER_PAGE = 50
# Levels of replies on one page; deeper ones are on a page of their own.
LEVELS = 8
# Queries for a page of found threads.
_MAX_QUERIES = 5
# Reads of a page while posts of the thread are being moved.
_TRIES = 5

FRONT = "front"
_SHOWN = [
    "threadId", "number", "title", "description", "createdBy", "createdAt", "activeAt", "posts",
    "version",
]  # fmt: skip


def list_threads(
    after: Any = None, *, recent: Collection[str] = (), priority: str = "user"
) -> Page[ThreadList]:
    """
    Return the newest threads, or those after another page: a Query and a BatchGetItem.

    The ids ``recent`` are of threads that the visitor has just started or deleted, which an index
    may not show yet: they are read by key, strongly, and put in or taken out.
    """
    page = caching.cached(
        caching.key_of(FRONT, repr(after)), lambda: _read_threads(after), priority=priority
    )
    found = page.content
    # While DynamoDB is away, the page in the cache is all there is.
    with contextlib.suppress(StoreUnavailable):
        found = _with_recent(found, after, recent)
    lines = _with_authors(found.threads)
    return dataclasses.replace(page, content=dataclasses.replace(found, threads=lines))


def get_thread(thread_id: str, *, consistent: bool = False) -> Item | None:
    """Return the item of a thread, None if there is none."""
    return get_adapter(Thread).get_by_id(thread_id, consistent=consistent)


def get_post(thread_id: str, post_id: str) -> Item | None:
    """Return the item of a post as it is now, None if there is none."""
    return get_adapter(Post).get_by_id((post_id, thread_id), consistent=True)


def titles_of(thread_ids: Iterable[str], *, consistent: bool = False) -> dict[str, str]:
    """Return the titles of threads that exist, by their ids: a BatchGetItem."""
    found = get_adapter(Thread).get_many(
        sorted(set(thread_ids)), attributes=["title"], consistent=consistent
    )
    return {item["threadId"]: item["title"] for item in found}


def show_thread(
    thread_id: str,
    after: Any = None,
    *,
    root_id: str = "",
    priority: str = "user",
    size: int = POSTS_PER_PAGE,
) -> Page[ThreadPage]:
    """
    Return a page of a thread: all its posts, or those below the post ``root_id``.

    A GetItem of the thread says whether the page in the cache is still right. To read it takes
    GetItem of the root, eight Queries at most of the tree, a BatchGetItem of the posts, one of the
    authors that are not cached, and GetItem of the thread. Raises NoSuchThread or NoSuchPost.
    """
    seen: dict[str, Item] = {}

    def version() -> tuple[Any, ...]:
        seen["thread"] = thread = _thread(thread_id)
        # A thread that was deleted and written again may have the same numbers.
        names = ("changes", "version", "work", "mark")
        return tuple(thread.get(name) for name in names)

    key = caching.key_of("thread", thread_id, root_id, repr(after), str(size))
    page = caching.cached(
        key,
        lambda: _read_thread(seen["thread"], after, root_id, size),
        priority=priority,
        version=version,
    )
    # Names are not kept with the page: a new one is shown at once.
    found = page.content
    root = [] if found.root is None else [found.root]
    authors = _authors_of([found.thread, *root, *found.posts])
    content = ThreadPage(
        _with(authors, found.thread),
        [_with(authors, post) for post in found.posts],
        found.after,
        _with(authors, root[0]) if root else None,
    )
    return dataclasses.replace(page, content=content)


def posts_of_thread(
    thread_id: str, *, size: int, after: Any = None, recent: Collection[str] = ()
) -> PostList:
    """Return the posts of a thread by their time, by a Query and BatchGetItem."""
    return _posts_by("ThreadIndex", thread_id, size, after, recent, descending=False)


def posts_of_user(
    user_id: str, *, size: int = POSTS_PER_PAGE, after: Any = None, recent: Collection[Any] = ()
) -> PostList:
    """Return the posts of a user, the newest first, with the titles of their threads."""
    found = _posts_by("UserIndex", user_id, size, after, recent, descending=True)
    titles = titles_of((post.thread_id for post in found.posts), consistent=bool(recent))
    return dataclasses.replace(found, titles=titles)


def show_posts_of_user(
    user_id: str, after: Any = None, *, recent: Collection[Any] = ()
) -> Page[PostList]:
    """
    Return a page of the posts of a user from the cache. For visitors who have just written posts
    it is read, without the cache.
    """

    def read() -> PostList:
        return posts_of_user(user_id, after=after, recent=recent)

    if recent:
        return Page(read(), from_cache=False)
    page = caching.cached(
        caching.key_of("user", user_id, repr(after)),
        read,
        # Ids that are made up must not fill the cache.
        is_worth=lambda found: bool(found.posts),
    )
    posts = _with_authors(page.content.posts)
    return dataclasses.replace(page, content=dataclasses.replace(page.content, posts=posts))


def search(
    text: str, after: Any = None, size: int = THREADS_PER_PAGE, *, is_exact: bool = False
) -> ThreadList:
    """
    Return threads with all words of ``text``, each of which may be the beginning of a word; one
    letter is a whole word.

    The longest word is looked up in the index of words and the others in the titles found: five
    Queries at most, after which the page ends, perhaps with fewer threads, and the next goes on.
    ``is_exact`` reads strongly, for a visitor who has just written a title.
    """
    wanted = sorted(words_of(text), key=len, reverse=True)
    if not wanted:
        return ThreadList([])
    adapter, found = get_adapter(Support), dict[str, Item]()
    for _ in range(_MAX_QUERIES):
        page = adapter.page(
            keys.words(wanted[0]),
            size=4 * size,
            prefix=wanted[0] if len(wanted[0]) > 1 else None,
            after=after,
            descending=True,
            consistent=is_exact,
        )
        for at, item in enumerate(page.items):
            if item["SK"].startswith(wanted[0]) and has_words(item["title"], wanted):
                found.setdefault(item["threadId"], item)
            if len(found) == size:
                rest = page.items[at + 1 :]
                after = {"PK": item["PK"], "SK": item["SK"]} if rest or page.after else None
                return ThreadList(_with_authors(_lines(found, consistent=is_exact)), after)
        if (after := page.after) is None:
            break
    return ThreadList(_with_authors(_lines(found, consistent=is_exact)), after)


def new_mark() -> str:
    """Return what tells a new thread from a deleted one with its id, for pages in the cache."""
    return uuid.uuid4().hex[:12]


def forget_lists() -> None:
    """Delete the first page of threads from the cache."""
    caching.forget(caching.key_of(FRONT, repr(None)))


def _thread(thread_id: str) -> Item:
    found = get_thread(thread_id, consistent=True)
    if found is None:
        raise NoSuchThread
    return found


def _read_threads(after: Any) -> ThreadList:
    adapter = get_adapter(Thread)
    page = adapter.page(
        LISTING, index="CreatedAtIndex", size=THREADS_PER_PAGE, after=after, descending=True
    )
    return ThreadList(_lines(item["threadId"] for item in page.items), page.after)


def _lines(ids: Iterable[str], *, consistent: bool = False) -> list[ThreadLine]:
    found = get_adapter(Thread).get_many(list(ids), attributes=_SHOWN, consistent=consistent)
    return list(map(ThreadLine.of, found))


def _authors_of(authored: Sequence[ThreadLine | PostView]) -> dict[str, Profile]:
    # A page from the near tier shows ids of authors that are not in it.
    return get_profiles((each.author_id for each in authored), perhaps_partly=True)


def _with(authors: dict[str, Profile], authored: A) -> A:
    return dataclasses.replace(authored, author=authors.get(authored.author_id))


def _with_authors(authored: Sequence[A]) -> list[A]:
    authors = _authors_of(authored)
    return [_with(authors, each) for each in authored]


def _with_recent(page: ThreadList, after: Any, recent: Collection[str]) -> ThreadList:
    if not recent:
        return page
    listed = {line.thread_id for line in page.threads}
    last = min((line.created_at for line in page.threads), default=None)
    own = [
        line
        for line in _lines(recent, consistent=True)
        if line.thread_id in listed
        or _belongs(line.created_at, last, after, page.after, descending=True)
    ]
    others = [line for line in page.threads if line.thread_id not in recent]
    both = sorted([*others, *own], key=lambda line: line.created_at, reverse=True)
    return dataclasses.replace(page, threads=both)


def _belongs(created: Any, last: Any, after: Any, following: Any, *, descending: bool) -> bool:
    """
    Return whether an item that an index does not show yet belongs on a page, whose ``last`` item
    was created at that time: new items are on the first page if the newest are first.
    """
    is_edge = after is None if descending else following is None
    return is_edge and (last is None or created > last or (descending and following is None))


def _read_thread(thread: Item, after: Any, root_id: str, size: int) -> ThreadPage:
    thread_id = thread["threadId"]
    for _ in range(_TRIES):
        root, tree = _read_tree(thread, after, root_id, size)
        posts = {
            item["postId"]: item
            for item in get_adapter(Post).get_many(
                [(node.post_id, thread_id) for node in tree.nodes], consistent=True
            )
        }
        now = _thread(thread_id)
        if now.get("moves") == thread.get("moves"):
            break
        # A subtree was moved meanwhile, and would be seen at both places or at none.
        thread = now
    else:
        raise StoreUnavailable("Posts of the thread are being moved all the time.")
    views = [
        PostView.of(posts[node.post_id], depth=node.depth, is_cut=node.is_cut)
        for node in tree.nodes
        if node.post_id in posts
    ]
    return ThreadPage(
        ThreadLine.of(thread),
        views,
        tree.after,
        None if root is None else PostView.of(root, depth=0),
    )


def _read_tree(thread: Item, after: Any, root_id: str, size: int) -> tuple[Item | None, TreePage]:
    root: Item | None = None
    if root_id:
        key = (root_id, thread["threadId"])
        root = get_adapter(Post).get_by_id(key, consistent=True)
        if root is None or Tree(get_database()).is_being_removed(thread, root):
            raise NoSuchPost
    page = read_page(
        get_adapter(Support),
        thread["threadId"],
        size=size,
        root=None if root is None else Root(root_id, place_now(thread, root), 0),
        after=after,
        max_depth=LEVELS,
        hidden=hidden_place(thread),
    )
    return root, page


def _posts_by(
    index: str, value: str, size: int, after: Any, recent: Collection[str], *, descending: bool
) -> PostList:
    adapter = get_adapter(Post)
    page = adapter.page(value, index=index, size=size, after=after, descending=descending)
    found = [(item["postId"], item["threadId"]) for item in page.items]
    own = [tuple(each) for each in recent if tuple(each) not in found]
    items = adapter.get_many([*found, *own], consistent=bool(recent))
    listed = [item for item in items if _key(item) in found]
    last = listed[-1]["createdAt"] if listed else None
    name = adapter.table.indexes[index][0]
    new = [
        item
        for item in items
        if _key(item) in own
        and item[name] == value
        and _belongs(item["createdAt"], last, after, page.after, descending=descending)
    ]
    chosen = sorted([*listed, *new], key=lambda item: str(item["createdAt"]), reverse=descending)
    return PostList(_with_authors(list(map(PostView.of, chosen))), page.after)


def _key(post: Item) -> tuple[str, str]:
    return post["postId"], post["threadId"]
