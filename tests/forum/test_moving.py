"""Files that are imported and exported again, in DynamoDB and in JSON files."""

from __future__ import annotations

import io
import json
import re
import secrets
import subprocess
import sys
import time

import pytest
from django.core.management import CommandError, call_command

from dynamo_stores.calls.observer import measuring
from forum import posting
from forum.adapters import get_adapter
from forum.management.commands.forum_migrate import Command
from forum.management.commands.forum_seed import DATA
from forum.models import Post, Thread, User
from forum.verification import find_problems

from .conftest import POSTS, THREADS, USERS

NAMES = ("users", "threads", "posts")


@pytest.fixture
def export(tmp_path):
    """Return the rows of the three files that forum_export writes."""

    def export(*arguments):
        paths = {name: tmp_path / f"exported-{name}.json" for name in NAMES}
        call_command("forum_export", *arguments, **paths, stdout=io.StringIO())
        return {name: json.loads(path.read_text())[name] for name, path in paths.items()}

    return export


def test_what_is_imported_is_exported_again(each_database, migrate, export):
    """The same rows in the same order, with integer ids."""
    migrate()
    assert export() == {"users": USERS, "threads": THREADS, "posts": POSTS}


def test_the_sample_forum_comes_back(each_database, export):
    """As it is in the repository."""
    call_command("forum_seed", stdout=io.StringIO())
    for name, rows in export().items():
        assert rows == json.loads((DATA / f"{name}.json").read_text())[name]


def test_replies_come_back_with_their_parents(each_database, migrate, export):
    """In the order of the tree; a second import of the export changes nothing."""
    posts = [
        {"id": "a", "thread": "t1", "text": "1", "user": 2},
        {"id": "b", "thread": "t1", "text": "2", "user": 2},
        {"id": "c", "thread": "t1", "text": "1.1", "user": "u1", "parent": "a"},
        {"id": 7, "thread": "t1", "text": "1.1.1", "user": "u1", "parent": "c"},
        {"id": "e", "thread": "t1", "text": "1.1.1.1", "user": "u1", "parent": 7},
    ]
    migrate(posts=posts)
    found = export()["posts"]
    assert [row["text"] for row in found] == ["1", "1.1", "1.1.1", "1.1.1.1", "2"]
    assert [row.get("parent") for row in found] == [None, "a", "c", 7, None]
    assert "posts: 0 written, 5 unchanged" in migrate(**{"posts": found})
    items = {item["postId"]: item for item in get_adapter(Post).get_all()}
    assert [items[each]["replies"] for each in ("a", "b", "c", "7", "e")] == [1, 0, 1, 1, 0]
    assert posting.create_post("u1", "t1", "1.2", parent="a")["place"] == "01"
    assert export("--overwrite")["posts"][-2]["text"] == "1.2"


def test_a_deep_tree_comes_back(each_database, migrate, export):
    """Of many levels, which is in several branches; nothing is wrong in it."""
    posts = [{"id": "p0", "thread": "t1", "text": "top", "user": 2}] + [
        {"id": f"p{n}", "thread": "t1", "text": f"{n}", "user": 2, "parent": f"p{n - 1}"}
        for n in range(1, 250)
    ]
    migrate(posts=posts)
    found = export()["posts"]
    assert [(row["id"], row.get("parent")) for row in found] == [
        (row["id"], row.get("parent")) for row in posts
    ]
    assert len({item.get("branch", "") for item in get_adapter(Post).get_all()}) >= 3
    assert list(find_problems()) == []


def test_what_users_did_is_kept(each_database, migrate, export, write):
    """Edits, deletions, moves and new posts; a second run of the first import changes nothing."""
    migrate()
    posts = {item["content"]: item for item in get_adapter(Post).get_all()}
    posting.create_post("2", "t1", "reply", parent=posts["one"]["postId"])
    posting.edit_post("2", posts["two"], "edited", version=1)
    posting.delete_post("u1", {**posts["one"], "replies": 1}, version=1)
    posting.delete_post("u1", posts["three"], version=1)
    thread = get_adapter(Thread).get_by_id("t2")
    posting.edit_thread("2", thread, "Other title", version=1)
    found = export()
    rows = [row for row in found["posts"] if row["thread"] == "t1"]
    assert [(row.get("text"), row.get("isDeleted")) for row in rows] == [
        (None, True),
        ("reply", None),
        ("edited", None),
    ]
    assert rows[1]["parent"] == "t1-000001"
    printed = migrate()
    assert "posts: 0 written, 3 unchanged, 1 left out" in printed
    assert "words: 0 written, 2 unchanged, 2 left out" in printed
    assert export("--overwrite") == found


def test_a_deleted_thread_is_written_again(each_database, migrate, export, write):
    """With its posts. The help of the command says so, and a dry run how many."""
    migrate()
    posting.delete_thread("u1", get_adapter(Thread).get_by_id("t1"))
    out = io.StringIO()
    call_command("forum_migrate", **write(), dry_run=True, stdout=out)
    assert "threads: 1 would be written, 1 unchanged" in out.getvalue()
    assert "posts: 3 written, 1 unchanged" in migrate()
    assert export() == {"users": USERS, "threads": THREADS, "posts": POSTS}
    assert list(find_problems()) == []
    assert "deleted since the first run" in Command.help


def test_a_deleted_thread_is_taken_out_of_the_files(each_database, migrate):
    """Nothing is derived from positions here, so it is not written again."""
    at = "2024-11-23T10:00:00Z"
    threads = [{**row, "createdAt": at} for row in THREADS]
    posts = [{**row, "createdAt": at, "id": f"p{n}"} for n, row in enumerate(POSTS)]
    migrate(threads=threads, posts=posts)
    posting.delete_thread("u1", get_adapter(Thread).get_by_id("t1"))
    left = {"threads": threads[1:], "posts": [row for row in posts if row["thread"] != "t1"]}
    assert "posts: 0 written, 1 unchanged" in migrate(**left)
    assert get_adapter(Thread).get_by_id("t1") is None


def test_an_existing_file_is_kept(each_database, migrate, export):
    """Unless told otherwise."""
    migrate()
    export()
    with pytest.raises(CommandError, match=r"exists\. Choose another file, or add --overwrite"):
        export()


def test_a_dry_run_writes_nothing(each_database, write):
    """It says what would be written."""
    out = io.StringIO()
    call_command("forum_migrate", **write(), dry_run=True, stdout=out)
    assert "posts: 4 would be written, 0 unchanged" in out.getvalue()
    assert list(get_adapter(User).get_all()) == []


def test_reserved_names_are_refused_before_anything_is_written(each_database, migrate):
    """And contents that differ."""
    migrate(users=USERS[:1], threads=[], posts=[])
    other = {"id": "u9", "username": "ADA", "name": "Another Ada"}
    with pytest.raises(CommandError, match="row 1: the user name 'ada' belongs to another"):
        migrate(users=[other], threads=[], posts=[])
    with pytest.raises(CommandError, match="row 1: the user exists with another content"):
        migrate(users=[{**USERS[0], "name": "Changed"}, USERS[1]])
    assert [item["userId"] for item in get_adapter(User).get_all()] == ["u1"]
    assert list(get_adapter(Post).get_all()) == []


def test_a_post_that_is_in_another_thread_is_refused(each_database, migrate, write):
    """Before anything is written; a post of the same thread is that of an earlier run."""
    migrate(posts=[{**POSTS[0], "id": "p"}, {**POSTS[1], "id": 7}])
    other = {"id": "t3", "title": "Third", "createdBy": "u1"}
    posts = [{"thread": "t3", "user": "u1", "text": "new", "id": each} for each in ("q", 7, "p")]
    paths = write(threads=[*THREADS, other], posts=posts)
    for dry_run in (True, False):
        with pytest.raises(CommandError) as refused:
            call_command("forum_migrate", **paths, dry_run=dry_run, stdout=io.StringIO())
        lines = str(refused.value).splitlines()[1:]
        assert [line.rpartition("/")[2] for line in lines] == [
            "posts.json, row 2: the thread 't2' has a post with the id '7'; give this one another "
            "id.",
            "posts.json, row 3: the thread 't1' has a post with the id 'p'; give this one another "
            "id.",
        ]
    assert get_adapter(Thread).get_by_id("t3") is None
    assert {item["postId"] for item in get_adapter(Post).get_all()} == {"p", "7"}
    assert "posts: 1 written" in migrate(threads=[*THREADS, other], posts=posts[:1])


def test_ids_in_other_threads_are_found_by_one_scan(own_tables, migrate):
    """Of the keys of posts, whatever the number of new ones; by none if no post is new."""

    def scans(**contents):
        with measuring() as measurements:
            migrate(**contents)
        return [each for each in measurements if each.operation == "Scan"]

    def posts(thread):
        text = secrets.token_hex(1000)
        return [
            {"id": f"{thread}{n}", "thread": thread, "text": text, "user": 2} for n in range(300)
        ]

    assert len(scans(posts=posts("t1"))) == 1
    new = {"threads": [{"id": "t3", "title": "Third", "createdBy": "u1"}], "posts": posts("t3")}
    assert len(scans(**new)) == 1
    assert scans(**new) == []


def test_seeds_are_the_same_each_time(each_database, export):
    """By their number; another number adds others. Replies are trees of several levels."""
    sizes = {"users": 5, "threads": 4, "posts": 60}

    def seed(number):
        out = io.StringIO()
        call_command("forum_seed", **sizes, seed=number, stdout=out)
        return out.getvalue()

    assert "posts: 60 written" in seed(1)
    first = export()
    assert {name: len(rows) for name, rows in first.items()} == sizes
    assert max(item["depth"] for item in get_adapter(Post).get_all()) >= 3
    assert "posts: 0 written, 60 unchanged" in seed(1)
    assert "posts: 60 written" in seed(2)
    both = export("--overwrite")
    assert len(both["posts"]) == 120
    assert {row["text"] for row in first["posts"]} < {row["text"] for row in both["posts"]}


def test_a_migration_that_is_killed_goes_on(environment, settings, export, write):
    """A process is killed while it writes; the next run writes the rest, and all of it is there."""
    posts = [{"thread": "t1", "user": 2, "text": f"text {n}"} for n in range(6000)]
    paths = write(posts=posts)
    command = [sys.executable, "manage.py", "forum_migrate"]
    command += [word for name, path in paths.items() for word in (f"--{name}", str(path))]

    def run():
        return subprocess.Popen(
            command,
            cwd=settings.BASE_DIR,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    killed = run()
    deadline = time.monotonic() + 60
    while not (count := len(list(get_adapter(Post).get_all()))):
        assert time.monotonic() < deadline
        assert killed.poll() is None
        time.sleep(0.005)
    killed.kill()
    killed.communicate()
    assert 0 < count < 6000
    assert get_adapter(Thread).get_by_id("t1") is None
    finished = run()
    printed, _ = finished.communicate(timeout=120)
    assert finished.returncode == 0, printed
    unchanged = int(re.search(r"posts: \d+ written, (\d+) unchanged", printed)[1])
    assert count <= unchanged < 6000
    assert [row["text"] for row in export()["posts"]] == [row["text"] for row in posts]
