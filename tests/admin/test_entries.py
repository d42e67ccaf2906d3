"""The page of caches: hits, entries without their values, and their deletion."""

from __future__ import annotations

import json
import os
import secrets
import time
from dataclasses import replace

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client

from dynamo_stores.cache import cache_for
from dynamo_stores.cache.store.values import PART_BYTES
from dynamo_stores.monitoring import snapshot
from dynamo_stores.monitoring.report_store import ReportStore
from dynamo_stores.monitoring.reporter import get_reporter
from tests.helpers.data_pages import look, sent
from tests.helpers.status import act, ask, page, token_of_form

pytestmark = pytest.mark.django_db
HOSTILE = ["a\0b", "a\nb", "x" * 5000, ""]


def entry(client, key, **fields):
    return look(client, "cache", cache="kept", key=key, **fields)["entry"]


def test_hits_of_all_processes_are_summed_up(reporting, log_in):
    """By their reports; without lookups no rate is claimed."""
    using, unused = reporting(), reporting()
    own, store = get_reporter(using).report(), ReportStore(using)
    for number in range(2):
        store.publish(replace(own, host=f"host{number}", cache_hits=30, cache_misses=10))
    watcher = log_in("view_status")
    found = json.loads(watcher.get(page("cache", format="json")).content)
    (row,) = [each for each in found["hits"] if each["using"] == using]
    assert (row["hits"], row["misses"], row["rate"], row["processes"]) == (60, 20, 0.75, 3)
    (empty,) = [each for each in found["hits"] if each["using"] == unused]
    assert empty["rate"] is None
    html = watcher.get(page("cache")).text
    assert "75 %" in html
    assert found["entry"] is None


def test_an_entry_is_shown_without_its_value(kept, log_in):
    """State, times, size, parts and tags, also to those who may only look."""
    cache = kept({"COMPRESSOR": "zlib"})
    value = "secret " * 1000
    cache.set("user:1", value, 60, tags=["red", "blue"])
    watcher = log_in("view_status")
    found = entry(watcher, "user:1")["entry"]
    assert (found["state"], found["parts"], found["is_compressed"]) == ("live", 1, True)
    assert found["tags"] == ["blue", "red"]
    assert 0 < found["size"] < len(value)
    assert found["expiry"] == pytest.approx(time.time() + 60, abs=40)
    assert found["written_at"] == pytest.approx(time.time(), abs=40)
    answer = watcher.post(page("cache"), {"cache": "kept", "key": "user:1"})
    assert "live" in answer.text
    assert "compressed" in answer.text
    assert "<code>blue</code>, <code>red</code>" in answer.text
    assert "secret" not in answer.text + json.dumps(entry(watcher, "user:1"))
    assert "Delete the key" not in answer.text


def test_versions_are_apart(kept, keeper):
    """That of the settings by default."""
    cache = kept()
    cache.set("k", 1, version=2)
    assert entry(keeper, "k")["entry"] is None
    assert entry(keeper, "k", version="2")["entry"]["size"] == 1
    assert "expected a whole number" in entry(keeper, "k", version="two")["problem"]


def test_why_the_cache_returns_no_value(kept, keeper):
    """Expired, invalidated and incomplete entries are shown as such."""
    cache = kept()
    cache.set("old", 1, 0.01)
    cache.set("tagged", 1, tags=["t"])
    cache.invalidate_tags(["t"])
    time.sleep(0.02)
    for key, state in (("old", "expired"), ("tagged", "invalidated")):
        assert entry(keeper, key)["entry"]["state"] == state
        assert state in keeper.post(page("cache"), {"cache": "kept", "key": key}).text


def test_a_key_is_deleted_once_after_a_confirmation(kept, keeper):
    """The log has the user and the beginning of the key."""
    cache = kept()
    key = "user:" + "9" * 200
    cache.set(key, "v")
    fields = {"action": "delete_entry", "using": cache.store.using, "cache": "kept", "key": key}
    html = ask(keeper, **fields, back="cache")
    assert "Delete the key &#x27;user:9" in html
    assert cache.get(key) == "v"
    (message,), token = act(keeper, **fields, back="cache")
    assert message.startswith("The key 'user:999")
    assert message.endswith("in version 1 of cache kept is deleted.")
    assert cache.get(key) is None
    cache.set(key, "v")
    again = keeper.post(page("act"), {**fields, "token": token, "back": "cache"}, follow=True)
    assert "already carried out" in str(next(iter(again.context["messages"])))
    assert cache.get(key) == "v"
    logged = LogEntry.objects.get()
    assert (logged.object_id, logged.user.pk) == ("kept", int(keeper.session["_auth_user_id"]))
    assert logged.change_message.startswith("Delete the key: The key 'user:999")
    assert key not in logged.change_message


def test_a_missing_key_is_not_deleted(kept, keeper):
    """Which the message says."""
    cache = kept()
    fields = {"action": "delete_entry", "using": cache.store.using, "cache": "kept", "key": "k"}
    (message,), _ = act(keeper, **fields)
    assert message == "There was no valid key 'k' in version 1 of cache kept."


def test_keys_of_a_pattern_are_counted_then_deleted(kept, keeper):
    """Of one version; nothing is offered if none matches."""
    cache = kept()
    cache.set_many({f"user:{number}": 1 for number in range(40)})
    cache.set("other", 1)
    cache.set("user:1", 1, version=2)
    fields = {"action": "clear_pattern", "using": cache.store.using, "cache": "kept"}
    html = ask(keeper, **fields, pattern="user:*", back="cache")
    assert "40 keys in version 1 of cache kept match &#x27;user:*&#x27;." in html
    assert cache.get("user:5") == 1
    (message,), _ = act(keeper, **fields, pattern="user:*")
    assert message == "40 keys that match 'user:*' in version 1 of cache kept deleted."
    assert cache.keys("*") == ["other"]
    assert cache.get("user:1", version=2) == 1
    html = ask(keeper, **fields, pattern="user:*")
    assert "Nothing would change: 0 keys" in html
    assert "ds-yes" not in html


def test_a_pattern_that_takes_too_long_ends(kept, keeper, monkeypatch):
    """The page says how far it came."""
    monkeypatch.setattr("dynamo_stores.admin.entries.COUNT_SECONDS", 0)
    monkeypatch.setattr("dynamo_stores.admin.entries.CLEAR_SECONDS", 0)
    cache = kept(CACHE={"EXPIRY_INDEX": True})
    cache.set_many({f"k{number}": 1 for number in range(40)})
    fields = {"action": "clear_pattern", "using": cache.store.using, "cache": "kept"}
    html = ask(keeper, **fields, pattern="*")
    assert "the first page was read" in html
    (message,), _ = act(keeper, **fields, pattern="*")
    assert "0 keys that match '*'" in message
    assert "There may be more: the time was over after 1 page of the table." in message
    assert len(cache.keys("*")) == 40


def test_a_cache_with_generations_is_cleared_by_one_write(kept, keeper):
    """Others have no such action."""
    cache = kept({"CLEAR": "generation"})
    cache.set("k", 1)
    fields = {"action": "clear_cache", "using": cache.store.using, "cache": "kept"}
    assert "Clear all" in keeper.get(page("cache")).text
    (message,), _ = act(keeper, **fields)
    assert message == "All entries of cache kept are invalid now."
    assert cache.get("k") is None
    cache = kept()
    answer = keeper.post(page("act"), {**fields, "using": cache.store.using})
    assert answer.status_code == 400
    assert "Clear all" not in keeper.get(page("cache")).text


def test_what_the_page_costs(kept, keeper, dynamo_faults, monkeypatch):
    """Two Queries beside a status page's; for a key that is looked up a GetItem, parts one more."""
    monkeypatch.setattr(snapshot, "_CACHE_SECONDS", 600.0)
    cache = kept(ENDPOINT_URL=dynamo_faults.url)
    cache.set("k", "v")
    cache.set("large", os.urandom(PART_BYTES + 10_000))
    for fields, more in (
        (None, {}),
        ({"key": "k"}, {"GetItem": 1}),
        ({"key": "missing"}, {"GetItem": 1}),
        ({"key": "large"}, {"GetItem": 1, "BatchGetItem": 2}),
    ):
        dynamo_faults.requests.clear()
        if fields is None:
            keeper.get(page("cache"))
        else:
            entry(keeper, **fields)
        assert sent(dynamo_faults) == {"Query": 5, "BatchGetItem": 1, **more}


def test_what_actions_cost(kept, keeper, dynamo_faults):
    """A deletion is one DeleteItem, a pattern without an index one Scan for each time."""
    cache = kept(ENDPOINT_URL=dynamo_faults.url)
    cache.set("k", "v")
    fields = {"using": cache.store.using, "cache": "kept"}
    dynamo_faults.requests.clear()
    html = ask(keeper, action="delete_entry", key="k", **fields)
    assert sent(dynamo_faults) == {}
    token = token_of_form(html)
    keeper.post(page("act"), {"action": "delete_entry", "key": "k", "token": token, **fields})
    assert sent(dynamo_faults) == {"DeleteItem": 1, "PutItem": 1}
    dynamo_faults.requests.clear()
    ask(keeper, action="clear_pattern", pattern="*", **fields)
    assert sent(dynamo_faults) == {"Scan": 1}


@pytest.mark.parametrize("fault", ["fail", "throttle", "hang"])
def test_a_page_without_an_answer_says_so(fault, kept, keeper, dynamo_faults):
    """Also where the cache ignores exceptions; nothing is offered that cannot succeed."""
    cache = kept(
        {"IGNORE_EXCEPTIONS": True},
        ENDPOINT_URL=dynamo_faults.url,
        CIRCUIT_BREAKER={"FAILURE_THRESHOLD": 1000},
    )
    getattr(dynamo_faults, fault)("*")
    found = entry(keeper, "k")
    assert found["problem"].startswith("The key was not read: ")
    assert found["entry"] is None
    assert keeper.get(page("cache")).status_code == 200
    fields = {"action": "clear_pattern", "using": cache.store.using, "cache": "kept"}
    html = ask(keeper, **fields, pattern="*")
    assert "How many keys match is not known" in html
    assert "ds-yes" not in html
    (message,), _ = _send(keeper, {**fields, "action": "delete_entry", "key": "k"})
    assert message.startswith("Delete the key failed: ")


def _send(client, fields):
    answer = client.post(page("act"), {**fields, "token": secrets.token_urlsafe(24)}, follow=True)
    return [str(message) for message in answer.context["messages"]], None


def test_only_the_look_up_is_throttled(kept, keeper, dynamo_faults):
    """The rest of the page is shown."""
    kept(ENDPOINT_URL=dynamo_faults.url)
    dynamo_faults.throttle("GetItem")
    found = look(keeper, "cache", cache="kept", key="k")
    assert "throttled" in found["entry"]["problem"].lower()
    assert found["problems"] == []


def test_who_may_look_and_who_may_act(kept, log_in, client):
    """A stranger nothing, a viewer no action, a superuser all."""
    cache = kept()
    cache.set("k", 1)
    asked = {"cache": "kept", "key": "k"}
    fields = {"action": "delete_entry", "using": cache.store.using, **asked}
    forms = {**fields, "token": secrets.token_urlsafe(24)}
    assert client.post(page("cache"), asked).status_code == 302
    assert log_in().post(page("cache"), asked).status_code == 403
    assert log_in("manage_data").post(page("act"), forms).status_code == 403
    for permissions in (["view_status"], ["view_status", "manage_capacity"]):
        viewer = log_in(*permissions)
        answer = viewer.post(page("cache"), asked)
        assert "live" in answer.text
        assert "act/" not in answer.text.split('id="content"')[1].split("</main>")[0]
        assert viewer.post(page("act"), forms).status_code == 403
    checked = log_in("view_status", "manage_data", csrf=True)
    assert checked.post(page("act"), forms).status_code == 403
    assert checked.post(page("cache"), asked).status_code == 403
    assert cache.get("k") == 1
    assert LogEntry.objects.count() == 0
    root = Client()
    root.force_login(User.objects.create_superuser("root"))
    (message,), _ = act(root, **fields)
    assert "is deleted" in message


def test_a_keeper_may_not_change_capacity(reporting, keeper):
    """Each kind of action has its permission."""
    using = reporting()
    fields = {"action": "reconcile", "using": using}
    assert keeper.post(page("act"), fields).status_code == 403


@pytest.mark.parametrize("key", HOSTILE)
def test_keys_that_cannot_be_looked_up(key, kept, keeper):
    """Are refused with a sentence, and no action takes them."""
    cache = kept()
    found = entry(keeper, key)
    assert found["problem"].startswith("The key ")
    assert len(found["problem"]) < 300
    fields = {"action": "delete_entry", "using": cache.store.using, "cache": "kept", "key": key}
    answer = keeper.post(page("act"), fields)
    assert answer.status_code == 400
    assert len(answer.text) < 300


def test_markup_in_keys_and_tags_is_text(kept, keeper):
    """Also in questions and messages."""
    cache, evil = kept(), '"><script>alert(1)</script>'
    cache.set(evil, 1, tags=[evil])
    html = keeper.post(page("cache"), {"cache": "kept", "key": evil}).text
    fields = {"action": "delete_entry", "using": cache.store.using, "cache": "kept", "key": evil}
    html += ask(keeper, **fields)
    token = token_of_form(ask(keeper, **fields))
    html += keeper.post(page("act"), {**fields, "token": token}, follow=True).text
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert" in html
    assert cache.get(evil) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"cache": "unknown"},
        {"cache": "plain"},
        {"using": "unknown"},
        {"using": "default"},
        {"version": "1; drop"},
        {"action": "clear_pattern", "pattern": ""},
        {"action": "clear_pattern", "pattern": "a\0*"},
        {"action": "x" * 10_000},
    ],
)
def test_wrong_targets_are_refused(wrong, kept, keeper, settings):
    """Unknown caches, caches of other backends and other aliases."""
    cache = kept()
    settings.CACHES = {
        **settings.CACHES,
        "plain": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
    }
    fields = {"action": "delete_entry", "using": cache.store.using, "cache": "kept", "key": "k"}
    answer = keeper.post(page("act"), {**fields, **wrong})
    assert answer.status_code == 400
    assert 10 < len(answer.text) < 500


def test_an_unknown_cache_is_not_looked_up(kept, keeper):
    """Nor one of another backend."""
    kept()
    for name in ("unknown", "x" * 10_000, ""):
        answer = keeper.post(page("cache"), {"cache": name, "key": "k"})
        assert answer.status_code == 400
        assert len(answer.text) < 300


def test_a_cache_with_wrong_options(kept, keeper):
    """Is listed with what is wrong, and the page is shown."""
    kept({"SERIALISER": "pickle"})
    assert "SERIALISER" in keeper.get(page("cache")).text
    assert "SERIALISER" in entry(keeper, "k")["problem"]


def test_what_other_processes_have_in_memory(kept, keeper):
    """Is said before and after a deletion."""
    cache = kept({"LOCAL_TIMEOUT": 7, "LOCAL_STALE": 600})
    cache.set("k", 1)
    assert "for 7 s" in keeper.post(page("cache"), {"cache": "kept", "key": "k"}).text
    fields = {"action": "delete_entry", "using": cache.store.using, "cache": "kept", "key": "k"}
    assert "from their memory for 7 s" in ask(keeper, **fields)
    (message,), _ = act(keeper, **fields)
    assert message.endswith("from their memory for 7 s; while DynamoDB does not answer, for 600 s.")
    assert cache_for("kept").get("k") is None


def test_without_a_cache_of_ours(reporting, keeper, settings):
    """The page says so."""
    reporting()
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
    assert "No cache of <code>CACHES</code>" in keeper.get(page("cache")).text
