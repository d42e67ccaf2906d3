"""Import of three JSON files: accepted forms and error messages."""

from __future__ import annotations

import pytest

from forum.transfer.importing import ImportRefused

from .conftest import POSTS, THREADS, USERS


def wrong(read, **contents):
    """Return the problems as one text."""
    with pytest.raises(ImportRefused) as refused:
        read(**contents)
    return str(refused.value)


def test_the_short_form(read):
    """Ids become text, posts get ids and times in the file's order, later rows are newer."""
    forum = read()
    assert [user["userId"] for user in forum.users] == ["u1", "2"]
    assert [(thread["threadId"], thread["createdBy"]) for thread in forum.threads] == [
        ("t1", "u1"),
        ("t2", "2"),
    ]
    assert forum.threads[0]["createdAt"] < forum.threads[1]["createdAt"]
    assert [user.get("number") for user in forum.users] == [None, 2]
    first = [post for post in forum.posts if post["threadId"] == "t1"]
    assert [post["content"] for post in sorted(first, key=lambda post: post["createdAt"])] == [
        "one",
        "two",
        "three",
    ]
    assert [post["postId"] for post in first] == ["t1-000001", "t1-000002", "t1-000003"]


def test_the_same_file_gives_the_same_items(read):
    """Nothing depends on when or how often it is read."""
    one, other = read(), read()
    for name in ("users", "threads", "posts"):
        assert getattr(one, name) == getattr(other, name)


def test_the_form_of_the_stored_items(read):
    """Own ids, e-mail addresses and times; times in any zone become UTC with microseconds."""
    forum = read(
        users=[{"userId": "1", "email": "a@example.com", "name": "A", "createdAt": "2024-11-01"}],
        threads={
            "threads": [
                {
                    "threadId": "9",
                    "title": "T",
                    "description": "D",
                    "createdAt": "2024-11-23T10:00:00+02:00",
                }
            ]
        },
        posts=[
            {
                "postId": "p",
                "threadId": "9",
                "userId": "1",
                "title": "x",
                "content": "y",
                "createdAt": "2024-11-23T10:00:00Z",
            },
            {"threadId": "9", "userId": "1", "content": "z", "createdAt": "2024-11-23T10:00:00Z"},
        ],
    )
    assert forum.users[0]["email"] == "a@example.com"
    assert forum.threads[0]["createdAt"] == "2024-11-23T08:00:00.000000Z"
    assert [post["createdAt"] for post in forum.posts] == [
        "2024-11-23T10:00:00.000000Z",
        "2024-11-23T10:00:00.000001Z",
    ]
    assert [post["postId"] for post in forum.posts] == ["p", "9-000002"]


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"users": None}, "users.json: the file does not exist."),
        ({"threads": "{"}, "threads.json, line 1, column 2: not JSON"),
        ({"posts": "[1] x"}, "posts.json, line 1, column 5: not JSON"),
        ({"users": "[" * 100_000}, "users.json: nested too deeply."),
        ({"users": {"people": []}}, 'users.json: expected {"users": […]}, a list of rows.'),
        ({"users": '"x"'}, 'users.json: expected {"users": […]}'),
        ({"users": [*USERS, 7]}, "users.json, row 3: expected an object, got int."),
        ({"users": [*USERS, {"name": "x"}]}, "users.json, row 3: id is missing."),
        ({"users": [*USERS, {"id": ""}]}, "users.json, row 3: id must be a string that is not"),
        ({"users": [*USERS, {"id": True, "name": "x"}]}, "users.json, row 3: id must be"),
        ({"users": [*USERS, {"id": 1.5, "name": "x"}]}, "users.json, row 3: id must be"),
        ({"users": [*USERS, USERS[0]]}, "users.json, row 3: id 'u1' is already the id of row 1."),
        (
            {"users": [*USERS, {"id": "2", "name": "x"}]},
            "row 3: id '2' is already the id of row 2.",
        ),
        ({"users": [*USERS, {"id": "x"}]}, "users.json, row 3: name is missing."),
        ({"users": [*USERS, {"id": "x", "name": 5}]}, "users.json, row 3: name must be a string."),
        ({"users": [*USERS, {"id": "x" * 256, "name": "x"}]}, "row 3: id is over 255 bytes."),
        *(
            (
                {"users": [*USERS, {"id": f"a{character}b", "name": "x"}]},
                f"users.json, row 3: id {f'a{character}b'!r} has a control character; "
                "use any others in all files.",
            )
            for character in ("\n", "\0", "\t", "\x7f", "\x85")
        ),
        (
            {"threads": [*THREADS, {"id": "a\n", "title": "x"}]},
            "threads.json, row 3: id 'a\\n' has a control character",
        ),
        (
            {"posts": [*POSTS, {**POSTS[0], "id": "\r"}]},
            "posts.json, row 5: id '\\r' has a control character",
        ),
        ({"users": [*USERS, {"id": 10**38, "name": "x"}]}, "row 3: id has more than 38 digits."),
        ({"users": "[" + "9" * 5000 + "]"}, "users.json: has a number with thousands of digits."),
        (
            {"users": [*USERS, {"id": "x", "name": "x", "colour": "red"}]},
            "users.json, row 3: 'colour' is no member of these rows.",
        ),
        (
            {"posts": [*POSTS, {**POSTS[0], "parnet": "x"}]},
            "posts.json, row 5: 'parnet' is no member of these rows; did you mean 'parent'?",
        ),
        (
            {"users": [*USERS, {"id": "x", "name": "x", "username": "x" * 151}]},
            "row 3: username is over 150 characters.",
        ),
        (
            {"users": [*USERS, {"id": "x", "name": "x", "email": "x" * 255}]},
            "row 3: email is over 254 characters.",
        ),
        ({"threads": [{**THREADS[0], "title": "x" * 121}]}, "row 1: title is over 120 characters."),
        (
            {"threads": [{**THREADS[0], "title": " ".join(chr(0x4E00 + n) for n in range(46))}]},
            "row 1: title has more than 45 different words.",
        ),
        ({"posts": [{**POSTS[0], "text": " "}]}, "row 1: text is empty."),
        *(
            (
                {"posts": [{**POSTS[0], "createdAt": f"{year}-01-01T00:00:00Z"}]},
                "row 1: createdAt must be in the years from 1970 to 8999.",
            )
            for year in ("0001", "1969", "9999")
        ),
        (
            {"users": [*USERS, {"id": "x", "name": "\ud800"}]},
            "row 3: name contains a lone surrogate",
        ),
        ({"users": [*USERS, {"id": "x", "name": "x" * 500_000}]}, "row 3: the item is too large"),
        ({"users": [*USERS, {"id": "x", "name": "x", "createdAt": "soon"}]}, "must be a time such"),
        ({"threads": [*THREADS, {"id": "t3"}]}, "threads.json, row 3: title is missing."),
        ({"threads": [*THREADS, {"id": "t3", "title": " "}]}, "row 3: title is empty."),
        (
            {"threads": [*THREADS, {"id": "t3", "title": "x", "createdBy": "u9"}]},
            "threads.json, row 3: createdBy 'u9' is not a user of ",
        ),
        ({"posts": [*POSTS, {"user": "u1", "text": "x"}]}, "row 5: thread is missing."),
        ({"posts": [*POSTS, {"thread": "t1", "text": "x"}]}, "row 5: user is missing."),
        ({"posts": [*POSTS, {"thread": "t1", "user": "u1"}]}, "row 5: text is missing."),
        *(
            ({"posts": [*POSTS, {**POSTS[0], name: None}]}, f"row 5: {name} is missing.")
            for name in ("thread", "user")
        ),
        (
            {"posts": [*POSTS, {"thread": "t9", "user": "u1", "text": "x"}]},
            "posts.json, row 5: thread 't9' is not in ",
        ),
        (
            {"posts": [*POSTS, {"thread": "t1", "user": "u9", "text": "x"}]},
            "posts.json, row 5: user 'u9' is not in ",
        ),
        (
            {"posts": [*POSTS, {"thread": "t1", "user": "2", "text": "x"}]},
            "posts.json, row 5: user '2' must be 2, as that id is.",
        ),
        (
            {"threads": [*THREADS, {"id": "t3", "title": "x", "createdBy": "2"}]},
            "threads.json, row 3: createdBy '2' must be 2, as that id is.",
        ),
        (
            {"threads": [{**THREADS[0], "id": "7"}], "posts": [{**POSTS[0], "thread": 7}]},
            "posts.json, row 1: thread 7 must be '7', as that id is.",
        ),
        (
            {"posts": [{**POSTS[0], "id": 7}, {**POSTS[0], "parent": "7"}]},
            "posts.json, row 2: parent '7' must be 7, as that id is.",
        ),
        (
            {"users": [*USERS, {"id": "x", "name": "x", "username": "ADA"}]},
            "users.json, row 3: username 'ADA' is already that of row 1.",
        ),
        (
            {"posts": [*POSTS, {**POSTS[0], "parent": "t2-000001"}]},
            "row 5: parent 't2-000001' is not an earlier post of the same thread.",
        ),
        (
            {"posts": [{**POSTS[0], "id": "p", "parent": "p"}]},
            "row 1: parent 'p' is not an earlier post of the same thread.",
        ),
        *(
            (
                {name: [*good, {**good[0], **both}]},
                f"{name}.json, row {len(good) + 1}: {one} and {other} are one member and differ; "
                "leave out one of them.",
            )
            for name, good, one, other, both in (
                ("users", USERS, "id", "userId", {"id": "x", "userId": "y"}),
                ("threads", THREADS, "id", "threadId", {"id": "x", "threadId": "y"}),
                ("threads", THREADS, "createdBy", "userId", {"userId": 2}),
                ("posts", POSTS, "id", "postId", {"id": None, "postId": "y"}),
                ("posts", POSTS, "thread", "threadId", {"threadId": "t2"}),
                ("posts", POSTS, "user", "userId", {"userId": 2}),
                ("posts", POSTS, "text", "content", {"content": "other"}),
            )
        ),
        ({"posts": [{**POSTS[0], "isDeleted": 1}]}, "row 1: isDeleted must be true or false."),
        (
            {"posts": [{"id": "p", **POSTS[0]}, {"id": "p", **POSTS[0]}]},
            "posts.json, row 2: id 'p' is already the id of row 1.",
        ),
    ],
)
def test_problems_name_file_and_row(read, contents, message):
    """One line for each error."""
    assert message in wrong(read, **contents)


def test_two_names_of_one_member_with_one_value(read):
    """They are as one of them."""
    users = [{**each, "userId": each["id"]} for each in USERS]
    threads = [{**each, "threadId": each["id"], "userId": each["createdBy"]} for each in THREADS]
    posts = [
        {**each, "threadId": each["thread"], "userId": each["user"], "content": each["text"]}
        for each in POSTS
    ]
    assert read(users=users, threads=threads, posts=posts).posts == read().posts


def test_all_problems_are_reported_at_once(read):
    """Several rows of several files, and no more than twenty lines."""
    text = wrong(read, users=[{"name": "x"}], posts=[{"text": 1}] * 30)
    assert "users.json, row 1" in text
    assert "posts.json, row 2" in text
    assert text.count("\n") == 20
    assert "more." in text


def test_empty_files_are_an_empty_forum(read):
    """No rows are not an error."""
    forum = read(users=[], threads=[], posts=[])
    assert (forum.users, forum.threads, forum.posts) == ([], [], [])
