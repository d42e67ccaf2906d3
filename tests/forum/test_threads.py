"""Lists and pages of threads: bounded calls, and never half of a change."""

from __future__ import annotations

import threading

import pytest

from dynamo_stores.calls.observer import measuring
from dynamo_stores.exceptions import StoreUnavailable
from forum import posting, threads
from forum.adapters import get_adapter
from forum.models import Post, Thread
from forum.trees import NoSuchPost

pytestmark = pytest.mark.usefixtures("emptied")


@pytest.fixture
def thread():
    """A thread with its first post."""
    return posting.create_thread("u1", "A title", "First.")["threadId"]


def first_post(thread_id):
    """The post that began the thread."""
    return threads.posts_of_thread(thread_id, size=1).posts[0].post_id


def test_readers_see_a_subtree_at_one_place_while_it_is_moved(thread):
    """Each page has each post once, whenever it is read."""
    root = posting.create_post("u1", thread, "root")["postId"]
    other = first_post(thread)
    for number in range(30):
        posting.create_post("u1", thread, str(number), parent=root)
    wrong, pages, stop = [], [], threading.Event()

    def read():
        while not stop.is_set():
            try:
                page = threads.show_thread(thread, size=500).content
            except StoreUnavailable:
                continue
            pages.append(page)
            ids = [post.post_id for post in page.posts]
            if len(ids) != 32 or len(set(ids)) != 32:
                wrong.append(len(ids))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for each in readers:
        each.start()
    for parent in [other, None] * 5:
        posting.move_post("u1", thread, root, parent)
    stop.set()
    for each in readers:
        each.join()
    assert wrong == []
    assert len(pages) > 10
    assert {page.posts[1].depth for page in pages} == {1, 2}


def test_a_page_of_a_thread_takes_the_same_calls_however_many_posts_there_are(thread):
    """Also a later one; and one that is cut at the deepest level."""
    counts = set()
    for _ in range(3):
        for _ in range(30):
            parent = posting.create_post("u1", thread, "x")["postId"]
            posting.create_post("u1", thread, "y", parent=parent)
        after = None
        while True:
            with measuring() as calls:
                page = threads.show_thread(thread, after).content
            own = [each for each in calls if not each.table.endswith("dynamo-stores")]
            counts.add(tuple(sorted(each.operation for each in own)))
            if (after := page.after) is None:
                break
    # The thread twice, the tree, the posts, and the author, who has no profile here.
    assert counts == {("BatchGetItem", "BatchGetItem", "GetItem", "GetItem", "Query")}


def test_replies_beyond_the_last_level_are_on_a_page_of_their_own(thread):
    """The page says so, and the post's own page goes on."""
    parent = first_post(thread)
    for number in range(threads.LEVELS + 2):
        parent = posting.create_post("u1", thread, str(number), parent=parent)["postId"]
    page = threads.show_thread(thread).content
    assert [post.depth for post in page.posts] == list(range(1, threads.LEVELS + 1))
    assert [post.is_cut for post in page.posts] == [False] * (threads.LEVELS - 1) + [True]
    page = threads.show_thread(thread, root_id=page.posts[-1].post_id).content
    assert [(post.content, post.depth) for post in page.posts] == [("7", 1), ("8", 2), ("9", 3)]
    assert page.root.content == "6"
    with pytest.raises(NoSuchPost):
        threads.show_thread(thread, root_id="none")


def test_a_search_finds_threads_by_the_beginnings_of_words():
    """
    All words, in any case and form; one letter as a whole word; after an edit by the new title;
    never after a deletion.
    """
    first = posting.create_thread("u1", "Moving from Redis to DynamoDB", "x")
    second = posting.create_thread("u1", "Redis at night", "x")
    posting.create_thread("u1", "Étude: naïve caches", "x")

    def found(text):
        return [line.title for line in threads.search(text).threads]

    assert found("REDIS") == ["Redis at night", "Moving from Redis to DynamoDB"]
    assert found("redis dyn") == ["Moving from Redis to DynamoDB"]
    assert found("étu NAÏVE") == ["Étude: naïve caches"]
    assert found("redis nothing") == found("") == found("!?") == []
    assert found("r") == []
    posting.create_thread("u1", "R and C", "x")
    assert found("r c") == ["R and C"]
    posting.edit_thread("u1", get_adapter(Thread).get_by_id(first["threadId"]), "Valkey", version=1)
    assert (found("redis"), found("valk")) == (["Redis at night"], ["Valkey"])
    posting.delete_thread("u1", second)
    assert found("redis") == []
    assert get_adapter(Post).query_by_index("ThreadIndex", second["threadId"]) == []


def test_a_search_goes_on_over_pages_and_takes_five_queries_at_most():
    """Every thread is found, however many there are with the longest word."""
    for number in range(60):
        posting.create_thread("u1", f"Common title {number % 3} n{number}", "x")
    titles, after, most = [], None, 0
    while True:
        with measuring() as calls:
            page = threads.search("common 1", after, size=5)
        most = max(most, sum(each.operation == "Query" for each in calls))
        titles += [line.title for line in page.threads]
        if (after := page.after) is None:
            break
    wanted = [f"Common title 1 n{number}" for number in range(1, 60, 3)]
    assert sorted(titles) == sorted(wanted)
    assert most <= 5


def test_what_a_user_just_wrote_is_in_lists_whose_index_is_late(thread):
    """The ids that the session keeps are read by key; deleted ones are taken out."""
    posting.create_thread("u1", "Other", "x")
    page = threads.list_threads().content
    new = posting.create_thread("u1", "New", "x")["threadId"]
    # As an index and a cache that are behind would have it.
    merged = threads._with_recent(page, None, [new])
    assert [line.title for line in merged.threads] == ["New", "Other", "A title"]
    posting.delete_thread("u1", get_adapter(Thread).get_by_id(new))
    assert [line.title for line in threads._with_recent(merged, None, [new]).threads] == [
        "Other",
        "A title",
    ]
    post = posting.create_post("u1", thread, "mine")
    listed = threads.posts_of_user("u1", size=10, recent=[(post["postId"], thread)])
    assert listed.posts[0].content == "mine"
    assert listed.titles[thread] == "A title"
