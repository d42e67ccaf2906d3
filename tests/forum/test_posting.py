"""Posting by users: limits, and repeated requests."""

from __future__ import annotations

import re
import secrets

import pytest
from django.contrib.auth import get_user_model

from dynamo_stores.calls.observer import measuring
from dynamo_stores.stores import AdaptiveRateLimitStore
from forum import services, tasks
from forum.models import Post, Thread, User

from .test_pages import forum, migrate  # noqa: F401 - a fixture

pytestmark = [pytest.mark.usefixtures("forum", "dynamo_clock"), pytest.mark.django_db]


@pytest.fixture
def ada(client):
    """A client that is logged in."""
    user = get_user_model().objects.create_user(
        username=f"ada-{secrets.token_hex(4)}", first_name="Ada", last_name="<Lovelace>"
    )
    client.force_login(user)
    return client


def start(client, key=None, **fields):
    headers = {"Idempotency-Key": key, "Accept": "application/json"} if key else {}
    return client.post("/new/", {"title": "A title", "text": "A text", **fields}, headers=headers)


def test_a_thread_is_started(ada):
    """With its first post and its author, in one transaction; the pages show it at once."""
    assert ada.get("/").status_code == 200
    with measuring() as measurements:
        response = start(ada)
    assert [each.operation for each in measurements].count("TransactWriteItems") == 1
    assert response.status_code == 302
    page = ada.get(response["Location"])
    assert "<h1>A title</h1>" in page.text
    assert "<b>Ada &lt;Lovelace&gt;</b>" in page.text
    assert "A title" in ada.get("/").text


def test_the_same_form_sent_twice_starts_one_thread(ada):
    """By the page's own key, and by the header."""
    once = re.search(r'name="once" value="([^"]+)"', ada.get("/new/").text).group(1)
    first, again = start(ada, once=once), start(ada, once=once)
    assert first["Location"] == again["Location"]
    assert again["Idempotency-Replayed"] == "true"
    key = secrets.token_hex(8)
    first, again = start(ada, key), start(ada, key)
    assert (first.status_code, again.json()) == (201, first.json())
    assert start(ada, key, title="Another").status_code == 422
    assert len(list(Thread.scan())) == 2


def test_replies(ada):
    """They are shown in their order; a thread that does not exist gets none."""
    path = start(ada)["Location"]
    for text in ("first", "second"):
        assert ada.post(f"{path}reply/", {"text": text}).status_code == 302
    assert re.findall(r"<p>(first|second)</p>", ada.get(path).text) == ["first", "second"]
    assert ada.post("/threads/none/reply/", {"text": "x"}).status_code == 404
    assert len(list(Post.scan())) == 3
    assert len(list(User.scan())) == 1


def test_errors_are_shown(ada):
    """In the form, with status 400, and nothing is written."""
    response = start(ada, title="")
    assert response.status_code == 400
    assert "This field is required." in response.text
    path = start(ada)["Location"]
    assert ada.post(f"{path}reply/", {"text": " "}).status_code == 400
    assert ada.post(f"{path}reply/", {"text": "x" * 20_001}).status_code == 400
    assert len(list(Post.scan())) == 1


def test_posting_is_limited_per_user(ada, client, dynamo_clock):
    """Ten a minute, threads and replies together; 429 has the time to wait."""
    path = start(ada)["Location"]
    codes = [ada.post(f"{path}reply/", {"text": f"r{n}"}).status_code for n in range(11)]
    assert codes == [302] * 9 + [429] * 2
    refused = start(ada)
    assert refused.status_code == 429
    wait = int(refused["Retry-After"])
    assert ada.get(path).status_code == 200
    dynamo_clock.advance(wait)
    assert start(ada).status_code == 302


def test_only_users_write(client):
    """Others are redirected to the log-in page, which exists."""
    for path in ("/new/", "/threads/x/reply/"):
        response = client.post(path, {"title": "x", "text": "x"})
        assert response["Location"].startswith("/login/?next=")
    assert client.get("/login/?next=/new/").status_code == 200
    assert "Log in" in client.get("/").text


def test_searching(write, client, dynamo_clock):
    """All words, in any case; limited per address."""
    migrate(write())
    assert "First &lt;thread&gt;" in client.get("/search/?q=FIRST+thread").text
    assert "No title contains all" in client.get("/search/?q=first+nothing").text
    assert client.get("/search/").status_code == 200
    codes = [client.get("/search/?q=x").status_code for _ in range(30)]
    assert codes == [200] * 27 + [429] * 3
    assert client.get("/").status_code == 200


def test_background_work_leaves_capacity_for_visitors(write, client, dynamo_clock):
    """It reads pages within its share; visitors are served while it is refused."""
    migrate(write())
    assert tasks.warm_pages() == 2
    assert client.get("/threads/t1/")["X-Cache"] == "hit"
    store = AdaptiveRateLimitStore()
    share = store.get_status(services.READS, rate=services.READ_RATE).background_max
    left = store.get_status(services.READS, rate=services.READ_RATE, priority="background")
    store.acquire(
        services.READS, rate=services.READ_RATE, priority="background", cost=left.remaining
    )
    services.invalidate("t1")
    assert 0 < share < 1200
    assert tasks.warm_pages() == 0
    assert client.get("/threads/t1/")["X-Cache"] == "miss"


def test_visitors_get_429_when_all_is_busy(write, client, dynamo_clock):
    """429 with its headers; what is in the cache is still shown."""
    migrate(write())
    client.get("/threads/t2/")
    store = AdaptiveRateLimitStore()
    left = store.get_status(services.READS, rate=services.READ_RATE).remaining
    store.acquire(services.READS, rate=services.READ_RATE, cost=left)
    busy = client.get("/threads/t1/")
    assert (busy.status_code, busy["X-RateLimit-Limit"]) == (429, "1200")
    assert busy["Retry-After"]
    assert client.get("/threads/t2/").status_code == 200


@pytest.mark.parametrize("path", ["/login/", "/admin/login/"])
def test_log_ins_are_limited(client, path):
    """By address, and by account from any address."""
    wrong = {"username": secrets.token_hex(8), "password": "wrong"}
    address = f"10.{secrets.randbelow(256)}.{secrets.randbelow(256)}.1"
    answers = [
        client.post(path, {**wrong, "username": f"{n}"}, REMOTE_ADDR=address).status_code
        for n in range(11)
    ]
    assert answers == [200] * 10 + [429]
    assert client.get(path, REMOTE_ADDR=address).status_code == 200
    answers = [
        client.post(path, wrong, REMOTE_ADDR=f"10.9.{n}.{secrets.randbelow(256)}").status_code
        for n in range(21)
    ]
    assert answers == [200] * 20 + [429]
