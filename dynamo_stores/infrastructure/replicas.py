"""Replicas of a table in other regions (global tables), and how far they are behind."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import clock, keys
from ..calls.account import get_account
from ..calls.client import make_client
from ..calls.connection import get_connection
from ..calls.control import get_control
from ..calls.environment import is_loopback
from ..concurrency.effects import run
from ..conf import get_config
from ..exceptions import StoreError
from ..models import StoreItem, ttl_of
from .live import LiveTable
from .tables import Progress
from .waiting import PATIENCE, Waiting, patiently

ACTIVE = "ACTIVE"
_DELETING = "DELETING"
# The view type that replication needs.
_STREAM = "NEW_AND_OLD_IMAGES"
_FAILED = ("CREATION_FAILED", "REGION_DISABLED", "INACCESSIBLE_ENCRYPTION_CREDENTIALS")
# Seconds for which a heartbeat is kept, and between two looks for it.
_KEPT, _LOOK_EVERY = 3600, 0.1


class Heartbeat(StoreItem):
    """An item that is written in one region and looked for in another one."""


@dataclass(frozen=True)
class Replica:
    """A replica: its region, its status (``ACTIVE``, ``CREATING``, …) and DynamoDB's remark."""

    region: str
    status: str
    remark: str = ""


def replicas_of(description: Mapping[str, Any]) -> list[Replica]:
    """Return the replicas of a table in other regions, by region."""
    own = region_of(description)
    found = [
        Replica(
            each["RegionName"],
            each.get("ReplicaStatus", ACTIVE),
            each.get("ReplicaStatusDescription") or "",
        )
        for each in description.get("Replicas") or ()
    ]
    return sorted((each for each in found if each.region != own), key=lambda each: each.region)


def region_of(description: Mapping[str, Any]) -> str:
    """Return the region in the table's ARN."""
    return str(description["TableArn"]).split(":")[3]


class Replication:
    """
    The replicas of one table. ``write`` gets lines about what is waited for, ``timeout`` seconds at
    most (None: until it is done). Raises StoreError, and ClientError if DynamoDB refuses.
    """

    def __init__(
        self, using: str, table: str, write: Progress, *, timeout: float | None = None
    ) -> None:
        self._table = table
        self._write = write
        self._timeout = timeout
        self._control = get_control(using)

    def replicas(self) -> list[Replica]:
        """Return the replicas in other regions."""
        return replicas_of(self._description())

    def regions(self) -> set[str]:
        """Return the regions that have the table: its own, and those of replicas."""
        description = self._description()
        return {region_of(description), *(each.region for each in replicas_of(description))}

    def check_add(self, region: str) -> None:
        """Raise StoreError if a replica in ``region`` cannot be added."""
        description = self._description()
        if region == region_of(description):
            raise StoreError(
                f"{region} is the region of the table {self._table} itself. Name the alias of "
                "another region by --using."
            )
        live = LiveTable(description)
        if live.stream != _STREAM:
            raise StoreError(
                f"The table {self._table} has {live.stream or 'no'} stream; replication needs one "
                f"of {_STREAM}. Set STREAM to {_STREAM!r} and run 'manage.py dynamo_update_tables'."
            )

    def add(self, region: str) -> None:
        """
        Add a replica, and wait until it is active; one that exists is waited for, and one that is
        being removed is added again.
        """
        self.check_add(region)
        waiting = Waiting(f"{self._table} in {region}", self._write, self._timeout)
        while (replica := self._replica(region)) is not None and replica.status == _DELETING:
            waiting.go_on("the earlier replica is being removed")
        shown = replica is not None
        if not shown:
            self._update({"Create": {"RegionName": region}})
        until = clock.monotonic() + PATIENCE
        while True:
            replica = self._replica(region)
            if replica is not None and replica.status == ACTIVE:
                return
            if replica is not None and replica.status in _FAILED:
                raise StoreError(
                    f"The replica of {self._table} in {region} is {replica.status}"
                    f"{f': {replica.remark}' if replica.remark else ''}. Remove it, and add it "
                    "again."
                )
            shown = shown or replica is not None
            is_gone = replica is None and (shown or clock.monotonic() > until)
            if is_gone or (replica is not None and replica.status == _DELETING):
                raise StoreError(
                    f"DynamoDB did not keep the replica of {self._table} in {region}, or it is "
                    "being removed. Look for the reason in AWS's console, and add it again."
                )
            waiting.go_on(f"the replica is {'requested' if replica is None else replica.status}")

    def remove(self, region: str) -> None:
        """
        Remove the replica with its items in ``region``, and wait until it is gone. One that is
        being removed is waited for.
        """
        replica = self._replica(region)
        if replica is None:
            return
        is_deleting = replica.status == _DELETING
        if not is_deleting:
            self._update({"Delete": {"RegionName": region}})
        waiting = Waiting(f"{self._table} in {region}", self._write, self._timeout)
        until = clock.monotonic() + PATIENCE
        while (replica := self._replica(region)) is not None:
            if replica.status == ACTIVE and (is_deleting or clock.monotonic() > until):
                raise StoreError(
                    f"DynamoDB did not remove the replica of {self._table} in {region}: it is "
                    f"{ACTIVE} again{f', {replica.remark}' if replica.remark else ''}. Remove it "
                    "again."
                )
            is_deleting = is_deleting or replica.status == _DELETING
            waiting.go_on("the replica is being removed")

    def _update(self, change: dict[str, Any]) -> None:
        self._control.call("UpdateTable", {"TableName": self._table, "ReplicaUpdates": [change]})

    def _replica(self, region: str) -> Replica | None:
        found = patiently(self.replicas, self._table, self._write)
        return next((each for each in found if each.region == region), None)

    def _description(self) -> dict[str, Any]:
        description = self._control.describe(self._table)
        if description is None:
            raise StoreError(
                f"The table {self._table} does not exist. 'manage.py dynamo_create_tables' creates "
                "it."
            )
        return description


def measure_lag(using: str, region: str, *, timeout: float = 30.0) -> float | None:
    """
    Return the seconds until an item of the stores' table is in the replica in ``region``, rounded
    up to a tenth; None if it is not there after ``timeout`` seconds.

    Costs a write in each region, and a read every tenth of a second.
    """
    config = get_config(using)
    key = keys.heartbeat(secrets.token_hex(8))
    request = {"TableName": config.store_table, "Key": key.raw()}
    item = {**key.raw(), "TTL": {"N": str(ttl_of(clock.now_ms()) + _KEPT)}}
    url = config.endpoint_url
    client = make_client(
        # An engine on this machine has all regions.
        dataclasses.replace(
            config, region=region, endpoint_url=url if url and is_loopback(url) else None
        ),
        get_account(using),
    )
    connection = get_connection(using).here
    run(connection.call("PutItem", {"TableName": config.store_table, "Item": item}))
    began = clock.monotonic()
    try:
        while True:
            if "Item" in client.get_item(**request):
                return clock.monotonic() - began
            if clock.monotonic() - began > timeout:
                return None
            clock.sleep(_LOOK_EVERY)
    finally:
        client.close()
        run(connection.call("DeleteItem", dict(request)))
