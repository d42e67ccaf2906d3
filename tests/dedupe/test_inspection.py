"""What the store tells of jobs, and the release of a job."""

from __future__ import annotations

from collections import Counter

import pytest
from asgiref.sync import async_to_sync

from dynamo_stores import keys
from dynamo_stores.calls.observer import measuring
from dynamo_stores.concurrency.effects import run
from dynamo_stores.exceptions import DedupeFailedError
from dynamo_stores.stores import DedupeStore
from dynamo_stores.testing import FakeClock


@pytest.fixture
def store(reporting):
    """A store on a table of its own."""
    return DedupeStore(reporting(REPORTS={"ENABLED": False}))


def operations(function, *args, **kwargs):
    """Return the result of ``function``, and the operations that it made, counted."""
    with measuring() as measurements:
        result = function(*args, **kwargs)
    return result, Counter(each.operation for each in measurements)


def test_a_job_is_described_in_each_state(store, dynamo_clock: FakeClock):
    """Without its result; when it began, and until when the state is valid."""
    assert store.describe("job") is None
    began = dynamo_clock.now()
    fence = store.register("job")
    found, sent = operations(store.describe, "job")
    assert (found.state, found.fence, found.parts) == ("in_progress", fence, 0)
    assert found.began_at == pytest.approx(began, abs=5)
    assert found.until == pytest.approx(began + 30, abs=5)
    assert len(found.owner) == 24
    assert f"DD#{found.digest}" == keys.dedupe_job("job").pk
    assert sent == {"GetItem": 1}
    dynamo_clock.advance(40)
    assert store.describe("job").state == "abandoned"
    fence = store.register("job")
    assert store.complete("job", "x" * 10, fence=fence, ttl=60)
    found = store.describe("job")
    assert (found.state, found.size) == ("completed", 12)
    dynamo_clock.advance(61)
    assert store.describe("job").state == "over"


def test_a_failed_job_has_its_error(store):
    """The class and the message."""
    store.fail("job", ValueError("no"), fence=store.register("job"), ttl=60)
    found = store.describe("job")
    assert (found.state, found.error_type, found.error_message) == ("failed", "ValueError", "no")


def test_a_large_result_is_in_parts(store):
    """Its bytes are not read."""
    assert store.complete("job", "x" * 10_000, fence=store.register("job"))
    found = store.describe("job")
    assert (found.state, found.size, found.parts) == ("completed", None, 1)


def test_jobs_are_listed_the_oldest_first(store, dynamo_clock: FakeClock):
    """In progress, abandoned and failed ones."""
    store.register("abandoned")
    dynamo_clock.advance(40)
    store.fail("failed", ValueError("no"), fence=store.register("failed"), ttl=600)
    dynamo_clock.advance(1)
    store.register("running")
    store.complete("done", 1, fence=store.register("done"))
    store.fail("over", ValueError("no"), fence=store.register("over"), ttl=0)
    found, sent = operations(store.list_jobs, most_pages=5)
    assert [each.state for each in found.jobs] == ["abandoned", "failed", "in_progress"]
    assert found.jobs[1].error_type == "ValueError"
    assert (found.pages, found.is_whole, sent) == (1, True, {"Scan": 1})
    assert found.items_read >= 5
    assert found.units > 0


def test_a_listing_reads_so_many_pages(store):
    """And says that there are more."""
    for number in range(8):
        store.register(f"job{number}")
    found, sent = operations(store.list_jobs, most_pages=2, page_size=3)
    assert (found.pages, found.is_whole, sent) == (2, False, {"Scan": 2})
    assert (len(found.jobs), found.items_read) == (6, 6)
    found = store.list_jobs(most_pages=20, page_size=3)
    assert (len(found.jobs), found.is_whole) == (8, True)


def test_a_released_job_is_run_by_the_next_caller(store):
    """The owner that had it can neither renew nor complete it."""
    fence = store.register("job")
    assert store.register("job") is None
    assert store.release("job", fence=fence)
    assert not store.extend("job", fence)
    assert not store.complete("job", 1, fence=fence)
    assert store.run("job", lambda: 2) == 2


def test_a_failure_is_released(store):
    """Before FAILURE_TTL is over."""
    store.fail("job", ValueError("no"), fence=store.register("job"), ttl=600)
    with pytest.raises(DedupeFailedError):
        store.run("job", lambda: 1)
    found = store.describe("job")
    assert store.release(digest=found.digest, fence=found.fence)
    assert store.describe("job").state == "over"
    assert store.run("job", lambda: 1) == 1


def test_another_fence_and_a_result_are_not_released(store):
    """What was looked at is not what the table has now."""
    fence = store.register("job")
    assert not store.release("job", fence=fence - 1)
    assert store.complete("job", 1, fence=fence)
    assert not store.release("job", fence=fence)
    assert store.wait_for("job") == 1
    assert not store.release("missing", fence=1)


def test_a_release_names_one_job(store):
    """By its key or its digest."""
    with pytest.raises(TypeError, match="a key or a digest"):
        store.release(fence=1)
    with pytest.raises(TypeError, match="a key or a digest"):
        store.release("job", digest="0", fence=1)


def test_a_job_of_other_software(store):
    """Is described as far as it can be."""
    key = keys.dedupe_job("odd")
    run(store.jobs.items.put({**key.raw(), "s": {"S": "F"}, "u": {"N": "9" * 15}, "e": {"S": "["}}))
    found = store.describe("odd")
    assert (found.state, found.error_type, found.fence) == ("failed", "", 0)


def test_the_async_twins(store):
    """They return the same."""

    async def work():
        fence = await store.aregister("job")
        described = await store.adescribe("job")
        listed = await store.alist_jobs(most_pages=5)
        return described.fence == fence, len(listed.jobs), await store.arelease("job", fence=fence)

    assert async_to_sync(work)() == (True, 1, True)
