"""
The forum's tables: in DynamoDB, or in JSON files if the setting ``USE_DYNAMODB`` is False.

Both have the same methods, results and errors.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from django.conf import settings

from dynamo_stores.models import DynamoModel

from .base import (
    EXISTS,
    MISSING,
    Check,
    Conflict,
    Create,
    Database,
    DatabaseAdapter,
    Delete,
    Item,
    ItemExists,
    ItemMissing,
    Operation,
    Page,
    Table,
    Update,
    WriteRefused,
)
from .dynamodb import DynamoDBDatabase
from .json_files import JsonDatabase

__all__ = [
    "EXISTS",
    "MISSING",
    "Check",
    "Conflict",
    "Create",
    "Database",
    "DatabaseAdapter",
    "Delete",
    "Item",
    "ItemExists",
    "ItemMissing",
    "Operation",
    "Page",
    "Table",
    "Update",
    "WriteRefused",
    "get_adapter",
    "get_database",
]

_dynamodb = DynamoDBDatabase()


def get_database() -> Database:
    """Return the database that the settings choose."""
    return _dynamodb if settings.USE_DYNAMODB else _json_files(Path(settings.FORUM_FOLDER))


def get_adapter(model: type[DynamoModel]) -> DatabaseAdapter:
    """Return the adapter of the table of ``model``, as :func:`get_database` chooses it."""
    return get_database().adapter(model)


@cache
def _json_files(folder: Path) -> JsonDatabase:
    return JsonDatabase(folder)
