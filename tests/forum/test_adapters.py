"""One contract for both adapters: what they return, refuse, and keep under concurrent writers."""

from __future__ import annotations

import itertools
import json
import shutil
import threading
from pathlib import Path

import pytest

from forum.adapters import (
    EXISTS,
    MISSING,
    Check,
    Conflict,
    Create,
    Delete,
    ItemExists,
    ItemMissing,
    Update,
    json_files,
)
from forum.adapters.dynamodb import DynamoDBDatabase
from forum.adapters.json_files import JsonDatabase
from forum.models import LISTING, Post, Support, Thread, User

_numbers = itertools.count()


@pytest.fixture(params=["dynamodb", "json"])
def database(request, tmp_path):
    """A database of each kind."""
    if request.param == "json":
        return JsonDatabase(tmp_path / "forum")
    request.getfixturevalue("emptied")
    return DynamoDBDatabase()


@pytest.fixture
def users(database):
    return database.adapter(User)


@pytest.fixture
def support(database):
    return database.adapter(Support)


@pytest.fixture
def new_id():
    return f"a{next(_numbers)}"


def thread(thread_id, minute=0, **changes):
    """A thread of its minute."""
    return {
        "threadId": thread_id,
        "title": f"Thread {thread_id}",
        "createdAt": f"2026-01-01T10:{minute:02}:00.000000Z",
        "listing": changes.pop("listing", LISTING),
        **changes,
    }


def test_an_item_is_created_once(users, new_id):
    """None is left out; the second is refused with the first one, which is unchanged."""
    item = {"userId": new_id, "name": "Ada", "bio": None, "tags": ["a", {"b": 1}], "ok": True}
    stored = {name: value for name, value in item.items() if name != "bio"}
    assert users.create(item) == stored
    with pytest.raises(ItemExists) as caught:
        users.create({"userId": new_id, "name": "Bo"})
    assert caught.value.item == stored
    assert users.get_by_id(new_id) == stored
    assert users.get_by_id(new_id, attributes=["name"]) == {"name": "Ada"}
    assert users.get_by_id(f"{new_id}-none") is None


def test_what_is_returned_can_be_changed(users, new_id):
    """The stored item is another object."""
    users.create({"userId": new_id, "name": "Ada", "tags": ["a"]})
    users.get_by_id(new_id)["tags"].append("b")
    assert users.get_by_id(new_id)["tags"] == ["a"]


def test_an_update_sets_removes_and_adds(users, new_id):
    """A missing number counts as 0; the item is returned as it is then."""
    users.create({"userId": new_id, "name": "Ada", "bio": "old"})
    found = users.update(new_id, {"name": "Bo", "bio": None}, add={"count": 2})
    assert found == {"userId": new_id, "name": "Bo", "count": 2}
    assert users.update(new_id, add={"count": -1})["count"] == 1
    assert users.get_by_id(new_id) == {"userId": new_id, "name": "Bo", "count": 1}


def test_an_update_changes_something(users, new_id):
    """Use Check for an item that is only looked at."""
    with pytest.raises(ValueError, match="The update changes nothing"):
        users.update(new_id)


def test_an_update_needs_the_item_unless_told_otherwise(users, new_id):
    """upsert makes it."""
    with pytest.raises(ItemMissing):
        users.update(new_id, {"name": "Ada"})
    assert users.get_by_id(new_id) is None
    assert users.update(new_id, {"name": "Ada"}, upsert=True) == {"userId": new_id, "name": "Ada"}


@pytest.mark.parametrize("expect", [{"version": 1}, {"version": MISSING}, {"bio": EXISTS}])
def test_an_unexpected_item_is_not_written(users, new_id, expect):
    """Neither changed nor deleted; the error has the item as it is."""
    item = users.create({"userId": new_id, "name": "Ada", "version": 2})
    for write in (
        lambda: users.update(new_id, {"name": "Bo"}, expect=expect),
        lambda: users.delete(new_id, expect=expect),
    ):
        with pytest.raises(Conflict) as caught:
            write()
        assert caught.value.item == item
    assert users.get_by_id(new_id) == item
    assert users.update(new_id, {"name": "Bo"}, expect={"version": 2, "bio": MISSING})


def test_a_deleted_item_is_returned(users, new_id):
    """The second time there is none; an expectation needs the item."""
    item = users.create({"userId": new_id, "name": "Ada"})
    assert users.delete(new_id, expect={"name": EXISTS}) == item
    assert users.delete(new_id) is None
    with pytest.raises(ItemMissing):
        users.delete(new_id, expect={"name": "Ada"})


def test_an_id_finds_an_item_that_has_a_sort_key(database, new_id):
    """A post by its id alone, or by its whole key."""
    posts = database.adapter(Post)
    post = {"postId": new_id, "threadId": "t", "userId": "u", "createdAt": "2026", "content": "c"}
    posts.create(post)
    assert posts.get_by_id(new_id) == posts.get_by_id((new_id, "t")) == post
    assert posts.get_by_id((new_id, "other")) is None


def test_many_items_come_in_the_order_of_their_keys(users, new_id):
    """Missing ones are left out, and one that is named twice is there twice."""
    for number in range(150):
        users.create({"userId": f"{new_id}-{number}", "name": str(number), "bio": "x"})
    order = [f"{new_id}-{number}" for number in (149, 3, 0, 3)]
    found = users.get_many([*order[:2], "none", *order[2:]], attributes=["name"])
    assert [each["name"] for each in found] == ["149", "3", "0", "3"]
    assert set(found[0]) == {"userId", "name"}
    assert len(users.get_many([f"{new_id}-{number}" for number in range(150)])) == 150
    assert users.get_many([]) == []


def test_pages_of_an_index(database, new_id):
    """Each item once, in both directions; the last page says that it is the last."""
    threads = database.adapter(Thread)
    for minute in range(6):
        threads.create(thread(f"{new_id}-{minute}", minute, listing=new_id))
    for descending in (False, True):
        minutes, after, pages = [], None, 0
        while pages == 0 or after is not None:
            page = threads.page(
                new_id, index="CreatedAtIndex", size=2, after=after, descending=descending
            )
            minutes += [item["threadId"].rpartition("-")[2] for item in page.items]
            after, pages = page.after, pages + 1
        assert (minutes, pages) == (sorted("012345", reverse=descending), 3)
    assert threads.page("none", index="CreatedAtIndex", size=2).items == []
    found = threads.query_by_index("CreatedAtIndex", new_id)
    assert [each["threadId"] for each in found] == [f"{new_id}-{minute}" for minute in range(6)]


def test_the_keys_of_an_index(database, new_id):
    """Those of the index and of the table, of the items that are in the index."""
    threads = database.adapter(Thread)
    items = [thread(f"{new_id}-{n}", n, listing=new_id) for n in range(3)]
    threads.put_all([*items, {"threadId": f"{new_id}-none", "title": "in no index"}])
    found = [each for each in threads.get_keys("CreatedAtIndex") if each["listing"] == new_id]
    names = ("threadId", "listing", "createdAt")
    assert sorted(found, key=lambda each: each["threadId"]) == [
        {name: item[name] for name in names} for item in items
    ]


def test_pages_of_the_whole_table(users, new_id):
    """Each item once, with its key, in pages of the size or less; also after a key that is gone."""
    ids = {f"{new_id}-{number}" for number in range(12)}
    users.put_all({"userId": each, "name": each, "bio": "x"} for each in ids)
    found, after = [], None
    while True:
        page = users.scan(size=5, after=after, attributes=["name"])
        assert len(page.items) <= 5
        found += page.items
        if page.items:
            users.delete(page.items[-1])
        if (after := page.after) is None:
            break
    own = [item for item in found if item["userId"] in ids]
    assert sorted(own, key=str) == sorted(({"userId": e, "name": e} for e in ids), key=str)


def test_a_page_begins_after_a_key_that_is_gone(database, new_id):
    """So a link to the next page stays good."""
    threads = database.adapter(Thread)
    for minute in range(4):
        threads.create(thread(f"{new_id}-{minute}", minute, listing=new_id))
    after = threads.page(new_id, index="CreatedAtIndex", size=2).after
    threads.delete(f"{new_id}-1")
    page = threads.page(new_id, index="CreatedAtIndex", size=2, after=after)
    assert [each["threadId"] for each in page.items] == [f"{new_id}-2", f"{new_id}-3"]


def test_bounds_of_the_sort_key(support, new_id):
    """A prefix, above and below, in the table itself; only the wanted attributes and the key."""
    for word in ("a", "ab", "abc", "b", "é", "z"):
        support.create({"PK": new_id, "SK": word, "title": word, "other": 1})

    def found(**bounds):
        return [each["SK"] for each in support.page(new_id, size=10, **bounds).items]

    assert found(prefix="ab") == ["ab", "abc"]
    assert found(above="ab") == ["abc", "b", "z", "é"]
    assert found(below="ab") == ["a"]
    assert found(descending=True, below="b") == ["abc", "ab", "a"]
    page = support.page(new_id, size=1, attributes=["title"])
    assert page.items == [{"PK": new_id, "SK": "a", "title": "a"}]
    assert page.after == {"PK": new_id, "SK": "a"}


def test_an_unknown_index_is_named(users):
    """With those that there are."""
    with pytest.raises(LookupError, match=r"no index 'Nope'; its indexes are EmailIndex"):
        users.page("x", index="Nope", size=1)


def test_a_transaction_is_whole(database, users, support, new_id):
    """Creates, updates, deletes and checks, or nothing with the error of the one refused."""
    users.create({"userId": new_id, "name": "Ada", "n": 1})
    support.create({"PK": new_id, "SK": "old"})
    user, old, new = {"userId": new_id}, {"PK": new_id, "SK": "old"}, {"PK": new_id, "SK": "new"}

    def run(name):
        database.transact(
            [
                Check(users.table, user, {"name": name}),
                Create(support.table, {**new, "x": None}),
                Delete(support.table, old),
            ]
        )

    with pytest.raises(Conflict) as caught:
        run("Bo")
    assert (caught.value.position, caught.value.item["name"]) == (0, "Ada")
    assert [each["SK"] for each in support.page(new_id, size=5).items] == ["old"]
    run("Ada")
    assert support.page(new_id, size=5).items == [new]
    with pytest.raises(ItemExists) as caught:
        database.transact([Update(users.table, user, {"name": "C"}), Create(support.table, new)])
    assert caught.value.position == 1
    with pytest.raises(ItemMissing):
        database.transact([Update(users.table, user, add={"n": 1}), Check(support.table, old)])
    assert users.get_by_id(new_id) == {"userId": new_id, "name": "Ada", "n": 1}


def test_long_texts_come_back_as_they_were(users, new_id):
    """However long, in items and in updates."""
    text = "Many words, and again words. ü " * 2000
    users.create({"userId": new_id, "name": "Ada", "bio": text})
    assert users.get_by_id(new_id)["bio"] == text
    assert users.update(new_id, {"bio": text * 2})["bio"] == text * 2
    assert users.get_many([new_id])[0]["bio"] == text * 2


def test_models_read_and_write_compressed_texts(emptied, new_id):
    """The texts that the adapter wrote, compressed or not, and those of models."""
    posts, common = DynamoDBDatabase().adapter(Post), {"userId": "u", "createdAt": "2026"}
    for number, text in enumerate(("short", "A long text. " * 500)):
        key = (f"{new_id}-{number}", "t")
        posts.create({"postId": key[0], "threadId": key[1], "content": text, **common})
        assert Post.get(*key).content == text
        Post(f"{new_id}-own", "t", user_id="u", content=text, created_at="2026").save()
        assert posts.get_by_id((f"{new_id}-own", "t"))["content"] == text


def test_many_items_are_written_and_deleted_without_conditions(users, new_id):
    """Also over existing ones."""
    items = [{"userId": f"{new_id}-{number}", "name": str(number)} for number in range(60)]
    assert users.put_all(items) == users.put_all(items) == 60
    ids = [item["userId"] for item in items]
    assert users.get_many(ids) == items
    assert {each["userId"] for each in users.get_all(attributes=["userId"])} >= set(ids)
    assert users.delete_all(ids) == 60
    assert users.get_many(ids) == []


def test_the_health(users):
    """Of a table that can be used."""
    assert users.health_check() is True


def test_threads_that_add_to_one_item_lose_nothing(database, users, support, new_id):
    """Sixteen threads, single updates and transactions beside each other."""
    users.create({"userId": new_id, "name": "Ada"})
    errors = []

    def work(me):
        try:
            for number in range(5):
                users.update(new_id, add={"singles": 1})
                database.transact(
                    [
                        Update(users.table, {"userId": new_id}, add={"pairs": 1}),
                        Create(support.table, {"PK": new_id, "SK": f"{me}-{number}"}),
                    ]
                )
        except Exception as exc:
            errors.append(exc)

    workers = [threading.Thread(target=work, args=(me,)) for me in range(16)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    assert errors == []
    found = users.get_by_id(new_id, consistent=True)
    assert (found["singles"], found["pairs"]) == (80, 80)
    assert len(support.page(new_id, size=100, consistent=True).items) == 80


def test_files_that_a_killed_process_left_are_deleted_by_the_next_write(tmp_path, monkeypatch):
    """Before the replacement and after it; what was written is there."""
    users = JsonDatabase(tmp_path).adapter(User)
    for number, step in enumerate(("_replace", "unlink")):
        with monkeypatch.context() as patch:
            owner = json_files if step == "_replace" else Path
            patch.setattr(owner, step, lambda *args, **options: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                users.create({"userId": f"u{number}", "name": "x"})
    users.create({"userId": "u2", "name": "x"})
    names = [path.name for path in tmp_path.iterdir() if path.suffix == ".json"]
    assert len(names) == 2
    assert {item["userId"] for item in JsonDatabase(tmp_path).adapter(User).get_all()} == {
        *("u1", "u2")
    }


def test_a_folder_that_was_made_anew_is_read_again(tmp_path):
    """A process that knows the old files keeps nothing of them."""
    folder = tmp_path / "forum"
    users = JsonDatabase(folder).adapter(User)
    users.create({"userId": "old", "name": "x"})
    shutil.rmtree(folder)
    JsonDatabase(folder).adapter(User).create({"userId": "new", "name": "x"})
    assert [item["userId"] for item in users.get_all()] == ["new"]
    users.create({"userId": "third", "name": "x"})
    assert {item["userId"] for item in users.get_all()} == {"new", "third"}


def test_items_in_files_end_at_their_time(tmp_path, dynamo_clock):
    """No read returns them, a new one takes their key, and the next write leaves them out."""
    first, second = (JsonDatabase(tmp_path).adapter(Support) for _ in range(2))
    ends = int(dynamo_clock.now()) + 60
    items = [{"PK": "p", "SK": f"{n}", "expiresAt": ends + n} for n in range(3)]
    kept = {"PK": "p", "SK": "kept"}
    for item in (*items, kept):
        first.create(item)
    # As DynamoDB, an item does not end before its time is over.
    dynamo_clock.advance(60)
    assert second.page("p", size=9).items == [*items, kept]
    dynamo_clock.advance(1.5)
    for each in (first, second):
        assert each.page("p", size=9).items == each.scan(size=9).items == [items[2], kept]
        assert list(each.get_all()) == each.get_many([*items, kept]) == [items[2], kept]
        assert each.get_by_id(("p", "0")) is None
    again = {**items[0], "expiresAt": ends + 600}
    assert second.create(again) == again
    dynamo_clock.advance(60)
    assert first.delete(("p", "2")) is None
    files = [path.read_text() for path in tmp_path.glob(f"*{first.table.name}*.json")]
    assert [[item["SK"] for item in json.loads(each)] for each in files] == [["kept", "0"]]
