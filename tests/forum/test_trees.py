"""Trees of posts: read in order by few calls, whatever their shape, and changed safely."""

from __future__ import annotations

import itertools
import random
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamo_stores.calls.observer import measuring
from dynamo_stores.exceptions import StoreUnavailable
from forum import keys
from forum.adapters import Delete
from forum.adapters.dynamodb import DynamoDBDatabase
from forum.adapters.json_files import JsonDatabase
from forum.models import Post, Support, Thread
from forum.trees import (
    MAX_PLACE,
    NoSuchPost,
    NoSuchThread,
    Root,
    Tree,
    TreeBusy,
    TreeUnfinished,
    WouldBeCycle,
    code,
    hidden_place,
    read_page,
    removal_of_thread,
    reply,
)
from forum.trees.branches import Branches
from forum.trees.places import Place, first_codes

_numbers = itertools.count()


@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=2))
def test_codes_sort_as_numbers_and_none_begins_another(numbers):
    """So places sort in the order of the tree."""
    low, high = sorted(numbers)
    if low != high:
        assert code(low) < code(high)
        assert not code(high).startswith(code(low))


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=8))
def test_the_place_of_an_ancestor_is_in_the_place(numbers):
    """Codes can be told apart without their numbers."""
    codes = list(map(code, numbers))
    for count in range(1, len(codes) + 1):
        assert first_codes("".join(codes), count) == "".join(codes[:count])


class Forum:
    """One thread, with short ids of posts."""

    def __init__(self, database):
        self.database = database
        self.tree = Tree(database)
        self.posts, self.support = database.adapter(Post), database.adapter(Support)
        self.threads = database.adapter(Thread)
        self.id = f"tree{next(_numbers)}"
        self.threads.create(
            {"threadId": self.id, "title": "t", "createdAt": "2026", "listing": "x", "posts": 0}
        )

    def add(self, name, parent=None):
        return self.tree.add(
            {
                "postId": f"{self.id}-{name}",
                "threadId": self.id,
                "userId": "u",
                "content": name,
                "createdAt": f"2026-{next(_numbers):08}",
                "version": 1,
                "parent": None if parent is None else f"{self.id}-{parent}",
            }
        )

    def post(self, name):
        return self.posts.get_by_id((f"{self.id}-{name}", self.id), consistent=True)

    def thread(self):
        return self.threads.get_by_id(self.id, consistent=True)

    def move(self, name, parent):
        self.tree.move(self.id, f"{self.id}-{name}", parent and f"{self.id}-{parent}")

    def read(self, size=1000, root=None, **options):
        """All pages: ``[(name, depth), …]``."""
        if root is not None:
            post = self.post(root)
            options["root"] = Root(post["postId"], Place.of(post), 0)
        nodes, after = [], None
        while True:
            page = read_page(
                self.support, self.id, size=size, after=after,
                hidden=hidden_place(self.thread()), **options,
            )  # fmt: skip
            assert len(page.nodes) <= size
            assert page.queries <= 8
            nodes += [(node.post_id.removeprefix(f"{self.id}-"), node.depth) for node in page.nodes]
            if (after := page.after) is None:
                return nodes

    def drawn(self, **options):
        """The tree as text, such as ``a(b c(d))``."""
        text, before = "", 0
        for name, depth in self.read(**options):
            text += "(" * (depth - before) + ")" * (before - depth)
            text += ("" if text.endswith("(") or not text else " ") + name
            before = depth
        return (text + ")" * before).removeprefix("(").removesuffix(")")


@pytest.fixture(params=["dynamodb", "json"])
def forum(request, tmp_path):
    if request.param == "json":
        return Forum(JsonDatabase(tmp_path / "forum"))
    request.getfixturevalue("emptied")
    return Forum(DynamoDBDatabase())


@pytest.fixture
def small(forum):
    """``a(b(c) d) e``"""
    for name, parent in (("a", None), ("b", "a"), ("e", None), ("c", "b"), ("d", "a")):
        forum.add(name, parent)
    return forum


def test_replies_are_in_the_order_of_the_tree(small):
    """Each below its post, in the order in which they were written; counts are right."""
    assert small.drawn() == "a(b(c) d) e"
    assert small.drawn(root="a") == "b(c) d"
    assert small.drawn(root="c") == ""
    assert small.drawn(max_depth=1) == "a e"
    assert small.drawn(max_depth=1, root="a") == "b d"
    assert [small.post(name)["replies"] for name in "abcde"] == [2, 1, 0, 0, 0]
    assert (small.thread()["posts"], small.thread()["changes"]) == (5, 5)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_pages_go_on_where_the_last_one_ended(small, size):
    """Whatever their size."""
    assert small.drawn(size=size) == "a(b(c) d) e"


def test_replies_need_a_post_that_exists(small):
    """Nothing is written otherwise."""
    with pytest.raises(NoSuchPost):
        small.add("f", "none")
    small.id, before = "none", small.id
    with pytest.raises(NoSuchThread):
        small.add("f")
    small.id = before
    assert small.drawn() == "a(b(c) d) e"


def test_a_post_with_replies_stays_empty_and_one_without_goes(small):
    """Its replies stay where they are; nobody replies to it any more."""
    for name in "bd":
        small.tree.remove(small.post(name), ["content"])
    assert small.drawn() == "a(b(c)) e"
    assert small.post("d") is None
    assert small.post("b")["isDeleted"] is True
    assert "content" not in small.post("b")
    assert small.thread()["posts"] == 3
    assert small.post("a")["replies"] == 1
    with pytest.raises(NoSuchPost):
        small.add("f", "b")


@pytest.mark.parametrize(
    ("name", "parent", "drawn"),
    [
        ("b", None, "a(d) e b(c)"),
        ("b", "e", "a(d) e(b(c))"),
        ("a", "e", "e(a(b(c) d))"),
        ("e", "c", "a(b(c(e)) d)"),
        ("c", "a", "a(b d c) e"),
        ("b", "d", "a(d(b(c))) e"),
    ],
)
def test_a_subtree_is_moved(small, name, parent, drawn):
    """With all below it; replies are added there then; and back."""
    small.move(name, parent)
    assert small.drawn() == small.drawn(size=1) == drawn
    assert "work" not in small.thread()
    small.add("f", "c")
    small.add("g", name)
    with_f = drawn.replace("c(e)", "c(e f)") if "c(e)" in drawn else drawn.replace("c", "c(f)")
    assert small.drawn().replace(" g", "").replace("(g)", "") == with_f
    assert small.thread()["posts"] == 7
    for each in "abcdefg":
        below = small.read(root=each)
        assert small.post(each)["replies"] == sum(depth == 1 for _, depth in below)


def test_a_post_is_never_moved_below_itself(small):
    """Neither directly nor through its replies, also after moves."""
    for parent in ("a", "b", "c"):
        with pytest.raises(WouldBeCycle):
            small.move("a", parent)
    small.move("b", "e")
    small.move("e", "d")
    with pytest.raises(WouldBeCycle):
        small.move("a", "c")
    assert small.drawn() == "a(d(e(b(c))))"


def test_a_subtree_is_deleted(small):
    """With its places and posts; counts are right."""
    small.move("d", "c")
    small.tree.remove_all(small.id, f"{small.id}-b")
    assert small.drawn() == "a e"
    assert [small.post(name) for name in "bcd"] == [None] * 3
    assert small.thread()["posts"] == 2
    assert small.post("a")["replies"] == 0
    assert "work" not in small.thread()


def chain(forum, length):
    """Write a tree in which each post replies to the one before; return the places."""
    place, places, posts, rows = None, [], [], []
    for number in range(length):
        post_id = f"{forum.id}-{number}"
        place = reply(place, 0, post_id)
        places.append(place)
        parent = {"parent": f"{forum.id}-{number - 1}"} if number else {}
        common = {"postId": post_id, "depth": place.depth, **parent}
        own = {"ownBranch": place.own} if place.own else {}
        rows.append({**keys.place(forum.id, place.branch, place.path), **common, **own})
        posts.append(
            {
                **common,
                **{name: each for name, each in place.attributes().items() if each},
                **{"threadId": forum.id, "children": 1, "version": 1},
                "replies": int(number < length - 1),
            }
        )
    forum.posts.put_all(posts)
    forum.support.put_all(rows)
    forum.threads.update(forum.id, {"posts": length, "children": 1})
    return places


def test_a_deep_tree_is_read_in_order_with_bounded_calls(emptied):
    """1,000 deep: no place is long, and a page costs what one of a flat tree does."""
    forum = Forum(DynamoDBDatabase())
    places = chain(forum, 1000)
    assert max(len(each.path) for each in places) <= MAX_PLACE
    assert len({each.branch for each in places}) == 11
    assert forum.read(size=50) == [(str(n), n + 1) for n in range(1000)]
    with measuring() as calls:
        page = read_page(forum.support, forum.id, size=50)
    assert len(calls) == page.queries == 1
    with measuring() as calls:
        page = read_page(forum.support, forum.id, size=500)
    assert len(calls) == page.queries == 6
    assert forum.read(root="150", max_depth=3) == [("151", 1), ("152", 2), ("153", 3)]
    forum.add("last", "999")
    assert forum.read(root="998") == [("999", 1), ("last", 2)]
    forum.move("100", None)
    assert forum.read(size=70)[99:101] == [("99", 100), ("100", 1)]
    assert len(forum.read()) == 1001
    with pytest.raises(WouldBeCycle):
        forum.move("100", "last")


def test_posts_that_are_too_deep_are_skipped_by_one_query(emptied):
    """However many they are."""
    forum = Forum(DynamoDBDatabase())
    forum.add("a")
    rows = [
        {**keys.place(forum.id, "", code(0) + code(number)), "postId": f"x{number}", "depth": 2}
        for number in range(3000)
    ]
    forum.support.put_all(rows)
    forum.add("b")
    with measuring() as calls:
        page = read_page(forum.support, forum.id, size=10, max_depth=1)
    assert [node.post_id for node in page.nodes] == [f"{forum.id}-a", f"{forum.id}-b"]
    assert len(calls) == 2


@pytest.mark.parametrize("step", range(1, 12))
@pytest.mark.parametrize("kind", ["move", "remove"])
def test_a_change_that_was_cut_off_is_finished_by_another_process(small, kind, step, monkeypatch):
    """After each of its writes: readers see the old tree or the new one, and then only the new."""
    small.add("f", "c")
    old, new = "a(b(c(f)) d) e", "a(d) e(b(c(f)))" if kind == "move" else "a(d) e"
    writes = itertools.count(1)

    def cut_off(function):
        def write(*args, **kwargs):
            if next(writes) == step:
                raise KeyboardInterrupt
            return function(*args, **kwargs)

        return write

    other = Tree(small.database)
    for owner, names in (
        (other._database, ["transact"]),
        (other._support, ["put_all", "delete_all", "delete"]),
        (other._posts, ["update", "delete_all", "delete"]),
        (other._threads, ["update"]),
    ):
        for name in names:
            monkeypatch.setattr(owner, name, cut_off(getattr(owner, name)))
    try:
        if kind == "move":
            other.move(small.id, f"{small.id}-b", f"{small.id}-e")
        else:
            other.remove_all(small.id, f"{small.id}-b")
        assert next(writes) <= step
    except KeyboardInterrupt:
        assert small.drawn() in (old, new)
    monkeypatch.undo()
    is_begun = "work" in small.thread()
    assert small.tree.finish_all() <= 1
    assert small.drawn() == (new if is_begun else small.drawn())
    assert small.drawn() in (old, new)
    assert "work" not in small.thread()
    assert small.thread()["posts"] == len(small.read())
    assert small.tree.finish_all() == 0


@pytest.mark.parametrize("kind", ["move", "remove", "thread"])
def test_what_takes_longer_is_finished_in_the_background(small, kind):
    """By one process at a time; readers see the old tree or the new one meanwhile."""
    impatient, b = Tree(small.database, patience=0), f"{small.id}-b"
    if kind == "thread":
        small.database.transact(
            [Delete(small.threads.table, {"threadId": small.id}), removal_of_thread(small.thread())]
        )
    begin = {
        "move": lambda: impatient.move(small.id, b, f"{small.id}-e"),
        "remove": lambda: impatient.remove_all(small.id, b),
        "thread": lambda: impatient.remove_thread(small.id),
    }[kind]
    with pytest.raises(TreeUnfinished):
        begin()
    if kind != "thread":
        assert small.drawn() == "a(b(c) d) e"
        with pytest.raises(TreeBusy):
            impatient.move(small.id, f"{small.id}-d", None)
    row = small.support.get_by_id(keys.work(small.id), consistent=True)
    assert small.tree._take(row)
    assert small.tree.finish_all() == 0
    small.support.update(row, {"takenUntil": 1})
    assert small.tree.finish_all() == 1
    if kind == "thread":
        assert [small.post(name) for name in "abcde"] == [None] * 5
        assert not small.support.page(keys.tree(small.id), size=10, consistent=True).items
    else:
        assert small.drawn() == {"move": "a(d) e(b(c))", "remove": "a(d) e"}[kind]
    assert small.support.get_by_id(keys.work(small.id), consistent=True) is None


def test_an_error_leaves_a_change_to_the_next_run(small, monkeypatch):
    """Also where the answer to taking it was lost, and the request repeated."""
    with pytest.raises(TreeUnfinished):
        Tree(small.database, patience=0).move(small.id, f"{small.id}-b", f"{small.id}-e")

    def fail(*args):
        raise StoreUnavailable("DynamoDB did not answer.")

    with monkeypatch.context() as patch:
        patch.setattr(Tree, "finish", fail)
        with pytest.raises(StoreUnavailable):
            small.tree.finish_all()
    update = small.tree._support.update

    def repeated(*args, **kwargs):
        update(*args, **kwargs)
        return update(*args, **kwargs)

    monkeypatch.setattr(small.tree._support, "update", repeated)
    assert small.tree.finish_all() == 1
    assert small.drawn() == "a(d) e(b(c))"


def test_an_error_leaves_a_change_to_the_process_that_has_taken_it_over(
    small, dynamo_clock, monkeypatch
):
    """A process that works for longer than two minutes gives back nothing that another one has."""
    with pytest.raises(TreeUnfinished):
        Tree(small.database, patience=0).move(small.id, f"{small.id}-b", f"{small.id}-e")
    late, other, third = (Tree(small.database) for _ in range(3))

    def fail(*args):
        dynamo_clock.advance(121)
        assert other._take(small.support.get_by_id(keys.work(small.id), consistent=True))
        raise StoreUnavailable("DynamoDB did not answer.")

    with monkeypatch.context() as patch:
        patch.setattr(late, "finish", fail)
        with pytest.raises(StoreUnavailable):
            late.finish_all()
    assert third.finish_all() == 0
    dynamo_clock.advance(121)
    assert third.finish_all() == 1
    assert small.drawn() == "a(d) e(b(c))"


def test_the_end_of_a_move_leaves_the_record_of_the_next(small):
    """Otherwise nothing would finish it if its process ended."""
    row = small.support.update(keys.work(small.id), {"work": "another"}, upsert=True)
    small.tree._forget(small.id, "first")
    assert small.support.get_by_id(row, consistent=True) == row
    small.tree._forget(small.id, "another")
    assert small.support.get_by_id(row, consistent=True) is None


def test_branches_in_branches_are_deleted_without_recursion(tmp_path):
    """Moves may make more of them than Python allows calls in calls."""
    forum = Forum(JsonDatabase(tmp_path / "forum"))
    count = 500
    rows = [
        {
            **keys.place(forum.id, str(number or ""), code(0)),
            "postId": f"{number}",
            "depth": number + 1,
            "ownBranch": f"{number + 1}",
        }
        for number in range(count)
    ]
    forum.support.put_all(rows)
    forum.posts.put_all(
        {"postId": f"{number}", "threadId": forum.id, "createdAt": "x"} for number in range(count)
    )
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(400)
    try:
        assert Branches(forum.database, None).count(forum.id, "", None) == count
        forum.tree.remove_thread(forum.id)
    finally:
        sys.setrecursionlimit(limit)
    assert not list(forum.posts.get_all())
    assert not list(forum.support.get_all())


@pytest.mark.parametrize("seed", range(3))
def test_any_changes_at_once_leave_a_whole_tree(forum, seed):
    """
    Threads that add, move and delete posts: no post is lost or twice, none is below itself, and
    the counts are those of the posts.
    """
    names = [str(n) for n in range(8)]
    for name in names:
        forum.add(name, random.Random(seed).choice([None, *names[: int(name)]]))
    expected, lock, errors = set(names), threading.Lock(), []

    def change(chance, new):
        name = chance.choice(names)
        if chance.random() < 0.5:
            forum.add(new, chance.choice([None, name]))
            with lock:
                expected.add(new)
        else:
            forum.move(name, chance.choice([None, *names]))

    def work(me):
        chance = random.Random(f"{seed}{me}")
        for number in range(6):
            try:
                change(chance, f"{me}-{number}")
            except WouldBeCycle:
                pass
            except TreeBusy:
                time.sleep(0.01)
            except Exception as exc:
                errors.append(exc)

    workers = [threading.Thread(target=work, args=(me,)) for me in range(4)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    assert errors == []
    found = forum.read(size=5)
    assert sorted(name for name, _ in found) == sorted(expected)
    assert forum.thread()["posts"] == len(expected)
    for name in expected:
        below = forum.read(root=name)
        assert forum.post(name)["replies"] == sum(depth == 1 for _, depth in below)
        assert name not in [each for each, _ in below]
