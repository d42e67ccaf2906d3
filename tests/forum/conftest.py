from __future__ import annotations

import io
import json
import os

import pytest
from django.contrib.auth import get_user_model
from django.core.cache import caches
from django.core.management import call_command
from django.test import Client

from forum.api.tokens import make_token
from forum.transfer import importing

USERS = [
    {"id": "u1", "username": "ada", "name": "Ada", "bio": "b"},
    {"id": 2, "username": "bo", "name": "Bo", "bio": ""},
]
THREADS = [
    {"id": "t1", "title": "First <thread>", "createdBy": "u1"},
    {"id": "t2", "title": "Second & last", "createdBy": 2},
]
POSTS = [
    {"thread": "t1", "user": "u1", "text": "one"},
    {"thread": "t2", "user": 2, "text": "other"},
    {"thread": "t1", "user": 2, "text": "two"},
    {"thread": "t1", "user": "u1", "text": "three"},
]


@pytest.fixture
def write(tmp_path):
    """Write the three files, with ``users=…`` and so on replaced; return their paths."""

    def write(**contents):
        paths = {}
        for name, good in (("users", USERS), ("threads", THREADS), ("posts", POSTS)):
            content = contents.get(name, {name: good})
            path = tmp_path / f"{name}.json"
            if content is not None:
                path.write_text(content if isinstance(content, str) else json.dumps(content))
            paths[name] = path
        return paths

    return write


@pytest.fixture
def read(write):
    """Read the files that ``write`` wrote."""
    return lambda **contents: importing.read_forum(**write(**contents))


@pytest.fixture
def json_files(settings, tmp_path):
    """The forum without DynamoDB: in empty files of this test."""
    settings.USE_DYNAMODB = False
    settings.FORUM_FOLDER = str(tmp_path / "forum")
    settings.CACHES = {
        name: {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": name}
        for name in ("default", "profiles")
    }
    for each in caches.all():
        each.clear()


@pytest.fixture(params=["own_tables", "json_files"])
def each_database(request):
    """Empty tables: in DynamoDB, and in JSON files."""
    request.getfixturevalue(request.param)


@pytest.fixture
def environment(each_database, settings):
    """The environment of processes that use the tables of this test: of each kind."""
    alias = settings.DYNAMO_STORES["default"]
    return {
        **os.environ,
        "ENV_FILE": os.devnull,
        "DJANGO_SETTINGS_MODULE": "project.settings",
        "USE_DYNAMODB": str(settings.USE_DYNAMODB).lower(),
        "FORUM_FOLDER": str(settings.FORUM_FOLDER),
        "DYNAMODB_ENDPOINT": alias["ENDPOINT_URL"] or "",
        "DYNAMODB_TABLE_PREFIX": alias["TABLE_PREFIX"],
        "AWS_REGION": "us-east-1",
    }


@pytest.fixture
def migrate(write):
    """Import the files that ``write`` writes; return what forum_migrate printed."""

    def migrate(**contents):
        out = io.StringIO()
        call_command("forum_migrate", **write(**contents), stdout=out)
        return out.getvalue()

    return migrate


@pytest.fixture
def user():
    """A user of Django."""
    return get_user_model().objects.create_user("cleo", "cleo@example.com", "x", first_name="Cleo")


@pytest.fixture
def writer(user):
    """Send a request with a token of ``user`` and JSON."""
    token = make_token(user, "test")

    def send(method, path, content=None, **headers):
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return Client().generic(
            method,
            path,
            "" if content is None else json.dumps(content),
            content_type="application/json",
            headers={"Authorization": f"Bearer {token}", **names},
        )

    return send
