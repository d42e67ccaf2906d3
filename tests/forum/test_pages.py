"""The forum's commands and pages, on a real engine."""

from __future__ import annotations

import io
import re
import secrets
from collections import Counter
from html import unescape

import pytest
from django.core.cache import cache
from django.core.management import CommandError, call_command

from dynamo_stores.calls.observer import measuring
from forum.models import Post, Thread, User

pytestmark = pytest.mark.usefixtures("forum")


@pytest.fixture
def forum(alias, settings):
    """Forum tables of this test's own, empty."""
    from dynamo_stores.calls.control import get_control
    from dynamo_stores.infrastructure.tables import wanted_tables

    default = settings.DYNAMO_STORES["default"]
    prefix = f"forum-{secrets.token_hex(4)}-"
    settings.DYNAMO_STORES = {"default": {**default, "TABLE_PREFIX": prefix}}
    call_command("dynamo_create_tables", stdout=io.StringIO())
    specs = wanted_tables()
    yield
    for spec in specs:
        get_control().call("DeleteTable", {"TableName": spec.name})


def migrate(paths):
    """Return what forum_migrate printed."""
    out = io.StringIO()
    call_command("forum_migrate", **paths, stdout=out)
    return out.getvalue()


def operations(client, path):
    """Return the answer to a GET of ``path`` and the operations that it took."""
    with measuring() as measurements:
        response = client.get(path)
    tables = Counter((each.operation, each.table.rpartition("-")[2]) for each in measurements)
    return response, tables


def test_migration_writes_all_and_a_second_run_changes_nothing(write):
    """According to the printed counts and the writes."""
    assert migrate(write()) == (
        "users: 2 written, 0 unchanged\nthreads: 2 written, 0 unchanged\n"
        "posts: 4 written, 0 unchanged\n"
    )
    before = [item.serialize() for model in (User, Thread, Post) for item in model.scan()]
    with measuring() as measurements:
        assert migrate(write()).count("0 written") == 3
    written = {each.table for each in measurements if each.operation == "BatchWriteItem"}
    assert written <= {f"{User.Meta.table_name.removesuffix('forum-users')}dynamo-stores"}
    after = [item.serialize() for model in (User, Thread, Post) for item in model.scan()]
    assert len(before) == 8
    assert sorted(map(str, before)) == sorted(map(str, after))


def test_nothing_is_written_when_anything_is_wrong(write):
    """With one dangling post not even the users are written."""
    with pytest.raises(CommandError, match=r"The files were not imported:\n.*posts\.json, row 1"):
        migrate(write(posts=[{"thread": "none", "user": "u1", "text": "x"}]))
    assert [User.count(), Thread.count(), Post.count()] == [0, 0, 0] or (
        not list(User.scan()) and not list(Thread.scan()) and not list(Post.scan())
    )


def test_many_rows(write, client):
    """Hundreds of threads, all listed, newest first."""
    threads = [{"id": n, "title": f"Thread {n}", "createdBy": "u1"} for n in range(300)]
    migrate(write(threads=threads, posts=[]))
    titles = re.findall(r'<a href="/threads/\d+/">(Thread \d+)</a>', client.get("/").text)
    assert titles == [f"Thread {n}" for n in reversed(range(300))]


def test_the_front_page(write, client):
    """
    One Query, then from the cache; titles escaped, newest first. Beside the cache's calls: a write
    for the visitor's limit, and for the reads' one, whose first allocation is read before.
    """
    migrate(write())
    response, calls = operations(client, "/")
    assert response["X-Cache"] == "miss"
    assert calls == {
        ("GetItem", "stores"): 2,
        ("UpdateItem", "stores"): 2,
        ("Query", "threads"): 1,
        ("PutItem", "stores"): 1,
    }
    titles = re.findall(r'<a href="/threads/[^"]+">([^<]+)</a>', response.text)
    assert titles == ["Second &amp; last", "First &lt;thread&gt;"]
    response, calls = operations(client, "/")
    assert response["X-Cache"] == "hit"
    assert calls == {("GetItem", "stores"): 1, ("UpdateItem", "stores"): 1}
    assert [*map(unescape, re.findall(r'<a href="/threads/[^"]+">([^<]+)</a>', response.text))] == [
        "Second & last",
        "First <thread>",
    ]


def test_a_thread(write, client):
    """Posts in order with their authors, in three calls, and only what is shown."""
    migrate(write())
    with measuring() as measurements:
        response = client.get("/threads/t1/")
    reads = [each for each in measurements if not each.table.endswith("dynamo-stores")]
    assert sorted(each.operation for each in reads) == ["BatchGetItem", "GetItem", "Query"]
    authors = re.findall(r"<b>(\w+)</b>", response.text)
    texts = re.findall(r"<p>(\w+)</p>", response.text)
    assert list(zip(authors, texts, strict=True)) == [
        ("Ada", "one"),
        ("Bo", "two"),
        ("Ada", "three"),
    ]
    response, calls = operations(client, "/threads/t1/")
    assert response["X-Cache"] == "hit"
    assert calls == {("GetItem", "stores"): 1, ("UpdateItem", "stores"): 1}


def test_a_thread_that_is_not_there(write, client):
    """404, not cached; also for a page that starts at an invalid time."""
    assert client.get("/threads/none/").status_code == 404
    assert client.get("/?before=x").status_code == 404
    migrate(write())
    assert client.get("/threads/t1/").status_code == 200


def test_pages_show_a_migration_at_once(write, client):
    """Pages that were cached before are deleted."""
    assert "There are no threads yet" in client.get("/").text
    migrate(write())
    assert "Second &amp; last" in client.get("/").text


def test_odd_thread_ids(write, client):
    """Slashes, spaces and other alphabets in an id make a working link."""
    odd = ["a/b", "a b", "ü", "?x=1", "#", "%2F"]
    threads = [{"id": each, "title": f"T {n}"} for n, each in enumerate(odd)]
    migrate(write(threads=threads, posts=[]))
    links = re.findall(r'<a href="(/threads/[^"]+)">', client.get("/").text)
    assert len(links) == len(odd)
    for link in links:
        assert client.get(unescape(link)).status_code == 200


def test_long_threads_are_paged(write, client):
    """The next page starts where this one ends."""
    posts = [{"thread": "t1", "user": "u1", "text": f"p{n}"} for n in range(250)]
    migrate(write(posts=posts))
    first = client.get("/threads/t1/").text
    link = re.search(r'rel="next" href="([^"]+)"', first).group(1)
    second = client.get("/threads/t1/" + unescape(link)).text
    shown = re.findall(r"<p>(p\d+)</p>", first) + re.findall(r"<p>(p\d+)</p>", second)
    assert shown == [f"p{n}" for n in range(250)]
    assert 'rel="next"' not in second


def test_only_reading_is_allowed(client):
    """The pages are public and read-only."""
    assert client.post("/").status_code == 405
    assert client.head("/").status_code == 200


def test_the_sample_forum(client):
    """It is part of the project and can be imported."""
    call_command("forum_seed", stdout=io.StringIO())
    assert "Why we left our Redis for a table" in client.get("/").text
    cache.clear()
