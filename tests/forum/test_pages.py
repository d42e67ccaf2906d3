"""The forum's commands and pages, on a real engine."""

from __future__ import annotations

import io
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from html import unescape
from urllib.parse import urljoin

import pytest
from django.core.cache import cache, caches
from django.core.management import CommandError, call_command
from django.test import Client, RequestFactory, override_settings
from django.views.defaults import server_error

from dynamo_stores.calls.observer import measuring
from forum import accounts, times
from forum.adapters import get_adapter
from forum.forms import PostForm
from forum.models import LISTING, Post, Support, Thread, User
from forum.templatetags.forum import initials

pytestmark = pytest.mark.usefixtures("own_tables")


def stored():
    """All items of the forum."""
    models = (User, Thread, Post, Support)
    return sorted((item for each in models for item in get_adapter(each).get_all()), key=str)


def operations(client, path):
    """Return the answer to a GET of ``path`` and the operations that it took."""
    with measuring() as measurements:
        response = client.get(path)
    tables = Counter((each.operation, each.table.rpartition("-")[2]) for each in measurements)
    return response, tables


def test_migration_writes_all_and_a_second_run_changes_nothing(migrate):
    """According to the printed counts and the writes."""
    assert migrate() == (
        "names: 2 written, 0 unchanged\nusers: 2 written, 0 unchanged\n"
        "posts: 4 written, 0 unchanged\nplaces: 4 written, 0 unchanged\n"
        "words: 4 written, 0 unchanged\nthreads: 2 written, 0 unchanged\n"
        "All of it was read again and is as in the files.\n"
    )
    before = stored()
    with measuring() as measurements:
        assert migrate().count("0 written") == 6
    own = [each for each in measurements if not each.table.endswith("dynamo-stores")]
    assert {each.operation for each in own} == {"BatchGetItem"}
    assert len(before) == 18
    assert stored() == before


def test_nothing_is_written_when_anything_is_wrong(migrate):
    """With one dangling post not even the users are written."""
    with pytest.raises(CommandError, match=r"The files were not imported:\n.*posts\.json, row 1"):
        migrate(posts=[{"thread": "none", "user": "u1", "text": "x"}])
    assert stored() == []


def test_many_rows(migrate, client):
    """Hundreds of threads, all listed, newest first."""
    threads = [{"id": n, "title": f"Thread {n}", "createdBy": "u1"} for n in range(300)]
    migrate(threads=threads, posts=[])
    titles, link = [], "/"
    while link:
        text = client.get(link).text
        titles += re.findall(r'<a href="/threads/\d+/">(Thread \d+)</a>', text)
        following = re.search(r'rel="next" href="([^"]+)"', text)
        link = following and "/" + unescape(following[1])
    assert titles == [f"Thread {n}" for n in reversed(range(300))]


def test_the_front_page(migrate, client):
    """
    A Query and a BatchGetItem of threads and one of authors, then from the cache; titles escaped,
    newest first. Beside the calls of the caches: a write for the visitor's limit, and for the
    reads' one, whose first allocation is read before.
    """
    migrate()
    response, calls = operations(client, "/")
    assert response["X-Cache"] == "miss"
    assert calls == {
        ("GetItem", "stores"): 2,
        ("UpdateItem", "stores"): 2,
        ("Query", "threads"): 1,
        ("BatchGetItem", "threads"): 1,
        ("BatchGetItem", "stores"): 1,
        ("BatchGetItem", "users"): 1,
        ("BatchWriteItem", "stores"): 1,
        ("PutItem", "stores"): 1,
    }
    titles = re.findall(r'<a href="/threads/[^"]+">([^<]+)</a>', response.text)
    assert titles == ["Second &amp; last", "First &lt;thread&gt;"]
    response, calls = operations(client, "/")
    assert response["X-Cache"] == "hit"
    # The near tier has the page.
    assert calls == {("UpdateItem", "stores"): 1}
    assert [*map(unescape, re.findall(r'<a href="/threads/[^"]+">([^<]+)</a>', response.text))] == [
        "Second & last",
        "First <thread>",
    ]


def test_a_thread(migrate, client):
    """
    Posts in order with their authors: the thread before and after, a Query of the tree, the posts
    and the authors; from the cache only the thread.
    """
    migrate()
    with measuring() as measurements:
        response = client.get("/threads/t1/")
    reads = [each for each in measurements if not each.table.endswith("dynamo-stores")]
    assert sorted((each.operation, each.table.rpartition("-")[2]) for each in reads) == [
        ("BatchGetItem", "posts"),
        ("BatchGetItem", "users"),
        ("GetItem", "threads"),
        ("GetItem", "threads"),
        ("Query", "support"),
    ]
    authors = re.findall(r"<b>(\w+)</b>", response.text)
    texts = re.findall(r"<p>(\w+)</p>", response.text)
    assert list(zip(authors, texts, strict=True)) == [
        ("Ada", "one"),
        ("Bo", "two"),
        ("Ada", "three"),
    ]
    response, calls = operations(client, "/threads/t1/")
    assert response["X-Cache"] == "hit"
    assert calls == {("GetItem", "threads"): 1, ("UpdateItem", "stores"): 1}


def test_the_page_of_a_user(migrate, client):
    """Two BatchGetItem of posts and titles after the Query; from the cache without them."""
    migrate()
    client.get("/users/u1/")
    cache.clear()
    response, calls = operations(client, "/users/u1/")
    assert calls == {
        ("Query", "posts"): 1,
        ("BatchGetItem", "posts"): 1,
        ("BatchGetItem", "threads"): 1,
        # The page in the cache and two limits.
        ("GetItem", "stores"): 1,
        ("PutItem", "stores"): 1,
        ("UpdateItem", "stores"): 2,
    }
    assert re.findall(r"<p>(one|three)</p>", response.text) == ["three", "one"]
    assert ">Ada</h1>" in response.text
    response, calls = operations(client, "/users/u1/")
    assert (response["X-Cache"], calls) == ("hit", {("UpdateItem", "stores"): 1})
    assert client.get("/users/none/").status_code == 404


def test_the_page_of_a_post(migrate, client):
    """As a thread, and a GetItem of the post."""
    migrate()
    path = re.search(r'class="time" href="([^"]+)"', client.get("/threads/t1/").text)[1]
    response, calls = operations(client, path)
    assert {key: n for key, n in calls.items() if key[1] != "stores"} == {
        ("GetItem", "threads"): 2,
        ("GetItem", "posts"): 1,
        ("Query", "support"): 1,
    }
    assert re.findall(r"<p>(one|two|three)</p>", response.text) == ["one"]
    assert client.get("/threads/t1/posts/none/").status_code == 404
    assert client.get(path.replace("/t1/", "/t2/")).status_code == 404


def test_a_search(migrate, client):
    """A Query of the words and a BatchGetItem of the threads."""
    migrate()
    client.get("/")
    response, calls = operations(client, "/search/?q=first+thr")
    assert "First &lt;thread&gt;" in response.text
    assert calls == {
        ("Query", "support"): 1,
        ("BatchGetItem", "threads"): 1,
        ("UpdateItem", "stores"): 1,
    }


def test_a_changed_name_is_on_pages_of_the_cache(migrate, client):
    """Authors are not kept with a page."""
    migrate()
    for path in ("/", "/threads/t1/", "/users/u1/"):
        client.get(path)
    accounts.edit_profile("u1", name="Countess", bio="", version=1)
    for path in ("/", "/threads/t1/", "/users/u1/"):
        response = client.get(path)
        assert response["X-Cache"] == "hit"
        assert "Countess" in response.text


def test_every_page_has_the_policy(migrate, client, settings):
    """Also those for errors, and what no view answers; pages of others have their own."""
    migrate()
    paths = {
        "/": 200, "/threads/t1/": 200, "/users/u1/": 200, "/search/": 200, "/sign-up/": 200,
        "/login/": 200, "/threads/none/": 404, "/password-reset/": 200, "/password-reset/x/y/": 200,
        f"/threads/{'x' * 1025}/": 404, "/nothing": 404, "/threads/a~b/": 404,
    }  # fmt: skip
    for path, status in paths.items():
        response = client.get(path)
        assert (response.status_code, response["Content-Security-Policy"]) == (
            status,
            "default-src 'self'",
        )
        assert 'href="#content"' in response.text
    assert "Content-Security-Policy" not in client.get("/admin/login/")
    settings.DEBUG = True
    assert "There is no such thread" in client.get("/threads/none/").text
    for path in ("/nothing", "/users/nobody", f"/users/{'x' * 1025}/"):
        response = client.get(path, follow=True)
        assert (response.status_code, response["Content-Security-Policy"]) == (
            404,
            "default-src 'self'",
        )
        assert 'href="#content"' in response.text
    assert client.get("/login")["Location"] == "/login/"
    for path in ("/admin/nothing/", "/api/nothing", "/dynamo-stores/nothing/"):
        assert "Content-Security-Policy" not in client.get(path)
    assert "DEBUG = True" in client.get("/dynamo-stores/nothing/").text


def test_pages_of_django_for_errors(client):
    """A form without its token, and an error of the server, which has no user."""
    strict = Client(enforce_csrf_checks=True)
    refused = strict.post("/login/", {"username": "x"})
    assert (refused.status_code, refused["Content-Security-Policy"]) == (
        403,
        "default-src 'self'",
    )
    assert "This form is too old" in refused.text
    failed = server_error(RequestFactory().get("/"))
    assert failed.status_code == 500
    assert "Something went wrong" in failed.text
    assert 'class="brand" href="/"' in failed.text
    assert "Log in" not in failed.text


def test_a_form_without_its_token_is_kept(admin_user):
    """If it is of this site: with a new token, to be sent again. A form of another site is not."""
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(admin_user)
    form = {"title": "A title", "text": "a <text>", "once": "key"}

    def send(path="/new/", **fields):
        headers = {"Origin": fields.pop("origin", "http://testserver")}
        return strict.post(path, {**form, **fields}, headers=headers)

    kept = send(csrfmiddlewaretoken="old")
    assert kept.status_code == 403
    assert "a &lt;text&gt;</textarea>" in kept.text
    assert 'name="once" value="key"' in kept.text
    assert "Send it again" in kept.text
    for refused in (
        send(origin="https://example.com"),
        send(origin="null"),
        strict.post("/new/", form),
        send("/admin/auth/user/add/"),
    ):
        assert refused.status_code == 403
        assert "Send it again" not in refused.text
        assert "&lt;text&gt;" not in refused.text
    token = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', send().text)[-1]
    assert send(csrfmiddlewaretoken=token).status_code == 302


def test_clients_of_an_api_get_no_page(migrate, client, settings):
    """Their 503 is the sentence of the library."""
    default = settings.DYNAMO_STORES["default"]
    away = {**default, "ENDPOINT_URL": "http://127.0.0.1:9", "RETRY": {"MAX_RETRIES": 0}}
    with override_settings(DYNAMO_STORES={"default": away}):
        for kind, expected in (("application/json", "text/plain"), ("*/*", "text/html")):
            response = client.get("/threads/t1/", headers={"Accept": kind})
            assert response.status_code == 503
            assert response["Content-Type"].startswith(expected)


def test_times_are_relative_and_exact(migrate, client, dynamo_clock):
    """The exact time is in the title of the element."""
    migrate()
    text = client.get("/threads/t1/").text
    exact = "1 January 2024, 00:00:01 UTC"
    assert f'<time datetime="2024-01-01T00:00:01+00:00" title="{exact}">1 January 2024<' in text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "just now"), (44, "just now"), (59, "1 minute ago"), (119, "1 minute ago"),
        (7200, "2 hours ago"), (86_400, "1 day ago"), (29.9 * 86_400, "29 days ago"),
        (30 * 86_400, "1 June 2024"),
    ],
)  # fmt: skip
def test_how_long_ago(seconds, words):
    """In the largest unit, and the day from a month on."""
    moment = datetime(2024, 6, 1, tzinfo=UTC)
    assert times.ago(moment, moment + timedelta(seconds=seconds)) == words


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Ada Lovelace", "AL"), ("ada", "A"), ("- x", "X"), ("", "?"), ("!", "!"),
        ("\u0645\u0646\u0649 \u0627\u0644\u062e\u0637\u064a\u0628", "\u0645"),
        ("\u05d3\u05e0\u05d4 \u05dc\u05d5\u05d9", "\u05d3\u05dc"),
    ],
)  # fmt: skip
def test_initials(name, expected):
    """Of the first and the last word; one letter in a script that joins them, as Arabic."""
    assert initials(name) == expected


def test_names_and_texts_have_a_direction_of_their_own(migrate, client):
    """Names and titles within a line are isolated; texts and headings begin on their own side."""
    migrate(posts=[{"thread": "t1", "user": "u1", "text": "one"}])
    assert '<bdi><a href="/users/u1/">Ada</a></bdi>, ' in client.get("/").text
    text = client.get("/threads/t1/").text
    for part in (
        '<h1 dir="auto">First', '<bdi><a class="author" href="/users/u1/"><b>Ada</b></a></bdi>',
        'Started by <bdi><a href="/users/u1/">Ada</a></bdi>, ', '<div class="text" dir="auto">',
    ):  # fmt: skip
        assert part in text
    assert '<h1 dir="auto">Ada</h1>' in client.get("/users/u1/").text


CODE = "    if x:\n        y\n\n\n    z"


def test_texts_keep_their_indentation(migrate, client):
    """Spaces and empty lines, also of the first line; empty lines around are left out."""
    migrate(
        users=[{"id": "u1", "username": "ada", "name": "Ada", "bio": CODE}],
        threads=[{"id": "t1", "title": "T", "createdBy": "u1"}],
        posts=[{"thread": "t1", "user": "u1", "text": CODE}],
    )
    for path in ("/threads/t1/", "/users/u1/"):
        assert f"<p>{CODE}</p>" in client.get(path).text
    form = PostForm({"text": f"\r\n  \r\n{CODE}\n \n"})
    assert form.is_valid()
    assert form.cleaned_data["text"] == CODE
    assert not PostForm({"text": " \n "}).is_valid()


def test_what_the_cache_did_is_for_the_staff(migrate, client, admin_client):
    """Others are not told in the page."""
    migrate()
    assert "read from the forum" in admin_client.get("/").text
    assert "from the cache" in admin_client.get("/").text
    assert "Staff:" not in client.get("/").text


def test_an_outage(migrate, client, settings, dynamo_clock, dynamo_faults):
    """What the process has is shown with its age; other pages are 503 and say when to try again."""
    default = settings.DYNAMO_STORES["default"]
    relayed = {**default, "ENDPOINT_URL": dynamo_faults.url, "RETRY": {"MAX_RETRIES": 0}}
    with override_settings(DYNAMO_STORES={"default": relayed}):
        migrate()
        known = {"/": "First &lt;thread&gt;", "/threads/t1/": "<p>one</p>", "/users/u1/": "three"}
        for path in known:
            client.get(path)
        dynamo_clock.advance(90)
        dynamo_faults.fail()
        for path, content in known.items():
            response = client.get(path)
            assert response.status_code == 200
            assert "This page is as it was 1 minute ago" in response.text
            assert content in response.text
        for path in ("/threads/t2/", "/users/2/", "/search/?q=first"):
            response = client.get(path)
            assert response.status_code == 503
            assert int(response["Retry-After"]) >= 1
            assert "The forum is not available at the moment" in response.text
        dynamo_faults.clear()
        dynamo_clock.advance(60)
        assert "This page is as it was" not in client.get("/").text


def test_known_authors_are_shown_during_an_outage(migrate, client, settings, dynamo_faults):
    """Also beside one whom the process does not know."""
    default = settings.DYNAMO_STORES["default"]
    relayed = {**default, "ENDPOINT_URL": dynamo_faults.url, "RETRY": {"MAX_RETRIES": 0}}
    with override_settings(DYNAMO_STORES={"default": relayed}):
        migrate()
        client.get("/")
        caches["profiles"].delete("2")
        dynamo_faults.fail()
        page = client.get("/").text
    assert "Ada" in page
    assert "Bo" not in page


def test_a_thread_that_is_not_there(migrate, client):
    """404, not cached; also for a page that starts at an invalid time."""
    assert client.get("/threads/none/").status_code == 404
    assert client.get("/?after=x").status_code == 404
    migrate()
    assert client.get("/threads/t1/").status_code == 200


def test_pages_show_a_migration_at_once(migrate, client):
    """Pages that were cached before are deleted."""
    assert "There are no threads yet" in client.get("/").text
    migrate()
    assert "Second &amp; last" in client.get("/").text


def test_odd_thread_ids(migrate, client):
    """Slashes, spaces and other alphabets in an id make a working link."""
    odd = ["a/b", "a b", "ü", "?x=1", "#", "%2F", "~1", ".", "..", "a/posts/b", "x/reply"]
    threads = [{"id": each, "title": f"T {n}"} for n, each in enumerate(odd)]
    migrate(threads=threads, posts=[])
    found = re.findall(r'<a href="(/threads/[^"]+)">([^<]+)<', client.get("/").text)
    titles, links = dict(found), [link for link, _ in found]
    assert len(links) == len(odd)
    for link in links:
        page = client.get(unescape(link))
        assert page.status_code == 200
        assert f">{titles[link]}</h1>" in page.text


def test_long_threads_are_paged(migrate, client):
    """The next page starts where this one ends."""
    posts = [{"thread": "t1", "user": "u1", "text": f"p{n}"} for n in range(250)]
    migrate(posts=posts)
    shown, link = [], "/threads/t1/"
    while link:
        text = client.get(link).text
        shown += re.findall(r"<p>(p\d+)</p>", text)
        following = re.search(r'rel="next" href="([^"]+)"', text)
        link = following and "/threads/t1/" + unescape(following[1])
    assert shown == [f"p{n}" for n in range(250)]


def test_searches_and_users_are_paged(migrate, client):
    """All threads are found, and all posts of a user, each once."""
    threads = [{"id": n, "title": f"Thread {n}", "createdBy": "u1"} for n in range(60)]
    posts = [{"thread": n, "user": "u1", "text": f"p{n}"} for n in range(60)]
    migrate(threads=threads, posts=posts)
    for path, pattern, pages in (
        ("/search/?q=thr", r">Thread (\d+)</a>", 3),
        ("/users/u1/", r"<p>p(\d+)</p>", 2),
    ):
        shown, link = [], path
        while link:
            text = client.get(link).text
            shown.append(re.findall(pattern, text))
            following = re.search(r'rel="next" href="([^"]+)"', text)
            link = following and urljoin(path, unescape(following[1]))
        assert len(shown) == pages
        assert sorted((each for some in shown for each in some), key=int) == [
            str(n) for n in range(60)
        ]


def test_who_may_write_is_told_how(client, admin_client):
    """A thread without posts asks visitors to log in, and commands are for the staff."""
    for each, shown in ((client, False), (admin_client, True)):
        assert ("forum_seed" in each.get("/").text) == shown
    now = times.now()
    thread = {"threadId": "t1", "title": "T", "createdAt": now, "listing": LISTING, "version": 1}
    get_adapter(Thread).create(thread)
    assert "Write the first one below" in admin_client.get("/threads/t1/").text
    assert "to write the first one" in client.get("/threads/t1/").text
    assert "Write the first one below" not in client.get("/threads/t1/").text


def test_only_reading_is_allowed(client):
    """The pages are public and read-only."""
    assert client.post("/").status_code == 405
    assert client.head("/").status_code == 200


def test_the_sample_forum(client):
    """It is part of the project and can be imported."""
    call_command("forum_seed", stdout=io.StringIO())
    assert "Why we left our Redis for a table" in client.get("/").text
    cache.clear()
