"""The DynamoDB of the tests, tables with a random prefix, and fixtures for aliases."""

from __future__ import annotations

import inspect
import itertools
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.loaders import JSONFileLoader
from celery import current_app
from django.core.management import call_command
from django.test import override_settings
from hypothesis import settings

from dynamo_stores.cache import DynamoDBCache
from dynamo_stores.cache.options import CacheOptions
from dynamo_stores.calls.control import get_control
from dynamo_stores.calls.observer import measuring
from dynamo_stores.infrastructure.tables import wanted_tables
from dynamo_stores.models import StoreItem
from dynamo_stores.ratelimit import problems
from dynamo_stores.stores import CacheStore

pytest_plugins = [
    "dynamo_stores.testing.fixtures",
    "tests.helpers.capacity",
    "tests.helpers.faults",
    "tests.helpers.forum_tables",
    "tests.helpers.items",
    "tests.helpers.limits",
    "tests.helpers.moto_server",
    "tests.helpers.notifications",
    "tests.helpers.outcomes",
    "tests.helpers.plain_tables",
    "tests.helpers.processes",
    "tests.helpers.side_by_side",
    "tests.helpers.status",
    # After the module that it imports, whose assertions pytest rewrites.
    "tests.helpers.data_pages",
]

_numbers = itertools.count(1)

# A password takes half a second of a processor with Django's own.
_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

# How long one example takes says more about the machine than about the code.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")

# They start engines, servers and browsers of their own, or count what the embedded engine charges.
_WITH_PARTS_OF_THEIR_OWN = {"browser", "capacity", "processes", "streams"}
# They are about relays and engines of their own, and what one engine does with changing tables.
_MODULES_OF_THEIR_OWN = {
    "test_backup_faults.py",
    "test_backup_resuming.py",
    "test_replicas.py",
    "test_service_backups.py",
    "test_stream_handler.py",
    "test_updates.py",
}


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Mark as ``engine`` what any DynamoDB must pass; what is ``slow`` begins first."""
    # Side by side, the run is as long as what began last.
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    tests = Path(__file__).parent
    for item in items:
        # All of them have the engine among their fixtures, by those that are there for every test.
        arguments = inspect.signature(item.function).parameters
        needs_engine = "tables" in item.fixturenames or "dynamo_engine" in arguments
        folder = item.path.relative_to(tests).parts[0]
        has_own = folder in _WITH_PARTS_OF_THEIR_OWN or item.path.name in _MODULES_OF_THEIR_OWN
        if needs_engine and not has_own:
            item.add_marker("engine")


@pytest.fixture(scope="session", autouse=True)
def _parsed_once() -> Iterator[None]:
    """botocore parses megabytes of JSON for each of its sessions, and each alias has its own."""
    parse, parsed = JSONFileLoader.load_file, {}

    def load_file(self: JSONFileLoader, path: str) -> Any:
        if path not in parsed:
            parsed[path] = parse(self, path)
        return parsed[path]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", load_file)
        yield


@pytest.fixture(scope="session")
def default_alias(dynamo_engine: str, dynamo_prefix: str) -> dict[str, Any]:
    """The settings of the alias ``default`` in tests."""
    return {
        "ENDPOINT_URL": dynamo_engine,
        "REGION": "us-east-1",
        "TABLE_PREFIX": dynamo_prefix,
        "TRANSPORT": os.environ.get("TEST_TRANSPORT", "auto"),
        # Calls are counted in many tests; those of the reports are for the tests of reports.
        "REPORTS": {"ENABLED": False},
        "METRICS": {"SINKS": []},
    }


@pytest.fixture(scope="session", autouse=True)
def _stores(default_alias: dict[str, Any]) -> Iterator[None]:
    with override_settings(DYNAMO_STORES={"default": default_alias}, PASSWORD_HASHERS=_HASHERS):
        yield


@pytest.fixture(scope="session", autouse=True)
def _own_broker() -> None:
    """Celery messages of this process stay in it; workers of tests have their own brokers."""
    current_app.conf.broker_url = "memory://"


@pytest.fixture(scope="session")
def tables(_stores: None) -> Iterator[None]:
    """Every table of the project, deleted at the end."""
    call_command("dynamo_create_tables", verbosity=0, stdout=_Silence())
    specs = wanted_tables()
    yield
    for spec in specs:
        get_control(spec.using).call("DeleteTable", {"TableName": spec.name})


@pytest.fixture(scope="session")
def _bills_like_the_service(tables: None) -> bool:
    with measuring() as measurements:
        StoreItem("probe", "probe").save()
    return sum(measurements[0].units.values()) == 1.0


@pytest.fixture
def true_units(_bills_like_the_service: bool) -> None:
    """Skips on an engine that reports other units than AWS."""
    if not _bills_like_the_service:
        pytest.skip("This engine reports index writes for items that are not in the index.")


@pytest.fixture(autouse=True)
def _limits_of_a_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks know the limited views of the project, and none of another test."""
    monkeypatch.setattr(problems, "problems", dict(problems.problems))
    monkeypatch.setattr(problems, "names", dict(problems.names))


@pytest.fixture
def alias(default_alias: dict[str, Any], tables: None, settings: Any) -> Callable[..., str]:
    """``alias(ENDPOINT_URL=…)`` makes another alias for the same tables and returns its name."""
    made: dict[str, Any] = {}

    def make(**changes: Any) -> str:
        name = f"alias{next(_numbers)}"
        made[name] = {**default_alias, **changes}
        # By the fixture of pytest-django: the changes of a test end in one order.
        settings.DYNAMO_STORES = {"default": default_alias, **made}
        return name

    return make


@pytest.fixture
def make_cache(tables: None) -> Iterator[Callable[..., DynamoDBCache]]:
    """
    ``make_cache(using, OPTIONS={…}, TIMEOUT=…)`` returns a cache with a prefix of its own, and with
    time for its answers.
    """
    prefixes = set()

    def make(using: str = "default", **params: Any) -> DynamoDBCache:
        prefixes.add(params.setdefault("KEY_PREFIX", secrets.token_hex(6)))
        params["OPTIONS"] = {"OPERATION_TIMEOUT": 60.0, **params.get("OPTIONS", {})}
        return DynamoDBCache(using, params)

    yield make
    # All aliases of the tests use the same tables; scans of other tests would read left-over items.
    for prefix in prefixes:
        CacheStore("default", prefix=prefix, options=CacheOptions(operation_timeout=60.0)).clear()


@pytest.fixture
def cache(make_cache: Callable[..., DynamoDBCache]) -> DynamoDBCache:
    """An empty cache."""
    return make_cache()


@pytest.fixture
def until() -> Callable[..., Any]:
    """``until(function)`` calls it until its result is true, for a minute, and returns that."""

    def wait(function: Callable[[], Any], seconds: float = 60) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := function()):
            assert time.monotonic() < deadline, "It did not happen in time."
            time.sleep(0.05)
        return found

    return wait


class _Silence:
    def write(self, *args: object) -> None:
        pass

    def flush(self) -> None:
        pass
