"""What is wrong in the tables is found, and repaired so that pages are right again."""

from __future__ import annotations

import io
from collections import Counter

import pytest
from django.core.management import CommandError, call_command

from forum import accounts, keys, posting, threads, verification
from forum.adapters import get_adapter, get_database
from forum.models import Post, Support, Thread, User
from forum.trees import Tree
from forum.verification import find_problems

from .conftest import POSTS


@pytest.fixture
def tree(each_database, settings, migrate):
    """A forum with a tree of replies, in tables of each kind, and no cache."""
    settings.CACHES = {
        name: {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}
        for name in ("default", "profiles")
    }
    rows = [("a", None), ("b", "a"), ("c", "b"), ("d", "a"), ("e", None)]
    migrate(
        posts=[
            {"id": post_id, "thread": "t1", "user": "u1", "text": post_id, "parent": parent}
            for post_id, parent in rows
        ]
        + POSTS[1:2]
    )


def found():
    """Return how many problems of each kind there are."""
    return Counter(problem.kind for problem in find_problems())


def shown():
    """Return the ids of the posts of a thread in order, each with its parent."""
    page = threads.show_thread("t1").content
    return page.thread.posts, [(post.post_id, post.parent) for post in page.posts]


RIGHT = (5, [("a", ""), ("b", "a"), ("c", "b"), ("d", "a"), ("e", "")])


def place_of(post_id):
    post = get_adapter(Post).get_by_id((post_id, "t1"))
    return keys.place("t1", post.get("branch", ""), post["place"])


def forget_place():
    get_adapter(Support).delete(place_of("b"))


def forget_attributes():
    names = ("place", "depth", "branch", "ownBranch")
    get_adapter(Support).delete(place_of("d"))
    get_adapter(Post).update(("d", "t1"), dict.fromkeys(names))


def take_place():
    posts = get_adapter(Post)
    place = posts.get_by_id(("b", "t1"))["place"]
    get_adapter(Support).delete(place_of("d"))
    posts.update(("d", "t1"), {"place": place})


def forget_thread():
    get_adapter(Thread).delete("t2")


def misplace():
    """The place of ``d`` is below ``e``."""
    posts, support = get_adapter(Post), get_adapter(Support)
    support.delete(place_of("d"))
    place = posts.get_by_id(("e", "t1"))["place"] + "0"
    posts.update(("d", "t1"), {"place": place})
    support.create({**keys.place("t1", "", place), "postId": "d", "parent": "a", "depth": 2})


def forget_post():
    get_adapter(Post).delete(("c", "t1"))


def circle():
    """``b`` is in the branch of ``c``, and ``c`` in that of ``b``."""
    posts, support = get_adapter(Post), get_adapter(Support)
    for post_id in ("b", "c"):
        support.delete(place_of(post_id))
    for post_id, parent in (("b", "c"), ("c", "b")):
        new = {"branch": f"#{parent}", "place": "0", "depth": 1, "parent": parent}
        posts.update((post_id, "t1"), {**new, "ownBranch": f"#{post_id}"})
        support.create(
            {
                **keys.place("t1", f"#{parent}", "0"),
                "postId": post_id,
                "parent": parent,
                "depth": 1,
                "ownBranch": f"#{post_id}",
            }
        )


def miscount():
    get_adapter(Thread).update("t1", {"posts": 9})
    get_adapter(Post).update(("a", "t1"), {"replies": 0})


def change_words():
    support = get_adapter(Support)
    (first,) = support.page(keys.words("first"), size=9).items
    support.delete(first)
    support.create(
        {**first, "PK": keys.words("other"), "SK": first["SK"].replace("first", "other")}
    )


def forget_user():
    get_adapter(User).delete("2")


def free_name():
    get_adapter(Support).delete(keys.reservation("user-name", "bo"))


def end_reservation():
    ended = {"holder": "x", "expiresAt": 1}
    get_adapter(Support).update(keys.reservation("user-name", "bo"), ended)


@pytest.mark.parametrize(
    ("damage", "kinds", "right"),
    [
        (forget_place, {verification.NO_PLACE: 1}, RIGHT),
        (forget_attributes, {verification.NO_PLACE: 1}, RIGHT),
        (take_place, {verification.TAKEN_PLACE: 1}, RIGHT),
        (misplace, {verification.WRONG_PLACE: 1}, RIGHT),
        (miscount, {verification.POSTS: 1, verification.REPLIES: 1}, RIGHT),
        (change_words, {verification.MISSING_WORD: 1, verification.STALE_WORD: 1}, RIGHT),
        (forget_thread, {verification.NO_THREAD: 1}, RIGHT),
        (forget_user, {verification.RESERVATION: 1}, RIGHT),
        (free_name, {verification.NO_RESERVATION: 1}, RIGHT),
        (end_reservation, {verification.NO_RESERVATION: 1}, RIGHT),
        (
            forget_post,
            {verification.NO_POST: 1},
            (4, [("a", ""), ("b", "a"), ("d", "a"), ("e", "")]),
        ),
        (
            circle,
            {verification.CYCLE: 2},
            (5, [("a", ""), ("d", "a"), ("e", ""), ("b", ""), ("c", "b")]),
        ),
    ],
)
def test_damage_is_found_and_repaired(tree, damage, kinds, right):
    """The kinds are named; afterwards nothing is wrong, and the thread is shown as it should be."""
    assert found() == {}
    damage()
    before = found()
    assert {kind: before[kind] for kind in kinds} == kinds
    with pytest.raises(CommandError, match="--repair"):
        call_command("forum_verify", stdout=io.StringIO())
    assert found() == before
    out = io.StringIO()
    call_command("forum_verify", repair=True, delete_posts=damage is forget_thread, stdout=out)
    assert all(f"{kind}: " in out.getvalue() for kind in kinds)
    assert found() == {}
    assert shown() == right
    out = io.StringIO()
    call_command("forum_verify", stdout=out)
    assert "Nothing is wrong in " in out.getvalue()


def test_posts_of_no_thread_are_kept_unless_it_is_wanted(tree):
    """A restore of the threads would bring them back; all else is repaired."""
    thread = get_adapter(Thread).get_by_id("t2")
    forget_thread()
    miscount()
    out = io.StringIO()
    with pytest.raises(CommandError, match="Restore the threads, or add --delete-posts"):
        call_command("forum_verify", repair=True, stdout=out)
    assert f"{verification.NO_THREAD}: 1, 0 repaired" in out.getvalue()
    assert f"{verification.POSTS}: 1, 1 repaired" in out.getvalue()
    get_adapter(Thread).create(thread)
    call_command("forum_verify", repair=True, stdout=io.StringIO())
    assert found() == {}
    assert get_adapter(Post).query_by_index("ThreadIndex", "t2") != []
    with pytest.raises(CommandError, match="without --repair"):
        call_command("forum_verify", delete_posts=True)


def test_an_unfinished_move_is_finished(tree):
    """Whose process has ended after it had begun."""

    class Ended(Exception):
        pass

    class EndedTree(Tree):
        def finish(self, thread_id):
            if get_adapter(Thread).get_by_id(thread_id).get("work"):
                raise Ended
            return super().finish(thread_id)

    with pytest.raises(Ended):
        EndedTree(get_database()).move("t1", "b", "e")
    assert found() == {verification.UNFINISHED: 1}
    call_command("forum_verify", repair=True, stdout=io.StringIO())
    assert found() == {}
    assert shown() == (5, [("a", ""), ("d", "a"), ("e", ""), ("b", "e"), ("c", "b")])


def test_what_the_forum_writes_is_right(tree, db):
    """Threads, replies, edits, deletions, moves and sign-ups leave nothing to repair."""
    user = accounts.sign_up("cleo", "cleo@example.com", "x")
    me = accounts.ensure_profile(user)
    thread = posting.create_thread(me, "Some other words", "text")
    thread = posting.edit_thread(me, thread, "Changed words", version=1)
    first = posting.create_post(me, thread["threadId"], "reply")
    second = posting.create_post(me, thread["threadId"], "below", parent=first["postId"])
    posting.delete_post(me, get_adapter(Post).get_by_id(first["postId"]), version=1)
    posting.move_post(me, thread["threadId"], second["postId"], None)
    accounts.edit_profile(me, name="Cleo", bio="", email="other@example.com", version=1)
    posting.delete_replies(me, "t1", "a")
    posting.delete_thread(me, get_adapter(Thread).get_by_id("t2"))
    assert found() == {}
