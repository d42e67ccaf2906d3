"""
Readers and writers use the forum's pages and its API at once: no error, no lost post, and counts
that are exact at the end. ``SOAK_SECONDS`` is how long (30).
"""

from __future__ import annotations

import http.client
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
from django.conf import settings

from dynamo_stores.testing import find_free_port
from forum.adapters.dynamodb import DynamoDBDatabase
from forum.models import Post, Thread

SECONDS = float(os.environ.get("SOAK_SECONDS", "30"))
WRITERS, READERS = 40, 8
USERS = """
from django.contrib.auth import get_user_model
from forum.api.tokens import make_token
for number in range({count}):
    user = get_user_model().objects.create_user(f"load-{{number}}", f"load-{{number}}@example.com")
    print("token", make_token(user, "load"))
"""


class Site:
    """Requests to the site, as from a client of its own address."""

    def __init__(self, port, number):
        self._port = port
        self._headers = {"X-Forwarded-For": f"10.1.{number // 250}.{number % 250 + 1}"}

    def ask(self, method, path, content=None, **headers):
        """Return status, headers and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            body = None if content is None else json.dumps(content)
            sent = {**self._headers, "Content-Type": "application/json", **headers}
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            return response.status, response.headers, response.read().decode()
        finally:
            connection.close()


@pytest.fixture
def environment(emptied, dynamo_engine, default_alias, tmp_path):
    """The environment of the site's processes."""
    return {
        "DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}",
        "TRUSTED_PROXIES": "1",
        "SECRET_KEY": "only for this load " * 3,
        "SECURE_SSL_REDIRECT": "false",
        "DYNAMODB_ENDPOINT": dynamo_engine,
        "DYNAMODB_TABLE_PREFIX": default_alias["TABLE_PREFIX"],
        "AWS_REGION": "us-east-1",
        "ENV_FILE": os.devnull,
    }


def manage(environment, *command):
    """Return what ``manage.py`` printed."""
    done = subprocess.run(
        [sys.executable, "manage.py", *command],
        env={**os.environ, **environment}, cwd=settings.BASE_DIR, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout


@pytest.mark.slow
def test_a_load_of_readers_and_writers(environment, start_process):
    """Posts, replies, edits and deletions through the API, beside readers of pages."""
    manage(environment, "migrate", "--verbosity", "0")
    printed = manage(environment, "shell", "-c", USERS.format(count=WRITERS))
    tokens = [line.split()[1] for line in printed.splitlines() if line.startswith("token ")]
    port = find_free_port()
    server = start_process(
        *("gunicorn", "project.wsgi", "-w", "3", "--threads", "8", "-b", f"127.0.0.1:{port}"),
        **environment,
    )
    first = Site(port, 0)
    until = time.monotonic() + 60
    while True:
        try:
            assert first.ask("GET", "/api/")[0] == 200
            break
        except OSError:
            assert server.poll() is None
            assert time.monotonic() < until
            time.sleep(0.1)
    threads = []
    for number, token in enumerate(tokens[:3]):
        status, _, body = first.ask(
            "POST", "/api/threads", {"title": f"Load {number}", "text": "Begin."},
            Authorization=f"Bearer {token}",
        )  # fmt: skip
        assert status == 201, body
        threads.append(json.loads(body)["id"])
    stop, lock = threading.Event(), threading.Lock()
    statuses, errors, alive = Counter(), [], {}

    def write(number):
        site, chance = Site(port, number + 1), random.Random(number)
        auth, own = {"Authorization": f"Bearer {tokens[number]}"}, []
        while not stop.is_set():
            act = chance.random()
            if own and act < 0.15:
                post = own.pop(chance.randrange(len(own)))
                answer = site.ask("DELETE", f"/api/posts/{post['id']}", **auth, **{"If-Match": "*"})
                done = (204,)
                if answer[0] == 204:
                    with lock:
                        del alive[post["id"]]
                else:
                    own.append(post)
            elif own and act < 0.3:
                post = chance.choice(own)
                answer = site.ask(
                    "PATCH", f"/api/posts/{post['id']}", {"text": f"Edited {act}."},
                    **auth, **{"If-Match": "*"},
                )  # fmt: skip
                done = (200,)
            else:
                thread = chance.choice(threads)
                with lock:
                    others = [each for each in alive.values() if each["thread"] == thread]
                parent = chance.choice(others)["id"] if others and act < 0.8 else None
                content = {"thread": thread, "text": f"Post {act}.", "parent": parent}
                answer = site.ask(
                    "POST", "/api/posts", content, **auth, **{"Idempotency-Key": f"{number}-{act}"}
                )
                # The parent may be deleted by its author at this moment.
                done = (201, 404)
                if answer[0] == 201:
                    post = json.loads(answer[2])
                    own.append(post)
                    with lock:
                        alive[post["id"]] = post
            note("write", answer, done)
            if answer[0] == 429:
                stop.wait(min(5.0, float(answer[1]["Retry-After"])))

    def read(number):
        site, chance = Site(port, 1000 + number), random.Random(-number)
        while not stop.is_set():
            thread = chance.choice(threads)
            paths = [
                "/",
                f"/threads/{thread}/",
                f"/api/posts/in-thread/{thread}",
                "/search/?q=load",
            ]
            answer = site.ask("GET", chance.choice(paths))
            note("read", answer, (200,))
            if answer[0] == 429:
                stop.wait(0.5)

    def note(kind, answer, done):
        with lock:
            statuses[kind, answer[0]] += 1
            if answer[0] not in (*done, 429):
                errors.append((kind, answer[0], answer[2][:300]))

    workers = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
    workers += [threading.Thread(target=read, args=(number,)) for number in range(READERS)]
    for each in workers:
        each.start()
    stop.wait(SECONDS)
    stop.set()
    for each in workers:
        each.join()
    print(dict(sorted(statuses.items())))
    assert errors == []
    database = DynamoDBDatabase()
    found = {
        item["postId"] for item in database.adapter(Post).get_all() if not item.get("isDeleted")
    }
    assert len(found - set(alive)) == len(threads)
    assert set(alive) <= found
    counts = {item["threadId"]: item["posts"] for item in database.adapter(Thread).get_all()}
    assert sum(counts.values()) == len(found)
    verified = manage(environment, "forum_verify")
    assert "Nothing is wrong" in verified, verified
