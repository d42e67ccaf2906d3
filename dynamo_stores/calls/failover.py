"""
``FAILOVER``: requests that another alias answers while the tables of an alias do not.

An operation that gets no answer, or whose circuit breaker is open, is sent to the table of the same
name in the other alias, usually a replica in another region. Throttling and refusals are answers,
and are not sent elsewhere.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from .. import clock, signals
from ..conf import StoreConfig, get_config
from ..exceptions import StoreError, StoreRefused, StoreUnavailable, ThrottlingError
from .observer import READS
from .policy import time_left

if TYPE_CHECKING:
    from ..concurrency.effects import Verb

logger = logging.getLogger(__name__)

# A transaction that got no answer may have been carried out, and its token holds in its region.
_WRITES = frozenset(["BatchWriteItem", "DeleteItem", "PutItem", "UpdateItem"])

# Return the answer to an operation's request in so many seconds.
Call = Callable[[str, dict[str, Any], float], "Verb[dict[str, Any]]"]


@dataclass(frozen=True, slots=True)
class FailedOver:
    """A table whose requests another alias answers, since a time in seconds since the epoch."""

    table: str
    failover: str
    error: str
    since: float


class Failover:
    """The failover of one alias in one process. Thread-safe."""

    def __init__(self, using: str, config: StoreConfig, failover: str) -> None:
        self.failover = failover
        self._using = using
        self._config = config
        # Records of capacity and reports are about the tables of their own region.
        self._control_table = config.control_table
        self._active: dict[str, FailedOver] = {}
        self._answered_at: dict[str, float] = {}
        self._lock = threading.Lock()

    def covers(self, operation: str, table: str) -> bool:
        """Return whether the operation may be answered by the other alias."""
        is_write = self._config.failover_writes and operation in _WRITES
        return (operation in READS or is_write) and table != self._control_table

    def active(self) -> list[FailedOver]:
        """Return the tables whose last operation was sent to the other alias."""
        return list(self._active.values())

    async def call(
        self, operation: str, request: dict[str, Any], table: str, seconds: float,
        first: Call, second: Call,
    ) -> dict[str, Any]:  # fmt: skip
        """
        Return the answer of ``first``, the alias's own connection, or else that of ``second``, the
        other one. A verb. Raises the error of the first one if neither answers.
        """
        began = clock.monotonic()
        until = began + time_left(seconds)
        try:
            answer = await first(operation, dict(request), seconds)
        except (StoreRefused, ThrottlingError):
            raise
        except StoreUnavailable as exc:
            failure = exc
        except ClientError:
            # A condition that failed, for example.
            self._answered(table)
            raise
        else:
            self._answered(table)
            return answer
        left = until - clock.monotonic()
        names = Names(self._config, get_config(self.failover))
        translated = names.translated(request)
        if left <= 0 or translated is None:
            raise failure
        try:
            answer = await second(operation, translated, left)
        except StoreError as exc:
            failure.add_note(f"The alias {self.failover!r} did not answer either: {exc}")
            raise failure from exc
        except ClientError:
            self._failed(table, failure, began)
            raise
        self._failed(table, failure, began)
        return names.translated_back(answer)

    def _answered(self, table: str) -> None:
        self._answered_at[table] = clock.monotonic()
        if table in self._active:
            self._returned(table)

    def _failed(self, table: str, failure: StoreUnavailable, began: float) -> None:
        # A call that began before the last answer says nothing new.
        if table not in self._active and self._answered_at.get(table, 0.0) <= began:
            self._left(table, type(failure).__name__)

    def _left(self, table: str, error: str) -> None:
        with self._lock:
            if table in self._active:
                return
            self._active[table] = FailedOver(table, self.failover, error, clock.now())
        logger.warning(
            "Table %s of the alias %r does not answer (%s); the alias %r answers instead.",
            table, self._using, error, self.failover,
            extra={"dynamodb_table": table, "dynamodb_using": self._using},
        )  # fmt: skip
        self._tell(table, is_active=True, error=error)

    def _returned(self, table: str) -> None:
        with self._lock:
            if self._active.pop(table, None) is None:
                return
        logger.warning(
            "Table %s of the alias %r answers again.", table, self._using,
            extra={"dynamodb_table": table, "dynamodb_using": self._using},
        )  # fmt: skip
        self._tell(table, is_active=False, error="")

    def _tell(self, table: str, *, is_active: bool, error: str) -> None:
        try:
            signals.failed_over.send_robust(
                Failover, using=self._using, table=table, failover=self.failover,
                is_active=is_active, error=error,
            )  # fmt: skip
        except RuntimeError:
            # On an event loop, with a receiver that is a coroutine function.
            logger.exception("The signal failed_over could not be sent.")


class Names:
    """The names of an alias's tables, and of the same tables in another alias."""

    def __init__(self, own: StoreConfig, other: StoreConfig) -> None:
        self._own = own
        self._other = other
        self._known: dict[str, str] = {}

    def translated(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the request for the other alias, None if it has not the same tables."""
        try:
            return self._translated(request)
        except LookupError:
            return None

    def _translated(self, request: Mapping[str, Any]) -> dict[str, Any]:
        found = dict(request)
        if "TableName" in found:
            found["TableName"] = self._translate(found["TableName"])
        if "RequestItems" in found:
            found["RequestItems"] = {
                self._translate(name): content for name, content in found["RequestItems"].items()
            }
        if "TransactItems" in found:
            found["TransactItems"] = [
                {
                    kind: {**content, "TableName": self._translate(content["TableName"])}
                    for kind, content in action.items()
                }
                for action in found["TransactItems"]
            ]
        return found

    def translated_back(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return the answer with the own names of the tables of a batch."""
        responses = answer.get("Responses")
        if isinstance(responses, Mapping):
            names = {theirs: own for own, theirs in self._known.items()}
            answer["Responses"] = {names[name]: items for name, items in responses.items()}
        return answer

    def _translate(self, name: str) -> str:
        found = self._other.same_table(self._own, name)
        if found is None:
            raise LookupError(name)
        self._known[name] = found
        return found
