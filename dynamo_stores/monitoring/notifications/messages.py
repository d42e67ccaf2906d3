"""Notifications, and their texts for each event."""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from ..formatting import count_of, exact, span
from ..token import token_of

BREAKER_OPENED, BREAKER_CLOSED = "breaker_opened", "breaker_closed"
CAPACITY_CHANGED, AT_MAXIMUM = "capacity_changed", "capacity_at_maximum"
STUCK = "scale_down_stuck"
FAILOVER_BEGUN, FAILOVER_ENDED = "failover_begun", "failover_ended"
LEFT_OUT = "left_out"
TEST = "test"
EVENTS = (
    BREAKER_OPENED,
    BREAKER_CLOSED,
    CAPACITY_CHANGED,
    AT_MAXIMUM,
    STUCK,
    FAILOVER_BEGUN,
    FAILOVER_ENDED,
    LEFT_OUT,
    TEST,
)


@dataclass(frozen=True, kw_only=True)
class Notification:
    """
    What receivers are told.

    ``event`` is one of the names in ``EVENTS``, ``using`` the alias, ``table`` the table (``""`` if
    it is about no single one), ``at`` when it happened, in seconds since the epoch. ``subject`` is
    a line and ``text`` a sentence for people; ``fields`` are the details for programs. ``id`` is
    different for each notification.
    """

    event: str
    using: str
    table: str
    at: float
    subject: str
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=lambda: secrets.token_hex(8))

    def as_json(self) -> dict[str, Any]:
        """Return all of it as JSON data: one flat dict."""
        return {
            "id": self.id,
            "event": self.event,
            "using": self.using,
            "table": self.table,
            "at": self.at,
            "subject": self.subject,
            "text": self.text,
            **self.fields,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return the notification of :meth:`as_json`. Raises KeyError."""
        own = ("id", "event", "using", "table", "at", "subject", "text")
        fields = {name: value for name, value in data.items() if name not in own}
        return cls(**{name: data[name] for name in own}, fields=fields)

    def with_more(self, text: str, **fields: Any) -> Self:
        """Return it with another sentence and more fields."""
        return replace(self, text=f"{self.text} {text}", fields={**self.fields, **fields})


@dataclass(frozen=True, kw_only=True)
class News:
    """
    What a process saw: the notification for it, and what it is about.

    ``about`` and ``state`` name what changed and its new state: of processes that see the same
    state within ``lasts`` seconds, one tells it. A repetition only prolongs a state that was told.
    """

    notification: Notification
    about: str
    state: str
    lasts: float
    is_repetition: bool = False


# Seconds for which a state is known to all processes, unless it is prolonged.
HOUR = 3600.0
# A process prolongs the state of an open breaker after so many seconds.
PROLONG_AFTER = 900.0
_SAME_CHANGE, _DAY, _WEEK = 300.0, 86_400.0, 7 * 86_400.0


def process_name() -> str:
    """Return host, process id and token, as in the reports of the process."""
    return f"{socket.gethostname()[:64]}#{os.getpid()}#{token_of(os.getpid())}"


def breaker_opened(
    using: str, table: str, at: float, error: str, *, recovery: float, is_repetition: bool = False
) -> News:
    """Return the news of a breaker that lets no requests through."""
    text = (
        f"The circuit breaker of table {table} (alias {using}) opened at {exact(at)} in the "
        f"process {process_name()} after {error or 'failures'}: its requests fail at once, and the "
        f"next try is {span(recovery)} later."
    )
    return News(
        notification=_notification(
            BREAKER_OPENED, using, table, at, f"Circuit breaker of {table} opened", text,
            process=process_name(), error=error, next_try=at + recovery,
        ),
        about=f"breaker/{table}",
        state="open",
        lasts=HOUR,
        is_repetition=is_repetition,
    )  # fmt: skip


def breaker_closed(using: str, table: str, at: float, since: float | None) -> News:
    """Return the news of a breaker that lets requests through again, ``since`` it was open."""
    long = f" after {span(at - since)}" if since is not None else ""
    text = (
        f"The circuit breaker of table {table} (alias {using}) closed at {exact(at)}{long} in the "
        f"process {process_name()}: its requests are sent again, and other processes follow at "
        "their next try."
    )
    return News(
        notification=_notification(
            BREAKER_CLOSED, using, table, at, f"Circuit breaker of {table} closed", text,
            process=process_name(), since=since,
        ),
        about=f"breaker/{table}",
        state="closed",
        lasts=_DAY,
    )  # fmt: skip


def capacity_changed(
    using: str, table: str, at: float, *, changes: Mapping[str, tuple[int, int]], code: str,
    why: str, then: str,
) -> News:  # fmt: skip
    """Return the news of a change to ``changes``: read and write units by resource."""
    units = ", ".join(
        f"{f'index {name} ' if name else ''}{read} RCU and {write} WCU"
        for name, (read, write) in changes.items()
    )
    what = "The minimum capacity" if code.startswith("minimum_") else "The capacity"
    text = (
        f"{what} of table {table} (alias {using}) is changed to {units} since {exact(at)}: "
        f"{why}. {then}"
    )
    return News(
        notification=_notification(
            CAPACITY_CHANGED, using, table, at, f"Capacity of {table} changed", text,
            changes={name: list(each) for name, each in changes.items()}, code=code, why=why,
        ),
        about=f"capacity/{table}",
        state=json.dumps([code, sorted((name, *each) for name, each in changes.items())]),
        lasts=_SAME_CHANGE,
    )  # fmt: skip


def at_maximum(using: str, table: str, at: float, why: str) -> News:
    """Return the news that a table needed more than its maximum."""
    text = (
        f"Table {table} (alias {using}) needed more capacity than its maximum allows at "
        f"{exact(at)}: {why}. Nothing was changed, and requests are throttled until there are "
        "fewer of them or the maximum is raised."
    )
    return News(
        notification=_notification(
            AT_MAXIMUM, using, table, at, f"Capacity of {table} is at its maximum", text, why=why
        ),
        about=f"maximum/{table}",
        state="at_maximum",
        lasts=HOUR,
    )


def stuck(
    using: str,
    table: str,
    at: float,
    *,
    deadline: float,
    why: str,
    generation: int,
    is_overdue: bool,
) -> News:
    """Return the news that a table should have been lowered and was not."""
    due = f"was to be lowered at {exact(deadline)}" if is_overdue else "was to be lowered"
    then = (
        "It is billed at its raised capacity until 'manage.py dynamo_reconcile' or its task runs."
        if is_overdue
        else f"It is billed at its raised capacity; the next try is at {exact(deadline)}."
    )
    text = f"Table {table} (alias {using}) {due} and was not, as of {exact(at)}: {why}. {then}"
    return News(
        notification=_notification(
            STUCK, using, table, at, f"Capacity of {table} was not lowered", text,
            deadline=deadline, why=why,
        ),
        about=f"stuck/{table}",
        state=str(generation),
        lasts=_WEEK,
    )  # fmt: skip


def failover_begun(using: str, table: str, at: float, failover: str, error: str) -> News:
    """Return the news that another alias answers instead."""
    text = (
        f"Table {table} of alias {using} does not answer since {exact(at)} in the process "
        f"{process_name()} ({error}): alias {failover} answers instead, until the table answers "
        "again."
    )
    return News(
        notification=_notification(
            FAILOVER_BEGUN, using, table, at, f"Failover of {table} to {failover}", text,
            process=process_name(), failover=failover, error=error,
        ),
        about=f"failover/{table}",
        state="begun",
        lasts=HOUR,
    )  # fmt: skip


def failover_ended(using: str, table: str, at: float, failover: str, since: float | None) -> News:
    """Return the news that the alias answers again."""
    long = f" after {span(at - since)}" if since is not None else ""
    text = (
        f"Table {table} of alias {using} answers again since {exact(at)}{long} in the process "
        f"{process_name()}: alias {failover} is not used any more, and other processes follow "
        "with their next request."
    )
    return News(
        notification=_notification(
            FAILOVER_ENDED, using, table, at, f"Failover of {table} to {failover} ended", text,
            process=process_name(), failover=failover, since=since,
        ),
        about=f"failover/{table}",
        state="ended",
        lasts=_DAY,
    )  # fmt: skip


def summary(using: str, at: float, left_out: Mapping[str, int]) -> Notification:
    """Return the notification about nothing but those that were left out."""
    text = f"Notifications of alias {using} are sent again since {exact(at)}."
    found = _notification(LEFT_OUT, using, "", at, "Notifications were left out", text)
    return with_left_out(found, left_out)


def trial(using: str, at: float) -> Notification:
    """Return a notification by which receivers are tested."""
    text = (
        f"This is a test of the notifications of alias {using}, sent at {exact(at)} by the process "
        f"{process_name()}. Nothing has happened."
    )
    return _notification(TEST, using, "", at, "Test of notifications", text, process=process_name())


def with_left_out(notification: Notification, left_out: Mapping[str, int]) -> Notification:
    """Return the notification, with a sentence about those that were left out before it."""
    if not left_out:
        return notification
    listed = ", ".join(f"{count} {event}" for event, count in sorted(left_out.items()))
    number = count_of(sum(left_out.values()), "notification")
    return notification.with_more(
        f"Before it {number} were not sent, because there were too many: {listed}.",
        left_out=dict(Counter(notification.fields.get("left_out", {})) + Counter(left_out)),
    )


def with_changes(notification: Notification, count: int) -> Notification:
    """Return the notification, with a sentence about the changes before it that were not told."""
    if not count:
        return notification
    return notification.with_more(
        f"Before it {count_of(count, 'change')} of the same were not told, because it changes "
        "often.",
        changes_not_told=count,
    )


def without_control_table(notification: Notification) -> Notification:
    """Return the notification, with a sentence that other processes may send the same."""
    return notification.with_more(
        "The control table did not answer, so other processes may send the same.", is_shared=False
    )


def _notification(
    event: str, using: str, table: str, at: float, subject: str, text: str, **fields: Any
) -> Notification:
    return Notification(
        event=event, using=using, table=table, at=at, subject=f"DynamoDB ({using}): {subject}",
        text=text, fields={**fields, "is_shared": True},
    )  # fmt: skip
