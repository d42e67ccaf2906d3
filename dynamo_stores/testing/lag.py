"""A replica that is some hundred milliseconds behind, for reads without ``ConsistentRead``."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

from .engine import HOST, EmbeddedEngine

_READS = frozenset(["GetItem", "Query", "Scan"])
_TYPE = "application/x-amz-json-1.0"
# Of DescribeTable, what CreateTable takes.
_COPIED = ("TableName", "KeySchema", "AttributeDefinitions")

_REGION = re.compile(r"Credential=[^/]*/[^/]*/([^/]*)/")

Key = dict[str, Any]


# Seconds by which a change may be copied late.
_MAX_DELAY = 0.2
# Seconds for which a write waits for others.
_LONGEST_TURN = 4.0


class TurnTimeoutError(OSError):
    """A write was not forwarded."""


class _Table(NamedTuple):
    region: str
    name: str


class _Change(NamedTuple):
    due: float
    table: _Table
    key: Key
    item: dict[str, Any] | None


class LaggingReplica:
    """
    An embedded engine with a copy of the tables of ``upstream``, ``seconds`` behind them.

    A table is copied when it is used first. Writes must go through :meth:`writing`, which copies
    the items that they changed after ``seconds``.
    """

    def __init__(self, upstream: str, seconds: float) -> None:
        self._upstream = upstream
        self._seconds = seconds
        self._engine = EmbeddedEngine()
        self._schemas: dict[_Table, list[str]] = {}
        self._changes: deque[_Change] = deque()
        self._has_changes = threading.Semaphore(0)
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._copy_changes, daemon=True)

    @property
    def url(self) -> str:
        """The endpoint of the replica."""
        return self._engine.url

    def start(self) -> Self:
        """Start the engine of the replica."""
        self._engine.start()
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop the engine of the replica."""
        self._closing.set()
        self._has_changes.release()
        self._thread.join()
        self._engine.stop()

    def serves(self, region: str, operation: str, body: dict[str, Any]) -> bool:
        """
        Return whether the replica answers the request: a read that need not be consistent. A busy
        machine may copy later than after ``seconds``; the replica does not answer meanwhile.
        """
        requests: dict[str, Any] = {}
        if operation in _READS:
            requests = {body["TableName"]: body}
        elif operation == "BatchGetItem":
            requests = body["RequestItems"]
        if not requests or any(each.get("ConsistentRead") for each in requests.values()):
            return False
        if self._changes and time.monotonic() - self._changes[0].due > _MAX_DELAY:
            return False
        with self._lock:
            return all(self._schema(_Table(region, name)) is not None for name in requests)

    @contextlib.contextmanager
    def writing(self, region: str, operation: str, body: dict[str, Any]) -> Iterator[None]:
        """Forward the request within this block; the items that it changed are copied later."""
        changed = [(_Table(region, name), item) for name, item in _changes_of(operation, body)]
        if not changed:
            yield
            self._forget(region, operation, body)
            return
        # A lock gives no turns. On a busy machine one of many requests could wait for longer than
        # its client allows for requests that are carried out late.
        if not self._lock.acquire(timeout=_LONGEST_TURN):
            raise TurnTimeoutError("A write waited too long for others, and is not forwarded.")
        try:
            keys = [(table, self._key(table, item)) for table, item in changed]
            try:
                yield
            finally:
                due = time.monotonic() + self._seconds
                for table, key in keys:
                    if key is not None:
                        self._changes.append(_Change(due, table, key, self._read(table, key)))
                        self._has_changes.release()
        finally:
            self._lock.release()

    def _send_to_primary(
        self, region: str, operation: str, body: dict[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        return _post(self._upstream, region, operation, body)

    def _send(self, region: str, operation: str, body: dict[str, Any]) -> None:
        _post(self.url, region, operation, body)

    def _key(self, table: _Table, item: dict[str, Any]) -> Key | None:
        names = self._schema(table)
        return None if names is None else {name: item[name] for name in names}

    def _schema(self, table: _Table) -> list[str] | None:
        """Return the names of the key's attributes, and copy the table if it is not yet known."""
        if table not in self._schemas:
            status, answer = self._send_to_primary(
                table.region, "DescribeTable", {"TableName": table.name}
            )
            if status != 200:
                return None
            description = answer["Table"]
            self._copy_table(table.region, description)
            self._schemas[table] = [each["AttributeName"] for each in description["KeySchema"]]
        return self._schemas[table]

    def _copy_table(self, region: str, description: dict[str, Any]) -> None:
        table = description["TableName"]
        request = {name: description[name] for name in _COPIED} | {"BillingMode": "PAY_PER_REQUEST"}
        if indexes := description.get("GlobalSecondaryIndexes"):
            names = ("IndexName", "KeySchema", "Projection")
            request["GlobalSecondaryIndexes"] = [
                {name: index[name] for name in names} for index in indexes
            ]
        self._send(region, "CreateTable", request)
        scan: dict[str, Any] = {"TableName": table, "ConsistentRead": True}
        while True:
            _, answer = self._send_to_primary(region, "Scan", scan)
            for item in answer["Items"]:
                self._send(region, "PutItem", {"TableName": table, "Item": item})
            if "LastEvaluatedKey" not in answer:
                return
            scan["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def _read(self, table: _Table, key: Key) -> Any:
        request = {"TableName": table.name, "Key": key, "ConsistentRead": True}
        return self._send_to_primary(table.region, "GetItem", request)[1].get("Item")

    def _forget(self, region: str, operation: str, body: dict[str, Any]) -> None:
        if operation == "DeleteTable":
            with self._lock:
                if self._schemas.pop(_Table(region, body["TableName"]), None) is not None:
                    self._send(region, "DeleteTable", body)

    def _copy_changes(self) -> None:
        while self._has_changes.acquire() and not self._closing.is_set():
            change = self._changes[0]
            if self._closing.wait(max(0.0, change.due - time.monotonic())):
                return
            region, name = change.table
            if change.item is None:
                self._send(region, "DeleteItem", {"TableName": name, "Key": change.key})
            else:
                self._send(region, "PutItem", {"TableName": name, "Item": change.item})
            self._changes.popleft()


def _changes_of(operation: str, body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the table of each item that a request may change, with its key or all of it."""
    if operation == "PutItem":
        yield body["TableName"], body["Item"]
    elif operation in ("UpdateItem", "DeleteItem"):
        yield body["TableName"], body["Key"]
    elif operation == "BatchWriteItem":
        for table, requests in body["RequestItems"].items():
            for request in requests:
                (content,) = request.values()
                yield table, content.get("Item") or content["Key"]
    elif operation == "TransactWriteItems":
        for action in body["TransactItems"]:
            for kind, content in action.items():
                if kind != "ConditionCheck":
                    yield content["TableName"], content.get("Item") or content["Key"]


def region_of(authorization: str) -> str:
    """Return the region in the header ``Authorization`` of a request."""
    found = _REGION.search(authorization)
    return found[1] if found else "us-east-1"


def _post(
    url: str, region: str, operation: str, body: dict[str, Any]
) -> tuple[int, dict[str, Any]]:
    """Return the status and the body of an engine's answer to one request."""
    endpoint = urlsplit(url)
    connection = http.client.HTTPConnection(endpoint.hostname or HOST, endpoint.port, timeout=60)
    try:
        headers = {
            "X-Amz-Target": f"DynamoDB_20120810.{operation}",
            "Content-Type": _TYPE,
            # The engines read the region of a request from its signature, and do not check it.
            "Authorization": f"AWS4-HMAC-SHA256 Credential=local/20330101/{region}/dynamodb/"
            "aws4_request, SignedHeaders=host, Signature=0",
        }
        connection.request("POST", "/", json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"{}")
    finally:
        connection.close()
