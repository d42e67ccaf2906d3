"""The tables of a run: found by their prefix, and removed."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from botocore.exceptions import ClientError

from dynamo_stores.calls.control import get_control
from dynamo_stores.exceptions import TABLE_IN_USE, TABLE_MISSING, StoreError, code_of

# A table is CREATING or UPDATING for minutes, and cannot be deleted meanwhile.
_SECONDS = 900.0
_BETWEEN = 1.0
_NOT_NOW = {TABLE_IN_USE, "LimitExceededException", "ThrottlingException"}


def tables_with(prefix: str) -> list[str]:
    """Return the names of all tables that begin with ``prefix``."""
    control = get_control()
    found: list[str] = []
    request: dict[str, str] = {}
    while True:
        answer = control.call("ListTables", request)
        found += [name for name in answer["TableNames"] if name.startswith(prefix)]
        if (last := answer.get("LastEvaluatedTableName")) is None:
            return found
        request = {"ExclusiveStartTableName": last}


def remove(names: Collection[str], write: Callable[[str], None]) -> None:
    """
    Delete the tables and wait until they are gone; those that do not exist are none.

    Raises StoreError if one is there after fifteen minutes.
    """
    until = time.monotonic() + _SECONDS
    for name in names:
        _request(name, until)
    for name in names:
        while get_control().describe(name) is not None:
            _wait(name, until)
        write(f"  {name}: removed")


def _request(name: str, until: float) -> None:
    while True:
        try:
            get_control().call("DeleteTable", {"TableName": name})
        except ClientError as exc:
            if code_of(exc) == TABLE_MISSING:
                return
            if code_of(exc) not in _NOT_NOW:
                raise
            description = get_control().describe(name)
            if description is None or description["TableStatus"] == "DELETING":
                return
        else:
            return
        _wait(name, until)


def _wait(name: str, until: float) -> None:
    if time.monotonic() > until:
        raise StoreError(f"The table {name} is still there after {_SECONDS:.0f} s.")
    time.sleep(_BETWEEN)
