"""There is nothing wrong with the operations of the forum's pages."""

from __future__ import annotations

import io
import re
from html import unescape

import pytest
from django.contrib.auth import get_user_model
from django.core.cache import caches
from django.core.management import call_command
from django.test import Client

from dynamo_stores.testing import assertNoAdvice
from forum.api.tokens import make_token

PASSWORD = "correct horse battery"
LONG = "/threads/seed1-thread-1/"
pytestmark = pytest.mark.django_db


@pytest.fixture
def forum(own_tables):
    """Thirty threads, the first with many posts."""
    call_command("forum_seed", users=12, threads=30, posts=300, stdout=io.StringIO())


@pytest.fixture
def member(own_tables):
    """The client of a user who has signed up."""
    client = Client()
    send(client, "/sign-up/", username="ada", email="ada@example.com",
         password1=PASSWORD, password2=PASSWORD)  # fmt: skip
    return client


@pytest.fixture
def staff():
    """The client of a user who may do everything."""
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("root", "root@example.com"))
    return client


def clear():
    for each in caches.all():
        each.clear()


def visit(client, path, status=200):
    """Get a page with empty caches, and once more."""
    clear()
    with assertNoAdvice():
        response = client.get(path)
    with assertNoAdvice():
        client.get(path)
    assert response.status_code == status, path
    return response.text


def send(client, path, *, status=302, **fields):
    """Fill in the form of a page and send it; return where it leads."""
    text = visit(client, path)
    hidden = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', text)
    clear()
    with assertNoAdvice():
        response = client.post(path, {**dict(hidden), **fields})
    assert response.status_code == status, (path, response.text)
    return response.get("Location")


def posts_on(client, path):
    return [*map(unescape, re.findall(r'class="time" href="([^"]+)"', client.get(path).text))]


@pytest.mark.usefixtures("forum")
def test_pages_of_a_visitor(client):
    """Lists, threads at any depth, posts, users, searches, and what is not there."""
    for path in ("/", "/search/", "/search/?q=cache", "/users/seed1-user-1/", LONG, "/login/"):
        visit(client, path)
    for path in posts_on(client, LONG)[:20]:
        visit(client, path)
    links = re.findall(r'rel="next" href="([^"]+)"', client.get(LONG).text)
    assert links
    visit(client, LONG + unescape(links[0]).rpartition("/")[2])
    visit(client, "/threads/none/", 404)
    visit(client, "/users/none/", 404)


@pytest.mark.usefixtures("forum")
def test_pages_of_a_member(member):
    """Each page with a form, and what sending it does."""
    for path in ("/", LONG, "/users/seed1-user-1/"):
        visit(member, path)
    thread = send(member, "/new/", title="A title", text="x")
    for number in range(3):
        send(member, f"{thread}reply/", text=f"Reply {number}")
    first, second = posts_on(member, thread)[:2]
    send(member, f"{second}reply/", text="Deeper")
    send(member, f"{second}edit/", text="Edited")
    send(member, f"{thread}edit/", title="Another title")
    send(member, f"{second}delete/")
    visit(member, thread)
    visit(member, first)
    send(member, "/account/edit/", name="Ada", email="other@example.com", bio="Hello")
    visit(member, member.get("/account/")["Location"])
    visit(member, "/account/activity/")
    send(member, "/account/tokens/", status=200, name="A program")
    send(member, "/account/password/", old_password=PASSWORD, new_password1=f"{PASSWORD}2",
         new_password2=f"{PASSWORD}2")  # fmt: skip
    with assertNoAdvice():
        member.post("/logout/")
    send(member, "/login/", username="ada", password=f"{PASSWORD}2")
    send(Client(), "/password-reset/", status=302, email="other@example.com")


@pytest.mark.usefixtures("forum")
def test_pages_of_the_staff(member, staff):
    """Moving a post, and deleting a subtree and a thread."""
    thread = send(member, "/new/", title="A title", text="x")
    for number in range(3):
        send(member, f"{thread}reply/", text=f"Reply {number}")
    _, second, third, last = posts_on(member, thread)
    send(staff, f"{third}move/", parent=second)
    send(staff, f"{last}delete-replies/")
    send(staff, f"{second}delete-replies/")
    visit(staff, f"/users/{staff.get('/').wsgi_request.user.pk}/", 404)
    visit(staff, "/users/seed1-user-1/activity/")
    send(staff, f"{thread}delete/")
    visit(staff, thread, 404)


@pytest.mark.usefixtures("forum", "member")
def test_paths_of_the_api():
    """But for the lists of all users and of all posts, which read a page of the table each."""
    token = make_token(get_user_model().objects.get(), "test")
    client = Client(headers={"Authorization": f"Bearer {token}"})
    for path in ("/api/threads", "/api/threads/seed1-thread-1", "/api/users/seed1-user-1"):
        visit(client, path)
    for path in ("/api/users", "/api/posts"):
        clear()
        with assertNoAdvice(ignore=["scan"]):
            assert client.get(path).status_code == 200
        clear()
        failure = pytest.raises(AssertionError, match="scan: ")
        with failure, assertNoAdvice():
            client.get(path)
    with assertNoAdvice():
        answer = client.post("/api/threads", {"title": "T", "text": "x"}, "application/json")
    assert answer.status_code in (200, 201)
