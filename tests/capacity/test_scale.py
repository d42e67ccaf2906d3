"""The simulation of a table under load: each rule by a case that is calculated by hand."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamo_stores.management.scale.partitions import (
    Asked,
    Partition,
    Placed,
    make_partitions,
    split_for_heat,
    split_to_width,
    widest,
)
from dynamo_stores.management.scale.simulation import Simulation, Table
from dynamo_stores.management.scale.throughput import OnDemand, Provisioned
from dynamo_stores.management.scale.units import Units, units_of_request
from dynamo_stores.management.scale.workload import Workload

WRITES = Workload(requests=2_000, write_share=1, keys=1_000_000, item_bytes=300)
READS = Workload(requests=2_000, write_share=0, keys=1_000_000)
GB = 1024**3


def run(workload, table=None, minutes=1, seed=0):
    return Simulation(workload, table or Table(), seed).run(minutes)


def minute(*args, **options):
    """Return the last minute of a run."""
    return run(*args, **options).minutes[-1]


@pytest.mark.parametrize(
    ("size", "strong", "units"),
    [
        (1, False, (0.5, 1)),
        (1_024, True, (1, 1)),
        (1_025, True, (1, 2)),
        (4_097, False, (1, 5)),
        (20 * 1024, True, (5, 20)),
    ],
)
def test_units_of_a_request_follow_its_size(size, strong, units):
    """A unit for 4 KB read strongly, half of it eventually, and one for each KB written."""
    assert units_of_request(size, strong=strong) == units


def test_one_key_carries_a_thousand_writes():
    """Of 2,000 writes a second, 1,000 are served, however long it takes."""
    result = run(replace(WRITES, keys=1), minutes=20)
    for each in result.minutes:
        assert each.served == pytest.approx(1_000)
        assert each.throttled == pytest.approx({"key": 1_000, "table": 0, "partition": 0})
    assert result.first.cause == "key"
    assert result.units.write == pytest.approx(20 * 60 * 1_000)


@pytest.mark.parametrize(("strong", "served"), [(True, 3_000), (False, 6_000)])
def test_one_key_carries_three_thousand_read_units(strong, served):
    """That is twice as many eventually consistent reads."""
    workload = replace(READS, requests=8_000, keys=1, strong=strong)
    assert minute(workload).served == pytest.approx(served)


@pytest.mark.parametrize("shards", [1, 2, 5, 16])
def test_shards_carry_their_number_of_times_as_much(shards):
    """16 items of one key carry 16,000 writes a second, once each is on its own partition."""
    workload = replace(WRITES, requests=20_000, keys=1, shards=shards)
    table = Table(capacity=Units(12_000, 20_000))
    assert minute(workload, table, minutes=60).served == pytest.approx(1_000 * shards)


def test_uniform_keys_on_a_warm_table_are_not_throttled():
    """A table that is warm for the traffic serves all of it, from the first second."""
    workload = Workload(requests=1_000_000, write_share=0.1, keys=1_000_000)
    result = run(workload, Table(capacity=Units(450_000, 100_000), quota=1_000_000))
    assert result.first is None
    assert result.minutes[0].served == pytest.approx(1_000_000)
    assert result.minutes[0].partitions == 150
    assert result.units == pytest.approx((60 * 450_000, 60 * 100_000))


def test_new_on_demand_table_doubles():
    """It carries 4,000 writes, after the growth time 8,000, then 16,000."""
    minutes = run(replace(WRITES, requests=50_000), minutes=61).minutes
    served = {each.number: each.served for each in minutes}
    assert served[1] == served[30] == pytest.approx(4_000)
    assert served[32] == served[60] == pytest.approx(8_000)
    assert minutes[-1].served == pytest.approx(16_000, rel=0.02)
    assert [minutes[n].partitions for n in (0, 31, 60)] == [4, 8, 16]


def test_on_demand_table_grows_to_its_quota():
    """The quota bounds what twice the peak would allow."""
    throughput = OnDemand(4_000, quota=6_000, growth=10)
    for second in range(30):
        expected = 4_000 if second < 11 else 6_000
        assert throughput.available == expected, second
        assert throughput.limit == ("growth" if second < 11 else "quota")
        throughput.use(throughput.available)


def test_slow_growth_is_not_throttled():
    """Traffic that is never more than twice that of 30 minutes ago is served."""
    workload = replace(WRITES, requests=8_000, ramp=130)
    assert run(workload, minutes=130).first is None
    assert run(replace(workload, ramp=60), minutes=60).first.cause == "table"


def test_provisioned_table_serves_from_its_burst():
    """300 s of 100 units carry 200 writes a second for five minutes more."""
    table = Table(provisioned=True, capacity=Units(1, 100))
    minutes = run(replace(WRITES, requests=200), table, minutes=8).minutes
    assert [each.served for each in minutes] == pytest.approx([200] * 5 + [100] * 3)
    assert minutes[-1].throttled == pytest.approx({"key": 0, "table": 100, "partition": 0})


def test_unused_capacity_is_kept_for_the_burst_and_no_longer():
    """Ten idle seconds are worth ten seconds, a thousand no more than the burst."""
    throughput = Provisioned(100, burst=20)
    throughput.use(2_100)
    assert throughput.available == 100
    for _ in range(10):
        throughput.use(0)
    assert throughput.available == 1_100
    for _ in range(1_000):
        throughput.use(0)
    assert throughput.available == 2_100


def test_hot_partition_is_split():
    """A single partition carries 1,000 of 2,000 writes, and two carry all of them."""
    table = Table(provisioned=True, capacity=Units(1, 1_000), burst=3_600, heat=120)
    minutes = run(WRITES, table, minutes=3).minutes
    assert [each.served for each in minutes] == pytest.approx([1_000, 1_000, 2_000])
    assert [each.partitions for each in minutes] == [1, 1, 2]
    assert minutes[0].throttled["partition"] == pytest.approx(1_000)
    assert minutes[0].hottest == pytest.approx(2)


def test_hot_item_is_isolated():
    """An item with more than half of the load gets a partition of its own."""
    asked = Asked([Units(0, 900), Units(0, 100)], Units(0, 400))
    items = [Placed(0.2, 0), Placed(0.7, 1)]
    alone, rest = split_for_heat(Partition(0, 1, items), asked)
    assert (alone.load(asked), list(alone.items)) == (Units(0, 900), [items[0]])
    assert (rest.load(asked), list(rest.items)) == (Units(0, 500), [items[1]])


def test_heat_is_split_in_half():
    """The two parts have the same load, so they are not equally wide."""
    asked = Asked([Units(0, 600)], Units(0, 1_000))
    left, right = split_for_heat(Partition(0, 1, [Placed(0.1, 0)]), asked)
    assert left.load(asked).write == pytest.approx(800)
    assert right.load(asked).write == pytest.approx(800)
    assert left.width == pytest.approx(0.2)


def test_two_hot_items_are_parted():
    """Items with half of the load each go to different sides, wherever they are."""
    asked = Asked([Units(0, 1_000), Units(0, 1_000)], Units(0, 0))
    items = [Placed(0.3, 0), Placed(0.3000001, 1)]
    left, right = split_for_heat(Partition(0, 1, items), asked)
    assert (list(left.items), list(right.items)) == (items[:1], items[1:])


@pytest.mark.parametrize(
    ("capacity", "stored", "partitions"),
    [((1, 1), 0, 1), ((12_000, 4_000), 0, 4), ((3_001, 1), 0, 2), ((1, 1), 35 * GB, 4)],
)
def test_partitions_at_the_start(capacity, stored, partitions):
    """As many as throughput or size need: 3,000 reads, 1,000 writes, 10 GB each."""
    made = make_partitions(widest(Units(*capacity), stored), [])
    assert sum(each.alike for each in made) == partitions


def test_table_that_grows_is_split_by_size():
    """15,000,000 items of 1 KB have two partitions; 20,971,520 fill them, 5,972 seconds later."""
    workload = Workload(requests=1_000, write_share=1, keys=15_000_000, new_share=1)
    table = Table(provisioned=True, capacity=Units(1, 1_000))
    partitions = [each.partitions for each in run(workload, table, minutes=101).minutes]
    assert partitions == [2] * 99 + [4] * 2


def test_wide_partitions_are_split_at_the_middle():
    """Until none is too wide, those without placed items together."""
    items = [Placed(0.1, 0), Placed(0.6, 1)]
    parts = split_to_width(Partition(0, 1, items), 0.3)
    assert [(each.first, each.last) for each in parts] == [
        (0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1)
    ]  # fmt: skip
    assert [list(each.items) for each in parts] == [items[:1], [], items[1:], []]
    (alike,) = split_to_width(Partition(0, 0.5, alike=3), 0.25)
    assert (alike.width, alike.alike) == (0.25, 6)


def test_near_tier_absorbs_reads():
    """A process that gets 20 reads of a key a second sends one in 5.05 s."""
    workload = replace(READS, keys=1, processes=100, near_timeout=5)
    found = minute(workload)
    assert found.served == pytest.approx(2_000 / 101)
    assert found.in_process == pytest.approx(2_000 - 2_000 / 101)


def test_near_tier_keeps_no_more_than_its_entries():
    """Of 4,000 keys that are read alike, it answers for a quarter at most."""
    workload = replace(READS, keys=4_000, processes=1, near_timeout=1e6, near_entries=1_000)
    assert minute(workload).in_process == pytest.approx(500, rel=0.01)


def test_near_tier_makes_another_key_the_busiest():
    """Of two keys with 10,000 reads each one is in the near tier, and the other carries 6,000."""
    workload = replace(READS, requests=20_000, keys=2, near_timeout=1e6, near_entries=1)
    found = minute(workload)
    assert found.served == pytest.approx(6_000, abs=1)
    assert found.throttled["key"] == pytest.approx(4_000)


def test_blocks_save_writes():
    """200 requests of a process within a bucket are 4 blocks of 50, and writes of its key."""
    workload = replace(WRITES, requests=3_333.3333333, keys=1, processes=100, block=50)
    assert minute(workload).served == pytest.approx(3_333.3333333 / 50)
    assert minute(replace(workload, block=1_000)).served == pytest.approx(100 / 6)


def test_zipf_gives_each_rank_its_share():
    """Exact for the first ranks, by integral for the others, and one in all."""
    workload = Workload(requests=1, write_share=1, keys=10**9, zipf=1.0)
    groups = workload.groups()
    assert groups[0].share == pytest.approx(1 / 21.3004815, rel=1e-6)
    assert groups[9].share == pytest.approx(groups[0].share / 10)
    assert sum(each.items * each.share for each in groups) == pytest.approx(1)
    assert sum(each.items for each in groups) == 10**9


def test_hot_share_goes_to_one_key():
    """Besides its part of the other requests."""
    groups = Workload(requests=1, write_share=1, keys=10, hot_share=0.5).groups()
    assert groups[0].share == pytest.approx(0.55)
    assert groups[1].share == pytest.approx(0.05)


@settings(max_examples=40)
@given(
    workload=st.builds(
        Workload,
        requests=st.floats(1, 2_000_000),
        write_share=st.floats(0, 1),
        keys=st.integers(1, 10**9),
        zipf=st.floats(0, 2),
        hot_share=st.floats(0, 1),
        item_bytes=st.integers(1, 10_000),
        strong=st.booleans(),
        ramp=st.integers(0, 3),
        shards=st.integers(1, 8),
        block=st.integers(1, 100),
        near_timeout=st.floats(0, 10),
    ),
    provisioned=st.booleans(),
    heat=st.integers(30, 90),
    seed=st.integers(),
)
def test_every_request_is_served_or_throttled_or_needs_no_call(workload, provisioned, heat, seed):
    """Nothing is lost, nothing is negative, and the limits hold."""
    table = Table(provisioned, capacity=Units(40_000, 20_000), growth=60, burst=0, heat=heat)
    last = 0
    for each in run(workload, table, minutes=3, seed=seed).minutes:
        parts = [each.in_process, each.served, *each.throttled.values()]
        assert sum(parts) == pytest.approx(each.offered)
        assert min(parts) >= -1e-6 * each.offered
        assert each.units.read <= 40_000.001
        assert each.units.write <= 40_000.001
        assert each.partitions >= last
        last = each.partitions


def test_same_seed_gives_the_same_result():
    """Another seed places the keys elsewhere."""
    workload = Workload(requests=100_000, write_share=0.5, keys=100_000, zipf=1.0)
    table = Table(capacity=Units(40_000, 40_000))
    assert run(workload, table, minutes=10, seed=1) == run(workload, table, minutes=10, seed=1)
    assert run(workload, table, minutes=10, seed=1) != run(workload, table, minutes=10, seed=2)


def test_million_requests_a_second_take_seconds():
    """An hour of a skewed load is simulated at once."""
    start = time.process_time()
    workload = Workload(requests=1_000_000, write_share=0.5, keys=10**9, zipf=1.1, shards=4)
    run(workload, Table(capacity=Units(400_000, 500_000), quota=1_000_000), minutes=60)
    assert time.process_time() - start < 10
