"""Cold start: fresh processes that import, connect and read once, with compiled bytecode."""

from __future__ import annotations

import compileall
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

from .operations import BARE, TRANSPORTS, Plan
from .processes import python, result_of
from .rounds import Row

# Each code defines begin() and, unless it only starts, get(). Only modules of Python that every
# interpreter imports at its start are imported before the clock runs. A client of boto3 and the
# connection of an alias are both made by the first call.
_DJANGO = """
def begin():
    import django
    from django.conf import settings
    settings.configure(SECRET_KEY="benchmark")
    django.setup()
"""
_BOTO3 = """
def begin():
    import django
    from django.conf import settings
    settings.configure(SECRET_KEY="benchmark")
    django.setup()
    import boto3

def get():
    import boto3
    from botocore.config import Config
    client = boto3.client(
        "dynamodb", region_name=plan["region"], endpoint_url=plan["url"],
        config=Config(retries={"total_max_attempts": 1, "mode": "standard"}), **plan["keys"],
    )
    client.get_item(TableName=plan["table"], Key={"PK": {"S": "k"}, "SK": {"S": "ENTRY"}})
"""
_STORES = """
def begin():
    import django
    from django.conf import settings
    settings.configure(
        SECRET_KEY="benchmark",
        INSTALLED_APPS=["dynamo_stores"],
        CACHES={"default": {
            "BACKEND": "dynamo_stores.cache.DynamoDBCache", "OPTIONS": {"OPERATION_TIMEOUT": 30},
        }},
        DYNAMO_STORES={"default": {
            "ENDPOINT_URL": plan["url"], "REGION": plan["region"], "TRANSPORT": plan["transport"],
            "TABLE_PREFIX": plan["prefix"],
        }},
    )
    django.setup()
    from django.core.cache import cache

def get():
    from django.core.cache import cache
    cache.get("k")
"""
_AROUND = """
import sys, time
plan = {plan!r}
{code}
def now():
    return time.process_time(), time.perf_counter()
started = now()
begin()
ready = now()
if "get" in globals():
    get()
done = now()
print('{{"setup": [%r, %r], "get": [%r, %r], "total": %r}}' % (
    ready[0] - started[0], ready[1] - started[1], done[0] - ready[0], done[1] - ready[1], done[0],
))
"""
DJANGO = "Django"
_PARTS = {"setup": "start: import and setup", "get": "start: first get", "total": "start: total"}


def measure_cold_start(
    plan: Plan, environment: Mapping[str, str], keys: Mapping[str, str]
) -> list[Row]:
    """
    Start each client ``plan.rounds`` times, in turn; return the medians in microseconds.

    ``import and setup`` includes ``django.setup()`` for all of them; ``first get`` includes the
    making of the client; ``total`` includes the start of Python. The client "Django" is
    ``django.setup()`` alone.
    """
    values = {
        "url": plan.url,
        "region": plan.region,
        "table": plan.table,
        "prefix": plan.prefix,
        "keys": dict(keys),
    }
    codes = {BARE: _AROUND.format(plan=values, code=_BOTO3)}
    codes[DJANGO] = _AROUND.format(plan=values, code=_DJANGO)
    for name in filter(plan.chooses, TRANSPORTS):
        codes[name] = _AROUND.format(plan={**values, "transport": name}, code=_STORES)
    compileall.compile_dir(Path(__file__).parents[2], quiet=2)
    for code in codes.values():
        # Its modules are compiled at the first import.
        _start(code, environment)
    found: dict[str, list[dict[str, tuple[float, float]]]] = {name: [] for name in codes}
    for _ in range(plan.rounds):
        for name, code in codes.items():
            found[name].append(_start(code, environment))
    rows = [
        _row(part, name, times)
        for part in _PARTS
        for name, times in found.items()
        if part != "get" or name != DJANGO
    ]
    bare = {row.operation: row for row in rows if row.subject == BARE}
    for row in rows:
        row.ratio = row.cpu / bare[row.operation].cpu
        row.wall_ratio = row.wall / bare[row.operation].wall
    return rows


def _start(code: str, environment: Mapping[str, str]) -> dict[str, tuple[float, float]]:
    started = time.perf_counter()
    with python(code, environment) as process:
        found = result_of(process)
        wall = time.perf_counter() - started
    return {**found, "total": (found["total"], wall)}


def _row(part: str, name: str, times: list[dict[str, tuple[float, float]]]) -> Row:
    cpu, wall = zip(*(each[part] for each in times), strict=True)
    return Row(_PARTS[part], name, statistics.median(cpu) * 1e6, statistics.median(wall) * 1e6)
