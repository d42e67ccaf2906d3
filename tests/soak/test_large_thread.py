"""
Each page of a thread with many posts takes the calls and the memory of a page of a thread with few.
``THREAD_POSTS`` is how many they are (2,000).
"""

from __future__ import annotations

import io
import os
import re
import tracemalloc
from collections import Counter
from html import unescape
from urllib.parse import urljoin

import pytest
from django.core.cache import cache
from django.core.management import call_command
from django.test import modify_settings, override_settings

from dynamo_stores.calls.observer import measuring

POSTS = int(os.environ.get("THREAD_POSTS", "2000"))
PAGES = 10
# The thread before and after, the tree, the posts, and the names of their authors.
MOST = {"GetItem": 2, "Query": 8, "BatchGetItem": 2}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.django_db,
    pytest.mark.usefixtures("own_tables", "emptied"),
]


@pytest.fixture
def pages(client):
    """``pages(path)`` reads pages from ``path`` on; yields the forum's calls and bytes."""

    def read(path):
        for _ in range(PAGES):
            cache.clear()
            tracemalloc.start()
            with measuring() as calls:
                response = client.get(path)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert response.status_code == 200, response.content
            yield Counter(each.operation for each in calls if "-forum-" in each.table), peak
            text = response.headers.get("Link", response.content.decode())
            following = re.search(r'<(.+)>; rel="next"|rel="next" href="([^"]+)"', text)
            if following is None:
                break
            path = urljoin(path, unescape(following[1] or following[2]))

    return read


def seed(number, posts):
    call_command("forum_seed", users=20, threads=1, posts=posts, seed=number, stdout=io.StringIO())
    return f"seed{number}-thread-1"


# The calls are counted; how long they take is the engine's.
@modify_settings(MIDDLEWARE={"remove": "dynamo_stores.middleware.DeadlineMiddleware"})
@override_settings(RATELIMIT_ENABLE=False)
@pytest.mark.parametrize(
    ("path", "most"),
    [("/threads/{}/", MOST), ("/api/posts/in-thread/{}", {"Query": 1, "BatchGetItem": 4})],
    ids=["page", "api"],
)
def test_pages_of_a_large_thread_take_no_more_than_those_of_a_small_one(pages, path, most):
    """The first ones, as far as links lead."""
    small, large = seed(1, 300), seed(2, POSTS)
    # What a process reads once is not a page's.
    list(pages(path.format(small)))
    usual = max(peak for _, peak in pages(path.format(small)))
    found = list(pages(path.format(large)))
    assert len(found) == PAGES
    for calls, peak in found:
        assert calls <= Counter(most), calls
        assert peak < 2 * usual
