"""What is tried after an error: everything is handled in order, and only poison is set aside."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dynamo_stores.streams import StreamRecord
from dynamo_stores.streams.pending import Outcome, Pending


def records(count):
    return [StreamRecord(str(n), "INSERT", "orders", str(n), 0.0, {}) for n in range(count)]


def numbers(batch):
    return [int(record.sequence_number) for record in batch]


@given(st.integers(1, 60), st.sets(st.integers(0, 59)), st.integers(1, 4), st.booleans())
def test_all_records_are_handled_in_order_but_poison(count, poison, tries, names):
    """
    Whatever is poison, and whether the handler names it or not: the others are handled in their
    order, and each poison record is set aside after its tries.
    """
    pending = Pending(tries)
    pending.add(records(count))
    handled, aside, tried = [], [], dict.fromkeys(range(count), 0)
    for _ in range(20_000):
        batch = numbers(pending.batch())
        if not batch:
            break
        bad = next((position for position, n in enumerate(batch) if n in poison), None)
        if bad is None:
            handled += batch
            pending.succeeded()
            assert pending.position == str(batch[-1])
            continue
        tried[batch[bad]] += len(batch) == 1 or names
        if names:
            handled += batch[:bad]
        if pending.failed(bad if names else None) is Outcome.GIVE_UP:
            assert pending.batch()[0].sequence_number == str(batch[bad])
            aside.append(int(pending.set_aside().sequence_number))
    assert not len(pending)
    assert aside == sorted(poison & set(range(count)))
    assert handled == [n for n in range(count) if n not in poison]
    assert all(tried[n] >= tries for n in aside)


def test_a_batch_is_tried_as_a_whole_before_it_is_halved():
    """What is wrong may pass: the database was restarted."""
    pending = Pending(3)
    pending.add(records(4))
    assert [pending.failed(), pending.failed()] == [Outcome.WAIT, Outcome.WAIT]
    assert numbers(pending.batch()) == [0, 1, 2, 3]
    assert pending.failed() is Outcome.HALVE
    assert numbers(pending.batch()) == [0, 1]
    pending.succeeded()
    assert pending.failed() is Outcome.HALVE
    assert numbers(pending.batch()) == [2]
    assert pending.failed() is Outcome.WAIT


def test_records_after_one_that_was_set_aside_are_halved_after_one_try():
    """They were tried as a whole with it."""
    pending = Pending(2)
    pending.add(records(5))
    while pending.failed() is not Outcome.GIVE_UP:
        pass
    pending.set_aside()
    assert numbers(pending.batch()) == [1, 2, 3, 4]
    assert pending.failed() is Outcome.HALVE
    pending.succeeded()
    assert numbers(pending.batch()) == [3, 4]
    assert [pending.failed(), pending.failed()] == [Outcome.HALVE, Outcome.WAIT]
    assert numbers(pending.batch()) == [3]


def test_errors_that_do_not_count_are_waited_for_without_limit():
    """An unavailable store sets nothing aside."""
    pending = Pending(2)
    pending.add(records(1))
    assert {pending.failed(counts=False) for _ in range(50)} == {Outcome.WAIT}
    assert pending.failed() is Outcome.WAIT
    assert pending.failed() is Outcome.GIVE_UP


def test_records_before_the_one_that_is_named_are_not_repeated():
    """They are handled, and their position is known."""
    pending = Pending(2)
    pending.add(records(5))
    assert pending.failed(3) is Outcome.WAIT
    assert pending.position == "2"
    assert numbers(pending.batch()) == [3]
    pending.succeeded()
    assert numbers(pending.batch()) == [4]
