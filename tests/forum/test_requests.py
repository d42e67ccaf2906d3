"""Requests that are repeated or have a condition, in DynamoDB and in JSON files."""

from __future__ import annotations

import json
import re

import pytest
from django.contrib.auth import get_user_model

from forum import accounts, posting
from forum.adapters import get_adapter
from forum.api.tokens import make_token
from forum.models import Post

from .test_api import problem

DAY = posting.KEY_SECONDS
pytestmark = [pytest.mark.usefixtures("each_database"), pytest.mark.django_db]


@pytest.fixture
def user(settings):
    """A user without limits."""
    settings.RATELIMIT_ENABLE = False
    return get_user_model().objects.create_user("cleo", "cleo@example.com", "x")


@pytest.fixture
def send(client, user):
    """Send JSON to the API with a token of the user and an Idempotency-Key."""
    token = make_token(user, "test")

    def send(method, path, content=None, key="k", **more):
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key, **more}
        body = "" if content is None else json.dumps(content)
        path = f"/api/{path}"
        return client.generic(method, path, body, content_type="application/json", headers=headers)

    return send


def test_a_post_that_stays_without_its_text_is_deleted(send):
    """410, for its own content and for another, in its thread and in another."""
    thread, other = (send("POST", "threads", {"title": t, "text": t}, t).json() for t in "ab")
    post = {"thread": thread["id"], "text": "first"}
    first = send("POST", "posts", post).json()
    reply = {**post, "parent": first["id"]}
    assert send("POST", "posts", reply, "reply").status_code == 201
    assert send("DELETE", f"posts/{first['id']}?version=1").status_code == 204
    assert send("GET", f"posts/{first['id']}").json()["isDeleted"] is True
    for content in (post, {**post, "text": "other"}, {**post, "thread": other["id"]}):
        assert "was deleted" in problem(send("POST", "posts", content), 410)
    assert len(list(get_adapter(Post).get_all())) == 4


def test_a_form_whose_post_stays_without_its_text_says_so(client, user):
    """And has a new key, which posts it again."""
    client.force_login(user)
    author = accounts.ensure_profile(user)
    thread = posting.create_thread(author, "A title", "A text")["threadId"]
    path, sent = f"/threads/{thread}/reply/", {"text": "first", "once": "k" * 20}
    assert client.post(path, sent).status_code == 302
    [post] = [each for each in get_adapter(Post).get_all() if each["content"] == "first"]
    posting.create_post(author, thread, "reply", parent=post["postId"])
    posting.delete_post(author, post, version=1)
    refused = client.post(path, sent)
    assert refused.status_code == 409
    assert "what it wrote was deleted" in refused.text
    once = re.search(r'name="once" value="([^"]+)"', refused.text)[1]
    assert client.post(path, {**sent, "once": once}).status_code == 302


def test_the_key_of_what_is_deleted_is_known_for_a_day(send, user, dynamo_clock):
    """And then writes again, also if DynamoDB has not deleted its item yet; each time for a day."""
    user.is_staff = True
    user.save()
    content = {"thread": send("POST", "threads", {"title": "a", "text": "b"}, "t").json()["id"]}
    for path, new in (
        ("posts", {**content, "text": "c"}),
        ("threads", {"title": "d", "text": "e"}),
    ):
        for _ in range(2):
            made = send("POST", path, new)
            assert made.status_code == 201
            deleted = send("DELETE", f"{path}/{made.json()['id']}?version=1")
            assert deleted.status_code == 204
            for seconds in (0, DAY):
                dynamo_clock.advance(seconds)
                problem(send("POST", path, new), 410)
            dynamo_clock.advance(2)


def test_a_key_writes_in_another_thread_after_a_day(send, dynamo_clock):
    """In the thread of a post that exists it is always that of this post."""
    threads = [send("POST", "threads", {"title": t, "text": t}, t).json()["id"] for t in "ab"]
    one, other = ({"thread": each, "text": "c"} for each in threads)
    first = send("POST", "posts", one).json()
    problem(send("POST", "posts", other), 422)
    dynamo_clock.advance(DAY + 2)
    second = send("POST", "posts", other)
    assert (second.status_code, second.json()["thread"]) == (201, threads[1])
    for content, made in ((one, first), (other, second.json())):
        assert send("POST", "posts", content).json()["id"] == made["id"]
    assert len(list(get_adapter(Post).get_all())) == 4


def test_a_thread_is_not_deleted_if_it_is_changed_at_the_last_moment(send, user, monkeypatch):
    """Also if its title is the same as before; the next version is deleted."""
    user.is_staff = True
    user.save()
    thread = send("POST", "threads", {"title": "a", "text": "b"}).json()
    path, edits = f"threads/{thread['id']}", []
    condition = {"If-Match": send("GET", path)["ETag"]}
    removals = posting._removals

    def changed_before(*args):
        if not edits:
            edits.append(send("PATCH", f"{path}?version=1", {"title": "a"}).status_code)
        return removals(*args)

    monkeypatch.setattr(posting, "_removals", changed_before)
    problem(send("DELETE", path, **condition), 412)
    assert edits == [200]
    read = send("GET", path)
    assert (read.json()["title"], read.json()["version"]) == ("a", 2)
    assert send("DELETE", path, **{"If-Match": read["ETag"]}).status_code == 204
    assert send("GET", path).status_code == 404
