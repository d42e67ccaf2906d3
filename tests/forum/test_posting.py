"""Posting by users: limits, and repeated requests."""

from __future__ import annotations

import re
import secrets

import pytest
from django.contrib.auth import get_user_model
from django.test import Client, override_settings
from django.urls import reverse

from dynamo_stores.calls.observer import measuring
from dynamo_stores.stores import AdaptiveRateLimitStore
from forum import caching, posting, tasks
from forum.adapters import get_adapter
from forum.models import Post, Thread, User

from .test_pages import operations

pytestmark = [pytest.mark.usefixtures("own_tables", "dynamo_clock"), pytest.mark.django_db]


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
    """With its first post, in one transaction; the pages show it at once."""
    assert ada.get("/").status_code == 200
    assert start(ada).status_code == 302
    with measuring() as measurements:
        response = start(ada)
    assert [each.operation for each in measurements].count("TransactWriteItems") == 1
    assert response.status_code == 302
    page = ada.get(response["Location"])
    assert ">A title</h1>" in page.text
    assert "<b>Ada &lt;Lovelace&gt;</b>" in page.text
    assert "A title" in ada.get("/").text


def test_a_form_that_was_sent_before_with_another_text_is_kept(ada):
    """409 with the text, a link to what is posted, and a new key that posts both."""
    key = {"once": "k" * 20}
    thread = start(ada, **key)["Location"]
    reply = ada.post(f"{thread}reply/", {"text": "first", **key})["Location"]
    for path, fields, first in (
        ("/new/", {"title": "A title", "text": "changed"}, thread),
        (f"{thread}reply/", {"text": "changed"}, reply),
    ):
        refused = ada.post(path, {**fields, **key})
        assert refused.status_code == 409
        assert f'<a href="{first}">that one is posted</a>' in refused.text
        assert "changed</textarea>" in refused.text
        once = re.search(r'name="once" value="([^"]+)"', refused.text)[1]
        posted = ada.post(path, {**fields, "once": once})
        assert posted.status_code == 302
        assert posted["Location"] != first
    assert ada.get(thread).text.count("first") == 1


def test_a_form_whose_post_was_deleted_says_so(ada):
    """And has a new key, which posts it again."""
    key = {"once": "k" * 20}
    thread = start(ada)["Location"]
    assert ada.post(f"{thread}reply/", {"text": "first", **key}).status_code == 302
    (post,) = [each for each in get_adapter(Post).get_all() if each["content"] == "first"]
    posting.delete_post(post["userId"], post, version=1)
    refused = ada.post(f"{thread}reply/", {"text": "first", **key})
    assert refused.status_code == 409
    assert "what it wrote was deleted" in refused.text
    once = re.search(r'name="once" value="([^"]+)"', refused.text)[1]
    assert ada.post(f"{thread}reply/", {"text": "first", "once": once}).status_code == 302


@pytest.mark.parametrize("nothing", ["\u200b", "\u202e\u2066", "\u3164", "\u0301", "\x07"])
def test_what_cannot_be_seen_is_refused(ada, nothing):
    """A title without anything to see would have no link."""
    for fields in ({"title": nothing}, {"text": nothing}):
        refused = start(ada, **fields)
        assert refused.status_code == 400
        assert "Write something that can be seen." in refused.text
    assert start(ada, title=f"{nothing}a", text="\U0001f642").status_code == 302


def test_a_form_that_is_sent_after_the_session_has_ended_is_kept(ada):
    """With a link to log in; other requests are redirected."""
    ada.logout()
    refused = start(ada, text="A long text")
    assert refused.status_code == 403
    assert "A long text</textarea>" in refused.text
    assert 'href="/login/?next=/new/"' in refused.text
    assert ada.get("/new/")["Location"] == "/login/?next=/new/"


def test_pages_of_users_are_for_their_browsers(ada):
    """No cache between keeps them."""
    assert ada.get("/")["Cache-Control"] == "private"
    assert "Cache-Control" not in Client().get("/")


def test_the_same_form_sent_twice_starts_one_thread(ada):
    """By the page's own key, and by the header."""
    once = re.search(r'name="once" value="([^"]+)"', ada.get("/new/").text).group(1)
    first, again = start(ada, once=once), start(ada, once=once)
    assert first["Location"] == again["Location"]
    key = secrets.token_hex(8)
    first, again = start(ada, key), start(ada, key)
    assert again["Idempotency-Replayed"] == "true"
    assert (first.status_code, again.json()) == (201, first.json())
    assert start(ada, key, title="Another").status_code == 422
    assert len(list(get_adapter(Thread).get_all())) == 2


def test_replies(ada):
    """They are shown in their order; a thread that does not exist gets none."""
    path = start(ada)["Location"]
    for text in ("first", "second"):
        assert ada.post(f"{path}reply/", {"text": text}).status_code == 302
    assert re.findall(r"<p>(first|second)</p>", ada.get(path).text) == ["first", "second"]
    assert ada.post("/threads/none/reply/", {"text": "x"}).status_code == 404
    assert len(list(get_adapter(Post).get_all())) == 3
    assert len(list(get_adapter(User).get_all())) == 1


def first_post(client, path):
    """The path of the first post of a thread."""
    return re.search(r'class="time" href="([^"]+)"', client.get(path).text)[1]


def version_on(page):
    return re.search(r'name="version" value="(\d+)"', page.text)[1]


def as_staff():
    client = Client()
    client.force_login(get_user_model().objects.create_superuser(secrets.token_hex(4)))
    return client


def test_replies_to_posts(ada):
    """They are below the post that they reply to, whose page shows them, too."""
    path = start(ada, text="root")["Location"]
    first = first_post(ada, path)
    ada.post(f"{path}reply/", {"text": "second"})
    answer = ada.post(f"{first}reply/", {"text": "below"})
    assert answer["Location"].startswith(f"{path}#post-")
    page = ada.get(path).text
    assert re.findall(r"<p>(root|below|second)</p>", page) == ["root", "below", "second"]
    assert re.findall(r'class="post( depth-\d)?"', page) == ["", " depth-2", ""]
    assert answer["Location"].partition("#")[2] in page
    assert re.findall(r"<p>(root|below|second)</p>", ada.get(first).text) == ["root", "below"]
    assert ada.post(f"{path}posts/none/reply/", {"text": "x"}).status_code == 404
    assert ada.get(f"{first}reply/").status_code == 200


def test_deep_replies_are_on_a_page_of_their_own(ada, dynamo_clock):
    """A link leads on from the deepest post that the thread shows; nothing is lost between."""
    path = start(ada, text="level 1")["Location"]
    parent = first_post(ada, path)
    for level in range(2, 11):
        dynamo_clock.advance(10)
        answer = ada.post(f"{parent}reply/", {"text": f"level {level}"})
        parent = f"{path}posts/{answer['Location'].rpartition('-')[2]}/" if level < 9 else (
            answer["Location"]
        )  # fmt: skip
    shown = ada.get(path).text
    assert re.findall(r"<p>level (\d+)</p>", shown) == [str(n) for n in range(1, 9)]
    more = re.search(r'class="more" href="([^"]+)">Continue this thread<', shown)[1]
    assert re.findall(r"<p>level (\d+)</p>", ada.get(more).text) == ["8", "9", "10"]


def test_the_same_reply_sent_twice_is_one_post(ada):
    """By the key of its form."""
    path = start(ada)["Location"]
    once = re.search(r'name="once" value="([^"]+)"', ada.get(path).text)[1]
    answers = [ada.post(f"{path}reply/", {"text": "x", "once": once}) for _ in range(2)]
    assert answers[0]["Location"] == answers[1]["Location"]
    assert len(list(get_adapter(Post).get_all())) == 2


def test_editing_a_post(ada):
    """The new text is on the next page of the thread and of the user, marked as edited."""
    path = start(ada, text="before")["Location"]
    first, page = first_post(ada, path), ada.get(path)
    assert "before" in page.text
    form = ada.get(f"{first}edit/")
    assert ">\nbefore</textarea>" in form.text
    answer = ada.post(f"{first}edit/", {"text": "<after>", "version": version_on(form)})
    assert answer.status_code == 302
    assert "&lt;after&gt;" in ada.get(answer["Location"]).text
    profile = ada.get(ada.get("/account/")["Location"]).text
    assert "&lt;after&gt;" in profile
    assert "before" not in profile
    assert "edited" in profile


def test_forms_take_few_calls(ada):
    """A GetItem of what is changed; none for a form that is empty."""
    path = start(ada)["Location"]
    first = first_post(ada, path)
    for form, calls in {
        "/new/": {},
        f"{first}reply/": {},
        f"{first}edit/": {("GetItem", "posts"): 1},
        f"{first}delete/": {("GetItem", "posts"): 1},
        f"{path}edit/": {("GetItem", "threads"): 1},
        "/account/edit/": {("GetItem", "users"): 2},
    }.items():
        response, found = operations(ada, form)
        assert (response.status_code, found) == (200, calls), form


def test_a_post_that_was_changed_meanwhile(ada):
    """409 with both texts; a second save replaces the present one. A deletion asks again, too."""
    path = start(ada)["Location"]
    first = first_post(ada, path)
    ada.post(f"{first}edit/", {"text": "first window", "version": 1})
    response = ada.post(f"{first}edit/", {"text": "second window", "version": 1})
    assert response.status_code == 409
    assert "first window" in response.text
    assert "second window</textarea>" in response.text
    refused = ada.post(f"{first}delete/", {"version": 1})
    assert (refused.status_code, "first window" in refused.text) == (409, True)
    again = {"text": "second window", "version": version_on(response)}
    assert ada.post(f"{first}edit/", again).status_code == 302
    assert "second window" in ada.get(path).text
    assert ada.post(f"{first}edit/", {"text": "x"}).status_code == 409


def test_deleting_a_post(ada):
    """It is gone from all pages; one with replies leaves its place to them."""
    path = start(ada, text="root text")["Location"]
    first = first_post(ada, path)
    answer = ada.post(f"{first}reply/", {"text": "leaf text"})
    leaf = f"{path}posts/{answer['Location'].rpartition('-')[2]}/"
    profile = ada.get("/account/")["Location"]
    assert "leaf text" in ada.get(profile).text
    asked = ada.get(f"{first}delete/")
    assert "The replies to it stay." in asked.text
    assert ada.post(f"{first}delete/", {"version": version_on(asked)}).status_code == 302
    page = ada.get(path).text
    assert "root text" not in page
    assert "A deleted post" in page
    assert "leaf text" in page
    assert ada.post(f"{leaf}delete/", {"version": 1}).status_code == 302
    assert "leaf text" not in ada.get(path).text
    assert "leaf text" not in ada.get(profile).text
    assert [ada.get(each).status_code for each in (leaf, f"{leaf}edit/")] == [404, 404]
    assert ada.get(f"{first}edit/").status_code == 404


def test_only_authors_change_what_is_theirs(ada):
    """Others get 403, and no links; visitors are asked to log in."""
    path = start(ada)["Location"]
    first = first_post(ada, path)
    other = Client()
    other.force_login(get_user_model().objects.create_user("bo"))
    for each in (f"{first}edit/", f"{first}delete/", f"{path}edit/"):
        assert other.get(each).status_code == 403
        assert other.post(each, {"text": "x", "title": "x", "version": 1}).status_code == 403
        assert Client().post(each)["Location"].startswith("/login/")
        assert each not in other.get(path).text
        assert each in ada.get(path).text
    for each in (f"{first}move/", f"{first}delete-replies/", f"{path}delete/"):
        assert ada.post(each).status_code == 403
        assert each not in ada.get(path).text
        assert each in as_staff().get(path).text


def test_editing_a_title(ada):
    """It is on all pages at once, found by its new words, and never overwritten unseen."""
    path = start(ada, title="Old words")["Location"]
    ada.get("/")
    form = ada.get(f"{path}edit/")
    assert 'value="Old words"' in form.text
    changed = {"title": "Fresh ones", "version": version_on(form)}
    assert ada.post(f"{path}edit/", changed)["Location"] == path
    for each in (path, "/", "/search/?q=fresh"):
        assert "Fresh ones" in ada.get(each).text
    assert "Fresh ones" not in ada.get("/search/?q=old").text
    refused = ada.post(f"{path}edit/", {**changed, "title": "Third"})
    assert refused.status_code == 409
    assert "Fresh ones" in refused.text
    assert ada.post(f"{path}edit/", {"title": "", "version": 1}).status_code == 400
    assert ada.get("/threads/none/edit/").status_code == 404


def test_the_staff_moves_posts(ada):
    """Below the post whose link is given, or to the thread; not below themselves."""
    path = start(ada, text="one")["Location"]
    first = first_post(ada, path)
    answer = ada.post(f"{path}reply/", {"text": "two"})
    second = f"{path}posts/{answer['Location'].rpartition('-')[2]}/"
    staff = as_staff()
    assert staff.get(f"{second}move/").status_code == 200
    link = f"http://testserver{first}#reply"
    assert staff.post(f"{second}move/", {"parent": link})["Location"] == second
    assert re.findall(r'class="post( depth-\d)?"', staff.get(path).text) == ["", " depth-2"]
    assert "the post that this one replies to" in staff.get(second).text
    for wrong, message in (
        (second, "cannot be moved below itself"),
        ("/", "not the address of a post"),
        ("/threads/other/posts/x/", "in another thread"),
        (f"{path}posts/none/", "is deleted"),
    ):
        refused = staff.post(f"{first}move/", {"parent": wrong})
        assert (refused.status_code, message in refused.text) == (400, True)
    assert staff.post(f"{second}move/", {"parent": ""}).status_code == 302
    assert re.findall(r'class="post( depth-\d)?"', staff.get(path).text) == ["", ""]


@pytest.mark.parametrize("post_id", ["é", "a b", "50%", "a%2Fb", "a/b", ".."])
def test_a_post_is_moved_below_one_with_any_id(migrate, post_id):
    """By the address that a browser shows, in which characters are escaped."""
    row = {"thread": "t1", "user": "u1", "text": "x"}
    migrate(posts=[{**row, "id": post_id}, {**row, "id": "other"}])
    link = f"https://forum.example.com{reverse('forum:post', args=['t1', post_id])}"
    answer = as_staff().post("/threads/t1/posts/other/move/", {"parent": link})
    assert answer.status_code == 302
    assert get_adapter(Post).get_by_id(("other", "t1"), consistent=True)["parent"] == post_id


def test_the_staff_deletes_replies_and_threads(ada):
    """After a page that asks; a GET deletes nothing."""
    path = start(ada, title="A doomed thread", text="root text")["Location"]
    first = first_post(ada, path)
    ada.post(f"{first}reply/", {"text": "leaf text"})
    ada.post(f"{path}reply/", {"text": "other text"})
    staff = as_staff()
    assert "root text" in staff.get(f"{first}delete-replies/").text
    assert "A doomed thread" in staff.get(f"{path}delete/").text
    assert "leaf text" in staff.get(path).text
    assert staff.post(f"{first}delete-replies/")["Location"] == path
    assert re.findall(r"<p>(\w+ text)</p>", ada.get(path).text) == ["other text"]
    assert staff.post(f"{path}delete/")["Location"] == "/"
    assert ada.get(path).status_code == 404
    assert "doomed" not in staff.get("/").text
    assert list(get_adapter(Post).get_all()) == []


def test_what_one_wrote_is_shown_before_indexes_show_it(ada, settings, dynamo_faults):
    """A thread on the front page, a post on the profile; and not any more when it is deleted."""
    path = start(ada, title="Early", text="seen before")["Location"]
    profile = ada.get("/account/")["Location"]
    lagging = {**settings.DYNAMO_STORES["default"], "ENDPOINT_URL": dynamo_faults.url}
    dynamo_faults.lag(30)
    with override_settings(DYNAMO_STORES={"default": lagging}):
        answer = start(ada, title="Just now", text="at once")
        ada.post(f"{answer['Location']}reply/", {"text": "my reply"})
        assert "Just now" in ada.get("/").text
        assert "Just now" in ada.get("/search/?q=just").text
        assert "Just now" not in Client().get("/search/?q=just").text
        assert "my reply" in ada.get(profile).text
        assert "my reply" not in Client().get(profile).text
        leaf = re.findall(r'class="time" href="([^"]+)"', ada.get(answer["Location"]).text)[-1]
        assert ada.post(f"{leaf}delete/", {"version": 1}).status_code == 302
        assert "my reply" not in ada.get(profile).text
        assert "Early" in Client().get(path).text


def test_errors_are_shown(ada):
    """In the form, with status 400, and nothing is written."""
    response = start(ada, title="")
    assert response.status_code == 400
    assert "This field is required." in response.text
    path = start(ada)["Location"]
    assert ada.post(f"{path}reply/", {"text": " "}).status_code == 400
    assert ada.post(f"{path}reply/", {"text": "x" * 20_001}).status_code == 400
    assert len(list(get_adapter(Post).get_all())) == 1


def test_posting_is_limited_per_user(ada, client, dynamo_clock):
    """Ten a minute, threads and replies together; 429 has the time to wait."""
    path = start(ada)["Location"]
    codes = [ada.post(f"{path}reply/", {"text": f"r{n}"}).status_code for n in range(11)]
    assert codes == [302] * 9 + [429] * 2
    refused = start(ada, text="a long <text>")
    assert refused.status_code == 429
    assert 'name="title" value="A title"' in refused.text
    assert "a long &lt;text&gt;</textarea>" in refused.text
    wait = int(refused["Retry-After"])
    assert ada.get(path).status_code == 200
    dynamo_clock.advance(wait)
    assert start(ada).status_code == 302


def test_only_users_write(client):
    """Others get a link to the log-in page, which exists, and keep what they sent."""
    for path in ("/new/", "/threads/x/reply/"):
        assert client.get(path)["Location"] == f"/login/?next={path}"
        response = client.post(path, {"title": "x", "text": "x"})
        assert response.status_code == 403
        assert f'href="/login/?next={path}"' in response.text
    assert client.get("/login/?next=/new/").status_code == 200
    assert "Log in" in client.get("/").text


def test_searching(migrate, client, dynamo_clock):
    """All words, in any case; limited per address."""
    migrate()
    assert "First &lt;thread&gt;" in client.get("/search/?q=FIRST+thread").text
    assert "No title contains all" in client.get("/search/?q=first+nothing").text
    assert client.get("/search/").status_code == 200
    codes = [client.get("/search/?q=x").status_code for _ in range(30)]
    assert codes == [200] * 27 + [429] * 3
    assert client.get("/").status_code == 200


def test_background_work_leaves_capacity_for_visitors(migrate, client, dynamo_clock):
    """It reads pages within its share; visitors are served while it is refused."""
    migrate()
    assert tasks.warm_pages() == 2
    assert client.get("/threads/t1/")["X-Cache"] == "hit"
    store = AdaptiveRateLimitStore()
    share = store.get_status(caching.READS, rate=caching.READ_RATE).background_max
    left = store.get_status(caching.READS, rate=caching.READ_RATE, priority="background")
    store.acquire(caching.READS, rate=caching.READ_RATE, priority="background", cost=left.remaining)
    get_adapter(Thread).update("t1", add={"changes": 1})
    assert 0 < share < 1200
    # The other thread is in the cache.
    assert tasks.warm_pages() == 1
    assert client.get("/threads/t1/")["X-Cache"] == "miss"


def test_visitors_get_429_when_all_is_busy(migrate, client, dynamo_clock):
    """429 with its headers; what is in the cache is still shown."""
    migrate()
    client.get("/threads/t2/")
    store = AdaptiveRateLimitStore()
    left = store.get_status(caching.READS, rate=caching.READ_RATE).remaining
    store.acquire(caching.READS, rate=caching.READ_RATE, cost=left)
    busy = client.get("/threads/t1/")
    assert (busy.status_code, busy["X-RateLimit-Limit"]) == (429, "1200")
    assert busy["Retry-After"]
    assert client.get("/threads/t2/").status_code == 200


@pytest.mark.parametrize("path", ["/login/", "/admin/login/"])
def test_log_ins_of_an_address_are_limited(client, path):
    """By address; the form is still shown."""
    address = f"10.{secrets.randbelow(256)}.{secrets.randbelow(256)}.1"
    answers = [
        client.post(
            path, {"username": f"{n}", "password": "wrong"}, REMOTE_ADDR=address
        ).status_code
        for n in range(11)
    ]
    assert answers == [200] * 10 + [429]
    assert client.get(path, REMOTE_ADDR=address).status_code == 200
