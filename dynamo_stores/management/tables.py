"""Helpers of the commands: choice of tables, and errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError
from django.core.management.base import CommandError

from ..exceptions import StoreError
from ..infrastructure.tables import TableSpec, wanted_tables


@contextmanager
def command_errors() -> Iterator[None]:
    """Turn errors of DynamoDB and of the settings into a CommandError with one sentence."""
    try:
        yield
    except ClientError as exc:
        error = exc.response.get("Error", {})
        raise CommandError(
            f"DynamoDB refused {exc.operation_name}: {error.get('Message') or error.get('Code')}"
        ) from exc
    except (StoreError, BotoCoreError) as exc:
        raise CommandError(str(exc)) from exc


def chosen_tables(names: list[str] | None) -> list[TableSpec]:
    """Return all required tables, or only those with one of ``names``."""
    tables = wanted_tables()
    if not names:
        return tables
    known = {table.name for table in tables}
    if unknown := [name for name in names if name not in known]:
        raise CommandError(
            f"No model or alias has the table {', '.join(unknown)}. "
            f"Known tables: {', '.join(sorted(known))}."
        )
    return [table for table in tables if table.name in names]
