from __future__ import annotations

import json

import pytest

from forum import importing

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
