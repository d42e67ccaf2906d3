"""The history of decisions about the capacity of tables, whether they changed something or not."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pynamodb.attributes import UnicodeAttribute

from .. import keys
from ..concurrency.effects import run
from ..conf import DEFAULT_ALIAS
from ..exceptions import CALL_ERRORS
from ..item_access import Items
from ..models import ControlItem, RawItem, string_of
from ..signals import capacity_decided


class DecisionItem(ControlItem):
    """One decision about a table's capacity, in JSON."""

    decision = UnicodeAttribute(null=True, attr_name="x")


logger = logging.getLogger(__name__)

# Seconds for which a decision is kept.
KEPT = 30 * 86_400.0


@dataclass(frozen=True)
class CapacityDecision:
    """
    A decision about ``table``, made ``at`` a moment (seconds since the epoch).

    ``code`` is a word for programs, ``why`` a reason for people. ``before`` and ``after`` are
    units by resource (``""`` is the table), empty if nothing was changed.
    """

    table: str
    at: float
    code: str
    why: str
    before: Mapping[str, tuple[int, int]]
    after: Mapping[str, tuple[int, int]]

    @property
    def is_taken(self) -> bool:
        """Whether the decision changed something."""
        return bool(self.after)


class Decisions:
    """Writes the history of one alias, in its control table. A failed write is not repeated."""

    def __init__(self, using: str = DEFAULT_ALIAS) -> None:
        self.using = using
        self._items = Items(DecisionItem, using, direct=True)

    def publish(self, table: str, decision: Mapping[str, Any]) -> None:
        """
        Add a result of :func:`~dynamo_stores.capacity.update.as_decision`, and send the signal
        ``capacity_decided``; never raises.
        """
        key = keys.decision(int(decision["at"] * 1000), table)
        try:
            run(
                self._items.put(
                    DecisionItem(
                        key.pk,
                        key.sk,
                        ttl=int(decision["at"] + KEPT),
                        decision=json.dumps(decision),
                    ).serialize()
                )
            )
        except CALL_ERRORS as exc:
            logger.info(
                "A decision about table %s could not be added to the history: %s",
                table, type(exc).__name__,
                extra={"dynamodb_table": table, "dynamodb_using": self.using},
            )  # fmt: skip
        capacity_decided.send_robust(
            Decisions, using=self.using, table=table, decision=dict(decision)
        )


def read_decision(item: RawItem) -> CapacityDecision:
    """Return the decision in an item of the history."""
    table = string_of(item, DecisionItem.sk).partition("#")[2]
    return decision_of(table, json.loads(string_of(item, DecisionItem.decision)))


def decision_of(table: str, decision: Mapping[str, Any]) -> CapacityDecision:
    """Return the stored form of a decision as a :class:`CapacityDecision`."""
    return CapacityDecision(
        table=table,
        at=float(decision.get("at", 0.0)),
        code=str(decision.get("code", "")),
        why=str(decision.get("why", "")),
        before={name: (read, write) for name, (read, write) in decision.get("from", {}).items()},
        after={name: (read, write) for name, (read, write) in decision.get("to", {}).items()},
    )
