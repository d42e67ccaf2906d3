"""Prices, the lines of an estimate, the modes, and what a Redis would cost."""

from __future__ import annotations

import dataclasses
import json
from decimal import Decimal as D

import pytest

from dynamo_stores.cost.estimate import estimate, number, total
from dynamo_stores.cost.load import (
    INFREQUENT_ACCESS,
    Load,
    ResourceLoad,
    TableLoad,
    Use,
    assumed,
)
from dynamo_stores.cost.modes import (
    break_even_utilization,
    capacity_for,
    compare,
    on_demand,
    provisioned,
    reserved,
    reserved_saving,
)
from dynamo_stores.cost.prices import DEFAULT_FILE, FILE_OF_2024, money, read_prices, rounded
from dynamo_stores.cost.redis import on_redis
from dynamo_stores.exceptions import ConfigurationError


def small(**changes):
    """The assumptions of the forum's database document."""
    given = {"reads_per_day": D(10_000), "writes_per_day": D(1_000), "storage_mb": D(100)}
    return assumed(**{**given, **changes})


def amounts(load, prices):
    return {line.what: line.amount for line in estimate(load, prices)}


def test_the_table_of_the_document_to_the_cent():
    """Each line of it, and its sum."""
    prices = read_prices(FILE_OF_2024)
    lines = estimate(small(replicas=1, backups=1), prices)
    assert [(line.what, prices.money(line.amount)) for line in lines] == [
        ("Reads", "$0.075"),
        ("Writes", "$0.0375"),
        ("Storage", "$0.025"),
        ("Writes in replicas", "$0.0375"),
        ("Backups", "$0.01"),
    ]
    assert lines[0].arithmetic == "(10,000 × 30) / 1,000,000 × $0.25"  # noqa: RUF001
    assert total(lines) == D("0.185")
    assert prices.money(rounded(total(lines))) == "$0.19"


def test_the_same_load_at_present_prices():
    """Half of it on demand; replicas store, too."""
    found = amounts(small(replicas=2, backups=1, point_in_time_recovery=True), read_prices())
    month = D(730) / 24
    assert found == {
        "Reads": 10_000 * month / 10**6 * D("0.125"),
        "Writes": 1_000 * month / 10**6 * D("0.625"),
        "Storage": D("0.025"),
        "Writes in replicas": 2 * 1_000 * month / 10**6 * D("0.625"),
        "Storage of replicas": D("0.05"),
        "Backups": D("0.01"),
        "Point-in-time recovery": D("0.02"),
    }


def test_indexes_and_streams():
    """An index has writes and storage of its own; some reads of streams are free."""
    prices = read_prices()
    lines = estimate(small(indexes=2, stream_reads_per_day=D(86_400) * 4), prices)
    of_index = [line for line in lines if line.resource == "the application/index 2"]
    assert [(line.part, line.amount) for line in of_index] == [
        ("writes", 1_000 * prices.days_per_month / 10**6 * D("0.625")),
        ("storage", D("0.025")),
    ]
    (stream,) = [line for line in lines if line.part == "streams"]
    reads = 86_400 * 4 * prices.days_per_month
    assert stream.amount == (reads - 2_500_000) / 10**6 * D("0.20")
    few = estimate(small(stream_reads_per_day=D(10)), prices)
    assert [line.amount for line in few if line.part == "streams"] == [0]


def table(use, provisioned=None, **changes):
    own = ResourceLoad("", use, D(10**9), provisioned)
    return Load("reports", (TableLoad("t", (own,), **changes),), measured_hours=D(24))


def test_a_provisioned_table_pays_for_its_capacity():
    """For all hours, used or not; in replicas the write capacity again."""
    load = table(Use(read=D(100)), (10, 5), replicas=1)
    assert amounts(load, read_prices()) == {
        "Read capacity": 10 * 730 * D("0.00013"),
        "Write capacity": 5 * 730 * D("0.00065"),
        "Storage": D("0.25"),
        "Write capacity of replicas": 5 * 730 * D("0.00065"),
        "Storage of replicas": D("0.25"),
    }


def test_the_class_of_a_table_decides_its_prices():
    load = table(Use(read=D(10**6), write=D(10**6)), table_class=INFREQUENT_ACCESS)
    found, days = amounts(load, read_prices()), D(730) / 24
    assert found["Reads"] == days * D("0.155")
    assert found["Writes"] == days * D("0.78")
    assert found["Storage"] == D("0.10")
    assert amounts(load, read_prices(FILE_OF_2024))["Storage"] == D("0.25")


def test_capacity_of_a_load():
    """The busiest second at the target; never none; a float's last digit raises nothing."""
    assert capacity_for(D(7), D("0.7")) == 10
    assert capacity_for(D("7.01"), D("0.7")) == 11
    assert capacity_for(D(0), D("0.7")) == 1
    assert capacity_for(D("0.7") + D("1e-12"), D("0.7")) == 1


def test_break_even_of_a_constant_load():
    """At it both cost the same; below on demand is cheaper, above it is not."""
    prices, load = read_prices(), small()
    found = compare(load, prices).break_even
    assert found.factor is not None
    assert found.reads == found.factor * 10_000
    for factor, is_cheaper in ((D("0.99"), False), (D("1.01"), True)):
        multiple = found.factor * factor
        cheaper = provisioned(load, prices, multiple) <= on_demand(load, prices, multiple)
        assert cheaper is is_cheaper
    assert break_even_utilization("read", prices) == D("0.00013") * 10**6 / (3600 * D("0.125"))
    assert round(break_even_utilization("write", prices), 3) == D("0.289")
    assert round(break_even_utilization("write", read_prices(FILE_OF_2024)), 3) == D("0.144")


def test_break_even_of_reserved_capacity():
    """At a lower share of use, and from blocks of 100 units on."""
    prices, load = read_prices(), small()
    found = {each.code: each.factor for each in compare(load, prices).break_evens}
    assert list(found) == ["provisioned", "reserved_1", "reserved_3"]
    assert found["reserved_1"] > found["reserved_3"] > found["provisioned"]
    for term, code in zip(prices.reserved, ["reserved_1", "reserved_3"], strict=True):
        at = found[code]
        assert reserved(load, prices, term, at).amount <= on_demand(load, prices, at)
        assert reserved(load, prices, term, at * D("0.99")).amount > (
            on_demand(load, prices, at * D("0.99"))
        )


def test_a_load_with_high_peaks_has_no_break_even():
    """A minute five times as busy as the average is provisioned for all day."""
    prices = read_prices()
    assert compare(small(peak=D(5)), prices).break_even.factor is None
    assert compare(small(peak=D(2)), prices).break_even.factor is not None
    nothing = compare(assumed(reads_per_day=D(0), writes_per_day=D(0), storage_mb=D(1)), prices)
    assert nothing.break_even.factor is None


def test_reserved_capacity_by_its_formula():
    """Upfront fee by month and hourly fee, per 100 units; the document's 40 and 60 % are less."""
    prices = read_prices()
    year, three = prices.reserved
    assert round(reserved_saving("write", year, prices), 3) == D("0.540")
    assert round(reserved_saving("write", three, prices), 3) == D("0.770")
    per_second = Use(
        read=D(86_400 * 700), write=D(86_400 * 105), peak_read=D(700), peak_write=D(105)
    )
    found = compare(table(per_second), prices)
    # 1,000 and 150 units: ten blocks, and one with 50 units beyond it or two.
    mode = found.mode("reserved_1")
    block_of_writes = D(150) / 12 + D("0.0128") * 730
    rest = min(50 * 730 * D("0.00065"), block_of_writes)
    assert mode.amount == 10 * (D(30) / 12 + D("0.0025") * 730) + block_of_writes + rest
    assert mode.upfront == 10 * 30 + (2 if rest == block_of_writes else 1) * 150
    assert found.cheapest.code == "reserved_3"


def test_writes_with_replicas_are_not_reserved():
    """They are provisioned, here and in each replica; reads are reserved."""
    prices = read_prices()
    use = Use(read=D(1), write=D(1), peak_read=D(70), peak_write=D(70))
    mode = compare(table(use, replicas=1), prices).mode("reserved_1")
    block_of_reads = D(30) / 12 + D("0.0025") * 730
    assert mode.amount == block_of_reads + 100 * 2 * D("0.00065") * 730
    assert compare(table(use, table_class=INFREQUENT_ACCESS), prices).mode("reserved_1") is None


def test_capacity_that_follows_the_hours():
    """Each hour for its own busiest minute; constant capacity for that of all hours."""
    quiet, busy = (D("0.7"), D("0.7")), (D(70), D(70))
    use = Use(read=D(10**6), write=D(10**6), peak_read=D(70), peak_write=D(70),
              hours=(quiet, quiet, quiet, busy))  # fmt: skip
    found = compare(table(use), read_prices())
    both = (D("0.00013") + D("0.00065")) * 730
    assert found.mode("provisioned").amount == 100 * both
    assert found.mode("following").amount == (3 * 1 + 100) * both / 4


def test_a_redis_for_the_same_load():
    """Serverless with its least amount of data, the smallest node that fits, two for failover."""
    prices = read_prices()
    found = {each.name: each for each in on_redis(small(), prices)}
    commands = 11_000 * prices.days_per_month
    assert found["Valkey, serverless"].amount == D("0.1") * 730 * D("0.084") + (
        commands / 10**6 * D("0.0023")
    )
    assert found["Redis OSS, serverless"].amount == 730 * D("0.125") + (
        commands / 10**6 * D("0.0034")
    )
    assert found["Redis OSS, 1 node of cache.t4g.micro"].amount == 730 * D("0.016")
    assert not found["Redis OSS, 1 node of cache.t4g.micro"].has_failover
    assert found["Valkey, 2 nodes of cache.t4g.micro"].amount == 2 * 730 * D("0.0128")
    large = on_redis(small(storage_mb=D(5 * 10**6)), prices)
    name = next(each.name for each in large if each.has_failover is False)
    assert "cache.r7g" in name
    assert int(name.split()[-4]) * D("209.55") > 5 * 10**12 / D(2**30)
    one_item = dataclasses.replace(small().tables[0], items=10_000)
    wide = on_redis(Load("reports", (one_item,)), prices)
    assert "9.77 ECPU" in " ".join(each.arithmetic for each in wide)
    assert on_redis(small(), read_prices(FILE_OF_2024)) == ()


def test_another_region():
    """An error that says what to do, or the prices of another one, with a factor."""
    with pytest.raises(ConfigurationError, match=r"no prices of the region eu-west-1; it has us-"):
        read_prices(region="eu-west-1")
    prices = read_prices(region="eu-west-1", price_region="us-east-1", factor=D("1.2"))
    assert prices.region == "eu-west-1"
    assert prices.title == (
        "AWS list prices, us-east-1, 2026-10-02, taken for eu-west-1, multiplied by 1.2"
    )
    assert prices.on_demand.write == D("0.75")
    assert prices.hours_per_month == 730
    assert prices.streams.free == 2_500_000
    assert prices.redis_nodes[0].gib == D("0.5")
    assert prices.redis_nodes[0].hour == D("0.0192")
    assert read_prices(region="us-west-2").redis_nodes == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"regions": {}}, "has no regions"),
        ({"regions": 3}, "'regions' in the price file"),
        ({"name": ""}, "'name' in the price file"),
        ({"date": 5}, "'date' in the price file"),
        ({"hours_per_month": "24"}, "expected 600 to 800"),
        ({"storage": "cheap"}, "'regions.us-east-1.storage' in the price file .* is 'cheap'"),
        ({"storage": -1}, "expected a number, 0 or more"),
        ({"storage": True}, "expected a number"),
        ({"storage": None}, "expected a number"),
        ({"storage": "NaN"}, "expected a number"),
        ({"storage": "1e400"}, "expected a number"),
        ({"on_demand": []}, "on_demand' in the price file .* expected an object"),
        ({"on_demand": {"read": "1"}}, "on_demand.write' in the price file .* is missing"),
        ({"on_demand": {"read": "0", "write": "1", "replicated_write": "1"}}, "0.000001 or more"),
        ({"on_demand": {"read": "1", "write": 0, "replicated_write": "1"}}, "0.000001 or more"),
        ({"reserved": [{"years": "0"}]}, "reserved.years' in the price file .* is '0'; expected a"),
        ({"redis": {"nodes": [{"engine": "a", "type": "b", "gib": 0}]}}, "0.000001 or more"),
        ({"reserved": [1]}, "expected a list of objects"),
        ({"redis": {"nodes": [{"engine": 1}]}}, "redis.nodes.engine'"),
    ],
)
def test_a_wrong_price_file_is_named(change, message, tmp_path):
    """The part of it, its value, and what was expected."""
    data = json.loads(DEFAULT_FILE.read_text())
    of_region = {name for name in change if name in data["regions"]["us-east-1"]}
    for name, value in change.items():
        (data["regions"]["us-east-1"] if name in of_region else data)[name] = value
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(data))
    with pytest.raises(ConfigurationError, match=message):
        read_prices(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "\xff", "x" * 2_000_000])
def test_a_file_that_is_none_is_named(text, tmp_path):
    path = tmp_path / "prices.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"price file .*prices\.json"):
        read_prices(path)
    with pytest.raises(ConfigurationError, match="could not be read: No such file"):
        read_prices(tmp_path / "none.json")


def test_numbers_are_read_as_they_are_written(tmp_path):
    """A JSON number is no float here."""
    data = json.loads(DEFAULT_FILE.read_text())
    data["regions"]["us-east-1"]["storage"] = 0.1
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(data))
    assert read_prices(path).storage == D("0.1")


@pytest.mark.parametrize("path", [DEFAULT_FILE, FILE_OF_2024])
def test_the_files_of_the_package_are_whole(path):
    """Every region of them; with a date and a source."""
    for region in json.loads(path.read_text())["regions"]:
        prices = read_prices(path, region)
        assert prices.source
        assert prices.date > "2023"
        assert 0 < prices.on_demand.read < prices.on_demand.write < 2


def test_amounts_and_numbers_for_people():
    """Half a cent is rounded up."""
    assert [money(D(each), "USD") for each in ("0", "0.185", "0.01", "1.005", "1234.5")] == [
        "$0.00", "$0.185", "$0.01", "$1.01", "$1,234.50",
    ]  # fmt: skip
    assert money(D("0.00001"), "USD") == "under $0.0001"
    assert money(D("12"), "EUR") == "EUR 12.00"
    assert [number(D(each)) for each in ("0", "0.1", "30.4167", "1000", "0.00001", "250")] == [
        "0", "0.1", "30.42", "1,000", "under 0.0001", "250",
    ]  # fmt: skip
