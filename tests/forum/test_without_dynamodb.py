"""The whole site from JSON files, in processes of its own: no connection to DynamoDB is made."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest
from django.conf import settings

from dynamo_stores.testing import find_free_port
from forum.management.processes import ProcessFailed, ProcessGroup
from forum.management.smoke_test import Browser

HOST = "127.0.0.1"


class Counter:
    """A port that counts connections."""

    def __init__(self):
        self.connections = 0
        self._socket = socket.create_server((HOST, 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            connection.close()

    def close(self):
        self._socket.close()


@pytest.fixture
def dynamodb():
    """A port in the place of DynamoDB."""
    counter = Counter()
    yield counter
    counter.close()


@pytest.fixture
def processes(tmp_path, dynamodb):
    """Processes of a site without DynamoDB, whose files are in a folder of this test."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "DYNAMODB_", "CELERY_", "DJANGO_", "SECURE_", "TEST_"))
    }
    environment = {
        **kept,
        "DJANGO_SETTINGS_MODULE": "project.settings",
        "ENV_FILE": os.devnull,
        "SECRET_KEY": secrets.token_urlsafe(50),
        "DJANGO_DEBUG": "true",
        "USE_DYNAMODB": "false",
        "FORUM_FOLDER": str(tmp_path / "forum"),
        "DYNAMODB_ENDPOINT": f"http://{HOST}:{dynamodb.port}",
        "DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}",
        "CELERY_BROKER_FOLDER": str(tmp_path / "broker"),
        "PYTHONUNBUFFERED": "1",
    }
    logs = tmp_path / "logs"
    logs.mkdir()
    with ProcessGroup(logs, environment, settings.BASE_DIR) as group:
        yield group


def call(port, method, path, content=None, **headers):
    """Return status, headers and JSON of a request to the API."""
    request = urllib.request.Request(
        f"http://{HOST}:{port}{path}",
        method=method,
        data=None if content is None else json.dumps(content).encode(),
        headers={"Content-Type": "application/json", **headers},
    )
    try:
        response = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as exc:
        response = exc
    with response:
        body = response.read()
        return response.status, response.headers, json.loads(body) if body else None


@pytest.mark.slow
def test_the_site_works_and_makes_no_call(processes, dynamodb):
    """Pages, API, posting, limits, search, sign-up, the admin and the background tasks."""
    manage = (sys.executable, "manage.py")
    processes.run("database", *manage, "migrate", "--verbosity", "0")
    assert "threads: 8 written" in processes.run("seed", *manage, "forum_seed")
    code = (
        "from forum import accounts\n"
        "user = accounts.sign_up('cleo', 'cleo@example.com', 'a-long-secret', 'Cleo')\n"
        "user.is_staff = user.is_superuser = True\n"
        "user.save()\n"
        "try:\n"
        "    accounts.sign_up('CLEO', 'other@example.com', 'x')\n"
        "except accounts.Taken as exc:\n"
        "    print(exc)\n"
    )
    assert "The username is taken" in processes.run("sign up", *manage, "shell", "-c", code)
    token = processes.run("token", *manage, "forum_token", "cleo").split()[-1]
    port = find_free_port()
    processes.start("web", *manage, "runserver", "--noreload", f"{HOST}:{port}")
    processes.wait_until("web", lambda: processes.has_logged("web", "Quit the server"), 60)
    browser = Browser(HOST, port)
    wait_for(lambda: browser.get("/").status == 200)

    assert "/threads/page-cache/" in browser.get("/").text
    assert "Redis" in browser.get("/threads/why-serverless/").text
    assert browser.get("/threads/none/").status == 404
    assert "Expired items" in browser.get("/search/?q=expir").text
    browser.get("/login/")
    entered = browser.post("/login/", {"username": "cleo", "password": "a-long-secret"})
    assert entered.status == 302
    assert browser.get("/admin/").status == 200
    browser.get("/new/")
    once = {"title": "No DynamoDB", "text": "From a file.", "once": "k"}
    places = {browser.post("/new/", once).headers["location"] for _ in range(2)}
    assert len(places) == 1
    assert "No DynamoDB" in browser.get("/").text
    assert "No DynamoDB" in browser.get("/search/?q=dynamodb").text
    path = places.pop()
    assert browser.post(f"{path}reply/", {"text": "A reply."}).status == 302
    assert "A reply." in browser.get(path).text

    _, _, threads = call(port, "GET", "/api/threads")
    assert [each["title"] for each in threads][-1] == "No DynamoDB"
    thread_id = threads[-1]["id"]
    writing = {"Authorization": f"Bearer {token}", "Idempotency-Key": "k"}
    content = {"thread": thread_id, "text": "From a program."}
    status, _, post = call(port, "POST", "/api/posts", content, **writing)
    assert status == 201
    status, headers, found = call(port, "GET", f"/api/posts/{post['id']}")
    assert (status, found) == (200, post)
    headers = {"If-None-Match": headers["ETag"]}
    assert call(port, "GET", f"/api/posts/{post['id']}", **headers)[0] == 304
    assert call(port, "GET", "/api/posts/none")[0] == 404
    assert len(call(port, "GET", "/api/users")[2]) == 6
    statuses = [call(port, "POST", "/api/posts", content, **writing)[0] for _ in range(10)]
    assert statuses[-1] == 429

    printed = processes.run(
        "tasks",
        *manage,
        "shell",
        "-c",
        "from forum import tasks\n"
        "from project.celery import app\n"
        "from dynamo_stores.conf import get_config\n"
        "app.finalize()\n"
        "print(sorted(app.conf.beat_schedule), get_config().reports.enabled)\n"
        "print(tasks.warm_pages(), tasks.finish_moves())\n",
    )
    assert "['forum-finish-moves', 'forum-warm-pages'] False" in printed
    assert re.search(r"^9 0$", printed, re.MULTILINE)
    processes.check()
    processes.stop()
    assert dynamodb.connections == 0
    with pytest.raises(ProcessFailed):
        processes.run("with", *manage, "forum_seed", USE_DYNAMODB="true", DYNAMODB_MAX_RETRIES="0")
    assert dynamodb.connections > 0


def wait_for(function, seconds=30):
    """Wait until the function returns something true."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if function():
                return
        except OSError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.05)
