"""Applying a plan to a table: one change at a time, each once the table is ACTIVE again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from botocore.exceptions import ClientError

from .. import clock
from ..calls.control import get_control
from ..exceptions import (
    LIMIT_EXCEEDED,
    NOT_ALLOWED,
    TABLE_IN_USE,
    StoreError,
    StoreRefused,
    StoreUnavailable,
    code_of,
)
from .changes import Change, Plan, plan_changes
from .live import LiveTable
from .tables import NO_BACKUPS_YET, Progress, TableSpec, read_table
from .waiting import PATIENCE, Waiting, patiently

# Requests of one change that may get no answer.
_ATTEMPTS = 3
# What DynamoDB's limits are, by what is changed; the documentation of its quotas has them.
_LIMITS = {
    "TTL": "DynamoDB changes TTL at most once an hour. Run the command again later.",
    "table class": "DynamoDB changes the table class at most twice in 30 days.",
    "encryption key": "DynamoDB changes the key at most four times in 24 hours.",
    "billing mode": "DynamoDB limits how often a table is switched to on demand in 24 hours.",
}


# Refusals while DynamoDB, or somebody else, still changes the table.
_BUSY = (TABLE_IN_USE, NO_BACKUPS_YET)

# What is changed, and whether it is removed.
_Key = tuple[str, bool]


@dataclass(frozen=True)
class Result:
    """
    The ``done`` changes, the ``refused`` ones with DynamoDB's reason, and the ``plan`` that is left
    over; ``new`` are changes that became necessary meanwhile.
    """

    done: tuple[Change, ...]
    refused: tuple[tuple[Change, str], ...]
    new: tuple[Change, ...]
    plan: Plan


class TableUpdate:
    """
    The changes of one table.

    ``write`` gets a line for each step. After ``timeout`` seconds of waiting for one change (None:
    without end) StoreError is raised; the change goes on in DynamoDB.
    """

    def __init__(
        self,
        spec: TableSpec,
        write: Progress,
        *,
        allow_removal: bool = False,
        timeout: float | None = None,
    ) -> None:
        self.spec = spec
        self._write = write
        self._allow_removal = allow_removal
        self._timeout = timeout
        self._control = get_control(spec.using)

    def plan(self) -> tuple[Plan, list[str]]:
        """
        Return the plan for the table as it is, and what DynamoDB is changing now.

        Raises StoreError if the table does not exist, StoreUnavailable without an answer.
        """
        live = self._checked(self._table())
        return self._plan(live), live.under_way()

    def apply(self, confirmed: Plan) -> Result:
        """
        Apply the changes of ``confirmed`` that are still necessary, and wait for each.

        The table is planned again after each change, because others may change it, too. A change
        that DynamoDB refuses does not stop the others. Raises StoreUnavailable without an answer.
        """
        # What was removed to be replaced (TTL for another attribute) is replaced, too.
        allowed = {(each.what, kind) for each in confirmed.changes for kind in _kinds(each)}
        done: dict[_Key, Change] = {}
        refused: dict[_Key, tuple[Change, str]] = {}
        while True:
            plan = self._plan(self._settled())
            if [each for each in plan.changes if _key(each) in done]:
                plan = self._until_shown(done)
            left = [each for each in plan.changes if _key(each) not in refused]
            todo = [each for each in left if _key(each) in allowed]
            if not todo:
                still = {_key(each) for each in plan.changes}
                return Result(
                    done=tuple(done.values()),
                    refused=tuple(each for key, each in refused.items() if key in still),
                    new=tuple(left),
                    plan=plan,
                )
            change = todo[0]
            self._write(f"{self.spec.name}: {change.sentence}")
            if (why := self._request(change)) is None:
                done[_key(change)] = change
            else:
                refused[_key(change)] = (change, why)
                self._write(f"{self.spec.name}: refused, {why}")

    def _plan(self, live: LiveTable) -> Plan:
        return plan_changes(self.spec, live, allow_removal=self._allow_removal)

    def _request(self, change: Change) -> str | None:
        """
        Request a change. Return None if DynamoDB accepted it, or the next plan has to show whether
        it did, otherwise the reason why it refused.
        """
        silent = tries = 0
        while True:
            tries += 1
            try:
                self._control.call(change.operation, dict(change.request))
                return None
            except StoreRefused:
                raise
            except StoreUnavailable:
                silent += 1
                if silent == _ATTEMPTS:
                    raise
            except ClientError as exc:
                code = code_of(exc)
                is_busy = code in _BUSY or (code == LIMIT_EXCEEDED and self._is_changing())
                if not is_busy or tries > PATIENCE:
                    return _reason(exc, change)
            # It may have been carried out, or somebody else changes the table.
            clock.sleep(1.0)
            live = self._settled()
            if _key(change) not in {_key(each) for each in self._plan(live).changes}:
                return None

    def _is_changing(self) -> bool:
        return bool(self._read(self._described).under_way())

    def _until_shown(self, done: Mapping[_Key, Change]) -> Plan:
        """Wait until DynamoDB shows what it accepted: tags and the like are consistent later."""
        until = clock.monotonic() + PATIENCE
        while True:
            plan = self._plan(self._settled())
            hidden = [each for each in plan.changes if _key(each) in done]
            if not hidden:
                return plan
            if clock.monotonic() >= until:
                raise StoreError(
                    f"DynamoDB accepted to {hidden[0].sentence} on {self.spec.name}, but does not "
                    f"show it after {PATIENCE:.0f} s. Look at the table in AWS."
                )
            clock.sleep(0.5)

    def _settled(self) -> LiveTable:
        """Wait until DynamoDB changes nothing of the table, and return it."""
        waiting = Waiting(self.spec.name, self._write, self._timeout)
        while under_way := self._read(self._described).under_way():
            waiting.go_on("; ".join(under_way))
        return self._read(self._table)

    def _described(self) -> LiveTable | None:
        description = self._control.describe(self.spec.name)
        return None if description is None else LiveTable(description)

    def _table(self) -> LiveTable | None:
        return read_table(self.spec)

    def _read(self, read: Callable[[], LiveTable | None]) -> LiveTable:
        return patiently(lambda: self._checked(read()), self.spec.name, self._write)

    def _checked(self, live: LiveTable | None) -> LiveTable:
        if live is None:
            raise StoreError(
                f"The table {self.spec.name} does not exist. 'manage.py dynamo_create_tables' "
                "creates it."
            )
        if live.status not in ("ACTIVE", "UPDATING", "CREATING"):
            raise StoreError(f"The table {self.spec.name} is {live.status} and cannot be changed.")
        return live


def _reason(exc: ClientError, change: Change) -> str:
    message = exc.response.get("Error", {}).get("Message") or code_of(exc)
    limit = _LIMITS.get(change.what) if code_of(exc) != NOT_ALLOWED else None
    return f"{message.removesuffix('.')}.{f' {limit}' if limit else ''}"


def _kinds(change: Change) -> tuple[bool, ...]:
    return (True, False) if change.is_removal and not change.is_extra else (change.is_removal,)


def _key(change: Change) -> _Key:
    # The sentence may change between two plans, with what others change.
    return change.what, change.is_removal
