"""Each role does its work with its policy, and no action that a policy allows goes unused."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets

import boto3
import pytest
from django.contrib.auth import get_user_model
from django.core.cache import caches
from django.test import Client

from dynamo_stores import tasks
from dynamo_stores.cache import DynamoDBCache
from dynamo_stores.conf import get_config
from dynamo_stores.deployment import iam
from dynamo_stores.deployment.description import describe
from dynamo_stores.infrastructure.tables import wanted_tables
from dynamo_stores.monitoring.reporter import get_reporter
from dynamo_stores.stores import (
    AdaptiveRateLimitStore,
    CacheStore,
    DedupeStore,
    RateLimitStore,
)
from dynamo_stores.streams.checkpoints import Checkpoints
from dynamo_stores.streams.client import StreamsClient
from dynamo_stores.streams.reader import Options
from dynamo_stores.streams.worker import StreamWorker
from forum import keys, posting
from forum.adapters import get_database
from forum.models import Support
from forum.tasks import finish_moves, warm_pages
from forum.trees import Tree, TreeUnfinished
from tests.helpers.authorizing import ACCOUNT, AuthorizingRelay
from tests.helpers.commands import run
from tests.helpers.status import act, page

# Beside the defaults: a provisioned table with scaling, and a table with a stream.
SETTINGS = {
    "SCALING": {"ENABLED": True, "SCALE_DOWN_DELAY": 60},
    "REPORTS": {"ENABLED": True, "INTERVAL": 3600.0},
    "TABLES": {
        "dynamo-stores": {"BILLING_MODE": "PROVISIONED"},
        "forum-support": {"STREAM": "NEW_IMAGE"},
    },
}
PLACE = iam.Place("aws", "us-east-1", ACCOUNT)


@pytest.fixture
def deployed(default_alias, dynamo_engine, settings):
    """
    ``with deployed(role) as relay``: the project uses the tables with the policy of the role, which
    the deployer has created with its own.
    """
    prefix = f"roles-{secrets.token_hex(4)}-"

    @contextlib.contextmanager
    def use(role, **changes):
        base = {**default_alias, "TABLE_PREFIX": prefix, **SETTINGS, **changes}
        settings.DYNAMO_STORES = {"default": base}
        found = describe(wanted_tables(), ["default"])
        document = iam.policy(role, found, lambda using: PLACE)
        with AuthorizingRelay(dynamo_engine, document) as relay:
            settings.DYNAMO_STORES = {"default": {**base, "ENDPOINT_URL": relay.url}}
            yield relay

    yield use
    engine = boto3.client(
        "dynamodb",
        region_name="us-east-1",
        endpoint_url=dynamo_engine,
        aws_access_key_id="fixtures",
        aws_secret_access_key="fixtures",
    )
    for name in engine.list_tables()["TableNames"]:
        if name.startswith(prefix):
            engine.delete_table(TableName=name)


def use_stores():
    """Call the verbs of every store, sync and async."""
    for options in ({}, {"CLEAR": "generation"}):
        cache = DynamoDBCache("default", {"KEY_PREFIX": secrets.token_hex(4), "OPTIONS": options})
        cache.set("k", [1], tags=["t"])
        cache.add("n", 1)
        cache.incr("n")
        cache.touch("n", 60)
        cache.set("large", b"x" * 900_000)
        assert cache.get("large") == b"x" * 900_000
        cache.set_many({f"k{number}": number for number in range(30)})
        assert len(cache.get_many([f"k{number}" for number in range(30)])) == 30
        cache.has_key("k")
        cache.ttl("k")
        cache.get_or_set("other", 5)
        cache.invalidate_tags(["t"])
        assert cache.get("k") is None
        with cache.lock("lock"):
            pass
        assert list(cache.iter_keys("k1*"))
        cache.delete_pattern("k1*")
        cache.delete_many(["k2", "k3", "large"])
        cache.delete("n")
        cache.store.cleanup()
        cache.store.get_stats()
        asyncio.run(cache.aset("async", 1))
        cache.clear()
    limits = RateLimitStore()
    limits.acquire("r", key="k", rate="5/m")
    limits.get_status("r", key="k")
    limits.reset("r", key="k")
    limits.set_resource_config("r", "7/m", everywhere=True)
    limits.get_resource_config("r")
    limits.get_stored_configs()
    adaptive = AdaptiveRateLimitStore()
    adaptive.acquire("a", key="k", priority="user")
    adaptive.acquire("a", key="k", priority="background")
    jobs = DedupeStore()
    assert jobs.run("job", lambda: "x" * 900_000) == jobs.run("job", lambda: 2)
    with contextlib.suppress(ValueError):
        jobs.run("failed", _fail)
    jobs.is_in_progress("job")


def _fail():
    raise ValueError


@pytest.fixture
def created(deployed):
    """The tables."""
    with deployed("deployer") as relay:
        run("dynamo_create_tables")
    assert not relay.refused


def test_the_deployer(deployed):
    """Creates the tables, changes them, and verifies them."""
    options = {"POINT_IN_TIME_RECOVERY": True, "TAGS": {"team": "forum"}}
    with deployed("deployer", **options) as relay:
        run("dynamo_create_tables")
    grants, unused = relay.grants, relay.unused()
    with deployed("deployer", **options, DELETION_PROTECTION=True) as relay:
        run("dynamo_update_tables", "--no-input")
        run("dynamo_verify")
    assert not relay.refused
    changed = {action for action, _ in set(unused) & set(relay.unused())}
    assert (relay.grants, changed) == (grants, set())
    with deployed("deployer", DELETION_PROTECTION=False):
        run("dynamo_update_tables", "--no-input", "--allow-removal")


@pytest.fixture
def staff(db):
    """A client of a superuser."""
    user = get_user_model().objects.create_superuser("root", "root@example.com", "pw")
    client = Client()
    client.force_login(user)
    return client


def use_forum(visitor, staff):
    """Write, edit, move and delete as a member and as staff; look at every list."""
    password = secrets.token_urlsafe(12)
    names = {"username": "ada", "email": "ada@example.com"}
    send(visitor, "/sign-up/", {**names, "password1": password, "password2": password})
    thread = send(visitor, "/new/", {"title": "A tree of words", "text": "First"})
    first = last_post(visitor, thread)
    send(visitor, f"{thread}reply/", {"text": "Second"})
    second = last_post(visitor, thread)
    send(visitor, f"{first}reply/", {"text": "Reply"})
    for path in (f"{second}edit/", f"{thread}edit/", "/account/edit/"):
        version = re.search(r'name="version" value="(\d+)"', visitor.get(path).text)
        fields = {
            "text": "Edited",
            "title": "Other words",
            "description": "d",
            **names,
            "name": "Ada",
        }
        send(visitor, path, {**fields, "version": version[1] if version else ""})
    user = visitor.get("/account/").headers["Location"]
    paths = (user, "/", "/search/?q=words", "/account/activity/", thread, first)
    for path in paths:
        assert visitor.get(path).status_code == 200, path
    send(visitor, "/logout/", {})
    send(visitor, "/login/", {"username": "ada", "password": password})
    for path in ("/api/users", "/api/threads", "/api/posts"):
        assert visitor.get(path).status_code == 200, path
    number = thread.split("/")[2]
    assert visitor.get(f"/api/posts/in-thread/{number}").status_code == 200
    assert visitor.get(f"/api/posts/by-user/{user.split('/')[2]}").status_code == 200
    send(staff, f"{second}move/", {"parent": first})
    version = re.search(r'name="version" value="(\d+)"', visitor.get(f"{second}delete/").text)
    send(visitor, f"{second}delete/", {"version": version[1]})
    send(staff, f"{first}delete-replies/", {})
    send(staff, f"{thread}delete/", {})
    get_user_model().objects.get(username="ada").delete()


def send(client, path, fields):
    """Send a form; return the path of the next page."""
    answer = client.post(path, fields)
    assert answer.status_code == 302, (path, answer.status_code, answer.text)
    return answer.headers["Location"].partition("#")[0]


def last_post(client, thread):
    """Return the path of the last post of a thread."""
    return re.findall(r'class="time" href="([^"]+)"', client.get(thread).text)[-1]


def use_admin(staff):
    """Look at each page, and act."""
    for name in ("overview", "breakers", "history", "latency", "cache", "limits", "jobs"):
        assert staff.get(page(name)).status_code == 200, name
    RateLimitStore().acquire("reports", key="1", rate="5/m")
    fields = {"using": "default", "resource": "reports", "key": "1"}
    assert act(staff, action="reset_limit", **fields)[0]
    caches["default"].set("k", 1)
    assert staff.post(page("cache"), {"cache": "default", "key": "k"}).status_code == 200
    assert act(staff, action="delete_entry", using="default", cache="default", key="k")[0]
    assert act(staff, action="reconcile", using="default")[0]
    DedupeStore().register("job")
    assert staff.post(page("jobs"), {"using": "default", "list": "1"}).status_code == 200


def raise_capacity(relay, until):
    """Let a write of the store be throttled, and wait until the capacity of its table is raised."""
    table = get_config("default").store_table
    reason = "TableWriteProvisionedThroughputExceeded"
    relay.throttle("PutItem", 1, reason=reason, resource=PLACE.table(table))
    CacheStore().set("throttled", 1)
    until(lambda: relay.requests["UpdateTable"])


def read_stream(clock):
    """Read what requests wrote."""
    table, seen = get_config("default").real_name("forum-support"), []
    worker = StreamWorker(
        StreamsClient(table, "default"),
        Checkpoints(table, "c", "default", 30.0),
        seen.append,
        Options(),
    )
    for _ in range(20):
        clock.advance(max(worker.turn(), 0.01))
    worker.release()
    assert seen


def test_the_web(deployed, created, staff, until):
    """Serves the pages of the forum and of the admin, and raises a throttled table."""
    with deployed("web") as relay:
        use_stores()
        raise_capacity(relay, until)
        caches["default"].clear()
        get_reporter("default").publish()
        use_admin(staff)
        assert Client().get("/dynamo-stores/health/ready").status_code == 200
        use_forum(Client(), staff)
    assert (relay.refused, relay.unused()) == (set(), [])


def leave_work():
    """Leave a move and two deletions that the worker has to finish."""
    database, kept = get_database(), []
    for change in ("move", "remove_all", "remove_thread"):
        thread = posting.create_thread("u", "Left", "first")["threadId"]
        one, two = (posting.create_post("u", thread, text)["postId"] for text in "ab")
        posting.create_post("u", thread, "c", parent=one)
        arguments = {"move": (thread, one, two), "remove_all": (thread, one)}
        with pytest.raises(TreeUnfinished):
            getattr(Tree(database, patience=0), change)(*arguments.get(change, (thread,)))
        kept.append(thread)
    for thread in kept:
        support = database.adapter(Support)
        row = support.get_by_id(keys.work(thread), consistent=True)
        if row is not None:
            support.update(row, {"takenUntil": 1})


def test_the_worker(deployed, created, staff, dynamo_clock, until):
    """Runs the tasks, which lower a table and finish what requests began, and reads a stream."""
    with deployed("web"):
        leave_work()
        get_reporter("default").publish(has_ended=True)
    with deployed("worker") as relay:
        read_stream(dynamo_clock)
        use_stores()
        raise_capacity(relay, until)
        get_reporter("default").publish()
        for seconds in (90, 100_000, 10_000_000):
            dynamo_clock.advance(seconds)
            for task in (tasks.cleanup_expired, tasks.reconcile_capacity, tasks.roll_up_status):
                task()
        warm_pages()
        assert finish_moves()
    assert (relay.refused, relay.unused()) == (set(), [])
