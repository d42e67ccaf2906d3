"""The bare boto3 client with which every other client is compared."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from asgiref.sync import sync_to_async
from botocore.config import Config

from ...cache.backend import DynamoDBCache
from ...calls.batches import chunks
from .clients import KEPT, Call, Count, Subject, counting_client, local_keys, own_name, value_of
from .operations import BARE, Plan


class Boto3(Subject):
    """A bare boto3 client that makes the least equivalent call, on items of the same content."""

    name = BARE

    def __init__(self, plan: Plan) -> None:
        self._client: Any = make_client(plan)
        self._table = plan.table
        self._size = plan.size
        self._numbers = itertools.count()
        # It writes the items that are copied.
        self._template = DynamoDBCache("lean", {"KEY_PREFIX": own_name("template")})

    def get(self, amount: int) -> Call:
        return self._get(self._stored(f"get-{amount}", value_of(amount)))

    def get_int(self, _: int) -> Call:
        return self._get(self._stored("int", 5))

    def miss(self, _: int) -> Call:
        return self._get(self._key("missing"))

    def set(self, amount: int) -> Call:
        item = self._item("set", value_of(amount))
        return lambda: self._client.put_item(TableName=self._table, Item=item)

    def add(self, amount: int) -> Call:
        item = self._item("add", value_of(amount))

        def add() -> Any:
            key = self._key(f"add-{next(self._numbers)}")
            return self._client.put_item(
                TableName=self._table,
                Item={**item, **key},
                ConditionExpression="attribute_not_exists(PK)",
            )

        return add

    def incr(self, _: int) -> Call:
        return self._update("incr", "ADD n :n", {":n": {"N": "1"}}, ReturnValues="UPDATED_NEW")

    def touch(self, amount: int) -> Call:
        key = self._stored("touch", value_of(amount))
        end = int(time.time()) + KEPT
        values = {":e": {"N": str(end * 1000)}, ":t": {"N": str(end)}}
        return lambda: self._client.update_item(
            TableName=self._table,
            Key=key,
            UpdateExpression="SET e = :e, #t = :t",
            ConditionExpression="attribute_exists(PK)",
            ExpressionAttributeNames={"#t": "TTL"},
            ExpressionAttributeValues=values,
        )

    def acquire(self, _: int) -> Call:
        return self._update(
            "acquire",
            "SET c0 = if_not_exists(c0, :zero) + :n",
            {":n": {"N": "1"}, ":zero": {"N": "0"}, ":most": {"N": "1000000"}},
            ConditionExpression="attribute_not_exists(c0) OR c0 <= :most",
            ReturnValues="ALL_NEW",
        )

    def register(self, _: int) -> Call:
        end = int(time.time()) + KEPT
        values = {
            ":state": {"S": "R"},
            ":owner": {"S": "0" * 32},
            ":fence": {"N": str(end)},
            ":until": {"N": str(end * 1000)},
            ":ttl": {"N": str(end)},
        }
        return lambda: self._client.update_item(
            TableName=self._table,
            Key=self._key(f"job-{next(self._numbers)}"),
            UpdateExpression="SET s = :state, o = :owner, f = :fence, u = :until, #ttl = :ttl",
            ConditionExpression="attribute_not_exists(PK)",
            ExpressionAttributeNames={"#ttl": "TTL"},
            ExpressionAttributeValues=values,
        )

    def model(self, amount: int) -> Call:
        key = self._key("model")
        content = {"title": {"S": "A title"}, "body": {"S": "x" * amount}, "views": {"N": "5"}}
        self._client.put_item(TableName=self._table, Item={**key, **content})
        return self._get(key)

    def get_many(self, amount: int) -> Call:
        item = self._item("many", value_of(self._size))
        keys = [self._key(f"many-{number}") for number in range(amount)]
        self._write([{**item, **key} for key in keys])
        request = {self._table: {"Keys": keys}}
        return lambda: self._client.batch_get_item(RequestItems=request)

    def set_many(self, amount: int) -> Call:
        item = self._item("set_many", value_of(self._size))
        items = [{**item, **self._key(f"set-{number}")} for number in range(amount)]
        return lambda: self._write(items)

    def aget(self, amount: int) -> Call:
        return sync_to_async(self.get(amount), thread_sensitive=False)

    @contextmanager
    def counting(self) -> Iterator[Count | None]:
        with counting_client(self._client) as count:
            yield count

    def _get(self, key: dict[str, Any]) -> Call:
        return lambda: self._client.get_item(TableName=self._table, Key=key)

    def _update(self, name: str, update: str, values: dict[str, Any], **options: Any) -> Call:
        key = self._key(name)
        return lambda: self._client.update_item(
            TableName=self._table,
            Key=key,
            UpdateExpression=update,
            ExpressionAttributeValues=values,
            **options,
        )

    def _write(self, items: list[dict[str, Any]]) -> None:
        for group in chunks(items, 25):
            requests = [{"PutRequest": {"Item": item}} for item in group]
            self._client.batch_write_item(RequestItems={self._table: requests})

    def _key(self, name: str) -> dict[str, Any]:
        # As long as that of a cache entry.
        return {"PK": {"S": f"CACHE#{own_name(BARE)}#:1:{name}"}, "SK": {"S": "ENTRY"}}

    def _item(self, name: str, value: Any) -> dict[str, Any]:
        self._template.set(name, value, KEPT)
        made = self._template.store.item_key(self._template.make_key(name))
        key = {"PK": {"S": made.pk}, "SK": {"S": made.sk}}
        found = self._client.get_item(TableName=self._table, Key=key, ConsistentRead=True)
        return {**found["Item"], **self._key(name)}

    def _stored(self, name: str, value: Any) -> dict[str, Any]:
        self._client.put_item(TableName=self._table, Item=self._item(name, value))
        return self._key(name)


def make_client(plan: Plan) -> Any:
    """Return a boto3 client for the endpoint of the plan, without retries."""
    return boto3.client(
        "dynamodb",
        region_name=plan.region,
        endpoint_url=plan.url,
        config=Config(
            retries={"total_max_attempts": 1, "mode": "standard"}, max_pool_connections=50
        ),
        **local_keys(plan),
    )
