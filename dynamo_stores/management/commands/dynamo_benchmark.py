"""``manage.py dynamo_benchmark``: the cost of an operation compared with a bare boto3 client."""

from __future__ import annotations

import contextlib
import secrets
import signal
import statistics
import sys
import threading
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import boto3
from botocore.config import Config
from django.core.management.base import BaseCommand, CommandError
from django.test.utils import override_settings

from ... import conf
from ...cache.backend import DynamoDBCache
from ...calls.control import get_control
from ...calls.environment import is_loopback
from ...conf.rules import WHOLE_POSITIVE
from ...exceptions import CircuitBreakerOpenError, StoreUnavailable
from ...infrastructure.tables import create_table, table_of
from ...models import ControlItem, StoreItem
from ...ratelimit.store import RateLimitStore
from ...testing.engine import EmbeddedEngine, EngineError
from ..options import between, check_options, whole_between
from ..tables import command_errors

Call = Callable[[], object]


class Timing(NamedTuple):
    """Microseconds per call."""

    cpu: float
    wall: float


class Command(BaseCommand):
    help = (
        "Compares cache operations and limits with a bare boto3 client that makes the same calls, "
        "alternating between both. Works on a table of its own, which it deletes."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--scenario",
            choices=["calls", "scaling", "status"],
            default="calls",
            help="calls: compared with a bare client. scaling: a throttled table under load, on "
            "an embedded engine behind a throttling relay. status: the status pages while many "
            "processes report, on an embedded engine (default: %(default)s).",
        )
        parser.add_argument(
            "--processes",
            type=int,
            default=100,
            help="Number of processes that report, for status (default: %(default)s).",
        )
        parser.add_argument(
            "--kind",
            choices=["puts", "gets", "batches"],
            default="puts",
            help="Kind of operation, for scaling (default: %(default)s).",
        )
        parser.add_argument("--rate", type=int, default=160, help="Values a second, for scaling.")
        parser.add_argument("--seconds", type=float, default=20.0, help="Duration, for scaling.")
        parser.add_argument("--using", default=conf.DEFAULT_ALIAS, help="Alias to measure.")
        parser.add_argument(
            "--engine",
            choices=["alias", "embedded"],
            default="alias",
            help="The endpoint of the alias, or an embedded engine (default: %(default)s).",
        )
        parser.add_argument(
            "--rounds", type=int, default=15, help="Rounds of each client (default: %(default)s)."
        )
        parser.add_argument(
            "--calls", type=int, default=200, help="Calls in a round (default: %(default)s)."
        )
        parser.add_argument(
            "--bytes", type=int, default=1000, help="Size of a value (default: %(default)s)."
        )
        parser.add_argument(
            "--allow-remote",
            action="store_true",
            help="Allow an endpoint on another machine, where calls cost money.",
        )

    def handle(self, *args: Any, using: str, engine: str, **options: Any) -> None:
        check_options(
            options,
            rounds=WHOLE_POSITIVE,
            calls=WHOLE_POSITIVE,
            # Larger values are stored in parts, which a bare client does not do.
            bytes=whole_between(1, 300_000),
            processes=WHOLE_POSITIVE,
            rate=WHOLE_POSITIVE,
            seconds=between(0.1, 3600),
        )
        with _exit_at_sigterm():
            self._benchmark(using, engine, options)

    def _benchmark(self, using: str, engine: str, options: dict[str, Any]) -> None:
        with command_errors():
            if options["scenario"] == "scaling":
                self._benchmark_scaling(options)
                return
            if options["scenario"] == "status":
                self._benchmark_status(options)
                return
            if engine == "alias":
                self._run(using, conf.get_config(using).endpoint_url, options)
                return
            try:
                with EmbeddedEngine() as embedded:
                    self._run(using, embedded.url, options)
            except EngineError as exc:
                raise CommandError(str(exc)) from exc

    def _benchmark_status(self, options: dict[str, Any]) -> None:
        from ..status_benchmark import status_benchmark

        try:
            status_benchmark(
                self.stdout.write, processes=options["processes"], rounds=options["rounds"]
            )
        except EngineError as exc:
            raise CommandError(str(exc)) from exc

    def _benchmark_scaling(self, options: dict[str, Any]) -> None:
        try:
            from ..scaling_benchmark import scaling_benchmark

            scaling_benchmark(
                self.stdout.write,
                rate=options["rate"],
                seconds=options["seconds"],
                kind=options["kind"],
            )
        except (EngineError, ImportError) as exc:
            raise CommandError(f"{exc} Install dynamo-stores[local] for this scenario.") from exc

    def _run(self, using: str, url: str | None, options: dict[str, Any]) -> None:
        if not options["allow_remote"] and (url is None or not is_loopback(url)):
            raise CommandError(
                f"The endpoint {url or 'of AWS'} is not on this machine, and calls there cost "
                "money. Add --allow-remote to allow it, or --engine embedded."
            )
        prefix = f"benchmark-{secrets.token_hex(4)}-"
        alias = {
            "ENDPOINT_URL": url,
            "TABLE_PREFIX": prefix,
            "REGION": conf.get_config(using).region,
        }
        with override_settings(DYNAMO_STORES={"default": alias}):
            # With the control table, because the process publishes its reports there.
            specs = [table_of(model) for model in (StoreItem, ControlItem)]
            try:
                for spec in specs:
                    create_table(spec, lambda line: None)
                self._compare(specs[0].name, options)
            finally:
                for spec in specs:
                    _delete_table(spec.name)

    def _compare(self, table: str, options: dict[str, Any]) -> None:
        rounds, calls = options["rounds"], options["calls"]
        self.stdout.write(
            f"{rounds} rounds of {calls} calls, values of {options['bytes']} bytes; "
            "CPU and wall time in µs a call, medians of the rounds.\n"
        )
        self.stdout.write(f"{'':>14}{'boto3 CPU':>11}{'stores':>8}{'ratio':>8}{'wall ratio':>12}")
        for name, (bare, stores) in _pairs(table, options["bytes"]).items():
            for call in (bare, stores):
                _time(call, max(1, calls // 4))
            pairs = [(_time(bare, calls), _time(stores, calls)) for _ in range(rounds)]
            bare_cpu = statistics.median(one.cpu for one, _ in pairs)
            store_cpu = statistics.median(other.cpu for _, other in pairs)
            ratio = statistics.median(other.cpu / one.cpu for one, other in pairs)
            wall = statistics.median(other.wall / one.wall for one, other in pairs)
            self.stdout.write(f"{name:>14}{bare_cpu:11.0f}{store_cpu:8.0f}{ratio:8.2f}{wall:12.2f}")
        for name, call in _without_counterpart(options["bytes"]).items():
            store_cpu = statistics.median(_time(call, calls).cpu for _ in range(rounds))
            self.stdout.write(f"{name}: {store_cpu:.1f} µs")


@contextlib.contextmanager
def _exit_at_sigterm() -> Iterator[None]:
    """Let SIGTERM raise SystemExit, so that the tables are deleted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _delete_table(name: str) -> None:
    control = get_control()
    if control.describe(name) is not None:
        control.call("DeleteTable", {"TableName": name})


def _pairs(table: str, size: int) -> dict[str, tuple[Call, Call]]:
    """Return for each operation a bare boto3 call and the equal call of a store."""
    cache = DynamoDBCache("default", {"KEY_PREFIX": "benchmark"})
    value = "x" * size
    cache.set("k", value, 300)
    cache.set_many({f"k{number}": value for number in range(25)}, 300)
    config = conf.get_config()
    client = boto3.client(
        "dynamodb",
        region_name=config.region or "us-east-1",
        endpoint_url=config.endpoint_url,
        config=Config(retries={"total_max_attempts": 1, "mode": "standard"}),
        **(
            {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
            if config.endpoint_url and is_loopback(config.endpoint_url)
            else {}
        ),
    )

    def key(name: str) -> dict[str, Any]:
        made = cache.store.item_key(cache.make_key(name))
        return {"PK": {"S": made.pk}, "SK": {"S": made.sk}}

    item = client.get_item(TableName=table, Key=key("k"))["Item"]
    bare = {**item, "PK": {"S": "bare"}}
    limits = RateLimitStore()
    limits.acquire("benchmark", rate="1000000/h")
    count = {
        "TableName": table,
        "Key": {"PK": {"S": "bare count"}, "SK": {"S": "SW"}},
        "UpdateExpression": "SET c0 = if_not_exists(c0, :zero) + :n",
        "ConditionExpression": "attribute_not_exists(c0) OR c0 <= :most",
        "ExpressionAttributeValues": {
            ":n": {"N": "1"},
            ":zero": {"N": "0"},
            ":most": {"N": "1000000"},
        },
        "ReturnValues": "ALL_NEW",
    }
    names = [f"k{number}" for number in range(25)]
    keys = [key(name) for name in names]
    request = {table: {"Keys": keys}}
    return {
        "get": (
            lambda: client.get_item(TableName=table, Key=key("k")),
            lambda: cache.get("k"),
        ),
        "set": (
            lambda: client.put_item(TableName=table, Item=bare),
            lambda: cache.set("k", value, 300),
        ),
        "get_many(25)": (
            lambda: client.batch_get_item(RequestItems=request),
            lambda: cache.get_many(names),
        ),
        "acquire": (
            lambda: client.update_item(**count),
            lambda: limits.acquire("benchmark", rate="1000000/h"),
        ),
    }


def _without_counterpart(size: int) -> dict[str, Call]:
    """Return the calls that a bare client does not have, by their description."""
    unreachable = {"ENDPOINT_URL": "http://127.0.0.1:9", "RETRY": {"MAX_RETRIES": 0}}
    aliases = {"default": {**unreachable, "CIRCUIT_BREAKER": {"FAILURE_THRESHOLD": 1}}}
    with override_settings(DYNAMO_STORES=aliases):
        refused = DynamoDBCache("default", {})
        with contextlib.suppress(StoreUnavailable):
            refused.get("k")
        # The closure keeps the connection with its open breaker after the settings are restored.
        connection = refused.store._table.connection

    def fail_fast() -> None:
        with contextlib.suppress(CircuitBreakerOpenError):
            connection.dispatch("GetItem", {"TableName": "dynamo-stores", "Key": {}})

    near = DynamoDBCache("default", {"KEY_PREFIX": "near", "OPTIONS": {"LOCAL_TIMEOUT": 3600}})
    near.set("k", "x" * size, 3600)
    limits = RateLimitStore()
    limits.acquire("benchmark", key="refused", rate="1/h")
    return {
        "a cached refusal": lambda: limits.acquire("benchmark", key="refused", rate="1/h"),
        "a hit in the near cache": lambda: near.get("k"),
        "creating a cache": lambda: DynamoDBCache("default", {"KEY_PREFIX": "p"}),
        "a call refused by an open breaker": fail_fast,
    }


def _time(call: Call, times: int) -> Timing:
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(times):
        call()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Timing(cpu / times * 1e6, wall / times * 1e6)
