"""Accounts and profiles on the pages."""

from __future__ import annotations

import html
import io
import itertools
import re
import secrets

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.test import Client

from forum import accounts, keys, posting, threads
from forum.adapters import get_adapter
from forum.models import Support, User
from forum.sql import Token
from forum.views import people

from .test_pages import operations

pytestmark = [pytest.mark.usefixtures("own_tables", "dynamo_clock"), pytest.mark.django_db]
PASSWORD = "correct horse battery"


def sign_up(client, username="ada", email="ada@example.com", **fields):
    form = {
        "username": username, "name": "Ada", "email": email,
        "password1": PASSWORD, "password2": PASSWORD, **fields,
    }  # fmt: skip
    return client.post("/sign-up/", form)


def version_on(page):
    return re.search(r'name="version" value="(\d+)"', page.text)[1]


def edit(client, **fields):
    form = {"name": "Ada", "email": "ada@example.com", "bio": "", **fields}
    form.setdefault("version", version_on(client.get("/account/edit/")))
    return client.post("/account/edit/", form)


def error_at(response, field):
    """The text of the errors beside a field, to which its description refers."""
    assert f'id_{field}_error"' in re.search(rf'<[^>]*name="{field}"[^>]*>', response.text)[0]
    return re.search(rf'<ul[^>]*id="id_{field}_error">(.*?)</ul>', response.text, re.DOTALL)[1]


def test_signing_up(client):
    """Makes the account and the profile, and logs in."""
    response = sign_up(client, next="/new/")
    assert response["Location"] == "/new/"
    user = get_user_model().objects.get(username="ada")
    profile = get_adapter(User).get_by_id(accounts.profile_id_of(user))
    assert (profile["name"], profile["username"], profile["email"]) == (
        "Ada", "ada", "ada@example.com",
    )  # fmt: skip
    assert profile["account"] == user.pk
    assert "Log out" in client.get("/").text
    assert client.get("/account/")["Location"] == f"/users/{profile['userId']}/"
    assert sign_up(client)["Location"] == "/"


def test_a_page_of_another_site_is_no_next_page(client):
    """The front page is."""
    assert sign_up(client, next="https://example.com/")["Location"] == "/"


@pytest.mark.parametrize("target", ["/login/", "/sign-up/", "/%6Cogin/?next=/new/"])
def test_no_form_to_log_in_comes_after_another(client, target):
    """The front page does."""
    assert sign_up(client, next=target)["Location"] == "/"
    assert client.get("/login/", {"next": target})["Location"] == "/"
    answer = Client().post("/login/", {"username": "ada", "password": PASSWORD, "next": target})
    assert answer["Location"] == "/"


@pytest.mark.parametrize(
    ("fields", "wrong", "message"),
    [
        ({"username": "ADA", "email": "b@example.com"}, "username", "Another user has this name"),
        ({"email": "b@example.com"}, "username", "Another user has this name"),
        ({"username": "bo", "email": "Ada@Example.com"}, "email", "Another user has this address"),
        ({"username": "bo", "email": "b@example.com", "password1": "1"}, "password2", "match"),
        ({"username": "bo", "email": "x"}, "email", "Enter a valid email address"),
        ({"username": "b o", "email": "b@example.com"}, "username", "Enter a valid user name"),
    ],
)
def test_a_sign_up_that_is_wrong(client, fields, wrong, message):
    """The error is beside its field, and nothing is made."""
    sign_up(client)
    response = sign_up(Client(), **fields)
    assert response.status_code == 400
    assert message in error_at(response, wrong)
    assert get_user_model().objects.count() == 1
    assert len(list(get_adapter(User).get_all())) == 1


def test_sign_ups_are_limited(client):
    """By address, and by user name from any address."""
    codes = [sign_up(client, f"ada{n}", "").status_code for n in range(21)]
    assert codes == [400] * 20 + [429]
    name = secrets.token_hex(4)
    codes = [
        client.post("/sign-up/", {"username": name}, REMOTE_ADDR=f"10.8.{n}.1").status_code
        for n in range(11)
    ]
    assert codes == [400] * 10 + [429]


def test_logging_in_finishes_a_sign_up(client):
    """An account without a profile gets it."""
    user = get_user_model().objects.create_user("bo", "bo@example.com", PASSWORD)
    assert list(get_adapter(User).get_all()) == []
    response = client.post("/login/", {"username": "bo", "password": PASSWORD, "next": "/new/"})
    assert response["Location"] == "/new/"
    assert [item["account"] for item in get_adapter(User).get_all()] == [user.pk]
    assert client.get("/login/")["Location"] == "/"
    assert client.post("/logout/")["Location"] == "/"
    assert "Log in" in client.get("/").text


def test_log_ins_are_limited(client, settings, dynamo_clock):
    """However the name is spelled; tries from one address do not lock out the owner at another."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    name = secrets.token_hex(4)
    get_user_model().objects.create_user(name, password=PASSWORD)
    paths = itertools.cycle(["/login/", "/admin/login/"])
    spellings = itertools.cycle(
        [name, f"{name} ", name.upper(), f"{name}\u3000", chr(ord(name[0]) + 0xFEE0) + name[1:]]
    )

    def enter(address, password="wrong"):
        dynamo_clock.advance(7)
        fields = {"username": next(spellings), "password": password}
        return client.post(next(paths), fields, REMOTE_ADDR=address).status_code

    assert [enter("10.9.0.1") for _ in range(120)].count(200) == 20
    assert enter("10.9.0.1", PASSWORD) == 429
    for n in range(2, 6):
        assert [enter(f"10.9.0.{n}") for _ in range(20)].count(200) == 20
    assert client.login(username=name, password=PASSWORD)
    assert enter("10.9.0.9") == 429


def test_a_wrong_password(client):
    """The form says so, and keeps the name."""
    response = client.post("/login/", {"username": "nobody", "password": "x"})
    assert "Please enter a correct user name and password" in response.text
    assert 'value="nobody"' in response.text


def test_editing_the_profile(client):
    """It is on the next page; the new address is reserved and the old one free."""
    sign_up(client)
    assert client.post("/new/", {"title": "T", "text": "x"}).status_code == 302
    address = client.get("/account/")["Location"]
    assert ">Ada</h1>" in client.get(address).text
    edited = edit(client, name="Countess", email="new@example.com", bio="<b>Hello</b>")
    assert edited["Location"] == address
    for path in ("/", address):
        assert "Countess" in client.get(path).text
    assert "&lt;b&gt;Hello&lt;/b&gt;" in client.get(address).text
    assert get_user_model().objects.get().email == "new@example.com"
    support = get_adapter(Support)
    assert support.get_by_id(keys.reservation("email", "ada@example.com")) is None
    assert support.get_by_id(keys.reservation("email", "new@example.com")) is not None
    assert sign_up(Client(), "bo", "ada@example.com").status_code == 302


def test_an_address_that_is_too_long(client):
    """The accounts of Django and imported files have 254 characters at most, as the form says."""
    sign_up(client)
    domain = ".".join(["x" * 60] * 4) + ".example"
    for size, status in ((255, 400), (254, 302)):
        email = f"{'a' * (size - 1 - len(domain))}@{domain}"
        response = edit(client, email=email)
        assert response.status_code == status
        if status == 400:
            assert "at most 254 characters" in error_at(response, "email")
    assert 'maxlength="254"' in Client().get("/sign-up/").text
    assert get_user_model().objects.get().email == email


def test_an_address_of_another_user(client):
    """It is refused beside its field, and nothing is changed."""
    sign_up(Client(), "bo", "bo@example.com")
    sign_up(client)
    response = edit(client, name="Other", email="BO@example.com")
    assert (response.status_code, client.get("/account/edit/").text.count('value="Ada"')) == (
        400,
        1,
    )
    assert "Another user has this address" in error_at(response, "email")


def test_a_profile_that_was_changed_meanwhile(client):
    """409 with both texts; a second save replaces the present one."""
    sign_up(client)
    old = version_on(client.get("/account/edit/"))
    edit(client, bio="from the first window")
    response = edit(client, bio="from the second window", version=old)
    assert response.status_code == 409
    assert "from the first window" in response.text
    assert "from the second window" in response.text
    again = edit(client, bio="from the second window", version=version_on(response))
    assert "from the second window" in client.get(again["Location"]).text


def test_the_activity_log(client, dynamo_clock):
    """One's own and, for the staff, that of others; one Query and a BatchGetItem of titles."""
    sign_up(client)
    dynamo_clock.advance(1)
    client.post("/new/", {"title": "A <title>", "text": "x"})
    client.get("/account/activity/")
    response, calls = operations(client, "/account/activity/")
    assert re.findall(r"<span>(Signed up|Started)", response.text) == ["Started", "Signed up"]
    assert "A &lt;title&gt;" in response.text
    assert calls == {("Query", "support"): 1, ("BatchGetItem", "threads"): 1}
    path = f"{client.get('/account/')['Location']}activity/"
    assert client.get(path).status_code == 403
    assert Client().get(path)["Location"].startswith("/login/?next=")
    staff = Client()
    staff.force_login(get_user_model().objects.create_superuser("root"))
    assert "<title>Activity of Ada</title>" in staff.get(path).text
    assert "<title>Your activity</title>" in response.text
    assert staff.get("/users/none/activity/").status_code == 404


def test_activities_are_in_words(client, dynamo_clock):
    """With the title of the thread, if there is one and it is not deleted."""
    sign_up(client)
    user = accounts.profile_id_of(get_user_model().objects.get())

    def do(action, *args, **options):
        dynamo_clock.advance(1)
        return action(user, *args, **options)

    kept, gone = (do(posting.create_thread, title, "x")["threadId"] for title in ("T", "Gone"))
    do(posting.edit_thread, threads.get_thread(kept, consistent=True), "T2", version=1)
    post, other = (do(posting.create_post, kept, "x") for _ in range(2))
    do(posting.edit_post, post, "y", version=1)
    do(posting.move_post, kept, post["postId"], other["postId"])
    post = threads.get_post(kept, post["postId"])
    do(posting.delete_post, post, version=post["version"])
    do(accounts.edit_profile, name="Ada", bio="", version=1)
    do(posting.delete_thread, threads.get_thread(gone, consistent=True))
    rows = re.findall(r"<li>\s*<span>(.*?)</span>", client.get("/account/activity/").text)
    linked = f' <bdi><a href="/threads/{kept}/">T2</a></bdi>'
    assert rows == [
        "Deleted a thread", "Edited the profile", f"Deleted a post in{linked}",
        f"Moved a post in{linked}", f"Edited a post in{linked}", f"Replied in{linked}",
        f"Replied in{linked}", f"Edited the title of{linked}", "Started a thread that is deleted",
        f"Started{linked}", "Signed up",
    ]  # fmt: skip


def test_the_activity_log_has_pages(client, monkeypatch, dynamo_clock):
    """The latest first; all are found by the links."""
    monkeypatch.setattr(people, "ACTIVITIES_PER_PAGE", 2)
    sign_up(client)
    for number in range(4):
        dynamo_clock.advance(1)
        client.post("/new/", {"title": f"T{number}", "text": "x"})
    found, path = [], "/account/activity/"
    while path:
        response, calls = operations(client, path)
        assert calls[("Query", "support")] == 1
        found += re.findall(r">(T\d)</a>|<span>(Signed up)", response.text)
        more = re.search(r'rel="next" href="([^"]+)"', response.text)
        path = more and f"/account/activity/{more[1]}"
    assert ["".join(each) for each in found] == ["T3", "T2", "T1", "T0", "Signed up"]


def test_an_error_keeps_the_profile_that_was_sent(client):
    """429 has a form with it, which saves it."""
    sign_up(client)
    version = version_on(client.get("/account/edit/"))
    for _ in range(31):
        refused = edit(client, bio="<i>Long</i> text", name="New", email="wrong", version=version)
    assert refused.status_code == 429
    kept = html.unescape(refused.text)
    assert '>New"' not in kept
    for value in ('value="New"', 'value="wrong"', "<i>Long</i> text</textarea>"):
        assert value in kept
    assert version_on(refused) == version


def test_no_page_for_an_error_has_a_password(client):
    """Neither that of a sign-up nor that of a log-in."""
    for _ in range(21):
        refused = sign_up(client, email="wrong")
    assert refused.status_code == 429
    assert 'value="Ada"' in refused.text
    for _ in range(11):
        client.post("/login/", {"username": "ada", "password": PASSWORD + "x"})
    again = client.post("/login/", {"username": "ada", "password": PASSWORD + "x"})
    assert again.status_code == 429
    assert "Send it again" not in again.text
    assert PASSWORD not in refused.text + again.text


def test_tokens_are_made_and_deleted_on_a_page(client):
    """The text is shown once; each user has one's own, twenty at most."""
    sign_up(client)
    made = client.post("/account/tokens/", {"name": "<nightly>"})
    text = re.search(r'<code class="secret">([^<]+)<', made.text)[1]
    assert "no-store" in made["Cache-Control"]
    listed = client.get("/account/tokens/")
    assert text not in listed.text
    assert "&lt;nightly&gt;" in listed.text
    writer = {"headers": {"Authorization": f"Bearer {text}"}, "content_type": "application/json"}
    content = {"title": "T", "text": "x"}
    assert Client().post("/api/threads", content, **writer).status_code == 201
    (delete,) = re.findall(r'action="(/account/tokens/\d+/delete/)"', listed.text)
    other = Client()
    sign_up(other, "bo", "bo@example.com")
    assert "nightly" not in other.get("/account/tokens/").text
    other.post(delete)
    assert Client().post("/api/threads", content, **writer).status_code == 201
    assert client.get(delete).status_code == 405
    assert "deleted" in client.post(delete, follow=True).text
    assert Client().post("/api/threads", content, **writer).status_code == 401
    client.post("/account/tokens/", {"name": "nightly"})
    again = client.post("/account/tokens/", {"name": " nightly "})
    assert "You have a token with this name" in error_at(again, "name")
    other.post("/account/tokens/", {"name": "nightly"})
    assert Token.objects.filter(name="nightly").count() == 2
    Token.objects.all().delete()
    owner = get_user_model().objects.get(username="ada")
    Token.objects.bulk_create(Token(user=owner, name=str(n), digest=str(n)) for n in range(20))
    refused = client.post("/account/tokens/", {"name": "one more"})
    assert (refused.status_code, "You have 20 tokens" in refused.text) == (400, True)
    assert Token.objects.filter(user=owner).count() == 20
    assert Client().get("/account/tokens/")["Location"].startswith("/login/")


def test_an_imported_profile_is_given_to_one_account(migrate):
    """Its user writes under it then; the command may be repeated, and says what is wrong."""
    migrate()
    users = get_user_model().objects
    ada, bo = users.create_user("ada-sql"), users.create_user("bo-sql")
    for _ in range(2):
        call_command("forum_link", "ada-sql", "u1", stdout=io.StringIO())
    assert accounts.ensure_profile(ada) == "u1"
    with pytest.raises(CommandError, match="has another account"):
        call_command("forum_link", "bo-sql", "u1")
    with pytest.raises(CommandError, match="no profile with this id"):
        call_command("forum_link", "bo-sql", "none")
    with pytest.raises(CommandError, match="There is no user with this name"):
        call_command("forum_link", "none", "2")
    assert accounts.profile_id_of(bo) == ""
