"""Who tells what, and how often: the ledger, without any call."""

from __future__ import annotations

import dataclasses

import pytest

from dynamo_stores.monitoring.notifications import messages
from dynamo_stores.monitoring.notifications.ledger import AT_ONCE, WINDOW, Ledger
from dynamo_stores.monitoring.notifications.messages import Notification

NOW = 2_000_000_000.0
HOUR = 3600.0


def opened(at=NOW, table="t", **options):
    return messages.breaker_opened("default", table, at, "StoreUnavailable", recovery=60, **options)


def closed(at=NOW, table="t"):
    return messages.breaker_closed("default", table, at, None)


def changed(number, at=NOW, table="t"):
    changes = {"": (number, 5)}
    return messages.capacity_changed(
        "default", table, at, changes=changes, code="raised", why="demand", then="Later."
    )


def told(ledger, *news, most=100):
    """The events of what is told of the news, at their times."""
    found = [ledger.tell(each, each.notification.at, most) for each in news]
    return [each.event if each else None for each in found]


def test_a_state_is_told_once():
    """By the first process that sees it, until it changes."""
    ledger = Ledger()
    assert told(ledger, opened(), opened(NOW + 1), closed(NOW + 60), closed(NOW + 90)) == [
        "breaker_opened", None, "breaker_closed", None,
    ]  # fmt: skip
    assert told(ledger, opened(NOW + 100), opened(NOW + 100, table="other")) == [
        "breaker_opened", "breaker_opened",
    ]  # fmt: skip


def test_a_repetition_prolongs_what_was_told():
    """It tells nothing by itself; without it a new process tells again after an hour."""
    ledger = Ledger()
    assert told(ledger, opened(is_repetition=True)) == [None]
    assert told(ledger, opened()) == ["breaker_opened"]
    assert told(ledger, opened(NOW + 1000, is_repetition=True)) == [None]
    assert told(ledger, opened(NOW + HOUR + 900)) == [None]
    assert told(ledger, opened(NOW + 4 * HOUR)) == ["breaker_opened"]


def test_a_known_state_writes_nothing():
    """Of a hundred processes one writes."""
    ledger = Ledger()
    told(ledger, opened())
    assert ledger.is_changed
    ledger.is_changed = False
    told(ledger, opened(NOW + 30), opened(NOW + 60, is_repetition=True))
    assert not ledger.is_changed


def test_a_breaker_that_flaps_is_told_in_the_end():
    """The first changes at once, the last one later, with the number of those between."""
    ledger = Ledger()
    news = [
        closed(NOW + 10 * number) if number % 2 else opened(NOW + 10 * number)
        for number in range(51)
    ]
    found = told(ledger, *news)
    assert found == ["breaker_opened", "breaker_closed"] * 2 + [None] * 47
    now = NOW + 510
    assert ledger.overdue("default", now, 100) == []
    assert ledger.next_overdue(now, 100) == pytest.approx(WINDOW - 510)
    (last,) = ledger.overdue("default", NOW + WINDOW + 1, 100)
    assert (last.event, last.at) == ("breaker_opened", NOW + 500)
    assert last.fields["changes_not_told"] == 46
    assert "46 changes of the same were not told" in last.text
    assert ledger.next_overdue(NOW + WINDOW + 1, 100) is None
    assert ledger.overdue("default", NOW + 2 * WINDOW, 100) == []


def test_changes_that_were_held_are_counted_by_the_next_one():
    """If it comes before anybody looks."""
    ledger = Ledger()
    told(ledger, *(changed(number, NOW + number) for number in range(1, AT_ONCE + 4)))
    found = ledger.tell(changed(99, NOW + WINDOW + 5), NOW + WINDOW + 5, 100)
    assert found.fields["changes_not_told"] == 3


def test_never_more_than_so_many_in_any_hour():
    """Whatever they are about; the next one lists what was left out."""
    ledger, most = Ledger(), 5
    news = [opened(NOW + 60 * number, table=f"t{number}") for number in range(180)]
    times = []
    for each in news:
        now = each.notification.at
        if ledger.tell(each, now, most) is not None:
            times.append(now)
    for begin in times:
        assert sum(begin <= each < begin + HOUR for each in times) <= most
    assert len(times) == 15
    found = ledger.tell(changed(1, NOW + 4 * HOUR), NOW + 4 * HOUR, most)
    # Those of the last hour that had a place were told with the ones before them.
    assert found.fields["left_out"] == {"breaker_opened": 55}
    assert "55 notifications were not sent" in found.text


def test_what_was_left_out_is_summed_up_without_a_next_one():
    """When the hour allows it, as a notification of its own, once."""
    ledger = Ledger()
    told(ledger, changed(1), opened(), changed(2, table="u"), most=1)
    assert ledger.counts() == {"breaker_opened": 1, "capacity_changed": 1}
    assert ledger.overdue("default", NOW + HOUR - 1, 1) == []
    assert ledger.next_overdue(NOW, 1) == HOUR
    (found,) = ledger.overdue("default", NOW + HOUR + 1, 1)
    assert found.event == "left_out"
    assert found.fields["left_out"] == {"breaker_opened": 1, "capacity_changed": 1}
    assert ledger.overdue("default", NOW + 3 * HOUR, 1) == []


def test_the_ledger_is_kept_as_text():
    """With what is held; text of other software is an empty ledger."""
    ledger = Ledger()
    told(ledger, *(changed(number, NOW + number) for number in range(1, AT_ONCE + 3)))
    told(ledger, opened(), most=1)
    again = Ledger.read(ledger.as_text())
    ledger.is_changed = False
    assert again == ledger
    for text in ("", "[]", "{", '{"sent": 1}', '{"subjects": {"a": {}}}', '{"sent": ["x"]}'):
        assert Ledger.read(text) == Ledger()


def test_what_a_process_told_by_itself_is_added():
    """Its notifications count for the hour, and its later states hold."""
    shared, own = Ledger(), Ledger()
    told(shared, changed(1))
    told(own, opened(NOW + 10), changed(7, NOW + 10, table="u"), changed(8, NOW + 11), most=2)
    shared.add(own)
    assert shared.sent == [NOW, NOW + 10]
    assert shared.left_out == {"capacity_changed": 1}
    assert told(shared, opened(NOW + 20)) == [None]
    assert told(shared, closed(NOW + 30)) == ["breaker_closed"]
    # An older state of a process that was alone changes nothing.
    shared.add(own)
    assert told(shared, closed(NOW + 40)) == [None]


def test_what_all_processes_know_later_holds():
    """A process that was alone for a while brings an older state, which was known for longer."""
    shared = Ledger()
    told(shared, opened(), closed(NOW + 60))
    own = shared.without_counts()
    told(own, changed(1, NOW + 70))
    told(shared, opened(NOW + 80))
    shared.add(own)
    assert told(shared, opened(NOW + 90)) == [None]
    assert told(shared, closed(NOW + 100)) == ["breaker_closed"]


def test_a_copy_has_no_counts():
    """What is not told yet is told by the ledger of all processes."""
    ledger = Ledger()
    told(ledger, *(changed(number, NOW + number) for number in range(1, AT_ONCE + 3)))
    told(ledger, opened(), most=1)
    copy = ledger.without_counts()
    assert (copy.counts(), copy.sent) == ({}, ledger.sent)
    assert sum(ledger.counts().values()) == 3


def test_old_things_are_forgotten():
    """So that the item stays small; it is of no use after all have ended."""
    ledger = Ledger()
    told(ledger, *(changed(1, NOW, table=f"t{number}") for number in range(50)))
    assert ledger.ends(NOW) >= NOW + HOUR
    told(ledger, changed(1, NOW + WINDOW + 1))
    assert list(ledger.subjects) == ["capacity/t"]


def test_a_notification_is_json():
    """And is read back from it, in the ledger."""
    found = opened().notification
    assert Notification.from_json(found.as_json()) == found
    assert found.as_json()["event"] == "breaker_opened"
    assert dataclasses.asdict(found)["fields"]["next_try"] == NOW + 60


def test_two_counts_of_what_was_left_out_are_added():
    """Of the queue of a process, and of the limit of an hour."""
    found = messages.with_left_out(opened().notification, {"capacity_changed": 1})
    found = messages.with_left_out(found, {"capacity_changed": 2, "breaker_opened": 1})
    assert found.fields["left_out"] == {"capacity_changed": 3, "breaker_opened": 1}
