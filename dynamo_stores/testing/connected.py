"""Tables of their own for the tests of a project: on an engine, with a prefix."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.test.utils import override_settings

from ..calls.control import get_control
from ..conf import DEFAULT_ALIAS
from ..infrastructure.tables import create_table, wanted_tables


@contextmanager
def connected(**changes: Any) -> Iterator[None]:
    """Change these settings of every alias within the block, such as ``ENDPOINT_URL``."""
    aliases = getattr(settings, "DYNAMO_STORES", {DEFAULT_ALIAS: {}})
    changed = {using: {**values, **changes} for using, values in aliases.items()}
    with override_settings(DYNAMO_STORES=changed):
        yield


@contextmanager
def test_tables(url: str, prefix: str) -> Iterator[None]:
    """
    Connect every alias to the engine at ``url`` within the block, with tables whose names begin
    with ``prefix``; create the tables, and delete them at the end.

    A table with a ``TABLE_NAME`` of its own in ``TABLES`` gets the prefix, too.
    """
    aliases = getattr(settings, "DYNAMO_STORES", {DEFAULT_ALIAS: {}})
    changed = {}
    for using, values in aliases.items():
        tables = {
            name: {
                setting: prefix + value if setting == "TABLE_NAME" else value
                for setting, value in of_table.items()
                if setting != "DELETION_PROTECTION"
            }
            for name, of_table in values.get("TABLES", {}).items()
        }
        own = {
            "ENDPOINT_URL": url,
            "TABLE_PREFIX": prefix,
            "TABLES": tables,
            # They are deleted at the end.
            "DELETION_PROTECTION": None,
        }
        changed[using] = {"REGION": "us-east-1", **values, **own}
    with override_settings(DYNAMO_STORES=changed):
        specs = wanted_tables()
        for spec in specs:
            create_table(spec, lambda line: None)
        try:
            yield
        finally:
            for spec in specs:
                get_control(spec.using).call("DeleteTable", {"TableName": spec.name})


# pytest does not collect it as a test.
test_tables.__test__ = False  # type: ignore[attr-defined]
