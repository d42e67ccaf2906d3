"""The server that is measured against, and the tables of the benchmark on it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from django.core.management.base import CommandError
from django.test.utils import override_settings

from ... import conf
from ...calls.batches import batch_write, chunks
from ...calls.connection import get_connection
from ...calls.control import get_control
from ...calls.environment import is_loopback
from ...concurrency.effects import run
from ...infrastructure.tables import create_table, table_of
from ...models import ControlItem, StoreItem
from ...testing.canned import CannedServer
from ...testing.engine import EmbeddedEngine
from .operations import DYNAMODB_CACHE

_BUNDLE = "AWS_CA_BUNDLE"


class Server(NamedTuple):
    """An endpoint, None for AWS's, and what the environment of its clients must have."""

    url: str | None
    environment: dict[str, str]


class Tables(NamedTuple):
    """Where the tables are, the prefix of their names, and the name of the stores' table."""

    region: str
    prefix: str
    table: str


@contextmanager
def serving(engine: str, using: str, *, tls: bool, allow_remote: bool) -> Iterator[Server]:
    """
    Run the chosen engine within the block: ``canned``, ``embedded``, or the ``alias`` ``using``,
    whose endpoint is running already. Raises CommandError if that is remote and not allowed.
    """
    if engine == "canned":
        with CannedServer(tls=tls) as server:
            bundle = {_BUNDLE: str(server.certificate)} if server.certificate else {}
            with _environment(bundle):
                yield Server(server.url, bundle)
        return
    if engine == "embedded":
        with EmbeddedEngine() as embedded:
            yield Server(embedded.url, {})
        return
    url = conf.get_config(using).endpoint_url
    if not allow_remote and (url is None or not is_loopback(url)):
        raise CommandError(
            f"The endpoint {url or 'of AWS'} is not on this machine, and calls there cost "
            "money. Add --allow-remote to allow it, or --engine canned."
        )
    yield Server(url, {})


@contextmanager
def tables(server: Server, using: str, *, with_peer: bool) -> Iterator[Tables]:
    """
    Create the tables under a prefix of their own, and delete them at the end of the block; the
    alias ``default`` is connected to them within it. ``with_peer`` adds the table of the peer that
    keeps its items in DynamoDB.
    """
    prefix = f"benchmark-{secrets.token_hex(4)}-"
    alias = {
        "ENDPOINT_URL": server.url,
        "TABLE_PREFIX": prefix,
        "REGION": conf.get_config(using).region,
    }
    with override_settings(DYNAMO_STORES={"default": alias}):
        # With the control table, because the processes publish their reports there.
        specs = [table_of(model) for model in (StoreItem, ControlItem)]
        names = [spec.name for spec in specs]
        try:
            for spec in specs:
                create_table(spec, lambda line: None)
            if with_peer:
                names.append(prefix + DYNAMODB_CACHE)
                _create_table_of_peer(names[-1])
            region = conf.get_config().region or "us-east-1"
            yield Tables(region, prefix, names[0])
        finally:
            for name in names:
                _delete_table(name)


def fill(table: str, start: int, end: int) -> None:
    """Put the small items number ``start`` to ``end`` into the table."""
    requests = ({"PutRequest": {"Item": _filler(number)}} for number in range(start, end))
    connection = get_connection()
    for group in chunks(requests, 100):
        _, error = run(batch_write(connection, table, group))
        if error is not None:
            raise error


def _filler(number: int) -> dict[str, Any]:
    return {"PK": {"S": f"filler-{number}"}, "SK": {"S": "FILLER"}, "v": {"S": "x" * 20}}


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _create_table_of_peer(name: str) -> None:
    get_control().call(
        "CreateTable",
        {
            "TableName": name,
            "KeySchema": [{"AttributeName": "cache_key", "KeyType": "HASH"}],
            "AttributeDefinitions": [{"AttributeName": "cache_key", "AttributeType": "S"}],
            "BillingMode": "PAY_PER_REQUEST",
        },
    )


def _delete_table(name: str) -> None:
    control = get_control()
    if control.describe(name) is not None:
        control.call("DeleteTable", {"TableName": name})
