"""What all capabilities share in a process: bounded dicts and single flight."""

from __future__ import annotations

import asyncio
import copy
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from dynamo_stores.concurrency.bounded import BoundedDict
from dynamo_stores.concurrency.flights import AGAIN, Flight, Flights, Lead


def test_the_entries_put_first_are_dropped():
    """Using or putting an entry again makes it the newest."""
    held = BoundedDict(3)
    for key in "abc":
        held.put(key, key)
    held.move_to_end("a")
    held.put("b", "B")
    held.put("d", "d")
    assert list(held) == ["a", "b", "d"]
    assert (held["b"], held.evictions) == ("B", 1)


def test_sizes_are_bounded():
    """The sum never exceeds the bound; a value over the bound is not kept, nor its predecessor."""
    held = BoundedDict(10, 10, len)
    held.put("a", "12345")
    held.put("b", "12345")
    held.put("c", "1")
    assert (list(held), held.size) == (["b", "c"], 6)
    held.put("b", "12345678901")
    assert (list(held), held.size) == (["c"], 1)
    held.drop("c")
    held.drop("c")
    assert (len(held), held.size) == (0, 0)


def test_one_value_is_made_for_all_threads():
    """``get_or_put`` returns the same object to threads that ask at once."""
    held, barrier, found = BoundedDict(10), threading.Barrier(8), []

    def ask():
        barrier.wait(10)
        found.append(held.get_or_put("k", object))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1


def test_a_bounded_dict_is_not_copied():
    """Its lock belongs to this process."""
    with pytest.raises(TypeError, match="belongs to its process"):
        copy.copy(BoundedDict(1))


def test_a_flight_is_joined_until_it_lands():
    """One leader; the followers have its outcome or its error."""
    flights = Flights()
    lead = flights.join("k")
    follower = flights.join("k")
    assert isinstance(lead, Lead)
    assert isinstance(follower, Flight)
    assert flights.land("k", lead, 1)
    assert follower.result(0) == 1
    assert isinstance(flights.join("k"), Lead)


def test_a_detached_or_replaced_flight_is_not_current():
    """It still ends for the followers that it has."""
    flights = Flights()
    first, second = flights.join("k"), flights.lead("k")
    assert flights.join("k") is second.flight
    assert not flights.land("k", first, AGAIN)
    flights.detach("k")
    assert not flights.land("k", second, 2)
    assert (first.flight.result(0), second.flight.result(0)) == (AGAIN, 2)
    third = flights.join("k")
    flights.detach_all()
    assert not flights.land("k", third, None, ValueError("x"))
    with pytest.raises(ValueError, match="x"):
        third.flight.result(0)


def test_a_flight_ends_with_its_lead():
    """Its followers try again, and it can be joined no more."""
    flights = Flights()
    lead, follower = flights.join("k"), flights.join("k")
    del lead
    assert follower.result(0) is AGAIN
    assert len(flights) == 0
    assert isinstance(flights.join("k"), Lead)


@pytest.mark.parametrize("wait", [Flight.result, lambda *args: asyncio.run(Flight.aresult(*args))])
def test_followers_wait_for_the_outcome(wait):
    """Until it is there, and at most as long as they said."""
    flights = Flights()
    lead, follower = flights.join("k"), flights.join("k")
    with pytest.raises(TimeoutError):
        wait(follower, 0.01)
    with ThreadPoolExecutor(3) as threads:
        waiting = [threads.submit(wait, follower, 60) for _ in range(3)]
        while len(follower._waiting) < 4:
            time.sleep(0.001)
        flights.land("k", lead, 1)
        assert [each.result(60) for each in waiting] == [1, 1, 1]


@pytest.mark.parametrize("wait", [Flight.result, lambda *args: asyncio.run(Flight.aresult(*args))])
def test_followers_notice_a_lead_that_could_not_end_its_flight(monkeypatch, wait):
    """An exception from outside came as the lead was dropped."""
    flights = Flights()
    lead, follower = flights.join("k"), flights.join("k")
    monkeypatch.setattr(Lead, "__del__", lambda lead: None)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(wait, follower, 600)
        while not follower._waiting:
            time.sleep(0.001)
        del lead
        assert waiting.result(60) is AGAIN
    assert isinstance(flights.join("k"), Lead)
