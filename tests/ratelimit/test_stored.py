"""Listing the stored limits, and what is counted for a key."""

from __future__ import annotations

from collections import Counter

import pytest
from asgiref.sync import async_to_sync

from dynamo_stores.calls.observer import measuring
from dynamo_stores.concurrency.effects import run
from dynamo_stores.conf.rates import Rate
from dynamo_stores.exceptions import StoreUnavailable
from dynamo_stores.ratelimit.items import StoredRate
from dynamo_stores.stores import AdaptiveRateLimitStore, RateLimitStore


@pytest.fixture
def limits(reporting):
    """A store on a table of its own."""
    return RateLimitStore(reporting(REPORTS={"ENABLED": False}))


def operations(function, *args, **kwargs):
    """Return the result of ``function``, and the operations that it made, counted."""
    with measuring() as measurements:
        result = function(*args, **kwargs)
    return result, Counter(each.operation for each in measurements)


def test_stored_limits_are_listed(limits):
    """By one Query, until they are removed; not those of a process."""
    limits.set_resource_config("here", "1/m")
    limits.set_resource_config("exports", {"RATE": "5/m", "ALGORITHM": "gcra"}, everywhere=True)
    limits.set_resource_config("odd # \udc80", None, everywhere=True)
    limits.set_resource_config("x" * 3000, "7/m", everywhere=True)
    found, sent = operations(limits.get_stored_configs)
    limits.unset_resource_config("here")
    assert found["exports"].rates == (Rate(5, 60),)
    assert found["exports"].algorithm == "gcra"
    assert found["odd # \udc80"].rates is None
    assert found["x" * 3000].rates == (Rate(7, 60),)
    assert (len(found), sent) == (3, {"Query": 1})
    assert AdaptiveRateLimitStore(limits.using).get_stored_configs().keys() == found.keys()
    limits.unset_resource_config("exports", everywhere=True)
    assert "exports" not in limits.get_stored_configs()
    assert async_to_sync(limits.aget_stored_configs)().keys() == found.keys() - {"exports"}


def test_a_stored_limit_that_cannot_be_read(limits):
    """Is listed as None."""
    item = StoredRate("RATE#odd", "CONFIG", config='{"?": 1}', name=b"odd")
    item.gsi1pk, item.gsi1sk = "RATES", "odd"
    run(limits._items.put(item.serialize()))
    assert limits.get_stored_configs() == {"odd": None}


def test_what_is_counted_for_a_key(limits):
    """Each algorithm and set of windows, whatever the rate; by one Query."""
    assert limits.get_counted("views", key="1") == []
    for rate in (
        "5/m",
        "10/s,100/h",
        {"RATE": "5/m", "ALGORITHM": "gcra"},
        {"RATE": "5/d", "ALGORITHM": "log"},
        {"RATE": "5/m", "ALGORITHM": "fixed"},
    ):
        limits.acquire("views", key="1", rate=rate)
    found, sent = operations(limits.get_counted, "views", key="1")
    assert sorted(found) == [
        ("fixed", (60.0,)),
        ("gcra", (60.0,)),
        ("log", (86_400.0,)),
        ("sliding", (1.0, 3600.0)),
        ("sliding", (60.0,)),
    ]
    assert sent == {"Query": 1}
    assert len(async_to_sync(limits.aget_counted)("views", key="1")) == 5
    assert limits.get_counted("views", key="2") == []


def test_whether_an_adaptive_limit_is_counted(limits):
    """It has items of its own."""
    adaptive = AdaptiveRateLimitStore(limits.using)
    limits.acquire("sync", key="1", rate="5/m")
    assert not adaptive.is_counted("sync", key="1")
    adaptive.acquire("sync", key="1", rate="5/m")
    assert adaptive.is_counted("sync", key="1")
    adaptive.reset("sync", key="1")
    assert not async_to_sync(adaptive.ais_counted)("sync", key="1")


@pytest.mark.parametrize("kind", [RateLimitStore, AdaptiveRateLimitStore])
def test_an_outage_can_be_raised(kind, alias, dynamo_faults):
    """Instead of a status that was decided without the table; throttling, too."""
    using = alias(
        ENDPOINT_URL=dynamo_faults.url,
        RETRY={"MAX_RETRIES": 0, "THROTTLE_RETRIES": 0},
        RATE_LIMIT={"ON_UNAVAILABLE": "allow", "ON_THROTTLED": "allow"},
    )
    store = kind(using)
    dynamo_faults.fail("GetItem")
    assert store.get_status("views", rate="5/m").allowed
    with pytest.raises(StoreUnavailable):
        store.get_status("views", rate="5/m", on_unavailable="raise")
    dynamo_faults.clear()
    dynamo_faults.throttle("GetItem")
    with pytest.raises(StoreUnavailable):
        store.get_status("views", rate="5/m", on_unavailable="raise")
