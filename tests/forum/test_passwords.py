"""Changes of passwords, and new ones by e-mail."""

from __future__ import annotations

import re
import secrets

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from .test_accounts import PASSWORD, error_at, sign_up

pytestmark = [pytest.mark.usefixtures("own_tables", "dynamo_clock"), pytest.mark.django_db]
NEW = "staple battery horse"
FIELDS = {"new_password1": NEW, "new_password2": NEW}


def log_in(password, client=None):
    """The answer to a log-in as ada."""
    return (client or Client()).post("/login/", {"username": "ada", "password": password})


def change(client, old=PASSWORD, **fields):
    return client.post("/account/password/", {"old_password": old, **FIELDS, **fields})


@pytest.fixture
def ask(mailoutbox):
    """Ask for a link for an address; return the answer and the paths in the e-mails so far."""

    def ask(email, client=None):
        response = (client or Client()).post("/password-reset/", {"email": email})
        return response, [
            re.search(r"http://testserver(/\S+)", each.body)[1] for each in mailoutbox
        ]

    return ask


def test_changing_the_password(client):
    """It ends the user's sessions elsewhere, and this one stays."""
    sign_up(client)
    other = Client()
    log_in(PASSWORD, other)
    address = client.get("/account/")["Location"]
    assert "/account/password/" in client.get(address).text
    assert change(client)["Location"] == "/account/"
    assert "Your password is changed" in client.get(address).text
    assert client.get("/new/").status_code == 200
    assert other.get("/new/").status_code == 302
    assert (log_in(PASSWORD).status_code, log_in(NEW).status_code) == (200, 302)


def test_a_change_that_is_wrong(client):
    """The error is beside its field, and the password stays."""
    assert Client().get("/account/password/")["Location"].startswith("/login/?next=")
    sign_up(client)
    wrong = change(client, old="x")
    assert wrong.status_code == 400
    assert "old password was entered incorrectly" in error_at(wrong, "old_password")
    assert "match" in error_at(change(client, new_password2="x"), "new_password2")
    assert log_in(PASSWORD).status_code == 302


def test_changes_are_limited(client):
    """By user; the page has no password."""
    sign_up(client)
    answers = [change(client, old="x") for _ in range(21)]
    assert [each.status_code for each in answers] == [400] * 20 + [429]
    assert NEW not in answers[-1].text


def test_a_new_password_by_e_mail(client, ask, mailoutbox):
    """The link works once, and ends all sessions."""
    sign_up(client)
    assert "/password-reset/" in Client().get("/login/").text
    visitor = Client()
    response, (path,) = ask("ADA@example.com", visitor)
    assert response["Location"] == "/login/"
    assert "an e-mail with a link is on its way" in visitor.get("/login/").text
    (sent,) = mailoutbox
    assert (sent.to, "user name is ada" in sent.body) == (["ada@example.com"], True)
    form = visitor.get(path)["Location"]
    assert "token" not in form
    assert "Set a new password" in visitor.get(form).text
    assert "match" in error_at(
        visitor.post(form, {**FIELDS, "new_password2": "x"}), "new_password2"
    )
    assert visitor.post(form, FIELDS)["Location"] == "/login/"
    assert client.get("/new/").status_code == 302
    assert (log_in(PASSWORD).status_code, log_in(NEW).status_code) == (200, 302)
    assert "does not work any more" in Client().get(path).text


def test_nobody_learns_which_addresses_have_accounts(client, ask):
    """The answer is the same, and nothing is sent."""
    sign_up(client)
    known, sent = ask("ada@example.com")
    unknown, later = ask("nobody@example.com")
    assert (known.status_code, known["Location"]) == (unknown.status_code, unknown["Location"])
    assert len(sent) == 1
    assert sent == later


def test_resets_are_limited(client):
    """By address, and by e-mail address in any spelling from any address."""
    name = secrets.token_hex(4)
    codes = [
        client.post(
            "/password-reset/", {"email": f"{email}@example.com "}, REMOTE_ADDR=f"10.7.{n}.1"
        ).status_code
        for n, email in enumerate([name, name.upper()] * 3)
    ]
    assert codes == [302] * 5 + [429]
    codes = [client.post("/password-reset/", {"email": f"x{n}"}).status_code for n in range(21)]
    assert codes == [400] * 20 + [429]
    assert get_user_model().objects.count() == 0
