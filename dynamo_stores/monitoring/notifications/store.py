"""The ledger of all processes of an alias: one item in the control table."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from typing import TypeVar

from pynamodb.attributes import UnicodeAttribute

from ... import clock, keys
from ...concurrency.effects import run
from ...conf import DEFAULT_ALIAS
from ...exceptions import ConfigurationError, StoreUnavailable
from ...expressions import equals, missing
from ...item_access import ConditionFailed, Items
from ...models import ControlItem, IntegerAttribute, integer_of, string_of
from .ledger import Ledger

T = TypeVar("T")

logger = logging.getLogger(__name__)

# Attempts to change an item that other processes change too, and to reach the table.
_TRIES, _CALLS = 30, 2
# Seconds between two attempts, at most.
_PAUSE = 0.2


class LedgerItem(ControlItem):
    """The ledger in JSON, and the number of its last change."""

    version = IntegerAttribute(null=True, attr_name="v")
    ledger = UnicodeAttribute(null=True, attr_name="x")


class LedgerStore:
    """The ledger of one alias, over a direct connection."""

    def __init__(self, using: str = DEFAULT_ALIAS) -> None:
        self.using = using
        self._items = Items(LedgerItem, using, direct=True)

    def change(self, function: Callable[[Ledger], T]) -> tuple[T, Ledger]:
        """
        Call ``function`` with the ledger, which it may change, until its change is written; return
        its last result, and the ledger. One read, and a write if it was changed.

        Raises StoreUnavailable or ConfigurationError if the control table cannot be reached.
        """
        failures = 0
        for _ in range(_TRIES):
            try:
                return self._change_once(function)
            except ConditionFailed:
                pass  # another process was first
            except ConfigurationError:
                raise
            except StoreUnavailable:
                failures += 1
                if failures == _CALLS:
                    raise
            # Real time: this thread must not advance the fake clock of a test.
            threading.Event().wait(random.uniform(0, _PAUSE))
        raise StoreUnavailable("The record of notifications is changed by too many processes.")

    def _change_once(self, function: Callable[[Ledger], T]) -> tuple[T, Ledger]:
        key, now = keys.notifications(self.using), clock.now()
        item = run(self._items.get(key, consistent=True)) or {}
        version = integer_of(item, LedgerItem.version)
        ledger = Ledger.read(string_of(item, LedgerItem.ledger))
        result = function(ledger)
        if ledger.is_changed:
            unchanged = (
                equals(LedgerItem.version, version) if version else missing(LedgerItem.version)
            )
            changed = LedgerItem(
                key.pk, key.sk,
                ttl=int(ledger.ends(now)) + 1, version=version + 1, ledger=ledger.as_text(),
            )  # fmt: skip
            run(self._items.put(changed.serialize(), unchanged))
        return result, ledger
