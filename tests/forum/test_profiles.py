"""Whose profile is whose: ids, reserved names, links to imported profiles, deleted accounts."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from django.conf import settings as project
from django.contrib.auth import get_user_model
from django.core.cache import caches
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.test import Client, override_settings

from dynamo_stores import clock
from dynamo_stores.exceptions import StoreUnavailable
from forum import accounts, keys, profiles
from forum.adapters import Conflict, get_adapter, get_database
from forum.models import Support, Thread, User
from forum.sql import Account
from forum.verification import find_problems

from .conftest import USERS
from .test_accounts import PASSWORD, edit, error_at, sign_up

pytestmark = [pytest.mark.usefixtures("own_tables", "dynamo_clock"), pytest.mark.django_db]


def user_of(username, email="", **fields):
    """A user of Django who has not visited the forum."""
    return get_user_model().objects.create_user(username, email, PASSWORD, **fields)


def profile(profile_id):
    return get_adapter(User).get_by_id(profile_id, consistent=True)


def reserved(kind, value):
    """The item that reserves a name, None if it is free."""
    return get_adapter(Support).get_by_id(keys.reservation(kind, value), consistent=True)


def link(*arguments, **options):
    call_command("forum_link", *arguments, **options, stdout=io.StringIO())


def problems():
    return [(problem.kind, problem.key) for problem in find_problems()]


@pytest.fixture
def before_writing(monkeypatch):
    """Call a function just before the next transaction of accounts."""

    def before_writing(function):
        class Database:
            def transact(self, operations):
                monkeypatch.undo()
                function()
                get_database().transact(operations)

        monkeypatch.setattr(accounts, "get_database", Database)

    return before_writing


@pytest.fixture
def relayed(settings, dynamo_faults):
    """The tables behind the relay of faults."""
    default = settings.DYNAMO_STORES["default"]
    with override_settings(
        DYNAMO_STORES={"default": {**default, "ENDPOINT_URL": dynamo_faults.url}}
    ):
        yield dynamo_faults


def test_an_imported_profile_is_no_new_users(migrate, client):
    """Whatever its id: only the staff give it to somebody."""
    user = user_of("eve")
    imported = f"django-{user.pk}"
    migrate(users=[*USERS, {"id": imported, "name": "Imported", "email": "i@example.com"}])
    client.force_login(user)
    assert accounts.profile_id_of(user) == ""
    assert "i@example.com" not in client.get("/account/edit/").text
    assert accounts.profile_id_of(user) not in ("", imported)
    assert "account" not in profile(imported)


def test_a_new_sql_database_beside_kept_tables():
    """A user with the key of another one gets a profile of one's own."""
    ada = accounts.sign_up("ada", "ada@example.com", PASSWORD)
    former = accounts.profile_id_of(ada)
    get_user_model().objects.all().delete()
    eve = user_of("eve", pk=ada.pk or 1)
    assert accounts.ensure_profile(eve) != former
    bo = user_of("bo")
    Account.objects.create(user=bo, profile_id=former)
    assert accounts.ensure_profile(bo) != former
    assert accounts.ensure_profile(bo) == accounts.profile_id_of(bo)
    assert profile(former)["name"] == "ada"


def test_tables_that_were_imported_again_belong_to_their_users():
    """Files have no accounts; the account in SQL has the id of the profile."""
    ada = accounts.sign_up("ada", "ada@example.com", PASSWORD)
    get_adapter(User).update(accounts.profile_id_of(ada), {"account": None})
    assert accounts.ensure_profile(ada) == accounts.profile_id_of(ada)
    assert profile(accounts.profile_id_of(ada))["account"] == ada.pk


def test_a_thread_of_nobody(migrate, client):
    """Neither visitors nor users without a profile may edit it."""
    migrate(threads=[{"id": "t1", "title": "A"}, {"id": "t2", "title": "B", "createdBy": 2}])
    assert "createdBy" not in get_adapter(Thread).get_by_id("t1")
    assert "Edit the title" not in client.get("/threads/t1/").text
    client.force_login(user_of("eve"))
    assert "Edit the title" not in client.get("/threads/t1/").text
    assert client.get("/threads/t1/edit/").status_code == 403


@pytest.mark.parametrize("operation", ["PutItem", "TransactWriteItems"])
def test_a_sign_up_with_a_lost_answer(relayed, client, operation):
    """It is made: the name is not another user's."""
    relayed.lose_answer(operation, 1)
    assert sign_up(client).status_code == 302
    assert profile(accounts.profile_id_of(get_user_model().objects.get()))["username"] == "ada"
    assert problems() == []


def test_a_sign_up_without_a_profile_is_finished(client, monkeypatch, dynamo_clock):
    """By the log-in, also after its reservations have ended."""
    with monkeypatch.context() as patch:
        patch.setattr(accounts, "_make_profile", unavailable)
        assert sign_up(client).status_code == 503
    again = sign_up(client)
    assert "If you have just signed up, log in" in error_at(again, "username")
    dynamo_clock.advance(1_000)
    # Its names are those of a user in SQL.
    assert sign_up(client, "ADA", "other@example.com").status_code == 400
    assert sign_up(client, "bo", "ADA@example.com").status_code == 400
    client.post("/login/", {"username": "ada", "password": PASSWORD})
    item = profile(accounts.profile_id_of(get_user_model().objects.get()))
    assert (item["username"], item["email"]) == ("ada", "ada@example.com")
    for kind, value in (("user-name", "ada"), ("email", "ada@example.com")):
        kept = reserved(kind, value)
        assert (kept["holder"], "expiresAt" in kept) == (item["userId"], False)


def test_a_sign_up_without_an_account_is_free_again(client, monkeypatch, dynamo_clock):
    """At once if SQL refuses it, and after some minutes if the process ends."""

    class Ended(Exception):
        pass

    for error in (OperationalError, Ended):
        with monkeypatch.context() as patch:
            patch.setattr(Account.objects, "create", raising(error))
            with pytest.raises(error):
                accounts.sign_up("ada", "ada@example.com", PASSWORD)
        assert get_user_model().objects.count() == 0
        assert (reserved("email", "ada@example.com") is None) == (error is OperationalError)
    assert sign_up(client).status_code == 400
    dynamo_clock.advance(901)
    assert sign_up(client).status_code == 302


def test_two_first_requests_of_one_user(before_writing):
    """They make one profile."""
    ada = user_of("ada", "ada@example.com")
    made = []
    before_writing(lambda: made.append(accounts.ensure_profile(ada)))
    assert [accounts.ensure_profile(ada)] == made
    assert [item["userId"] for item in get_adapter(User).get_all()] == made
    assert problems() == []


def test_two_users_with_one_address_at_once(before_writing):
    """One of the profiles has it."""
    one, two = user_of("one", "a@example.com"), user_of("two", "A@example.com")
    before_writing(lambda: accounts.ensure_profile(two))
    mine, other = accounts.ensure_profile(one), accounts.profile_id_of(two)
    assert (profile(mine).get("email"), profile(other)["email"]) == (None, "A@example.com")
    assert profile(mine)["username"] == "one"
    assert reserved("email", "a@example.com")["holder"] == other
    assert problems() == []


def test_a_repeated_change_is_no_conflict_and_is_shown(client, before_writing):
    """The first one has lost its answer, or is made at the same time."""
    sign_up(client)
    profile_id = accounts.profile_id_of(get_user_model().objects.get())

    def change(name, version):
        email = f"{name.lower()}@example.com"
        accounts.edit_profile(profile_id, name=name, bio="", email=email, version=version)

    change("Countess", 1)
    caches["profiles"].set(profile_id, profiles.Profile.of({**profile(profile_id), "name": "Old"}))
    change("Countess", 1)
    assert profiles.get_profile(profile_id).name == "Countess"
    before_writing(lambda: change("Lady", 2))
    change("Lady", 2)
    before_writing(lambda: change("Other", 3))
    with pytest.raises(Conflict):
        change("Mine", 3)
    assert profile(profile_id)["name"] == profiles.get_profile(profile_id).name == "Other"
    assert problems() == []


def test_an_address_that_is_reserved_no_more(client):
    """The end of a reservation counts, not its deletion, which may be days later."""
    sign_up(client)
    key = keys.reservation("email", "b@example.com")
    ends = int(clock.now()) - 1
    get_adapter(Support).create({**key, "holder": "x", "expiresAt": ends})
    assert edit(client, email="b@example.com").status_code == 302
    mine = accounts.profile_id_of(get_user_model().objects.get())
    assert reserved("email", "b@example.com") == {**key, "holder": mine}
    assert reserved("email", "ada@example.com") is None


def test_a_name_of_a_user_without_a_profile(client):
    """It is taken: names of SQL count, in any case."""
    root = user_of("Root", "Root@example.com", is_staff=True)
    assert "Another user" in error_at(sign_up(client, "root"), "username")
    assert "Another user" in error_at(sign_up(client, "bo", "root@example.com"), "email")
    sign_up(client)
    assert "Another user" in error_at(edit(client, email="root@example.com"), "email")
    item = profile(accounts.ensure_profile(root))
    assert (item["username"], item["email"]) == ("Root", "Root@example.com")


def test_an_address_goes_to_a_linked_profile(migrate, client):
    """If it has none; the posts of the earlier one keep their author."""
    migrate()
    sign_up(client, "cleo")
    client.post("/new/", {"title": "Earlier", "text": "x"})
    former = accounts.profile_id_of(get_user_model().objects.get())
    link("cleo", "u1")
    assert (profile("u1")["username"], profile("u1")["email"]) == ("ada", "ada@example.com")
    assert {"account", "username", "email"}.isdisjoint(profile(former))
    assert reserved("email", "ada@example.com")["holder"] == "u1"
    assert reserved("user-name", "cleo") is None
    assert edit(client, bio="Hello").status_code == 302
    assert edit(client, email="new@example.com").status_code == 302
    assert [item["createdBy"] for item in get_adapter(Thread).get_all()].count(former) == 1
    assert problems() == []


def test_a_linked_profile_keeps_its_own_address(migrate, client):
    """The user may choose the other one."""
    migrate(users=[{**USERS[0], "username": "a", "email": "imported@example.com"}, USERS[1]])
    sign_up(client)
    link("ada", "u1")
    assert (profile("u1")["username"], profile("u1")["email"]) == ("a", "imported@example.com")
    assert reserved("user-name", "ada") is None
    assert edit(client, email="ada@example.com").status_code == 302
    assert problems() == []


def test_a_user_with_a_linked_profile_gets_another_one_on_request(migrate):
    """The error names the present one, which gets back what it was."""
    migrate(users=[{**USERS[0], "email": "imported@example.com"}, USERS[1]])
    before = profile("u1")
    user = user_of("cleo", "cleo@example.com")
    link("cleo", "u1")
    with pytest.raises(CommandError, match=r"profile 'u1'.*--replace"):
        link("cleo", "2")
    assert accounts.profile_id_of(user) == "u1"
    link("cleo", "2", replace=True)
    assert accounts.ensure_profile(user) == "2"
    assert {**profile("u1"), "version": 1} == before
    link("cleo", "2")
    link("cleo", "u1", replace=True)
    assert accounts.ensure_profile(user) == "u1"
    assert problems() == []


def test_a_link_that_was_cut_off(migrate, monkeypatch):
    """The same command finishes it."""
    migrate()
    user = accounts.sign_up("cleo", "cleo@example.com", PASSWORD)
    with monkeypatch.context() as patch:
        patch.setattr(Account.objects, "update_or_create", raising(OperationalError))
        with pytest.raises(CommandError):
            link("cleo", "u1")
    assert accounts.profile_id_of(user) != "u1"
    accounts.ensure_profile(user)
    link("cleo", "u1")
    assert accounts.ensure_profile(user) == "u1"
    assert profile("u1")["email"] == "cleo@example.com"
    assert [item["userId"] for item in get_adapter(User).get_all() if "account" in item] == ["u1"]
    assert problems() == []


def test_a_deleted_account_frees_its_names(client, django_capture_on_commit_callbacks):
    """Its profile keeps the name that its posts show."""
    sign_up(client, name="Ada L.")
    address = client.get("/account/")["Location"]
    former = accounts.profile_id_of(get_user_model().objects.get())
    with django_capture_on_commit_callbacks(execute=True):
        get_user_model().objects.all().delete()
    assert {"account", "username", "email"}.isdisjoint(profile(former))
    assert ">Ada L.</h1>" in Client().get(address).text
    assert sign_up(Client()).status_code == 302
    assert accounts.profile_id_of(get_user_model().objects.get()) != former
    assert problems() == []


def test_a_profile_whose_account_is_deleted_is_imported_again(
    migrate, django_capture_on_commit_callbacks
):
    """The second import finds nothing wrong, and changes nothing."""
    migrate()
    user = user_of("cleo")
    link("cleo", "u1")
    with django_capture_on_commit_callbacks(execute=True):
        user.delete()
    assert {"account", "username"}.isdisjoint(profile("u1"))
    assert migrate().count(" 0 written") == 6
    assert problems() == []
    user_of("ada")
    link("ada", "u1")


def test_an_account_is_deleted_while_dynamodb_is_away(
    monkeypatch, caplog, django_capture_on_commit_callbacks
):
    """That is logged, and forum_verify repairs it."""
    user = accounts.sign_up("ada", "ada@example.com", PASSWORD)
    former = accounts.profile_id_of(user)
    with monkeypatch.context() as patch, django_capture_on_commit_callbacks(execute=True):
        patch.setattr(accounts, "release", unavailable)
        user.delete()
    assert f"{former} of a deleted account" in caplog.text
    assert problems() == [("profiles of accounts that do not exist", former)]
    with pytest.raises(CommandError, match="Restore the SQL database, or add --free-names"):
        call_command("forum_verify", repair=True, stdout=io.StringIO())
    assert profile(former)["email"] == "ada@example.com"
    with pytest.raises(CommandError, match="--free-names is given without --repair"):
        call_command("forum_verify", free_names=True)
    out = io.StringIO()
    call_command("forum_verify", repair=True, free_names=True, stdout=out)
    assert "profiles of accounts that do not exist: 1, 1 repaired" in out.getvalue()
    assert problems() == []
    assert accounts.sign_up("ada", "ada@example.com", PASSWORD).pk


def test_a_name_of_two_profiles_is_reported(migrate):
    """Neither loses it by a repair, and the command says which they are."""
    migrate(users=[{**USERS[0], "email": "a@example.com"}, USERS[1]])
    get_adapter(User).update("2", {"email": "A@example.com"})
    out = io.StringIO()
    with pytest.raises(CommandError, match="Give one of the two another name"):
        call_command("forum_verify", repair=True, stdout=out)
    assert "another one has reserved: 1, 0 repaired" in out.getvalue()
    assert "email of '2', reserved by 'u1'" in out.getvalue()
    assert (profile("u1")["email"], profile("2")["email"]) == ("a@example.com", "A@example.com")


def test_a_new_name_is_shown_though_replicas_lag(relayed, client):
    """The process that changed it has it in the cache; another one reads it strongly."""
    sign_up(client)
    address = client.get("/account/")["Location"]
    relayed.lag(60)
    client.get(address)
    edit(client, name="Countess")
    assert ">Countess</h1>" in client.get(address).text
    profile_id = accounts.profile_id_of(get_user_model().objects.get())
    caches["profiles"].delete(profile_id)
    assert profiles.get_profile(profile_id).name == "Countess"
    relayed.bodies.clear()
    caches["profiles"].delete(profile_id)
    profiles.get_profile(profile_id)
    (requests,) = [
        body["RequestItems"]
        for operation, body in relayed.bodies
        if operation == "BatchGetItem" and any("users" in name for name in body["RequestItems"])
    ]
    assert [each["ConsistentRead"] for each in requests.values()] == [True]


@pytest.mark.parametrize("arguments", [("forum_link", "ada", "u1"), ("forum_token", "ada")])
def test_a_command_before_migrate(tmp_path, arguments):
    """It says what to run."""
    environment = {
        **os.environ,
        "ENV_FILE": os.devnull,
        "USE_DYNAMODB": "false",
        "FORUM_FOLDER": str(tmp_path / "forum"),
        "DATABASE_URL": f"sqlite:///{tmp_path / 'empty.sqlite3'}",
    }
    ended = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=project.BASE_DIR, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.startswith("CommandError: The SQL database cannot be used: no such table")
    assert ended.stderr.rstrip().endswith("run manage.py migrate first.")


def raising(error):
    def function(*args, **kwargs):
        raise error("As a test wants it.")

    return function


unavailable = raising(StoreUnavailable)
