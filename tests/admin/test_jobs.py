"""The page of deduplicated jobs: one by its key, a bounded list, and the release of a job."""

from __future__ import annotations

import json
import secrets
import time

import pytest
from django.contrib.admin.models import LogEntry

from dynamo_stores.concurrency.effects import run
from dynamo_stores.dedupe.store import DedupeStore
from dynamo_stores.keys import dedupe_job
from dynamo_stores.monitoring import snapshot
from tests.helpers.data_pages import look, sent
from tests.helpers.status import act, ask, page

pytestmark = pytest.mark.django_db


@pytest.fixture
def deduped(reporting):
    """``deduped(…)``: a store on tables of its own."""

    def make(**changes):
        return DedupeStore(reporting(**{"REPORTS": {"INTERVAL": 3600.0}, **changes}))

    return make


def job(client, store, key):
    return look(client, "jobs", using=store.using, key=key)["job"]


def listing(client, store):
    return look(client, "jobs", using=store.using, list="1")["list"]


def release(store, key):
    """The form that releases the job as it is now."""
    found = store.describe(key)
    return {
        "action": "release_job",
        "using": store.using,
        "job": found.digest,
        "fence": str(found.fence),
        "back": "jobs",
    }


def test_a_job_is_looked_up_by_its_key(deduped, log_in):
    """State and times, without its result."""
    store, watcher = deduped(), log_in("view_status")
    assert job(watcher, store, "import:1")["job"] is None
    fence = store.register("import:1")
    found = job(watcher, store, "import:1")["job"]
    assert (found["state"], found["fence"]) == ("in_progress", fence)
    assert found["began_at"] == pytest.approx(time.time(), abs=40)
    assert found["until"] == pytest.approx(time.time() + 30, abs=40)
    assert store.complete("import:1", "the secret", fence=fence)
    answer = watcher.post(page("jobs"), {"using": store.using, "key": "import:1"})
    assert "completed" in answer.text
    assert "12 bytes" in answer.text
    assert "secret" not in answer.text + json.dumps(job(watcher, store, "import:1"))


def test_the_message_of_an_error_is_for_those_who_may_act(deduped, keeper, log_in):
    """Others see its class."""
    store = deduped()
    store.fail("job", ValueError("card 4711"), fence=store.register("job"), ttl=600)
    assert job(keeper, store, "job")["job"]["error_message"] == "card 4711"
    found = job(log_in("view_status"), store, "job")["job"]
    assert (found["state"], found["error_type"], found["error_message"]) == (
        "failed",
        "ValueError",
        "",
    )
    fields = {"using": store.using, "key": "job"}
    assert "4711" not in log_in("view_status").post(page("jobs"), fields).text
    assert "card 4711" in keeper.post(page("jobs"), fields).text
    assert "4711" not in json.dumps(listing(keeper, store))


def test_jobs_are_listed_when_asked_for(deduped, log_in):
    """The oldest first, with what the list cost."""
    store, watcher = deduped(DEDUPE={"LEASE": 600}), log_in("view_status")
    store.register("running")
    store.fail("failed", ValueError("no"), fence=store.register("failed"), ttl=600)
    store.complete("done", 1, fence=store.register("done"))
    found = listing(watcher, store)
    assert [each["state"] for each in found["jobs"]] == ["in_progress", "failed"]
    assert (found["pages"], found["is_whole"], found["count"]) == (1, True, 2)
    assert found["items_read"] == 3
    answer = watcher.post(page("jobs"), {"using": store.using, "list": "1"})
    assert "the whole table was read" in answer.text
    assert "Release…" not in answer.text
    assert "2,560 read units" in watcher.get(page("jobs")).text


def test_a_list_says_how_much_was_read(deduped, keeper, monkeypatch):
    """And how many of the jobs are shown."""
    monkeypatch.setattr("dynamo_stores.admin.jobs.LIST_PAGES", 1)
    monkeypatch.setattr("dynamo_stores.admin.jobs._MOST_SHOWN", 1)
    monkeypatch.setattr("dynamo_stores.admin.jobs._PAGE_ITEMS", 3)
    store = deduped()
    for number in range(5):
        store.register(f"job{number}")
    found = listing(keeper, store)
    assert (found["pages"], found["is_whole"], found["count"]) == (1, False, 3)
    assert len(found["jobs"]) == 1
    html = keeper.post(page("jobs"), {"using": store.using, "list": "1"}).text
    assert "only the first page was read" in html
    assert "3 jobs, the oldest 1 are shown" in html


def test_a_stuck_job_is_released_once(deduped, keeper):
    """The next caller runs it; the log names its digest."""
    store = deduped()
    fence = store.register("job")
    fields = release(store, "job")
    assert "what the job does may be done twice" in ask(keeper, **fields)
    assert store.is_in_progress("job")
    (message,), token = act(keeper, **fields)
    digest = fields["job"][:12]
    assert message == f"The job {digest} is released: the next caller runs it."
    assert not store.is_in_progress("job")
    assert not store.complete("job", 1, fence=fence)
    store.register("job")
    keeper.post(page("act"), {**fields, "token": token})
    assert store.is_in_progress("job")
    logged = LogEntry.objects.get()
    assert (logged.object_id, logged.change_message) == (digest, f"Release the job: {message}")


def test_what_was_not_looked_at_is_not_released(deduped, keeper):
    """Another owner has the job by then, or it is completed."""
    store = deduped()
    fence = store.register("job")
    fields = release(store, "job")
    store.complete("job", 1, fence=fence)
    (message,), _ = act(keeper, **fields)
    assert "was not released: it is completed" in message
    assert store.wait_for("job") == 1


def test_a_failure_is_released(deduped, keeper):
    """From the list as from the look-up."""
    store = deduped()
    store.fail("job", ValueError("no"), fence=store.register("job"), ttl=600)
    fields = {"using": store.using}
    for form in ({"key": "job"}, {"list": "1"}):
        html = keeper.post(page("jobs"), {**fields, **form}).text
        assert f'name="fence" value="{store.describe("job").fence}"' in html
        assert "Release…" in html
    act(keeper, **release(store, "job"))
    assert store.run("job", lambda: 1) == 1
    html = keeper.post(page("jobs"), {**fields, "key": "job"}).text
    assert "Release…" not in html


def test_what_the_page_costs(deduped, keeper, dynamo_faults, monkeypatch):
    """A Query beside a status page's; a Scan for a list, a GetItem for a look-up, an UpdateItem."""
    monkeypatch.setattr(snapshot, "_CACHE_SECONDS", 600.0)
    store = deduped(ENDPOINT_URL=dynamo_faults.url)
    store.register("job")
    for fields, more in (
        (None, {}),
        ({"key": "job"}, {"GetItem": 1}),
        ({"list": "1"}, {"Scan": 1}),
    ):
        dynamo_faults.requests.clear()
        if fields is None:
            keeper.get(page("jobs"))
        else:
            look(keeper, "jobs", using=store.using, **fields)
        assert sent(dynamo_faults) == {"Query": 4, "BatchGetItem": 1, **more}
    fields = {**release(store, "job"), "token": secrets.token_urlsafe(24)}
    dynamo_faults.requests.clear()
    keeper.post(page("act"), fields)
    assert sent(dynamo_faults) == {"PutItem": 1}
    assert dynamo_faults.requests["UpdateItem"] == 1


@pytest.mark.parametrize("fault", ["fail", "throttle", "hang"])
def test_a_page_without_an_answer_says_so(fault, deduped, keeper, dynamo_faults):
    """For one job and for the list, and when one is released."""
    store = deduped(ENDPOINT_URL=dynamo_faults.url, CIRCUIT_BREAKER={"FAILURE_THRESHOLD": 1000})
    store.register("job")
    fields = {**release(store, "job"), "token": secrets.token_urlsafe(24)}
    getattr(dynamo_faults, fault)("*")
    found = job(keeper, store, "job")
    assert found["problem"].startswith("The job was not read: ")
    assert found["job"] is None
    found = listing(keeper, store)
    assert found["problem"].startswith("The table was not read: ")
    assert found["count"] is None
    answer = keeper.post(page("act"), fields, follow=True)
    assert "Release the job failed: " in answer.text


def test_a_job_of_other_software(deduped, keeper):
    """Is shown as far as it can be read."""
    store = deduped()
    odd = {"s": {"S": "F"}, "u": {"N": "9" * 20}, "f": {"N": "9" * 30}, "e": {"S": "["}}
    run(store.jobs.items.put({**dedupe_job("odd").raw(), **odd}))
    assert job(keeper, store, "odd")["job"]["state"] == "failed"
    fields = {"using": store.using}
    for form in ({"key": "odd"}, {"list": "1"}):
        assert keeper.post(page("jobs"), {**fields, **form}).status_code == 200


def test_who_may_look_and_who_may_act(deduped, log_in, client):
    """A stranger nothing, a viewer no action."""
    store = deduped()
    store.register("job")
    asked = {"using": store.using, "key": "job"}
    forms = {**release(store, "job"), "token": secrets.token_urlsafe(24)}
    assert client.post(page("jobs"), asked).status_code == 302
    assert log_in().post(page("jobs"), asked).status_code == 403
    viewer = log_in("view_status", "manage_capacity")
    answer = viewer.post(page("jobs"), asked)
    assert "in progress" in answer.text
    assert "Release…" not in answer.text
    assert viewer.post(page("act"), forms).status_code == 403
    assert client.post(page("act"), forms).status_code == 302
    assert store.is_in_progress("job")


@pytest.mark.parametrize("key", ["a\0b", "a\nb", "x" * 5000, ""])
def test_keys_that_cannot_be_looked_up(key, deduped, keeper):
    """Are refused with a sentence."""
    found = job(keeper, deduped(), key)
    assert found["problem"].startswith("The key ")
    assert len(found["problem"]) < 300


@pytest.mark.parametrize(
    "wrong",
    [
        {"job": "0" * 63},
        {"job": "../../etc"},
        {"job": ""},
        {"fence": "1; drop"},
        {"fence": "9" * 40},
        {"fence": ""},
        {"using": "unknown"},
    ],
)
def test_wrong_targets_are_refused(wrong, deduped, keeper):
    """With a sentence."""
    store = deduped()
    store.register("job")
    answer = keeper.post(page("act"), {**release(store, "job"), **wrong})
    assert answer.status_code == 400
    assert 10 < len(answer.text) < 300


def test_markup_in_keys_and_errors_is_text(deduped, keeper):
    """Whatever they hold."""
    store, evil = deduped(), '"><script>alert(1)</script>'
    error = type(evil, (Exception,), {})
    store.fail(evil, error(evil), fence=store.register(evil), ttl=600)
    fields = {"using": store.using}
    html = "".join(
        keeper.post(page("jobs"), {**fields, **form}).text
        for form in ({"key": evil}, {"list": "1"})
    )
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert" in html
