"""What each algorithm stores, and its numbers at exact moments."""

from __future__ import annotations

import pytest

from dynamo_stores.conf.rates import Rate, parse_resource
from dynamo_stores.ratelimit.algorithms import RateLimitStatus, Windows, algorithm_of
from dynamo_stores.ratelimit.algorithms.base import Level, name_of, tightest
from dynamo_stores.ratelimit.algorithms.gcra import Gcra
from dynamo_stores.ratelimit.algorithms.log import Log
from tests.ratelimit.items import START, TEN, Item, Limit, at

EXACT = [Windows(), Windows(0), Gcra(10), Log()]


def test_the_algorithm_of_a_resource():
    """By its name, with the burst for GCRA."""

    def of(**config):
        return algorithm_of(parse_resource({"RATE": "100/m", **config}))

    sort_keys = {
        name: of(ALGORITHM=name).sort_key([TEN]) for name in ("sliding", "fixed", "gcra", "log")
    }
    assert sort_keys == {
        "sliding": "SW#10#10",
        "fixed": "FW#10",
        "gcra": "GCRA#10",
        "log": "LOG#10",
    }
    assert of(ALGORITHM="gcra").capacity(Rate(100, 60)) == 10
    assert of(ALGORITHM="gcra", BURST=3).capacity(Rate(100, 60)) == 3


def test_the_stored_sort_keys():
    """Algorithm and windows, so that changed windows begin anew; counts of others are kept."""
    rates = [Rate(5, 0.5), Rate(9, 60.0), Rate(9, 86_400)]
    assert Windows().sort_key(rates) == "SW#10#0.5-60-86400"
    assert Windows(5).sort_key(rates) == "SW#5#0.5-60-86400"
    assert Windows(0).sort_key(rates) == "FW#0.5-60-86400"
    assert Gcra().sort_key(rates) == "GCRA#0.5-60-86400"
    assert Log().sort_key(rates) == "LOG#0.5-60-86400"
    assert name_of(600.0) == "600"


@pytest.mark.parametrize(
    ("burst", "limit", "capacity"),
    [(None, 0, 0), (None, 1, 1), (None, 19, 1), (None, 20, 2), (3, 100, 3), (3, 0, 0)],
)
def test_the_burst_is_a_tenth_of_the_limit(burst, limit, capacity):
    """One at least, unless it is set; nothing of a limit of 0."""
    assert Gcra(burst).capacity(Rate(limit, 60)) == capacity


def test_the_limit_is_admitted_at_once_by_the_others():
    """Of requests with a cost, one may have the whole limit."""
    assert [each.capacity(Rate(7, 60)) for each in (Windows(), Windows(0), Log())] == [7, 7, 7]


def test_the_tightest_rate():
    """The one that refuses longest; else the one with least left, the longer of two alike."""
    levels = [
        Level(Rate(5, 1), 2, 11.0, 0.5),
        Level(Rate(9, 60), 1, 70.0, 9.0),
        Level(Rate(8, 3600), 2, 80.0, 3.0),
    ]
    assert tightest(levels, 1) == RateLimitStatus(True, 9, 1, 70.0, 0.0, 60)
    assert tightest(levels, 2) == RateLimitStatus(False, 9, 1, 70.0, 9.0, 60)
    assert tightest([levels[0], levels[2]], 2) == RateLimitStatus(True, 8, 2, 80.0, 0.0, 3600)
    assert tightest(levels, 3) == RateLimitStatus(False, 9, 1, 70.0, 9.0, 60)
    over = [Level(Rate(5, 1), -3, 11.0, 0.5)]
    assert tightest(over, 1) == RateLimitStatus(False, 5, 0, 11.0, 0.5, 1)


@pytest.mark.parametrize("algorithm", EXACT)
def test_looking_is_deciding_without_counting(algorithm):
    """The same refusals; the number that is left before the request."""
    limit = Limit(algorithm, TEN, Rate(15, 60))
    assert limit.look(0).remaining == 10
    limit.ask(0, 4)
    stored = limit.stored
    assert limit.look(0).remaining == 6
    assert limit.look(0, 6).allowed
    assert limit.look(0, 7) == limit.decide(0, 7).status
    assert not limit.look(0, 7).allowed
    assert limit.stored == stored


@pytest.mark.parametrize("algorithm", EXACT)
def test_a_refused_request_is_counted_only_if_forced(algorithm):
    """It is allowed then, with nothing left and no time to wait."""
    limit = Limit(algorithm)
    limit.ask(0, 10)
    assert limit.decide(0).write is None
    stored = limit.stored
    forced = limit.ask(0, 2, force=True)
    assert (forced.allowed, forced.remaining, forced.retry_after) == (True, 0, 0.0)
    assert limit.stored != stored
    # Two requests over the limit are to be waited for, too.
    assert limit.look(0).retry_after >= 3


@pytest.mark.parametrize("algorithm", EXACT)
def test_of_two_requests_for_the_last_of_a_limit_one_is_counted(algorithm):
    """Both were decided by the same state: the second write fails."""
    for before in (0, 7):
        limit = Limit(algorithm)
        if before:
            limit.ask(0, before)
        one, other = limit.decide(0, 10 - before), limit.decide(0, 10 - before)
        assert one.status.allowed
        assert limit.item.write(one.write)
        assert not limit.item.write(other.write)


@pytest.mark.parametrize("algorithm", [Windows(), Windows(0), Gcra(10)])
def test_requests_that_both_fit_are_both_counted(algorithm):
    """Decided by the same state, without reading it again; the log writes all anew."""
    limit = Limit(algorithm)
    limit.ask(0, 4)
    one, other = limit.decide(0, 3), limit.decide(0, 3)
    assert limit.item.write(one.write)
    assert limit.item.write(other.write)
    assert limit.look(0).remaining == 0


@pytest.mark.parametrize("algorithm", EXACT)
def test_a_limit_of_zero_refuses_everything(algorithm):
    """For a whole window, from each request on."""
    limit = Limit(algorithm, Rate(0, 60))
    refused = limit.ask(5)
    assert (refused.allowed, refused.limit, refused.remaining) == (False, 0, 0)
    assert (refused.retry_after, refused.window) == (60, 60)
    assert limit.item.attributes is None


@pytest.mark.parametrize("algorithm", EXACT)
def test_a_refund_admits_as_many_again(algorithm):
    """No more than were counted; nothing of a limit that was not used."""
    limit = Limit(algorithm, TEN, Rate(100, 60))
    assert limit.refund(0) is None
    limit.ask(0, 7)
    limit.ask(0, 3)
    assert limit.item.write(limit.refund(0, 4))
    assert [limit.look(0, cost).allowed for cost in (4, 5)] == [True, False]
    limit.ask(0, 4)
    assert limit.item.write(limit.refund(0, 99))
    assert limit.look(0).remaining == 10
    assert limit.refund(0) is None or limit.item.write(limit.refund(0))
    assert limit.look(0).remaining == 10


@pytest.mark.parametrize("algorithm", EXACT)
def test_of_two_refunds_of_the_same_requests_one_is_made(algorithm):
    """The second write fails, or takes back what is left."""
    limit = Limit(algorithm)
    limit.ask(0, 3)
    one, other = limit.refund(0, 3), limit.refund(0, 3)
    assert limit.item.write(one)
    assert not limit.item.write(other)
    assert limit.look(0).remaining == 10


# GCRA


def test_what_gcra_stores():
    """For each rate when its burst is available again, in microseconds; then the TTL."""
    limit = Limit(Gcra(3), TEN, Rate(30, 60))
    limit.ask(0.5, 2)
    assert limit.stored == {
        "t0": START * 10**6 + 2_500_000,
        "t1": START * 10**6 + 4_500_000,
        "#ttl": START + 4 + 60,
    }
    limit.ask(1)
    assert limit.stored == {
        "t0": START * 10**6 + 3_500_000,
        "t1": START * 10**6 + 6_500_000,
        "#ttl": START + 6 + 60,
    }
    # The first rate is idle, the second is not.
    limit.ask(5)
    assert limit.stored == {
        "t0": START * 10**6 + 6_000_000,
        "t1": START * 10**6 + 8_500_000,
        "#ttl": START + 8 + 60,
    }


def test_gcra_admits_one_in_each_interval():
    """After the burst; the interval is rounded up to microseconds."""
    limit = Limit(Gcra(2), Rate(3, 10))
    assert [limit.ask(0).remaining for _ in range(2)] == [1, 0]
    assert limit.stored["t0"] == START * 10**6 + 2 * 3_333_334
    refused = limit.ask(1)
    assert (refused.allowed, refused.remaining) == (False, 0)
    assert refused.retry_after == pytest.approx(3.333334 - 1 + 0.001)
    assert refused.reset_at == pytest.approx(START + 6.666668)
    assert limit.look(1, 2).retry_after == pytest.approx(6.666668 - 1 + 0.001)
    assert not limit.look(3.3333).allowed
    assert limit.look(3.333334 + 0.0001).allowed
    assert limit.look(7).remaining == 2
    assert limit.look(7).reset_at == START + 7


def test_gcra_goes_by_the_earliest_possible_time():
    """So a clock that is wrong errs towards refusing."""
    algorithm, item = Gcra(1), Item()
    item.write(algorithm.decide(None, (TEN,), 1, at(5, low=2, high=9)).write)
    assert item.attributes["t0"] == {"N": str(START * 10**6 + 4_000_000)}
    state = algorithm.read(item.attributes, 1)
    assert not algorithm.look(state, (TEN,), 1, at(5, low=2, high=9)).allowed
    assert algorithm.look(state, (TEN,), 1, at(4)).allowed


def test_a_refund_of_gcra_is_of_each_rate():
    """Down to now at most; rates that are idle are left alone."""
    limit = Limit(Gcra(3), TEN, Rate(30, 60))
    limit.ask(0, 3)
    assert limit.item.write(limit.refund(0, 1))
    assert (limit.stored["t0"], limit.stored["t1"]) == (
        START * 10**6 + 2_000_000,
        START * 10**6 + 4_000_000,
    )
    assert limit.item.write(limit.refund(2, 1))
    assert (limit.stored["t0"], limit.stored["t1"]) == (
        START * 10**6 + 2_000_000,
        START * 10**6 + 2_000_000,
    )
    assert limit.refund(2) is None
    limit.ask(2, 1)
    assert limit.item.write(limit.refund(2.25, 5))
    assert limit.stored["t1"] == limit.stored["t0"] == START * 10**6 + 2_250_000


def test_a_refund_of_gcra_fails_if_there_is_less_to_take_back():
    """Two refunds of the same requests: the second finds the rate idle."""
    limit = Limit(Gcra(5))
    limit.ask(0, 3)
    one, other = limit.refund(0, 2), limit.refund(0, 2)
    assert limit.item.write(one)
    assert not limit.item.write(other)
    assert limit.stored["t0"] == START * 10**6 + 1_000_000


def test_a_write_of_gcra_fails_if_the_rate_became_busy_or_idle():
    """The sum is different then, so the decision is made again."""
    limit = Limit(Gcra(5))
    limit.ask(0)
    idle = limit.decide(7)
    limit.ask(0, 3)
    limit.ask(7)
    assert not limit.item.write(idle.write)
    busy = limit.decide(7)
    limit.item.attributes = {**limit.item.attributes, "t0": {"N": str((START + 6) * 10**6)}}
    assert not limit.item.write(busy.write)


# The log


def test_what_a_log_stores():
    """Time (ms) and cost of each request, oldest first, the number of the write, and the TTL."""
    limit = Limit(Log(), TEN, Rate(100, 60))
    limit.ask(0.5, 2)
    assert limit.stored == {
        "l": [START * 1000 + 500, 2],
        "v": 1,
        "#ttl": START + 1 + 2 * 60 + 60,
    }
    limit.ask(3)
    assert limit.stored == {
        "l": [START * 1000 + 500, 2, START * 1000 + 3000, 1],
        "v": 2,
        "#ttl": START + 3 + 2 * 60 + 60,
    }


def test_a_log_keeps_requests_for_the_longest_window():
    """And forgets them then; shorter windows count only what is in them."""
    limit = Limit(Log(), TEN, Rate(12, 60))
    limit.ask(0, 10)
    assert not limit.look(9.9).allowed
    assert limit.look(10)[:3] == (True, 12, 2)
    limit.ask(59.9)
    assert limit.stored["l"] == [START * 1000, 10, START * 1000 + 59_900, 1]
    limit.ask(60)
    assert limit.stored["l"] == [START * 1000 + 59_900, 1, START * 1000 + 60_000, 1]


def test_a_log_is_sorted_whatever_clocks_say():
    """A request is at the latest possible time, and not before those that are in the log."""
    algorithm, item = Log(), Item()
    item.write(algorithm.decide(None, (TEN,), 1, at(0.0005, high=2)).write)
    item.write(algorithm.decide(algorithm.read(item.attributes, 1), (TEN,), 1, at(1)).write)
    assert [int(each["N"]) for each in item.attributes["l"]["L"]] == [
        START * 1000 + 2001,
        1,
        START * 1000 + 2001,
        1,
    ]


def test_when_a_log_admits_again():
    """As soon as enough requests are a window old; reset after the last."""
    limit = Limit(Log(), Rate(3, 10))
    limit.ask(0, 2)
    assert limit.ask(4).reset_at == START + 14
    refused = limit.ask(5)
    assert (refused.allowed, refused.remaining, refused.reset_at) == (False, 0, START + 14)
    assert refused.retry_after == pytest.approx(5.001, abs=1e-5)
    assert limit.look(5, 2).retry_after == pytest.approx(5.001, abs=1e-5)
    assert limit.look(5, 3).retry_after == pytest.approx(9.001, abs=1e-5)
    assert limit.look(5, 4).retry_after == 10
    assert limit.look(14).reset_at == START + 14
    assert limit.look(14).remaining == 3


def test_a_refund_of_a_log_takes_the_newest():
    """Because the limit would be kept longest of those; a part of a request, too."""
    limit = Limit(Log(), TEN, Rate(100, 60))
    limit.ask(0, 3)
    limit.ask(1, 2)
    assert limit.item.write(limit.refund(2, 1))
    assert limit.stored == {
        "l": [START * 1000, 3, START * 1000 + 1000, 1],
        "v": 3,
        "#ttl": START + 2 + 2 * 60 + 60,
    }
    assert limit.item.write(limit.refund(2, 3))
    assert limit.stored["l"] == [START * 1000, 1]
    assert limit.item.write(limit.refund(2, 5))
    assert limit.stored["l"] == []
    assert limit.refund(2) is None
    limit.ask(3)
    assert limit.refund(63) is None


@pytest.mark.parametrize("algorithm", EXACT)
def test_an_item_without_counts_is_an_unused_limit(algorithm):
    """Attributes that are missing count nothing."""
    state = algorithm.read({"PK": {"S": "RL#s#k"}}, 1)
    assert algorithm.look(state, (TEN,), 1, at(0)).remaining == 10
