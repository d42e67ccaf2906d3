"""What is of no use, and what a sample of items shows."""

from __future__ import annotations

import dataclasses
from decimal import Decimal as D

import pytest

from dynamo_stores.conf import get_config
from dynamo_stores.cost.load import Load, ResourceLoad, TableLoad, Use
from dynamo_stores.cost.modes import compare
from dynamo_stores.cost.prices import read_prices
from dynamo_stores.cost.sample import Sample, sample
from dynamo_stores.cost.waste import find_waste
from dynamo_stores.models import StoreItem
from dynamo_stores.stores import CacheStore

PRICES = read_prices()
STEADY = Use(read=D(86_400), write=D(86_400), peak_read=D(1), peak_write=D(1))


def load(*resources, hours=48, **changes):
    one = TableLoad("t", resources or (ResourceLoad("", STEADY, D(10**9)),), **changes)
    return Load("reports", (one,), measured_hours=D(hours))


def found(load, samples=()):
    waste = find_waste(load, PRICES, compare(load, PRICES), samples)
    return {each.code: each for each in waste}


def test_an_index_that_is_never_queried():
    """With what its writes and its storage cost; not before a day was measured."""
    written = dataclasses.replace(STEADY, read=D(0), peak_read=D(0))
    index = ResourceLoad("I", written, D(10**9))
    resources = (ResourceLoad("", STEADY, D(10**9)), index)
    waste = found(load(*resources))["unused-index"]
    assert waste.resource == "t/I"
    assert waste.saving == 86_400 * PRICES.days_per_month / 10**6 * D("0.625") + D("0.25")
    assert "never queried in 48 measured hours" in waste.message
    assert "unused-index" not in found(load(*resources, hours=23))
    queried = dataclasses.replace(index, use=STEADY)
    assert "unused-index" not in found(load(resources[0], queried))
    kept = dataclasses.replace(index, provisioned=(5, 10), size=D(0))
    own = dataclasses.replace(resources[0], provisioned=(2, 2))
    saving = found(load(own, kept))["unused-index"].saving
    assert saving == 730 * (5 * D("0.00013") + 10 * D("0.00065"))


def test_capacity_far_above_what_is_used():
    """Twice what the busiest minute needs, or more."""
    needed = found(load(ResourceLoad("", STEADY, D(0), (4, 3))))
    assert needed["over-provisioned"].saving == (4 - 2) * 730 * D("0.00013")
    assert "4 read units are provisioned" in needed["over-provisioned"].message
    assert "over-provisioned" not in found(load(ResourceLoad("", STEADY, D(0), (3, 3))))
    idle = ResourceLoad("", Use(), D(0), (1, 1))
    assert "over-provisioned" not in found(load(idle))


def test_another_class_of_table():
    """Where storage is most of the cost; and back, where it is not."""
    stored = ResourceLoad("", Use(read=D(1000)), D(100 * 10**9))
    waste = found(load(stored))["table-class"]
    assert "STANDARD_INFREQUENT_ACCESS" in waste.advice
    assert float(waste.saving) == pytest.approx(15, abs=0.01)
    used = ResourceLoad("", STEADY, D(10**6))
    assert "table-class" not in found(load(used))
    back = found(load(used, table_class="STANDARD_INFREQUENT_ACCESS"))["table-class"]
    assert "'STANDARD'" in back.advice


def test_the_other_mode_where_it_is_much_cheaper():
    busy = Use(read=D(86_400 * 50), write=D(86_400 * 50), peak_read=D(50), peak_write=D(50))
    waste = found(load(ResourceLoad("", busy)))["billing-mode"]
    assert "provisioned" in waste.message
    rare = Use(read=D(10), write=D(10), peak_read=D(1), peak_write=D(1))
    assert "on demand" in found(load(ResourceLoad("", rare, D(0), (9, 9))))["billing-mode"].message


def test_assumptions_are_no_proof():
    stored = TableLoad("t", (ResourceLoad("", Use(), D(10**12)),))
    assert found(Load("assumptions", (stored,))) == {}


def test_items_of_a_sample_are_counted():
    """Just over a boundary is by some bytes; a unit has a multiple of 1 KB or 4 KB."""
    seen = Sample("t", "TTL")
    for size in (1024, 1025, 1074, 1075, 100, 4096, 4097, 4296, 4297, 8200):
        seen.count(size, has_ttl=size > 1000)
    assert (seen.items, seen.without_ttl) == (10, 1)
    assert seen.just_over_write.items == 4
    assert seen.just_over_read.items == 3
    assert seen.just_over_read.units == 6 + 3 * 2 + 3


def test_what_a_sample_shows():
    """A share of the storage, and units that the last bytes of items cost; at most that much."""
    seen = Sample("t", "TTL")
    for number in range(100):
        seen.count(1030 if number < 50 else 500, has_ttl=number >= 20)
    waste = found(load(), [seen])
    assert waste["no-ttl"].saving == D("0.2") * D("0.25")
    assert "20 of 100 sampled items have no TTL" in waste["no-ttl"].message
    saving = 86_400 * PRICES.days_per_month / 10**6 * D("0.625") * 50 / 150
    assert float(waste["unit-boundary"].saving) == pytest.approx(float(saving))
    fine = Sample("t", None, items=100, without_ttl=0)
    assert not {"no-ttl", "unit-boundary"} & set(found(load(), [fine]))


def test_a_sample_is_bounded(reporting):
    """It reads so many items, a page more at most, and says what it cost."""
    using = reporting(REPORTS={"INTERVAL": 36_000.0})
    store, table = CacheStore(using), get_config(using).store_table
    for number in range(30):
        store.set(f"{number}", "x" * 10, timeout=None if number % 2 else 60)
    seen = sample(using, table, 1000, 1000.0)
    assert (seen.items, seen.ttl_attribute, seen.without_ttl) == (30, StoreItem.ttl.attr_name, 15)
    assert 0 < seen.units <= 15
    few = sample(using, table, 5, 1000.0)
    assert few.items == 5
    assert few.units < seen.units
