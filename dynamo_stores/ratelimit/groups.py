"""Groups: the requests of one limit in a process that are decided together, by one write."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Any

from ..concurrency.flights import Flight, Lead

# A group has at most so many members; the next ones wait until it was decided.
_MAX_MEMBERS = 1_000


class Member:
    """
    A request of a group; it has a status as soon as it is decided.

    It ``has_left`` if it waits for the group no longer. It ``has_failed`` if DynamoDB did not
    answer, however much time its leader had.
    """

    __slots__ = ("cost", "has_failed", "has_left", "state", "status")

    def __init__(self, cost: int) -> None:
        self.cost = cost
        self.has_left = False
        self.has_failed = False
        self.status: Any = None
        # The state of the item by which it was decided.
        self.state: Any = None


class Group:
    """
    Requests that are decided together, and the flight that ends when they are.

    The first member leads. It waits for the flight ``before``, if there is one.
    """

    __slots__ = ("before", "flight", "members")

    def __init__(self, first: Member, flight: Flight, before: Flight | None) -> None:
        self.members = [first]
        self.flight = flight
        self.before = before


class _Limit:
    """The group that is being decided, and the one that others may still join."""

    __slots__ = ("next", "now")

    def __init__(self, now: Flight) -> None:
        self.now = now
        self.next: Group | None = None


class Groups:
    """
    The groups of a process, by the name of their limit.

    A request that comes alone leads a group of its own at once. Those that come while it is decided
    form the next group.
    """

    def __init__(self) -> None:
        self._limits: dict[Hashable, _Limit] = {}
        self._lock = threading.Lock()

    def enter(self, name: Hashable, member: Member) -> Flight | tuple[Lead, Group]:
        """Return the flight that decides on the member, or the lead and group it has to lead."""
        with self._lock:
            limit = self._limits.get(name)
            if limit is not None:
                group = limit.next
                if group is not None and not group.flight.done():
                    if len(group.members) < _MAX_MEMBERS:
                        group.members.append(member)
                    return group.flight
            lead = Lead()
            if limit is None or limit.now.done():
                self._limits[name] = _Limit(lead.flight)
                return lead, Group(member, lead.flight, None)
            group = limit.next = Group(member, lead.flight, limit.now)
            return lead, group

    def close(self, name: Hashable, group: Group) -> list[Member]:
        """Let no more requests join the group, and return its members in their order."""
        if group.before is not None:
            with self._lock:
                limit = self._limits.get(name)
                if limit is None:
                    self._limits[name] = _Limit(group.flight)
                else:
                    limit.now = group.flight
                    if limit.next is group:
                        limit.next = None
        return [member for member in group.members if not member.has_left]

    def end(
        self, name: Hashable, lead: Lead, outcome: Any = None, error: BaseException | None = None
    ) -> None:
        """End the flight of a group."""
        with self._lock:
            limit = self._limits.get(name)
            if limit is not None:
                if limit.next is not None and limit.next.flight is lead.flight:
                    limit.next = None
                if limit.next is None and (limit.now is lead.flight or limit.now.done()):
                    del self._limits[name]
        lead.flight.end(outcome, error)

    def __len__(self) -> int:
        """Return for how many limits a group is being decided."""
        return sum(not limit.now.done() for limit in self._limits.copy().values())
