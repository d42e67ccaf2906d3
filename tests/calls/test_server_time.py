"""The time of the service, estimated from its answers."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from dynamo_stores import clock
from dynamo_stores.calls.server_time import ServerClock


class TwoClocks(clock.Clock):
    """A wall clock that is wrong by ``wrong`` seconds, and a monotonic one; set by tests."""

    def __init__(self, wrong: float) -> None:
        self.wrong = wrong
        self.true = 1_800_000_000.3

    def now(self):
        return self.true + self.wrong

    def monotonic(self):
        return self.true - 1_799_999_000.0


@pytest.fixture(params=[0.0, -2.0, 300.0])
def clocks(request):
    found = TwoClocks(request.param)
    before = clock.use(found)
    yield found
    clock.use(before)


def answer(server, clocks, took=0.02):
    """An answer, made in the middle of the time that it took."""
    sent_at = clocks.monotonic()
    clocks.true += took / 2
    date = formatdate(clocks.true, usegmt=True).encode()
    clocks.true += took / 2
    server.record(date, sent_at, clocks.monotonic())


def test_the_interval_contains_the_time_and_narrows(clocks):
    """Whatever the local clock is."""
    server = ServerClock()
    assert not server.is_learned
    before = server.times()
    assert (before.low, before.high) == (clocks.now() - 2, clocks.now() + 2)
    for number in range(60):
        answer(server, clocks)
        times = server.times()
        assert times.low <= clocks.true <= times.high
        clocks.true += 0.137 * (number % 5 + 1)
    assert server.is_learned
    assert times.high - times.low < 0.15


def test_the_interval_is_discarded_when_a_clock_was_set(clocks):
    """Or when the machine slept; the next answer sets it again."""
    server = ServerClock()
    answer(server, clocks)
    clocks.wrong += 5
    assert not server.is_learned
    answer(server, clocks)
    times = server.times()
    assert times.low <= clocks.true <= times.high


def moved_answer(server, clocks, seconds):
    """An answer of a server whose clock is ``seconds`` ahead."""
    sent_at = clocks.monotonic()
    date = formatdate(clocks.true + seconds, usegmt=True).encode()
    clocks.true += 0.01
    server.record(date, sent_at, clocks.monotonic())


def knows(server, moment):
    times = server.times()
    return times.low <= moment <= times.high


def test_a_changed_clock_of_the_service_is_accepted(clocks):
    """When a second answer agrees with the first."""
    server = ServerClock()
    answer(server, clocks)
    moved_answer(server, clocks, 10)
    moved_answer(server, clocks, 10)
    assert knows(server, clocks.true + 10)


@pytest.mark.parametrize("wrong", [3600, -3600])
def test_one_answer_does_not_overturn_the_known_time(clocks, wrong, caplog):
    """Nor do two that contradict each other, or that are not in a row; it is logged once."""
    server = ServerClock()
    for _ in range(50):
        answer(server, clocks)
        clocks.true += 0.137
    for seconds in (wrong, 2 * wrong):
        moved_answer(server, clocks, seconds)
        assert knows(server, clocks.true)
    for _ in range(3):
        answer(server, clocks)
        moved_answer(server, clocks, wrong)
        assert knows(server, clocks.true)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "differs by 3" in record.getMessage()


def test_an_answer_from_before_a_clock_was_set_confirms_none(clocks):
    """The interval and the doubted answer are both discarded."""
    server = ServerClock()
    answer(server, clocks)
    moved_answer(server, clocks, 10)
    clocks.wrong += 5
    answer(server, clocks)
    moved_answer(server, clocks, 10)
    assert knows(server, clocks.true)


def test_an_invalid_date_is_ignored(clocks):
    """Invalid values are ignored."""
    server = ServerClock()
    for date in (b"", b"yesterday"):
        server.record(date, 0, 1)
        assert not server.is_learned


def test_the_interval_grows_with_time(clocks):
    """The local clock may drift meanwhile."""
    server = ServerClock()
    answer(server, clocks)
    first = server.times()
    clocks.true += 1000
    later = server.times()
    assert later.high - later.low == pytest.approx(first.high - first.low + 0.2, abs=0.01)
