"""The fixtures in a project of their own: tests use the engine, and never the settings' tables."""

from __future__ import annotations

import os
import subprocess
import sys

import boto3
import pytest

SETTINGS = """
SECRET_KEY = "of a test"
INSTALLED_APPS = ["dynamo_stores"]
DYNAMO_STORES = {
    "default": {"ENDPOINT_URL": "http://127.0.0.1:9", "OPERATION_TIMEOUT": 2},
    "other": {"ENDPOINT_URL": "http://127.0.0.1:9", "TABLE_NAME": "others"},
}
CACHES = {
    "default": {"BACKEND": "dynamo_stores.cache.DynamoDBCache"},
    "other": {"BACKEND": "dynamo_stores.cache.DynamoDBCache", "LOCATION": "other"},
}
"""
TESTS = """
import pytest
from django.core.cache import caches
from dynamo_stores.exceptions import StoreUnavailable

pytest_plugins = ["dynamo_stores.testing.fixtures"]


@pytest.mark.parametrize("name", ["default", "other"])
def test_the_engine_is_used(dynamo_stores, name):
    caches[name].set("k", name)
    assert caches[name].get("k") == name


def test_faults_are_seen(dynamo_faults, dynamo_stores):
    dynamo_faults.fail("GetItem")
    with pytest.raises(StoreUnavailable):
        caches["default"].get("k")


def test_the_relay_is_used(dynamo_stores, dynamo_capacity):
    relay = dynamo_capacity()
    caches["default"].set("k", 1)
    assert list(relay.status()["tables"].values()) == ["on demand"]
"""
RUNNER = """
from django.test.runner import DiscoverRunner
from dynamo_stores.testing import test_tables


class Runner(DiscoverRunner):
    def run_suite(self, suite, **kwargs):
        import os

        with test_tables(os.environ["TEST_DYNAMODB_ENDPOINT"], "runner-"):
            return super().run_suite(suite, **kwargs)
"""
RUNNER_TESTS = """
from django.core.cache import cache
from django.test import SimpleTestCase


class Tests(SimpleTestCase):
    def test_the_engine_is_used(self):
        cache.set("k", 1)
        self.assertEqual(cache.get("k"), 1)
"""


@pytest.fixture
def run(tmp_path, dynamo_engine):
    """``run("-m", …)``: Python in the folder of another project; returns what it printed."""

    def run(*command):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env={
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "own_settings",
                "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.getcwd()}",
                "TEST_DYNAMODB_ENDPOINT": dynamo_engine,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    (tmp_path / "own_settings.py").write_text(SETTINGS)
    return run


def tables_of(endpoint):
    client = boto3.client(
        "dynamodb",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )
    return {
        name
        for page in client.get_paginator("list_tables").paginate()
        for name in page["TableNames"]
    }


def test_pytest_uses_tables_of_its_own(run, tmp_path, dynamo_engine):
    """For all aliases, through a relay where one is asked for; nothing is left."""
    (tmp_path / "test_own.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    printed = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_own.py")
    assert "4 passed" in printed
    assert not {name for name in tables_of(dynamo_engine) if name.endswith("others")}


def test_djangos_runner_uses_tables_of_its_own(run, tmp_path, dynamo_engine):
    """By the runner of the documentation."""
    (tmp_path / "own_runner.py").write_text(RUNNER)
    (tmp_path / "test_own.py").write_text(RUNNER_TESTS)
    printed = run("-m", "django", "test", "--testrunner", "own_runner.Runner", "test_own")
    assert "Ran 1 test" in printed
    assert not {name for name in tables_of(dynamo_engine) if name.startswith("runner-")}
