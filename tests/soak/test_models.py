"""The models of the soak."""

from __future__ import annotations

from tests.soak.models import MISSING, Count, Register, most_in_any


def test_a_confirmed_write_is_the_only_possible_value():
    """And whatever was there before is not."""
    key = Register(late=5)
    assert key.read(MISSING, 0)
    key.confirm(key.begin("a", 0))
    assert key.read("a", 0)
    assert not key.read(MISSING, 0)


def test_a_write_without_an_outcome_may_come_late():
    """Also after a later write, and after a read that did not see it; not for ever."""
    key = Register(late=5)
    key.confirm(key.begin("a", 0))
    key.begin("b", 0)
    assert key.possible() == {"a", "b"}
    key.confirm(key.begin("c", 1))
    assert key.possible() == {"b", "c"}
    assert key.read("c", 4)
    # It may have come between the two reads.
    assert key.possible() == {"b", "c"}
    assert key.read("b", 7)
    assert key.possible() == {"b"}
    key.confirm(key.begin("d", 8))
    assert not key.read("b", 8)


def test_a_write_without_an_outcome_comes_within_its_time():
    """What a later read or a later write did not find never comes."""
    key = Register(late=5)
    key.begin("a", 0)
    assert key.read(MISSING, 6)
    assert not key.read("a", 6)
    key.begin("b", 6)
    key.confirm(key.begin("c", 12))
    assert not key.read("b", 12)


def test_a_read_may_be_behind():
    """It says nothing on writes whose time ended just before."""
    key = Register(late=5, lag=2)
    key.begin("a", 0)
    assert key.read(MISSING, 6)
    assert key.possible() == {MISSING, "a"}
    assert key.read(MISSING, 8)
    assert key.possible() == {MISSING}


def test_the_first_attempt_of_a_slow_write_may_come_late():
    """The second one was confirmed, and there was a later write."""
    key = Register(late=5)
    key.confirm(key.begin("a", 0), slow=True)
    key.confirm(key.begin("b", 1))
    assert key.possible() == {"a", "b"}
    key.confirm(key.begin("c", 6))
    assert key.possible() == {"c"}


def test_a_counter_is_between_its_bounds():
    """None that was confirmed is lost, and none is counted more often than it was attempted."""
    count = Count(attempts=1)
    count.begin()
    assert count.incremented(1)
    count.begin()
    count.begin()
    assert count.incremented(3)
    count.begin()
    assert not count.incremented(3)
    count.begin()
    assert count.incremented(4)
    count.begin()
    assert not count.incremented(7)


def test_only_what_is_certainly_in_a_window_counts():
    """Requests whose answers came after its end may have been admitted later."""
    assert most_in_any(1.0, [(0.0, 0.1), (0.5, 0.6), (0.9, 1.1), (1.6, 1.7)]) == 2
