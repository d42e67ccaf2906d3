"""A region that is killed, and comes back."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from dynamo_stores.calls.connection import get_connection
from dynamo_stores.exceptions import StoreUnavailable
from dynamo_stores.infrastructure.tables import create_table, table_of
from dynamo_stores.models import StoreItem
from dynamo_stores.testing.engine import EmbeddedEngine

pytestmark = pytest.mark.slow


def test_a_region_that_is_killed_under_load(alias, make_cache, until):
    """Its reads go on in the other region, its writes fail, and both return when it is back."""
    engine = EmbeddedEngine().start()
    try:
        using = alias(
            ENDPOINT_URL=engine.url,
            FAILOVER="default",
            CIRCUIT_BREAKER={"RECOVERY_TIMEOUT": 0.5},
        )
        model = StoreItem.bound_to(using)
        create_table(table_of(model), lambda text: None)
        options = {"KEY_PREFIX": "regions", "OPTIONS": {"OPERATION_TIMEOUT": 5.0}}
        cache, other = make_cache(using, **options), make_cache("default", **options)
        for each in (cache, other):
            each.set_many({f"k{number}": number for number in range(110)})
        stop, errors, counted = threading.Event(), [], [0] * 4

        def read(number):
            while not stop.is_set():
                try:
                    assert cache.get("k1") in (1, None, "written")
                    cache.get_many([f"k{n}" for n in range(110)])
                    counted[number] += 1
                except Exception as exc:
                    errors.append(exc)

        threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        try:
            until(lambda: min(counted) > 3)
            os.kill(engine.process.pid, signal.SIGKILL)
            engine.process.wait()
            before = min(counted)
            until(lambda: min(counted) > before + 3)
            assert cache.get("k1") == 1
            assert len(cache.get_many(["k1", "k2", "k109"])) == 3
            with pytest.raises(StoreUnavailable):
                cache.set("k1", 2)
            again = EmbeddedEngine(engine.port).start()
            try:
                create_table(table_of(model), lambda text: None)
                until(lambda: not get_connection(using).failed_over())
                cache.set("k1", "written")
                assert (cache.get("k1"), other.get("k1")) == ("written", 1)
            finally:
                stop.set()
                for thread in threads:
                    thread.join()
                again.stop()
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    finally:
        engine.stop()
    # Between the restart and the creation of the table it does not exist.
    assert {type(each).__name__ for each in errors} <= {"TableMissingError"}
