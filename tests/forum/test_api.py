"""The API: the original's shapes, paging, writing, errors, and the calls of each path."""

from __future__ import annotations

import io
import re
from collections import Counter

import pytest
from django.contrib.auth import get_user_model
from django.core.cache import caches
from django.core.management import CommandError, call_command
from django.test import Client, override_settings
from openapi_spec_validator import validate

from dynamo_stores.calls.observer import measuring
from dynamo_stores.testing import find_free_port
from forum import accounts, posting
from forum.adapters import get_adapter
from forum.api.tokens import make_token
from forum.models import Thread

from .conftest import POSTS, THREADS, USERS

pytestmark = [pytest.mark.usefixtures("own_tables"), pytest.mark.django_db]


def operations(client, path):
    """Return the answer to a GET and the operations on the forum's tables that it took."""
    for each in caches.all():
        each.clear()
    with measuring() as measurements:
        response = client.get(path)
    own = [each for each in measurements if not each.table.endswith("dynamo-stores")]
    return response, Counter((each.operation, each.table.rpartition("-")[2]) for each in own)


def only(rows, *names):
    """Return these members of the rows."""
    return [{name: row[name] for name in names} for row in rows]


def problem(response, status):
    """Return the problem of a response, which must have that status."""
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    found = response.json()
    assert found["status"] == status
    return found["detail"]


def test_the_files_come_back_at_the_original_paths(client, migrate):
    """In the order of the files, with integer ids as integers, without a trailing slash."""
    migrate()
    assert only(client.get("/api/users").json(), "id", "username", "name", "bio") == USERS
    assert only(client.get("/api/threads").json(), "id", "title", "createdBy") == THREADS
    posts = client.get("/api/posts").json()
    assert only(posts, "thread", "user", "text") == POSTS
    assert client.get("/api/users/2").json()["id"] == 2
    assert client.get("/api/threads/t2").json()["createdBy"] == 2
    in_thread = client.get("/api/posts/in-thread/t1").json()
    assert [post["text"] for post in in_thread] == ["one", "two", "three"]
    by_user = client.get("/api/posts/by-user/2").json()
    assert [post["text"] for post in by_user] == ["other", "two"]
    one = client.get(f"/api/posts/{posts[0]['id']}")
    assert one.json() == posts[0]
    assert client.get("/api/posts/in-thread/none").json() == []
    assert client.get("/api/posts/by-user/none").json() == []


def test_the_paths_are_listed(client):
    """As they are in the document."""
    assert client.get("/api/").json() == [
        "/api/",
        "/api/posts",
        "/api/posts/by-user/{user_id}",
        "/api/posts/in-thread/{thread_id}",
        "/api/posts/{post_id}",
        "/api/threads",
        "/api/threads/{thread_id}",
        "/api/users",
        "/api/users/{user_id}",
    ]


@pytest.mark.parametrize(
    ("path", "calls"),
    [
        ("/api/", {}),
        ("/api/users", {("Scan", "users"): 1}),
        ("/api/users/2", {("GetItem", "users"): 1}),
        (
            "/api/threads",
            {
                ("Query", "threads"): 1,
                ("BatchGetItem", "threads"): 1,
                ("BatchGetItem", "users"): 1,
            },
        ),
        ("/api/threads/t1", {("GetItem", "threads"): 1, ("BatchGetItem", "users"): 1}),
        (
            "/api/posts",
            {
                ("Scan", "posts"): 1,
                ("BatchGetItem", "threads"): 1,
                ("BatchGetItem", "users"): 1,
            },
        ),
        (
            "/api/posts/t1-000001",
            {
                ("Query", "posts"): 1,
                ("BatchGetItem", "threads"): 1,
                ("BatchGetItem", "users"): 1,
            },
        ),
        (
            "/api/posts/in-thread/t1",
            {
                ("Query", "posts"): 1,
                ("BatchGetItem", "posts"): 1,
                ("BatchGetItem", "threads"): 1,
                ("BatchGetItem", "users"): 1,
            },
        ),
        (
            "/api/posts/by-user/2",
            {
                ("Query", "posts"): 1,
                ("BatchGetItem", "posts"): 1,
                ("BatchGetItem", "threads"): 1,
                ("BatchGetItem", "users"): 1,
            },
        ),
        ("/api/posts/in-thread/none", {("Query", "posts"): 1}),
    ],
)
def test_calls_of_each_path(client, migrate, path, calls):
    """With nothing cached."""
    migrate()
    response, found = operations(client, path)
    assert response.status_code == 200
    assert found == calls


def test_calls_of_writes(writer):
    """Whatever the size of the thread, of an author whose profile exists."""
    thread = writer("POST", "/api/threads", {"title": "One two", "text": "x"}).json()
    posts = f"/api/threads/{thread['id']}"

    def calls(method, path, content=None):
        with measuring() as measurements:
            response = writer(method, path, content)
        assert response.status_code < 300
        own = [each for each in measurements if not each.table.endswith("dynamo-stores")]
        return Counter(each.operation for each in own), response

    content = {"thread": thread["id"], "text": "x"}
    found, response = calls("POST", "/api/posts", content)
    post = response.json()
    assert found == {"GetItem": 2, "UpdateItem": 1, "TransactWriteItems": 1, "BatchGetItem": 1}
    found, _ = calls("POST", "/api/posts", {**content, "parent": post["id"]})
    assert found == {"GetItem": 3, "UpdateItem": 1, "TransactWriteItems": 1, "BatchGetItem": 2}
    path = f"/api/posts/{post['id']}"
    found, _ = calls("PATCH", f"{path}?version=1", {"text": "y"})
    assert found == {"Query": 1, "GetItem": 1, "TransactWriteItems": 1, "BatchGetItem": 1}
    found, _ = calls("PATCH", f"{posts}?version=1", {"title": "Three"})
    assert found == {"GetItem": 2, "TransactWriteItems": 1}
    found, _ = calls("DELETE", f"{path}?version=2")
    assert found == {"Query": 1, "GetItem": 3, "TransactWriteItems": 1}


def test_newest_threads_first(client, migrate):
    """If they are asked for, and not by the cursor of the other order."""
    migrate()
    first = client.get("/api/threads?newest=true&limit=1")
    assert [each["id"] for each in first.json()] == ["t2"]
    after = re.search(r"after=([^&>]+)", first["Link"])[1]
    assert "Link header" in problem(client.get(f"/api/threads?after={after}"), 422)


def test_problems(client, migrate):
    """Errors are problem+json, and say what to do."""
    migrate()
    for path in ("/api/users/x", "/api/threads/x", "/api/posts/x", "/api/none", "/api/users/"):
        problem(client.get(path), 404)
    problem(client.get("/api/posts/" + "x" * 3000), 404)
    problem(client.get("/api/users?after=x"), 422)
    found = client.get("/api/users?limit=101").json()
    assert found["errors"][0]["pointer"] == "query/limit"
    assert "GET, HEAD" in problem(client.put("/api/users"), 405)
    problem(client.post("/api/threads", {}, content_type="application/json"), 401)


def test_an_unchanged_answer_is_not_sent_again(client, migrate):
    """The ETag of a list and of an item, until it changes."""
    migrate()
    for path in ("/api/threads", "/api/threads/t1"):
        tag = client.get(path)["ETag"]
        again = client.get(path, headers={"If-None-Match": tag})
        assert (again.status_code, again.content) == (304, b"")
        get_adapter(Thread).update("t1", {"title": f"New {path}"})
        assert client.get(path, headers={"If-None-Match": tag}).status_code == 200


def test_a_head_has_no_content(client, migrate):
    """It has the headers of a GET."""
    migrate()
    read, head = client.get("/api/threads/t1"), client.head("/api/threads/t1")
    assert (head.status_code, head.content, head["ETag"]) == (200, b"", read["ETag"])


def test_a_token_that_is_revoked_is_invalid(writer, user):
    """By its name, of which a user has one; others stay."""
    with pytest.raises(CommandError, match="no token with the name 'other'"):
        call_command("forum_token", "cleo", name="other", revoke=True)
    with pytest.raises(CommandError, match="a token with the name 'test'"):
        call_command("forum_token", "cleo", name="test")
    problem(writer("POST", "/api/posts", {"thread": "none", "text": "x"}), 404)
    call_command("forum_token", "cleo", name="test", revoke=True, stdout=io.StringIO())
    problem(writer("POST", "/api/posts", {"thread": "none", "text": "x"}), 401)
    with pytest.raises(CommandError, match="no user"):
        call_command("forum_token", "none")


def test_limits_have_headers(client):
    """As other pages of this site do."""
    response = client.get("/api/users")
    assert response["X-RateLimit-Limit"] == "300"
    assert response["X-RateLimit-Remaining"] == "299"


def test_writing_with_a_token(client, writer, user):
    """A thread, a reply and a reply to it are there at once; edits and deletions count versions."""
    made = writer("POST", "/api/threads", {"title": " Hello there ", "text": "first"})
    assert made.status_code == 201
    thread = made.json()
    assert made["Location"] == f"/api/threads/{thread['id']}"
    assert client.get(made["Location"]).json() == thread
    assert (thread["title"], thread["posts"]) == ("Hello there", 1)
    assert thread["createdBy"] == accounts.profile_id_of(user)
    answer = writer("POST", "/api/posts", {"thread": thread["id"], "text": "second"})
    second = answer.json()
    content = {"thread": thread["id"], "text": "third", "parent": second["id"]}
    third = writer("POST", "/api/posts", content).json()
    assert third["parent"] == second["id"]
    path = f"/api/posts/{second['id']}"
    read = client.get(path)
    assert read.json()["replies"] == 1
    edited = writer("PATCH", path, {"text": "other"}, If_Match=read["ETag"])
    assert edited.json()["text"] == "other"
    assert edited["ETag"] == client.get(path)["ETag"]
    problem(writer("PATCH", path, {"text": "x"}, If_Match=read["ETag"]), 412)
    problem(writer("PATCH", path + "?version=1", {"text": "x"}), 409)
    problem(writer("PATCH", path, {"text": "x"}), 428)
    assert writer("DELETE", path + "?version=2").status_code == 204
    assert (client.get(path).json()["isDeleted"], client.get(path).json()["text"]) == (True, "")
    title = f"/api/threads/{thread['id']}"
    assert writer("PATCH", title + "?version=1", {"title": "Bye"}).json()["title"] == "Bye"
    assert client.get(title).json()["title"] == "Bye"


def test_one_writes_for_oneself(client, writer, migrate, user):
    """Others' posts, threads and profiles are 403; so is the deletion of threads."""
    migrate()
    for method, path, content in (
        ("PATCH", "/api/posts/t1-000001?version=1", {"text": "x"}),
        ("DELETE", "/api/posts/t1-000001?version=1", None),
        ("PATCH", "/api/threads/t1?version=1", {"title": "x"}),
        ("DELETE", "/api/threads/t1", None),
        ("PATCH", "/api/users/u1?version=1", {"name": "x"}),
    ):
        problem(writer(method, path, content), 403)
    user.is_staff = True
    user.save()
    assert writer("DELETE", "/api/threads/t1").status_code == 204
    problem(client.get("/api/threads/t1"), 404)
    assert client.get("/api/posts/in-thread/t1").json() == []


def test_a_profile_is_changed(client, writer, user):
    """One's own, also where pages show it."""
    writer("POST", "/api/threads", {"title": "a", "text": "b"})
    path = f"/api/users/{accounts.profile_id_of(user)}"
    assert client.get(path).json()["name"] == "Cleo"
    changed = writer("PATCH", path + "?version=1", {"bio": "Reads."}).json()
    assert (changed["name"], changed["bio"], changed["version"]) == ("Cleo", "Reads.", 2)
    assert client.get(path).json() == changed


def test_writing_is_limited(writer):
    """429 with Retry-After."""
    for _ in range(10):
        problem(writer("POST", "/api/posts", {"thread": "none", "text": "x"}), 404)
    refused = writer("POST", "/api/posts", {"thread": "none", "text": "x"})
    assert "Try again in" in problem(refused, 429)
    assert int(refused["Retry-After"]) >= 1


def test_sessions_need_the_csrf_token(user):
    """A session alone is 403; with the token it writes, and reads without."""
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    body = {"content_type": "application/json", "data": {"title": "a", "text": "b"}}
    assert "X-CSRFToken" in problem(client.post("/api/threads", **body), 403)
    client.cookies["csrftoken"] = token = "x" * 32
    assert client.post("/api/threads", **body, headers={"X-CSRFToken": token}).status_code == 201
    assert client.get("/api/threads").status_code == 200


@pytest.mark.parametrize("value", [None, "Bearer", "Bearer no", "Token no", "Basic eDp5"])
def test_writing_without_a_session_or_token(value):
    """401 with what to send, whatever the CSRF token; a session that has ended is none."""
    client = Client(enforce_csrf_checks=True)
    client.cookies["sessionid"] = "ended"
    headers = {} if value is None else {"Authorization": value}
    answer = client.post("/api/threads", {}, content_type="application/json", headers=headers)
    assert "Authorization: Bearer <token>" in problem(answer, 401)
    assert answer["WWW-Authenticate"].startswith("Bearer")


def test_an_invalid_token_does_not_read(client, user):
    """401, also with a session, and counted; a valid token and other schemes read."""
    client.force_login(user)
    refused = client.get("/api/users", headers={"Authorization": "Bearer no"})
    problem(refused, 401)
    assert refused["X-RateLimit-Remaining"] == "299"
    for value in (f"bearer {make_token(user, 'test')}", "Basic eDp5"):
        assert Client().get("/api/users", headers={"Authorization": value}).status_code == 200


def test_replies_of_others_do_not_change_the_version(client, writer):
    """If-Match has the ETag of a thread or post to which somebody has replied; it is not stale."""
    thread = writer("POST", "/api/threads", {"title": "a", "text": "b"}).json()
    content = {"thread": thread["id"], "text": "c"}
    post = writer("POST", "/api/posts", content).json()
    paths = [f"/api/threads/{thread['id']}", f"/api/posts/{post['id']}"]
    tags = [client.get(path)["ETag"] for path in paths]
    writer("POST", "/api/posts", {**content, "parent": post["id"]})
    for path, tag, change in zip(paths, tags, [{"title": "d"}, {"text": "d"}], strict=True):
        assert client.get(path, headers={"If-None-Match": tag}).status_code == 200
        assert writer("PATCH", path, change, If_Match=f'"x", W/{tag}').status_code == 200
        problem(writer("PATCH", path, dict.fromkeys(change, "e"), If_Match=tag), 412)
        problem(writer("PATCH", path, change, If_Match='"2"'), 412)
    assert writer("DELETE", paths[1], If_Match="*").status_code == 204


@pytest.mark.parametrize("by_tag", [True, False], ids=["If-Match", "version"])
@pytest.mark.parametrize("kind", ["threads", "posts", "users"])
def test_a_repeated_change_is_made_once(client, writer, user, kind, by_tag):
    """
    The answer to the first request was lost. The second one gets what that wrote, until there is a
    later version.
    """
    thread = writer("POST", "/api/threads", {"title": "a", "text": "b"}).json()
    [post] = client.get(f"/api/posts/in-thread/{thread['id']}").json()
    made = {"threads": thread["id"], "posts": post["id"], "users": accounts.profile_id_of(user)}
    name = {"threads": "title", "posts": "text", "users": "name"}[kind]
    path, stale = f"/api/{kind}/{made[kind]}", 412 if by_tag else 409
    changing = path if by_tag else f"{path}?version=1"
    options = {"If_Match": client.get(path)["ETag"]} if by_tag else {}
    first, second = (writer("PATCH", changing, {name: "d"}, **options) for _ in range(2))
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json() == second.json()
    assert first["ETag"] == second["ETag"] == client.get(path)["ETag"]
    assert second.json()["version"] == 2
    problem(writer("PATCH", changing, {name: "e"}, **options), stale)
    if kind == "posts":
        problem(writer("DELETE", changing, **options), stale)
    assert writer("PATCH", f"{path}?version=2", {name: "e"}).status_code == 200
    problem(writer("PATCH", changing, {name: "d"}, **options), stale)


def test_a_thread_is_not_deleted_if_it_was_changed(client, writer, user, monkeypatch):
    """As If-Match says; also if it is changed at the last moment."""
    get_user_model().objects.filter(pk=user.pk).update(is_staff=True)
    made = writer("POST", "/api/threads", {"title": "a", "text": "b"}).json()
    path = f"/api/threads/{made['id']}"
    tag = client.get(path)["ETag"]
    assert writer("PATCH", f"{path}?version=1", {"title": "c"}).status_code == 200
    problem(writer("DELETE", path, If_Match=tag), 412)
    tag, real = client.get(path)["ETag"], posting.delete_thread

    def delete(author, thread, **options):
        posting.edit_thread(thread["createdBy"], thread, "d", version=2)
        return real(author, thread, **options)

    monkeypatch.setattr(posting, "delete_thread", delete)
    problem(writer("DELETE", path, If_Match=tag), 412)
    monkeypatch.undo()
    assert writer("DELETE", path, If_Match=client.get(path)["ETag"]).status_code == 204
    assert client.get(path).status_code == 404


def test_a_change_of_nothing_is_refused(client, writer, user):
    """422; the version of the profile stays."""
    writer("POST", "/api/threads", {"title": "a", "text": "b"})
    path = f"/api/users/{accounts.profile_id_of(user)}"
    for content in ({}, {"name": None}):
        assert "name, bio" in problem(writer("PATCH", f"{path}?version=1", content), 422)
    problem(writer("PATCH", f"{path}?version=1", {"name": "x" * (accounts.MAX_NAME + 1)}), 422)
    assert client.get(path).json()["version"] == 1


def test_bad_content_is_refused(writer):
    """Unknown members, empty and too long texts, too many words, wrong types: 422."""
    many = " ".join(map(chr, range(0x4E00, 0x4E00 + 46)))
    for path, content in (
        ("threads", {"title": "a"}),
        ("threads", {"title": " ", "text": "b"}),
        ("threads", {"title": "a" * 121, "text": "b"}),
        ("threads", {"title": 1, "text": "b"}),
        ("threads", {"title": "a", "text": "b", "more": 1}),
        ("threads", {"title": "\ud800", "text": "b"}),
        ("threads", {"title": many, "text": "b"}),
        ("threads", ["title"]),
        ("posts", {"thread": True, "text": "b"}),
    ):
        response = writer("POST", f"/api/{path}", content)
        assert response.status_code == 422, content
        problem(response, 422)


def test_too_large_content_is_refused(writer, settings):
    """413."""
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100
    problem(writer("POST", "/api/threads", {"title": "a", "text": "b" * 200}), 413)


def test_what_cannot_be_seen_is_refused(writer):
    """As on the pages."""
    refused = writer("POST", "/api/threads", {"title": "\u200b", "text": "x"})
    assert "can be seen" in str(refused.json()["errors"])
    problem(refused, 422)


def test_the_document_is_valid(client):
    """As OpenAPI 3.1. It says what each operation may answer, and which headers it has."""
    document = client.get("/api/openapi.json").json()
    validate(document)
    found = {
        operation["operationId"]: operation
        for operations in document["paths"].values()
        for operation in operations.values()
    }
    answers = {name: set(map(int, each["responses"])) for name, each in found.items()}
    of_all = {401, 429, 503}
    assert answers["list_paths"] == {200, 304} | of_all
    assert answers["list_posts"] == {200, 304, 422} | of_all
    assert answers["get_post"] == {200, 304, 404} | of_all
    assert answers["create_thread"] == {201, 400, 403, 410, 413, 422} | of_all
    assert answers["edit_post"] == {200, 400, 403, 404, 409, 412, 413, 422, 428} | of_all
    assert answers["delete_thread"] == {204, 403, 404, 409, 412} | of_all
    assert found["list_posts"]["security"] == [{"TokenAuth": []}, {}]
    assert found["edit_post"]["security"] == [{"TokenAuth": []}, {"SessionAuth": []}]
    parameters = {name: str(each["parameters"]) for name, each in found.items()}
    assert "If-None-Match" in parameters["get_post"]
    assert "Idempotency-Key" in parameters["create_post"]
    assert "If-Match" in parameters["edit_post"]
    assert "If-Match" in parameters["delete_thread"]
    assert "If-Match" not in parameters["create_post"]
    assert "Link" in found["list_posts"]["responses"]["200"]["headers"]
    assert {"ETag", "Location"} < found["create_post"]["responses"]["201"]["headers"].keys()
    schemas = document["components"]["schemas"]
    assert schemas["PostIn"]["examples"][0]["thread"] == "ttl-late"
    assert schemas["PostOut"]["properties"]["createdAt"] == {
        "type": "string",
        "format": "date-time",
    }
    assert schemas["Problem"]["required"] == ["title", "status", "detail"]
    assert {tag["name"] for tag in document["tags"]} == {each["tags"][0] for each in found.values()}
    assert "``" not in str(document)


def test_the_interactive_page_has_its_assets_from_here(client):
    """Nothing comes from other hosts."""
    page = client.get("/api/docs")
    assert not re.search(r'(src|href)="(https?:)?//', page.text)
    assert "default-src 'self'" in page["Content-Security-Policy"]


def test_an_outage_is_a_problem(client, settings):
    """503 with Retry-After."""
    default = settings.DYNAMO_STORES["default"]
    closed = f"http://127.0.0.1:{find_free_port()}"
    away = {**default, "ENDPOINT_URL": closed, "RETRY": {"MAX_RETRIES": 0}}
    with override_settings(DYNAMO_STORES={"default": away}):
        for path in ("/api/users", "/api/threads/t1", "/api/posts/in-thread/t1"):
            response = client.get(path)
            assert "not available" in problem(response, 503)
            assert response.json()["retryAfter"] == int(response["Retry-After"]) >= 1


def test_the_data_of_the_original(client, migrate):
    """Integer ids everywhere, in files of one key each."""
    files = {
        "users": {"users": [
            {"id": 1, "username": "marceline", "name": "Marceline", "bio": "Plays the bass"},
            {"id": 2, "username": "finn", "name": "Finn", "bio": "Adventure"},
        ]},
        "threads": {"threads": [
            {"id": 1, "title": "What's up with the Lich?", "createdBy": 2},
            {"id": 2, "title": "In search of a new guitar", "createdBy": 1},
        ]},
        "posts": {"posts": [
            {"thread": 1, "text": "Has anyone checked on him?", "user": 2},
            {"thread": 1, "text": "Tomorrow.", "user": 1},
            {"thread": 2, "text": "I need one.", "user": 1},
        ]},
    }  # fmt: skip
    migrate(**files)
    shown = {"users": ("id", "username", "name", "bio"), "threads": ("id", "title", "createdBy")}
    for name, members in {**shown, "posts": ("thread", "text", "user")}.items():
        assert only(client.get(f"/api/{name}").json(), *members) == files[name][name]
    for path in ("in-thread/1", "by-user/1"):
        rows = only(client.get(f"/api/posts/{path}").json(), "thread", "text", "user")
        assert rows == [
            row
            for row in files["posts"]["posts"]
            if row["thread" if "thread" in path else "user"] == 1
        ]
    assert client.get("/api/posts/in-thread/9").json() == []
