"""Several processes and threads at once, and objects that a fork must not share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading

import pytest

from dynamo_stores.cache import DynamoDBCache
from dynamo_stores.cache.store.items import CacheEntry
from dynamo_stores.calls.connection import get_connection
from tests.helpers.forking import in_processes

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def test_children_of_a_warm_process_read_their_own_values(cache):
    """Eight children, 200 reads each: no process gets the answer of another one."""
    cache.set_many({f"k{number}": number for number in range(8)})
    assert cache.get("k0") == 0
    results = in_processes(8, lambda number: {cache.get(f"k{number}") for _ in range(200)})
    assert results == [{number} for number in range(8)]


def test_children_of_a_busy_process(cache):
    """Threads that hold locks and sockets while the process forks do no harm."""
    cache.set("k", "v")
    stop = threading.Event()

    def read():
        while not stop.is_set():
            cache.get("k")

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        assert in_processes(4, lambda number: cache.get("k")) == ["v"] * 4
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_connection_held_over_a_fork_is_not_used(cache):
    """An object made before the fork sends through the child's own client."""
    cache.set("k", 1)
    connection = get_connection()
    parents = connection

    def work(number):
        key = cache.store.item_key(cache.make_key("k"))
        table = CacheEntry.Meta.table_name
        request = {"TableName": table, "Key": {"PK": {"S": key.pk}, "SK": {"S": key.sk}}}
        answer = connection.dispatch("GetItem", request)
        return answer["Item"]["n"]["N"], get_connection() is not parents

    assert in_processes(1, work) == [("1", True)]


def test_eighty_parallel_increments_count_eighty(cache):
    """Four processes, four threads each, five increments each."""
    cache.set("n", 0)

    def work(number):
        threads = [
            threading.Thread(target=lambda: [cache.incr("n") for _ in range(5)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    in_processes(4, work)
    assert cache.get("n") == 80


def test_parallel_increments_of_a_serialised_number_all_count(cache):
    """Compare and set loses none either."""
    cache.set("f", 0.5)
    in_processes(4, lambda number: [cache.incr("f") for _ in range(5)])
    assert cache.get("f") == 20.5


def test_twelve_parallel_adds_have_one_winner(cache):
    """Also over an entry that has expired and is still there."""
    for key in ("fresh", "expired"):
        if key == "expired":
            cache.set(key, "old", 0.001)
        wins = in_processes(12, lambda number, key=key: cache.add(key, number))
        assert sum(wins) == 1
        assert cache.get(key) == wins.index(True)


def test_one_client_per_process_however_many_threads(cache):
    """Fifty threads at the first call make one client between them."""
    get_connection().close()
    barrier, clients = threading.Barrier(50), []

    def call():
        barrier.wait()
        clients.append(get_connection())

    threads = [threading.Thread(target=call) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, clients))) == 1


def test_aliases_with_one_table_name_never_mix(alias, default_alias):
    """Two regions with the same table name, used by threads at once."""
    from django.core.management import call_command

    from dynamo_stores.calls.control import get_control

    here, there = alias(REGION="us-east-1"), alias(REGION="eu-west-1")
    table = CacheEntry.Meta.table_name
    call_command("dynamo_create_tables", table=[table], verbosity=0)
    caches = {using: DynamoDBCache(using, {"KEY_PREFIX": "mix"}) for using in (here, there)}
    wrong = []

    def work(using):
        for number in range(50):
            caches[using].set(f"k{number % 3}", using)
            if (found := caches[using].get(f"k{number % 3}")) != using:
                wrong.append((using, found))

    threads = [threading.Thread(target=work, args=(using,)) for using in (here, there) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert wrong == []
        assert (
            CacheEntry.bound_to(here).Meta.table_name == CacheEntry.bound_to(there).Meta.table_name
        )
    finally:
        get_control(there).call("DeleteTable", {"TableName": table})


def test_importing_everything_opens_nothing():
    """All modules, django.setup() and manage.py check: no socket, no credentials, no settings."""
    code = textwrap.dedent(
        """
        import importlib, io, json, pkgutil, sys
        opened = []
        def audit(event, args):
            if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
                opened.append([event, str(args)])
            if event == "open" and ".aws" in str(args[0]):
                opened.append([event, str(args[0])])
        sys.addaudithook(audit)
        import dynamo_stores
        modules = [m.name for m in pkgutil.walk_packages(dynamo_stores.__path__, "dynamo_stores.")]
        # The framework under the throttles, the toolbar and old versions of django-health-check
        # read settings when they are imported, and pages of the admin are for projects that are
        # set up.
        later = (
            "dynamo_stores.ratelimit.rest_framework",
            "dynamo_stores.monitoring.django_health_check",
            "dynamo_stores.admin.",
            "dynamo_stores.monitoring.panel",
        )
        modules.remove("dynamo_stores.testing.fixtures")
        for name in modules:
            if not name.startswith(later):
                importlib.import_module(name)
        from django.conf import settings
        configured = settings.configured
        import django
        django.setup()
        for name in modules:
            importlib.import_module(name)
        from django.core.management import call_command
        call_command("check", stdout=io.StringIO())
        import botocore.session
        print(json.dumps([opened, configured, len(modules)]))
        """
    )
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "project.settings"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    opened, configured, count = json.loads(done.stdout)
    assert opened == []
    assert configured is False
    assert count > 30
