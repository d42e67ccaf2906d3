"""The notifier of this process: decides with the others who tells what, and sends it."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import logging
import math
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from ... import clock
from ...concurrency.background import Background
from ...concurrency.per_process import PerProcess
from ...conf import get_config
from ...exceptions import CALL_ERRORS
from ..ending import time_left
from .delivery import Delivery
from .ledger import Ledger
from .messages import LEFT_OUT, News, Notification, with_left_out, without_control_table
from .store import LedgerStore

T = TypeVar("T")

logger = logging.getLogger(__name__)

# News that wait while a receiver or the control table hangs; further ones are counted.
_MOST_WAITING = 100
# Seconds between two looks whether all is sent.
_STEP = 0.01
# Seconds in which the control table has answered, or is given up.
_CONTROL_TABLE = 5.0
# Seconds after which the control table is asked again for what was not told.
_SOONEST = 1.0


class Notifier:
    """
    The notifications of one alias in one process, sent one after the other by a thread.

    Processes agree by the ledger in the control table. A process that cannot reach it goes by its
    own, which begins with what it knew, and adds it to that of all when it can.
    """

    def __init__(self, using: str) -> None:
        self.using = using
        self._most = get_config(using).notify.max_per_hour
        self._delivery = Delivery(using)
        self._store = LedgerStore(using)
        self._background = Background(f"notifications-{using}", _MOST_WAITING)
        self._numbers = itertools.count()
        # What was submitted and is not done yet.
        self._waiting: dict[int, str] = {}
        self._dropped: Counter[str] = Counter()
        self._known = Ledger()
        self._own = Ledger()
        self._is_alone = False
        self._looks_again = self._has_ended = False
        # When a breaker opened or a failover began in this process, and when it was prolonged.
        self.since: dict[str, float] = {}
        self.prolonged: dict[str, float] = {}

    def submit(self, make: Callable[[], News], event: str) -> None:
        """Let the news that ``make`` returns be told soon; never blocks and never raises."""
        self._submit(event, lambda: self._tell(make()))

    def submit_overdue(self) -> None:
        """Let what was left out before and may be sent now be told soon, as :meth:`submit`."""
        self._submit(LEFT_OUT, self._tell_overdue)

    def _submit(self, event: str, function: Callable[[], None]) -> None:
        number = next(self._numbers)
        is_accepted = False
        try:
            self._waiting[number] = event
            # Without a thread, at the end of the interpreter, nothing is sent.
            with contextlib.suppress(RuntimeError):
                is_accepted = self._background.submit(partial(self._handle, number, function))
        finally:
            if not is_accepted:
                self._waiting.pop(number, None)
        if not is_accepted and event != LEFT_OUT:
            self._dropped[event] += 1
            logger.error(
                "A notification of %s was not sent: %d others wait.", event, len(self._waiting),
                extra={"dynamodb_using": self.using, "dynamodb_event": event},
            )  # fmt: skip

    def wait(self, seconds: float) -> None:
        """Wait until all is sent, for ``seconds`` of real time at most."""
        _wait([self], seconds)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    def log_rest(self) -> None:
        """Log what this process leaves unsent."""
        rest = Counter(list(self._waiting.values())) + self._own.counts() + self._dropped
        if rest and not self._has_ended:
            self._has_ended = True
            logger.error(
                "The process ends without having sent %d notifications: %s.",
                rest.total(), ", ".join(f"{count} {event}" for event, count in rest.items()),
                extra={"dynamodb_using": self.using},
            )  # fmt: skip

    def _handle(self, number: int, function: Callable[[], None]) -> None:
        try:
            function()
        finally:
            self._waiting.pop(number, None)

    def _tell(self, news: News) -> None:
        found = self._decide(lambda ledger: ledger.tell(news, clock.now(), self._most))
        if found is not None:
            self._send(found)

    def _tell_overdue(self) -> None:
        found = self._decide(lambda ledger: ledger.overdue(self.using, clock.now(), self._most))
        for notification in found:
            self._send(notification)

    def _decide(self, function: Callable[[Ledger], T]) -> T:
        try:
            result, ledger = self._store.change(partial(self._with_own, function))
        except CALL_ERRORS as exc:
            if not self._is_alone:
                logger.warning(
                    "The control table of the alias %r cannot be reached (%s), so this process "
                    "sends notifications by itself.", self.using, type(exc).__name__,
                    extra={"dynamodb_using": self.using},
                )  # fmt: skip
            self._is_alone = True
            if not self._own.subjects and not self._own.sent:
                self._own = self._known
            result, ledger = function(self._own), self._own
        else:
            self._is_alone = False
            self._own, self._known = Ledger(), ledger.without_counts()
        self._look_again(ledger)
        return result

    def _with_own(self, function: Callable[[Ledger], T], ledger: Ledger) -> T:
        # The item may have to be changed several times, so what is added is a copy each time.
        ledger.add(Ledger.read(self._own.as_text()))
        return function(ledger)

    def _look_again(self, ledger: Ledger) -> None:
        after = ledger.next_overdue(clock.now(), self._most)
        if after is None or self._looks_again:
            return
        with contextlib.suppress(RuntimeError):
            self._looks_again = self._background.submit(
                self._tell_overdue_later, after=max(after, _SOONEST)
            )

    def _tell_overdue_later(self) -> None:
        self._looks_again = False
        self._tell_overdue()

    def _send(self, notification: Notification) -> None:
        dropped, self._dropped = self._dropped, Counter()
        notification = with_left_out(notification, dropped)
        if self._is_alone:
            notification = without_control_table(notification)
        self._delivery.send(notification)


def _wait(notifiers: list[Notifier], seconds: float) -> None:
    # Real time, also with the fake clock of a test, which is not that of the other threads.
    until = clock.monotonic() + seconds
    for _ in range(math.ceil(seconds / _STEP)):
        if all(each.is_idle for each in notifiers) or clock.monotonic() >= until:
            return
        threading.Event().wait(_STEP)


_notifiers = PerProcess(Notifier)


def get_notifier(using: str) -> Notifier:
    """Return this process's notifier of the alias ``using``."""
    return _notifiers.get(using)


def wait_until_sent(using: str) -> None:
    """Wait for the notifications of this process; for commands, which end after their work."""
    notify = get_config(using).notify
    if notify.is_on:
        get_notifier(using).wait(notify.timeout + _CONTROL_TABLE)


@atexit.register
def send_rest(**kwargs: Any) -> None:
    """Wait a short time for notifications on their way, and log those that stay unsent."""
    with contextlib.suppress(KeyboardInterrupt):
        _wait(_notifiers.all(), time_left())
        for notifier in _notifiers.all():
            notifier.log_rest()
