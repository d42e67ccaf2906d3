"""The pages of the API's lists, in DynamoDB and in JSON files."""

from __future__ import annotations

import json
import re
import secrets
from urllib.parse import quote

import pytest

from forum.adapters import get_adapter
from forum.models import Post

pytestmark = pytest.mark.django_db

MB = 1_000_000
# Six bytes of JSON for a character, so that a row has 300 KB.
LARGE = "ä" * 50_000
LISTS = (
    *("users", "threads", "threads?newest=true", "posts"),
    *("posts/in-thread/t0", "posts/by-user/u0"),
)


def pages_of(client, path):
    """Return the contents of all pages of a list."""
    found, path = [], f"/api/{path}"
    while path:
        response = client.get(path)
        assert response.status_code == 200
        found.append(response.content)
        link = re.fullmatch(r'<http://testserver(/[^>]+)>; rel="next"', response.get("Link", ""))
        path = link and link[1]
    return found


@pytest.mark.parametrize("listing", ["users", "threads", "posts", "posts/in-thread/t1"])
def test_lists_have_pages(each_database, client, migrate, listing):
    """The header Link leads through all of them, each once."""
    migrate()
    expected = client.get(f"/api/{listing}").json()
    rows, path, pages = [], f"/api/{listing}?limit=1", 0
    while path:
        response = client.get(path)
        rows += response.json()
        pages += 1
        found = re.fullmatch(
            r'<http://testserver(/[^>]+)>; rel="next"', response.headers.get("Link", "<>")
        )
        path = found and found[1]
    assert len(expected) <= pages <= len(expected) + 1
    assert sorted(rows, key=str) == sorted(expected, key=str)


@pytest.mark.parametrize("thread_id", ["a#b", "q?x=1", "100%25", "a b", "ä"])
def test_the_next_page_of_any_id_is_of_the_same_list(each_database, client, migrate, thread_id):
    """Characters of an id are quoted in the link."""
    threads = [{"id": each, "title": "t", "createdBy": "u1"} for each in (thread_id, "a", "q")]
    migrate(threads=threads, posts=[
        {"thread": each["id"], "user": "u1", "text": f"{each['id']} {n}"}
        for each in threads for n in range(3)
    ])  # fmt: skip
    texts, path = [], f"/api/posts/in-thread/{quote(thread_id)}?limit=2"
    while path:
        response = client.get(path)
        texts += [row["text"] for row in response.json()]
        link = re.match("<(.*)>", response.get("Link", ""))
        path = link and link[1].removeprefix("http://testserver")
    assert texts == [f"{thread_id} {n}" for n in range(3)]


def test_pages_of_large_rows_end_early(each_database, migrate, client):
    """By the row with which a page has 1 MB; all rows are in one of them, in their order."""
    texts = [LARGE if n % 3 else "x" for n in range(14)]
    users = [{"id": f"u{n}", "name": "x", "bio": text} for n, text in enumerate(texts)]
    migrate(
        users=users,
        threads=[
            {"id": f"t{n}", "title": "x", "createdBy": f"u{n}", "description": text}
            for n, text in enumerate(texts)
        ],
        posts=[
            {"id": f"p{n}", "thread": "t0", "user": "u0", "text": text}
            for n, text in enumerate(texts)
        ],
    )
    for path in LISTS:
        pages = pages_of(client, path)
        rows = [json.loads(page) for page in pages]
        largest = max(len(json.dumps(row)) for page in rows for row in page)
        assert len(pages) >= 3, path
        assert [page for page in pages if len(page) > MB + largest] == []
        ids = [row["id"] for page in rows for row in page]
        expected = [f"{path[0]}{n}" for n in range(14)]
        if path in ("users", "posts"):
            # By a Scan, each page of which is sorted by time.
            assert sorted(ids) == sorted(expected)
            assert all(page == sorted(page, key=lambda row: row["createdAt"]) for page in rows)
        else:
            assert ids == (expected[::-1] if "newest" in path else expected)


def test_a_page_of_one_row_that_is_larger(each_database, migrate, client):
    """A page ends with it; rows that fit are on one page."""
    posts = [
        {"thread": "t1", "user": 2, "text": text}
        for text in ("x", "\x01" * 200_000, "\x01" * 200_000, "x", "x")
    ]
    migrate(posts=posts)
    for path in ("posts/in-thread/t1", "posts/by-user/2"):
        rows = [len(json.loads(page)) for page in pages_of(client, path)]
        assert rows == [2, 1, 2]


def test_pages_of_large_rows_read_little_more_than_they_have(
    each_database, migrate, client, monkeypatch
):
    """Not all that would be on a page of small ones, and those again for the next page."""
    posts = [
        {"id": f"p{n}", "thread": "t1", "user": 2, "text": secrets.token_hex(20_000)}
        for n in range(100)
    ]
    migrate(posts=posts)
    adapter, keys = type(get_adapter(Post)), []
    get_many = adapter.get_many

    def counted(self, wanted, **options):
        wanted = list(wanted)
        if self.table.name == get_adapter(Post).table.name:
            keys.extend(wanted)
        return get_many(self, wanted, **options)

    monkeypatch.setattr(adapter, "get_many", counted)
    for path in ("posts/in-thread/t1", "posts/by-user/2"):
        assert len(pages_of(client, path)) in (4, 5)
        assert 100 <= len(keys) <= 130
        keys.clear()
