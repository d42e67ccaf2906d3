"""The header Idempotency-Key of the API: what it writes once, and for how long."""

from __future__ import annotations

import io

import pytest
from django.core.management import call_command

from forum import posting
from forum.adapters import get_adapter, get_database
from forum.models import Post, Support, Thread
from forum.trees import Tree

from .test_api import problem

pytestmark = [pytest.mark.usefixtures("own_tables"), pytest.mark.django_db]


def test_a_repeated_request_writes_once(writer):
    """With the same Idempotency-Key, quoted or not."""
    content = {"title": "Once", "text": "only"}
    one = writer("POST", "/api/threads", content, Idempotency_Key="k")
    two = writer("POST", "/api/threads", content, Idempotency_Key='"k"')
    assert (one.status_code, two.status_code) == (201, 201)
    assert one.json() == two.json()
    post = {"thread": one.json()["id"], "text": "t"}
    first = writer("POST", "/api/posts", post, Idempotency_Key="k").json()
    assert writer("POST", "/api/posts", post, Idempotency_Key="k").json()["id"] == first["id"]
    assert len(list(get_adapter(Post).get_all())) == 2
    problem(writer("POST", "/api/posts", post, Idempotency_Key="k" * 256), 400)
    other = {**post, "text": "another"}
    assert "another content" in problem(
        writer("POST", "/api/posts", other, Idempotency_Key="k"), 422
    )
    for changed in ({"text": "another"}, {"title": "Twice"}):
        other = {**content, **changed}
        problem(writer("POST", "/api/threads", other, Idempotency_Key="k"), 422)


def test_a_key_that_was_used_writes_nothing_again_after_a_deletion(writer, settings):
    """Also while the posts of the thread are still being deleted."""
    settings.RATELIMIT_ENABLE = False
    content = {"title": "Once", "text": "only"}
    thread = writer("POST", "/api/threads", content, Idempotency_Key="k").json()
    post = {"thread": thread["id"], "text": "first"}
    first = writer("POST", "/api/posts", post, Idempotency_Key="k").json()
    assert writer("DELETE", f"/api/posts/{first['id']}?version=1").status_code == 204
    again = writer("POST", "/api/posts", post, Idempotency_Key="k")
    assert "was deleted" in problem(again, 410)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tree, "remove_thread", lambda *args: None)
        posting.delete_thread("staff", get_adapter(Thread).get_by_id(thread["id"]))
    for _ in range(2):
        problem(writer("POST", "/api/threads", content, Idempotency_Key="k"), 410)
        Tree(get_database()).finish_all()
        assert list(get_adapter(Thread).get_all()) == list(get_adapter(Post).get_all()) == []
    problem(writer("POST", "/api/threads", content, Idempotency_Key='""'), 400)
    assert writer("POST", "/api/threads", content, Idempotency_Key="k2").status_code == 201


def test_a_key_in_files_ends_after_a_day(json_files, writer, settings, dynamo_clock):
    """As it does in DynamoDB by TTL; the files do not grow by it."""
    settings.RATELIMIT_ENABLE = False
    thread = writer("POST", "/api/threads", {"title": "a", "text": "b"}).json()
    before = {each["PK"] for each in get_adapter(Support).get_all()}
    post = {"thread": thread["id"], "text": "c"}
    first = writer("POST", "/api/posts", post, Idempotency_Key="k").json()
    assert writer("DELETE", f"/api/posts/{first['id']}?version=1").status_code == 204
    for seconds, status in ((posting.KEY_SECONDS, 410), (2, 201)):
        dynamo_clock.advance(seconds)
        assert writer("POST", "/api/posts", post, Idempotency_Key="k").status_code == status
    written = {each["PK"] for each in get_adapter(Support).get_all()} - before
    assert len([each for each in written if each.startswith("request#")]) == 1
    dynamo_clock.advance(posting.KEY_SECONDS + 2)
    assert {each["PK"] for each in get_adapter(Support).get_all()} == before


def test_a_key_that_was_used_is_known_after_changes(writer, settings):
    """What was renamed, edited or moved comes back for the same content, and only that."""
    settings.RATELIMIT_ENABLE = False
    content = {"title": "Once", "text": "only"}
    thread = writer("POST", "/api/threads", content, Idempotency_Key="k").json()
    post = {"thread": thread["id"], "text": "first"}
    first = writer("POST", "/api/posts", post, Idempotency_Key="k").json()
    below = {**post, "parent": first["id"]}
    reply = writer("POST", "/api/posts", below, Idempotency_Key="r").json()
    changes = [
        ("PATCH", f"/api/threads/{thread['id']}?version=1", {"title": "Renamed"}),
        ("PATCH", f"/api/posts/{first['id']}?version=1", {"text": "edited"}),
    ]
    for method, path, changed in changes:
        assert writer(method, path, changed).status_code == 200
    posting.move_post("staff", thread["id"], reply["id"], None)
    own = {name: value for name, value in below.items() if name != "parent"}
    for path, key, sent, made, other in (
        ("threads", "k", content, thread, {**content, "title": "Renamed"}),
        ("posts", "k", post, first, {**post, "text": "edited"}),
        ("posts", "r", below, reply, own),
    ):
        again = writer("POST", f"/api/{path}", sent, Idempotency_Key=key)
        assert (again.status_code, again.json()["id"]) == (201, made["id"])
        problem(writer("POST", f"/api/{path}", other, Idempotency_Key=key), 422)
    assert "madeFrom" not in again.json()
    assert len(list(get_adapter(Post).get_all())) == 3


def test_a_key_writes_one_post_in_all_threads(writer):
    """Another thread is another content, as a text is; until the post is deleted."""
    one, other = (writer("POST", "/api/threads", {"title": t, "text": t}).json() for t in "ab")
    posts = [{"thread": thread["id"], "text": "x"} for thread in (one, other)]
    first = writer("POST", "/api/posts", posts[0], Idempotency_Key="k").json()
    problem(writer("POST", "/api/posts", posts[1], Idempotency_Key="k"), 422)
    again = writer("POST", "/api/posts", posts[0], Idempotency_Key="k")
    assert (again.status_code, again.json()["id"]) == (201, first["id"])
    assert len(list(get_adapter(Post).get_all())) == 3
    assert writer("DELETE", f"/api/posts/{first['id']}?version=1").status_code == 204
    for post in posts:
        problem(writer("POST", "/api/posts", post, Idempotency_Key="k"), 410)


def test_a_digest_is_not_exported(writer, tmp_path):
    """The export has no trace of keys; it comes back beside what was written with one."""
    thread = writer("POST", "/api/threads", {"title": "a", "text": "b"}, Idempotency_Key="k").json()
    writer("POST", "/api/posts", {"thread": thread["id"], "text": "c"}, Idempotency_Key="k")
    assert all("madeFrom" in item for item in get_adapter(Thread).get_all())
    paths = {name: tmp_path / f"{name}.json" for name in ("users", "threads", "posts")}
    call_command("forum_export", **paths, stdout=io.StringIO())
    assert "madeFrom" not in "".join(path.read_text() for path in paths.values())
    call_command("forum_migrate", **paths, stdout=io.StringIO())
    call_command("forum_verify", stdout=io.StringIO())
