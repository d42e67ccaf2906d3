"""All sinks tell the same, and what a relay before DynamoDB saw."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor

from dynamo_stores.conf import get_config
from dynamo_stores.exceptions import StoreUnavailable
from dynamo_stores.monitoring import flush_metrics
from dynamo_stores.monitoring.exporter import get_exporters
from dynamo_stores.monitoring.meter import get_meter
from dynamo_stores.monitoring.sinks.prometheus import page
from dynamo_stores.stores import CacheStore, DedupeStore, RateLimitStore
from tests.monitoring.test_emf import EMF, checked, totals
from tests.monitoring.test_prometheus import PATH as PROMETHEUS
from tests.monitoring.test_prometheus import total
from tests.monitoring.test_telemetry import OTEL, exported, points, spans  # noqa: F401 - fixtures

LOGS = "dynamo_stores.monitoring.sinks.LoggingSink"


def work(using, faults):
    """Calls of every store, in threads and on a loop, of which some are throttled or fail."""
    cache, limits, jobs = CacheStore(using), RateLimitStore(using), DedupeStore(using)
    faults.throttle("GetItem", times=7)
    faults.fail("PutItem", times=2)

    def one(number):
        with contextlib.suppress(StoreUnavailable):
            cache.set(f"agree-{number}", number)
        cache.get(f"agree-{number}")
        cache.get_many([f"agree-{number}", "agree-missing"])
        limits.acquire("agree", key=str(number % 3), rate="5/h")
        jobs.run(f"agree-{number}", lambda: number)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(one, range(30)))

    async def on_a_loop():
        await asyncio.gather(*(cache.aget(f"agree-{number}") for number in range(40)))

    asyncio.run(on_a_loop())


def test_all_sinks_agree_with_a_relay(alias, tmp_path, dynamo_faults, spans, points, caplog):  # noqa: F811
    using = alias(
        ENDPOINT_URL=dynamo_faults.url,
        RETRY={"MAX_RETRIES": 1, "DELAY": 0.01, "MAX_DELAY": 0.05},
        METRICS={
            "SINKS": [LOGS, EMF, PROMETHEUS, OTEL],
            "INTERVAL": 3600.0,
            "OPTIONS": {
                EMF: {"LOGGER": "agree.emf"},
                PROMETHEUS: {"FOLDER": str(tmp_path / "metrics"), "INTERVAL": 3600.0},
            },
        },
    )
    table = get_config(using).store_table
    with caplog.at_level(logging.INFO):
        work(using, dynamo_faults)
        assert flush_metrics(using, seconds=60)
    seen = sum(
        table in (body.get("TableName"), *body.get("RequestItems", ()))
        for _, body in dynamo_faults.bodies
    )
    counted = get_meter(using).snapshot()
    operations, throttles = counted.total("operations"), counted.total("throttles")
    assert seen > operations > 150
    assert throttles == 7
    assert counted.total("attempts") == seen
    assert counted.distribution("operation_seconds").count == operations

    (sink,) = [each.sink for each in get_exporters(using).all if hasattr(each.sink, "folder")]
    text = page([sink], openmetrics=False)
    assert total(text, "dynamo_stores_attempts_total", using=using) == seen
    assert total(text, "dynamo_stores_operation_seconds_count", using=using) == operations

    found = points()
    assert sum(each.count for each in found["db.client.operation.duration"]) == operations
    assert sum(each.value for each in found["dynamo_stores.attempts"]) == seen
    assert len(spans()) == operations
    assert sum(each.attributes["dynamo_stores.attempts"] for each in spans()) == seen

    lines = [each.getMessage() for each in caplog.records if each.name == "agree.emf"]
    counts, sums = totals(checked("\n".join(lines)))
    of_table = {name: value for (name, *labels), value in sums.items() if table in labels}
    assert of_table["operations"] == operations
    assert of_table["throttles"] == throttles
    (seconds,) = [n for (name, *labels), n in counts.items() if name == "operation_seconds"]
    assert seconds == operations

    (line,) = [each for each in caplog.records if hasattr(each, "dynamodb_operations")]
    assert line.dynamodb_operations == operations
    assert line.dynamodb_throttles == throttles
    for units in ("read_units", "write_units"):
        kind = units.removesuffix("_units")
        assert getattr(line, f"dynamodb_{units}") == counted.total(
            "consumed_units", index="", kind=kind
        )
