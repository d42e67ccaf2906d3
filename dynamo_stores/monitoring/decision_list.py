"""The decisions of the capacity history, without those that cannot be shown."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from .. import keys
from ..capacity.history import CapacityDecision, DecisionItem, decision_of, read_decision
from ..concurrency.effects import run
from ..conf import DEFAULT_ALIAS
from ..item_access import Items
from .values import count_of, text_of, time_of

logger = logging.getLogger(__name__)

# What reading a value of another type raises.
_UNREADABLE = (ArithmeticError, AttributeError, KeyError, TypeError, ValueError, RecursionError)


class DecisionList:
    """Reads the history of one alias, in its control table, item by item."""

    def __init__(self, using: str = DEFAULT_ALIAS) -> None:
        self.using = using
        self._items = Items(DecisionItem, using, direct=True)

    def latest_and_unreadable(self, count: int = 200) -> tuple[list[CapacityDecision], int]:
        """
        Return those of the last ``count`` decisions that can be read, newest first, and how many
        cannot; one Query.
        """
        request = {
            "KeyConditionExpression": "PK = :pk",
            "ExpressionAttributeValues": {":pk": {"S": keys.DECISIONS}},
            "ScanIndexForward": False,
            "Limit": count,
        }
        found, unreadable = [], 0
        for item in run(self._items.query(request, count)):
            try:
                found.append(_checked(read_decision(item)))
            except _UNREADABLE:
                unreadable += 1
        if unreadable:
            logger.info("%d decisions of the history were skipped: unexpected values.", unreadable)
        return found, unreadable


def recorded_decision(table: str, decision: Mapping[str, Any]) -> CapacityDecision | None:
    """Return the decision of a record of capacity, None if it cannot be read."""
    try:
        return _checked(decision_of(table, decision))
    except _UNREADABLE:
        return None


def _checked(decision: CapacityDecision) -> CapacityDecision:
    time_of(decision.at)
    for text in (decision.table, decision.code, decision.why):
        text_of(text)
    for units in (decision.before, decision.after):
        for name, pair in units.items():
            text_of(name)
            for value in pair:
                count_of(value)
    return decision
