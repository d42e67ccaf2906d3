"""
What was told, and what may be told: decided here, without any call.

A ledger is one for all processes of an alias, in an item, or one process's own while that cannot be
reached.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from .messages import HOUR, News, Notification, summary, with_changes, with_left_out

# Changes of one thing that are told at once, and the seconds in which so many are.
AT_ONCE, WINDOW = 4, 1800.0
# A state is prolonged when less than this share of its time is left.
_PROLONG = 0.75


@dataclass
class Subject:
    """
    What is known of one thing that changes.

    Its ``state`` is what it is since ``at``, and known until ``until``. ``told`` are the times of
    its last notifications; ``held`` counts its changes that were not told since, and ``pending`` is
    the last of these.
    """

    state: str
    at: float
    until: float
    told: list[float] = field(default_factory=list)
    held: int = 0
    pending: Notification | None = None


@dataclass
class Ledger:
    """
    What all processes of an alias know: the times of the notifications of the last hour, how many
    were left out since the last one, by event, and the things that change. Times are in seconds
    since the epoch. Methods change it, and return whether or what to tell.
    """

    sent: list[float] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    subjects: dict[str, Subject] = field(default_factory=dict)
    is_changed: bool = False

    @classmethod
    def read(cls, text: str) -> Self:
        """Return the ledger of :meth:`as_text`; an empty one if it cannot be read."""
        try:
            data = json.loads(text or "{}")
            return cls(
                sent=[float(each) for each in data.get("sent", ())],
                left_out=Counter({str(k): int(v) for k, v in data.get("left_out", {}).items()}),
                subjects={str(k): _subject(v) for k, v in data.get("subjects", {}).items()},
            )
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError):
            # Another version wrote it.
            return cls()

    def as_text(self) -> str:
        """Return the ledger as JSON."""
        return json.dumps(
            {
                "sent": self.sent,
                "left_out": self.left_out,
                "subjects": {
                    about: {
                        "state": each.state,
                        "at": each.at,
                        "until": each.until,
                        "told": each.told,
                        "held": each.held,
                        "pending": each.pending.as_json() if each.pending else None,
                    }
                    for about, each in self.subjects.items()
                },
            }
        )

    def ends(self, now: float) -> float:
        """Return when nothing of it matters any more."""
        return max([now + HOUR, *(each.until for each in self.subjects.values())]) + WINDOW

    def tell(self, news: News, now: float, most: int) -> Notification | None:
        """
        Record ``news``; return its notification if it is to be sent now, with what was left out
        before it. ``most`` may be sent in an hour.
        """
        self._tidy(now)
        subject = self.subjects.get(news.about)
        is_known = subject is not None and subject.until > now and subject.state == news.state
        if subject is None or not is_known:
            if news.is_repetition:
                return None
            self.is_changed = True
            if subject is None:
                subject = self.subjects[news.about] = Subject(news.state, now, now)
            subject.state, subject.at, subject.until = news.state, now, now + news.lasts
            if len(subject.told) >= AT_ONCE:
                subject.held += 1
                subject.pending = news.notification
                return None
            return self._send(subject, news.notification, now, most)
        if subject.until < now + _PROLONG * news.lasts:
            self.is_changed = True
            subject.until = now + news.lasts
        return None

    def overdue(self, using: str, now: float, most: int) -> list[Notification]:
        """Return what was not told before and may be sent now."""
        self._tidy(now)
        found = []
        for subject in self.subjects.values():
            if subject.pending and len(subject.told) < AT_ONCE and len(self.sent) < most:
                subject.held -= 1
                sent = self._send(subject, subject.pending, now, most)
                found += [sent] if sent else []
        if self.left_out and len(self.sent) < most:
            self.is_changed = True
            self.sent.append(now)
            found.append(summary(using, now, self._take_left_out()))
        return found

    def next_overdue(self, now: float, most: int) -> float | None:
        """Return in how many seconds :meth:`overdue` may return something, None if never."""
        waits = [
            subject.told[-AT_ONCE] + WINDOW - now if len(subject.told) >= AT_ONCE else 0.0
            for subject in self.subjects.values()
            if subject.pending
        ]
        if not waits and not self.left_out:
            return None
        of_hour = self.sent[-most] + HOUR - now if len(self.sent) >= most else 0.0
        return max(of_hour, min(waits) if waits and not self.left_out else 0.0, 0.0)

    def counts(self) -> Counter[str]:
        """Return what was not told and is not told yet, by event."""
        found = Counter(self.left_out)
        for subject in self.subjects.values():
            if subject.pending:
                found[subject.pending.event] += subject.held
        return found

    def add(self, other: Ledger) -> None:
        """Add what a process recorded by itself; its states are the later ones."""
        if not other.sent and not other.left_out and not other.subjects:
            return
        self.is_changed = True
        self.sent = sorted({*self.sent, *other.sent})
        self.left_out += other.left_out
        for about, theirs in other.subjects.items():
            mine = self.subjects.get(about)
            if mine is None:
                self.subjects[about] = theirs
                continue
            mine.held += theirs.held
            mine.told = sorted({*mine.told, *theirs.told})
            if theirs.at > mine.at:
                mine.state, mine.at, mine.until = theirs.state, theirs.at, theirs.until
                mine.pending = theirs.pending or mine.pending

    def without_counts(self) -> Ledger:
        """Return a copy without what is not told yet, which is left to the item."""
        found = Ledger.read(self.as_text())
        found.left_out.clear()
        for subject in found.subjects.values():
            subject.held, subject.pending = 0, None
        return found

    def _send(
        self, subject: Subject, notification: Notification, now: float, most: int
    ) -> Notification | None:
        self.is_changed = True
        if len(self.sent) >= most:
            self.left_out[notification.event] += 1 + subject.held
            subject.held, subject.pending = 0, None
            return None
        self.sent.append(now)
        subject.told.append(now)
        held, subject.held, subject.pending = subject.held, 0, None
        return with_left_out(with_changes(notification, held), self._take_left_out())

    def _take_left_out(self) -> Mapping[str, int]:
        found, self.left_out = self.left_out, Counter()
        return found

    def _tidy(self, now: float) -> None:
        self.sent = [each for each in self.sent if each > now - HOUR]
        for about, subject in list(self.subjects.items()):
            subject.told = [each for each in subject.told if each > now - WINDOW]
            if subject.until <= now and not subject.told and not subject.pending:
                del self.subjects[about]


def _subject(data: Mapping[str, Any]) -> Subject:
    pending = data.get("pending")
    return Subject(
        state=str(data["state"]),
        at=float(data["at"]),
        until=float(data["until"]),
        told=[float(each) for each in data.get("told", ())],
        held=int(data.get("held", 0)),
        pending=Notification.from_json(pending) if pending else None,
    )
