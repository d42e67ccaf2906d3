"""Verbs, the effects that they await, and the drivers that carry the effects out."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time

import pytest

from dynamo_stores.concurrency.effects import (
    Computation,
    Effect,
    InThread,
    Join,
    Opened,
    Prepare,
    Wait,
    arun,
    run,
    twins,
)
from dynamo_stores.concurrency.flights import AGAIN, Flights, Gate, Lead
from dynamo_stores.concurrency.together import together
from dynamo_stores.exceptions import StoreUnavailable
from dynamo_stores.testing import FakeClock


def on_a_loop(verb):
    return asyncio.run(arun(verb))


DRIVERS = pytest.mark.parametrize("drive", [run, on_a_loop])
number = contextvars.ContextVar("number", default=0)


class Fail(Effect):
    """Raises its error."""

    def __init__(self, error):
        self.error = error

    def run(self):
        raise self.error

    async def arun(self):
        raise self.error


@DRIVERS
def test_errors_of_effects_come_back_at_the_await(drive):
    """The verb may handle them, and cleans up."""
    done = []

    async def verb(error):
        try:
            await Fail(error)
        except LookupError:
            await Wait(0)
            return "handled"
        finally:
            await Wait(0)
            done.append(error)

    error = ValueError("mine")
    assert drive(verb(LookupError())) == "handled"
    with pytest.raises(ValueError, match="mine") as raised:
        drive(verb(error))
    assert raised.value is error
    assert done[1] is error


@DRIVERS
def test_only_effects_can_be_awaited(drive):
    """What belongs to an event loop is refused with a sentence."""

    async def verb():
        await asyncio.sleep(0)

    with pytest.raises(TypeError, match="A verb awaited a NoneType; expected an Effect"):
        drive(verb())


@DRIVERS
def test_waits_are_of_the_clock(drive):
    """A fake one does not wait."""

    async def verb():
        await Wait(3600)

    with FakeClock() as now:
        drive(verb())
        assert now.slept == [3600]


@DRIVERS
def test_verbs_run_side_by_side(drive):
    """With their results in order, the variables of the context, and so many at a time."""
    running, most = 0, 0
    lock = threading.Lock()

    async def verb(item):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        await Wait(0.01)
        with lock:
            running -= 1
        return item * number.get()

    async def all_of(items, limit):
        number.set(10)
        return await together(items, verb, max_concurrency=limit)

    assert drive(all_of(range(12), 3)) == [item * 10 for item in range(12)]
    assert most == 3
    assert drive(all_of([7], 3)) == [70]
    assert drive(all_of([], 3)) == []


@DRIVERS
def test_the_first_error_of_several_ends_the_others(drive):
    """Those under way end; no new one begins."""
    begun, ended = [], []

    async def verb(item):
        begun.append(item)
        if item == 1:
            raise LookupError
        await Wait(0.05)
        ended.append(item)

    async def all_of():
        return await together(range(50), verb, max_concurrency=2)

    with pytest.raises(LookupError):
        drive(all_of())
    assert len(begun) < 10
    assert sorted(ended) == sorted(each for each in begun if each != 1)


def test_a_cancelled_task_cancels_what_runs_side_by_side():
    """All of it, and each cleans up."""
    cleaned = []

    async def verb(item):
        try:
            await Wait(60)
        finally:
            cleaned.append(item)

    async def work():
        task = asyncio.ensure_future(arun(together(range(9), verb, max_concurrency=3)))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(work())
    assert sorted(cleaned) == [0, 1, 2]


def test_threads_and_tasks_wait_for_each_other():
    """The outcome of a flight, its error as an object of their own, and its end."""
    flights = Flights()
    lead = flights.join("name")
    assert isinstance(lead, Lead)

    async def follow(seconds=30):
        return await Join(lead.flight, seconds)

    async def work():
        waiting = [asyncio.ensure_future(arun(follow())) for _ in range(3)]
        waiting += [asyncio.ensure_future(asyncio.to_thread(run, follow())) for _ in range(3)]
        with pytest.raises(TimeoutError):
            await arun(follow(0.05))
        flights.land("name", lead, "outcome")
        return await asyncio.gather(*waiting)

    assert asyncio.run(work()) == ["outcome"] * 6
    lead = flights.join("name")
    error = StoreUnavailable("no answer")
    found = []

    def wait():
        try:
            run(follow())
        except StoreUnavailable as exc:
            found.append(exc)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.05)
    flights.land("name", lead, AGAIN, error)
    thread.join(30)
    assert str(found[0]) == "no answer"
    assert found[0] is not error


@DRIVERS
def test_a_gate_is_opened_from_another_thread(drive):
    """Before or during the wait, which ends by itself."""

    async def verb(gate, seconds):
        await Opened(gate, seconds)
        return gate.is_open

    gate = Gate()
    assert drive(verb(gate, 0.01)) is False
    timer = threading.Timer(0.05, gate.open)
    timer.start()
    assert drive(verb(gate, 30)) is True
    assert drive(verb(gate, 30)) is True


def test_what_blocks_runs_in_threads_on_a_loop_only():
    """And what may read the database on Django's thread-sensitive thread, unless it is plain."""
    here = threading.current_thread

    async def threads():
        return [
            await InThread("default", here),
            await Prepare(here, object()),
            await Prepare(here, "text"),
            await Computation(here),
        ]

    assert set(run(threads())) == {here()}
    blocking, prepared, plain, computed = on_a_loop(threads())
    assert blocking.name.startswith("dynamo-stores-async")
    assert prepared is computed
    assert here() is plain not in (blocking, prepared)


def test_a_method_and_its_twin():
    """They have the verb's name, documentation and result."""

    class Store:
        async def _get(self, key, default=None):
            """Return it."""
            await Wait(0)
            return key, default

        get, aget = twins(_get)

    store = Store()
    assert store.get("a", default=1) == asyncio.run(store.aget("a", default=1)) == ("a", 1)
    assert (Store.get.__name__, Store.aget.__name__) == ("get", "aget")
    assert Store.get.__doc__ == Store.aget.__doc__ == "Return it."
    assert asyncio.iscoroutinefunction(Store.aget)
