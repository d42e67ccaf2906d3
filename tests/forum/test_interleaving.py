"""Readers, repairs and other writers in the middle of a move or deletion of posts."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError
from django.test import Client, override_settings

from forum import posting, tasks, threads, verification
from forum.adapters import ItemExists, get_adapter, get_database
from forum.models import Post, Support
from forum.trees import Tree
from forum.trees.branches import Branches
from forum.verification import find_problems, repaired

pytestmark = [pytest.mark.usefixtures("own_tables"), pytest.mark.django_db]


class Killed(BaseException):
    """The process ends here."""


def cut_off(monkeypatch, step, work):
    """Do ``work`` in a process that is killed before ``step``."""

    def kill(*args):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Branches if step == "delete" else Tree, step, kill)
        with pytest.raises(Killed):
            work()


def before(monkeypatch, step, other, after=False):
    """Let ``other`` happen once, before a ``step`` of a tree or after it."""
    real, done = getattr(Tree, step), []

    def wrapped(self, *args):
        result = real(self, *args) if after else None
        if not done:
            done.append(1)
            other()
        return result if after else real(self, *args)

    monkeypatch.setattr(Tree, step, wrapped)


class Talk:
    """A thread with posts by name."""

    def __init__(self):
        thread = posting.create_thread("u", "A title", "first")
        self.id, self.ids = thread["threadId"], {}
        self.path = f"/threads/{self.id}/"

    def add(self, name, parent=None):
        added = posting.create_post("u", self.id, name, parent=self.ids.get(parent))
        self.ids[name] = added["postId"]

    def address(self, name):
        return f"{self.path}posts/{self.ids[name]}/"

    def shown(self, path=None):
        """The texts on a page, in order, without those of the forms."""
        text = Client().get(path or self.path).text
        return [name for name in re.findall(r">\s*([a-z]+\d*)\s*<", text) if name in self.ids]

    def move(self, name, parent):
        return posting.move_post("s", self.id, self.ids[name], self.ids[parent])

    def delete(self, name):
        return posting.delete_replies("s", self.id, self.ids[name])

    def thread(self):
        return threads.get_thread(self.id, consistent=True)


@pytest.fixture
def talk():
    """``first alpha beta(gamma(delta))``"""
    found = Talk()
    for name, parent in (("alpha", None), ("beta", None), ("gamma", "beta"), ("delta", "gamma")):
        found.add(name, parent)
    return found


def test_a_deleted_post_is_not_read_while_its_replies_are_deleted(talk, monkeypatch):
    """Nor after that, from the cache."""
    cut_off(monkeypatch, "delete", lambda: talk.delete("beta"))
    client = Client()
    for name in ("beta", "gamma", "delta"):
        assert client.get(talk.address(name)).status_code == 404
    tasks.finish_moves()
    assert client.get(talk.address("gamma")).status_code == 404
    assert talk.shown() == ["alpha"]


def test_no_page_of_the_time_between_is_kept(talk, monkeypatch):
    """A reader right after the deletion is visible."""
    before(monkeypatch, "_hide", lambda: Client().get(talk.address("delta")), after=True)
    talk.delete("beta")
    assert Client().get(talk.address("delta")).status_code == 404


def test_a_moved_post_has_its_replies_while_it_is_moved(talk, monkeypatch):
    """At its old address and the new one, and from the cache afterwards."""
    cut_off(monkeypatch, "_tidy_moved", lambda: talk.move("beta", "alpha"))
    assert talk.shown(talk.address("gamma"))[-1] == "delta"
    assert talk.shown(talk.address("beta"))[-2:] == ["gamma", "delta"]
    tasks.finish_moves()
    assert talk.shown(talk.address("gamma"))[-1] == "delta"
    assert talk.shown() == ["alpha", "beta", "gamma", "delta"]


def test_the_next_page_has_nothing_of_a_subtree_that_is_deleted(talk, monkeypatch):
    """Its link was made before; the posts have a branch of their own."""
    talk.move("beta", "alpha")
    for number in range(60):
        talk.add(f"spam{number}", "beta")
    talk.add("omega")
    first = Client().get(talk.path).text
    following = talk.path + re.search(r'rel="next" href="([^"]+)"', first)[1]
    assert "spam59" in talk.shown(following)
    cut_off(monkeypatch, "delete", lambda: talk.delete("beta"))
    assert talk.shown(following) == ["omega"]
    tasks.finish_moves()
    assert talk.shown(following) == ["omega"]


def test_a_move_that_is_given_up_says_so(talk, monkeypatch):
    """The new parent is deleted meanwhile."""
    post = get_adapter(Post).get_by_id((talk.ids["alpha"], talk.id))
    before(monkeypatch, "_copy", lambda: posting.delete_post("u", post, version=1))
    staff = Client()
    staff.force_login(get_user_model().objects.create_superuser("root"))
    sent = {"parent": f"http://testserver{talk.address('alpha')}"}
    response = staff.post(f"{talk.address('beta')}move/", sent)
    assert response.status_code == 400
    assert "This post is deleted" in response.text
    assert talk.shown() == ["beta", "gamma", "delta"]
    assert list(find_problems()) == []


def test_a_thread_that_is_deleted_during_a_move_leaves_nothing(talk, monkeypatch):
    """Neither places nor posts nor words, also of a title that was changed since it was read."""
    read = talk.thread()
    posting.edit_thread("u", read, "Another", version=1)
    before(monkeypatch, "_switch", lambda: posting.delete_thread("s", read))
    staff = Client()
    staff.force_login(get_user_model().objects.create_superuser("root"))
    sent = {"parent": f"http://testserver{talk.address('alpha')}"}
    assert staff.post(f"{talk.address('beta')}move/", sent).status_code == 404
    left = {item["PK"].partition("#")[0] for item in get_adapter(Support).get_all()}
    assert left <= {"activity", "user-name"}
    assert list(get_adapter(Post).get_all()) == []


def test_a_thread_whose_deletion_is_cut_off_is_deleted_by_the_task(talk, monkeypatch):
    """Its posts are read nowhere meanwhile."""
    cut_off(monkeypatch, "remove_thread", lambda: posting.delete_thread("s", talk.thread()))
    assert Client().get(talk.address("gamma")).status_code == 404
    assert tasks.finish_moves() == 1
    assert list(get_adapter(Post).get_all()) == []
    assert tasks.finish_moves() == 0


def test_an_import_waits_for_the_deletion_of_its_threads(migrate, monkeypatch):
    """Which would delete the posts that it writes."""
    migrate()
    thread = threads.get_thread("t1", consistent=True)
    cut_off(monkeypatch, "delete", lambda: posting.delete_thread("u1", thread))
    with pytest.raises(CommandError, match=r"threads\.json, row 1: the thread was deleted, and"):
        migrate()
    tasks.finish_moves()
    assert "posts: 3 written, 1 unchanged" in migrate()
    tasks.finish_moves()
    assert list(find_problems()) == []


def test_a_deletion_without_a_parent_stops_no_other(monkeypatch):
    """As after a restore of one table; it is finished, too."""
    talks = [Talk(), Talk()]
    for each in talks:
        each.add("alpha")
        each.add("beta", "alpha")
        cut_off(monkeypatch, "_hide", lambda each=each: each.delete("beta"))
    for each in talks:
        get_adapter(Post).delete((each.ids["alpha"], each.id))
    assert tasks.finish_moves() == 2
    for each in talks:
        assert "work" not in each.thread()
        assert get_adapter(Post).get_by_id((each.ids["beta"], each.id)) is None


def test_a_move_that_cannot_be_finished_stops_no_other(monkeypatch, caplog):
    """It is logged, and tried again later."""
    talks = [Talk(), Talk()]
    for each in talks:
        each.add("alpha")
        each.add("beta", "alpha")
        cut_off(monkeypatch, "_hide", lambda each=each: each.delete("beta"))
    real = Tree.finish

    def finish(self, thread_id):
        if thread_id == talks[0].id:
            self._posts.update(("none", thread_id), {"x": 1})
        real(self, thread_id)

    with monkeypatch.context() as patch:
        patch.setattr(Tree, "finish", finish)
        assert tasks.finish_moves() == 1
    assert "could not be finished" in caplog.text
    assert ["work" in each.thread() for each in talks] == [True, False]


def test_repairs_beside_a_move_delete_no_good_place(talk, monkeypatch):
    """The move ends after the verification has read the posts, and before it reads the thread."""
    cut_off(monkeypatch, "_switch", lambda: talk.move("beta", "alpha"))
    read, rest = verification._by_key, [1]

    def by_key(model, *args):
        found = read(model, *args)
        if model is Post and rest and rest.pop():
            Tree(get_database()).finish(talk.id)
        return found

    monkeypatch.setattr(verification, "_by_key", by_key)
    found = list(verification._of_support(lambda count: None))
    assert [problem.kind for problem in found if repaired(problem)] == []
    assert talk.shown() == ["alpha", "beta", "gamma", "delta"]


def test_a_repair_does_nothing_if_the_place_is_used_by_then(talk, monkeypatch):
    """A place that no post had is that of a post when the repair begins."""
    cut_off(monkeypatch, "_switch", lambda: talk.move("beta", "alpha"))
    work = talk.thread()["work"]
    get_adapter(threads.Thread).update(talk.id, {"work": None})
    found = list(verification._of_support(lambda count: None))
    assert len(found) == 2  # the copies
    get_adapter(threads.Thread).update(talk.id, {"work": work})
    Tree(get_database()).finish(talk.id)
    for problem in found:
        problem.repair()
    assert talk.shown() == ["alpha", "beta", "gamma", "delta"]


def test_counts_beside_a_deletion_are_not_taken_for_wrong(talk, monkeypatch):
    """The deletion ends after the posts are counted."""
    cut_off(monkeypatch, "delete", lambda: talk.delete("beta"))
    real = verification.read_page

    def read_page(*args, **kwargs):
        found = real(*args, **kwargs)
        Tree(get_database()).finish(talk.id)
        return found

    monkeypatch.setattr(verification, "read_page", read_page)
    assert [each.kind for each in verification._wrong_counts(talk.id, lambda count: None)] == []
    assert talk.thread()["posts"] == 2


def test_a_change_whose_answer_was_lost_is_no_conflict(talk):
    """The same request again returns the change; another text is a conflict."""
    post = get_adapter(Post).get_by_id((talk.ids["alpha"], talk.id))
    posting.edit_post("u", post, "changed", version=1)
    assert posting.edit_post("u", post, "changed", version=1)["version"] == 2
    with pytest.raises(posting.Conflict):
        posting.edit_post("u", post, "other", version=1)
    read = talk.thread()
    posting.edit_thread("u", read, "New title", version=1)
    assert posting.edit_thread("u", read, "New title", version=1)["version"] == 2
    with pytest.raises(posting.Conflict):
        posting.edit_thread("u", read, "Other", version=1)


def test_a_move_does_not_refuse_an_edit_that_was_begun_before(talk):
    """The text was not changed."""
    post = get_adapter(Post).get_by_id((talk.ids["beta"], talk.id))
    talk.move("beta", "alpha")
    assert posting.edit_post("u", post, "changed", version=1)["version"] == 2


def test_a_thread_that_was_imported_again_is_not_shown_as_before(migrate):
    """From the cache: it was deleted, and its file corrected."""
    client, old = Client(), [{"thread": "t1", "user": "u1", "text": "old"}]
    migrate(posts=old)
    assert "old" in client.get("/threads/t1/").text
    posting.delete_thread("s", threads.get_thread("t1", consistent=True))
    migrate(posts=[{**old[0], "text": "new"}])
    page = client.get("/threads/t1/").text
    assert "<p>new</p>" in page
    assert "<p>old</p>" not in page


def test_a_key_whose_time_is_over_is_used_by_one_of_two_requests(talk, dynamo_clock, monkeypatch):
    """The other one replaces the item of the key after this one has read it."""
    other, real = Talk(), Tree.add
    post = posting.create_post("u", talk.id, "text", key="k")
    posting.delete_post("u", post, version=1)
    dynamo_clock.advance(posting.KEY_SECONDS + 2)
    written = []

    def add(self, *args):
        try:
            return real(self, *args)
        except ItemExists:
            if not written:
                written.append(None)
                written[0] = posting.create_post("u", other.id, "text", key="k")
            raise

    monkeypatch.setattr(Tree, "add", add)
    with pytest.raises(posting.KeyUsed) as refused:
        posting.create_post("u", talk.id, "text", key="k")
    assert refused.value.item["postId"] == written[0]["postId"]
    assert refused.value.item["threadId"] == other.id


@pytest.mark.parametrize("is_left", [True, False], ids=["without its text", "not at all"])
def test_a_post_that_was_just_deleted_is_not_returned_for_its_key(
    talk, settings, dynamo_faults, is_left
):
    """Whatever a replica shows."""
    post = posting.create_post("u", talk.id, "text", key="k")
    if is_left:
        posting.create_post("u", talk.id, "reply", parent=post["postId"])
    lagging = {**settings.DYNAMO_STORES["default"], "ENDPOINT_URL": dynamo_faults.url}
    dynamo_faults.lag(300)
    with override_settings(DYNAMO_STORES={"default": lagging}):
        posting.delete_post("u", post, version=1)
        with pytest.raises(posting.KeyUsed) as refused:
            posting.create_post("u", talk.id, "text", key="k")
    assert refused.value.item is None
