"""Provisioned capacity as DynamoDB keeps it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dynamo_stores.testing.throttling.buckets import Bucket, RefusedUpdate, TableThroughput
from dynamo_stores.testing.throttling.costs import index_units, page_units, read_units, write_units

NOW = datetime(2033, 5, 18, 12, tzinfo=UTC).timestamp()
ARN = "arn:aws:dynamodb:us-east-1:000000000000:table/t"


def make(**capacities):
    return TableThroughput(
        ARN, {"": (10, 10), "I": (10, 10), **capacities}, NOW, updating=30, burst=5
    )


def test_a_bucket_fills_and_empties():
    """It begins full, holds a burst, goes below 0 for a large request, and fills again."""
    bucket = Bucket(10, 5, NOW)
    assert bucket.held(NOW + 100) == 50
    bucket.spend(60, NOW)
    assert not bucket.admits(NOW + 1)
    assert bucket.admits(NOW + 1.2)
    assert bucket.held(NOW + 100) == 50
    bucket.spend(50, NOW + 100)
    bucket.set_rate(100, NOW + 101)
    assert bucket.held(NOW + 101.5) == pytest.approx(60)


def test_a_change_takes_a_while():
    """Until then the old rates hold and a second change is refused."""
    table = make()
    table.update({"": (10, 40)}, NOW)
    assert not table.is_active(NOW + 29)
    assert table.resources[""].write == 10
    with pytest.raises(RefusedUpdate) as refused:
        table.update({"": (10, 80)}, NOW + 29)
    assert refused.value.code == "ResourceInUseException"
    assert table.is_active(NOW + 30)
    assert (table.resources[""].write, table.resources["I"].write) == (40, 10)
    table.spend({("", "Write"): 50}, NOW + 30)
    assert table.resources[""].buckets["Write"].held(NOW + 31) == pytest.approx(40)


@pytest.mark.parametrize(
    "wanted", [{"": (10, 10)}, {"": (0, 10)}, {"": (10, 40_001)}, {"J": (1, 1)}]
)
def test_what_is_refused(wanted):
    """No change, less than one unit, too many, an index that is not there."""
    with pytest.raises(RefusedUpdate) as refused:
        make().update(wanted, NOW)
    assert refused.value.code == "ValidationException"


def test_decreases_have_a_budget():
    """Four a day at any time, then one an hour; table and index by themselves, all or nothing."""
    table = make(**{"": (100, 100), "I": (100, 100)})
    now = NOW
    for number in range(4):
        table.update({"": (100, 99 - number)}, now)
        now += 31
        assert table.is_active(now)
    with pytest.raises(RefusedUpdate, match="decreases today: 4") as refused:
        table.update({"": (100, 50), "I": (100, 50)}, now)
    assert refused.value.code == "LimitExceededException"
    table.update({"I": (100, 50)}, now)
    table.is_active(now + 31)
    table.update({"": (200, 200)}, now + 31)
    table.is_active(now + 3600)
    table.update({"": (150, 200)}, now + 3600)
    assert table.resources[""].decreases_today(now + 3600) == 5
    table.is_active(now + 3700)
    with pytest.raises(RefusedUpdate):
        table.update({"": (140, 200)}, now + 3700)
    tomorrow = NOW + 86_400
    assert table.resources[""].decreases_today(tomorrow) == 0
    table.update({"": (140, 200)}, tomorrow)


def test_the_exhausted_bucket_is_named():
    """That of the table or of the index."""
    table = make()
    both = [("", "Write"), ("I", "Write")]
    assert table.missing(both, NOW) is None
    table.spend({("I", "Write"): 50}, NOW)
    assert table.missing(both, NOW) == ("I", "Write")
    assert table.missing([("", "Write")], NOW) is None
    assert table.arn_of("I") == f"{ARN}/index/I"
    assert table.status(NOW)["resources"]["I"]["Write"]["throttled"] == 1


def item(size, **attributes):
    return {"PK": {"S": "p"}, "v": {"B": b"x" * (size - 4)}, **attributes}


def test_costs():
    """By 4 KB read and 1 KB written; a page's items together; an index by what changes in it."""
    assert read_units([0, 4096, 4097], consistent=True) == 4
    assert read_units([0, 4096, 4097], consistent=False) == 2
    assert page_units([item(3000)] * 3, consistent=True) == 3
    assert write_units(item(1024), item(1025)) == 2
    assert write_units(None, None) == 1
    key = {"I": ("g",)}
    inside, moved = item(100, g={"S": "a"}), item(100, g={"S": "b"})
    assert index_units(key, None, item(100)) == {}
    assert index_units(key, None, inside) == {"I": 1}
    assert index_units(key, inside, inside) == {}
    assert index_units(key, inside, item(100)) == {"I": 1}
    assert index_units(key, inside, moved) == {"I": 2}
