"""The requests of a client: sent over the connection of its alias, with errors of this package."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import ClientError

from .. import clock
from ..calls.batches import batch_get
from ..calls.connection import Connection, get_connection, table_of
from ..calls.control import get_control
from ..calls.policy import time_left
from ..concurrency.effects import InThread
from ..concurrency.per_process import PerProcess
from ..conf import get_config
from ..exceptions import (
    CONDITION_FAILED,
    AnswerError,
    CancellationReason,
    ConditionFailedError,
    InvalidRequestError,
    StoreError,
    StoreUnavailable,
    TableMissingError,
    TransactionCancelledError,
    code_of,
)
from .values import RAW_LEVELS, from_raw_item, too_deep, utf8

logger = logging.getLogger(__name__)

_CANCELLED = "TransactionCanceledException"


class Requests:
    """
    Sends the requests of one alias. Its coroutines are verbs. With ``LOG_OPERATIONS`` each is
    logged with its time, without the content of keys and items.
    """

    def __init__(self, using: str) -> None:
        self.using = using

    @property
    def connection(self) -> Connection:
        """This process's connection of the alias."""
        return get_connection(self.using)

    def name_of(self, table: str) -> str:
        """Return the table's name in DynamoDB: with the prefix of the alias, as for models."""
        if not isinstance(table, str) or not table:
            raise InvalidRequestError(f"The table is {table!r}; expected its name or its ARN.")
        utf8(table, "The name of the table")
        return table if table.startswith("arn:") else get_config(self.using).name_in_dynamodb(table)

    async def ask(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """
        Return the answer to a request. Raises StoreUnavailable without one, ConfigurationError,
        ItemTooLargeError, or an AnswerError.
        """
        table = table_of(request)
        with self._noted(operation, table):
            try:
                return await self.connection.call(operation, request)
            except RecursionError as exc:
                path = f"A value of {operation} on {table}"
                raise too_deep(exc, request, path, RAW_LEVELS) from None

    async def read_keys(
        self,
        table: str,
        keys: Iterable[dict[str, Any]],
        consistent: bool,
        projection: Mapping[str, Any],
    ) -> list[dict[str, Any]]:
        """Return the existing items of ``keys``, each of which is there once; raises as ask."""
        with self._noted("BatchGetItem", table):
            return await batch_get(
                self.connection, table, keys, consistent=consistent, attributes=projection
            )

    async def key_names(self, table: str) -> tuple[str, ...]:
        """Return the names of the key attributes of a table, by its name in DynamoDB."""
        known = _schemas.get(self.using)
        if (names := known.get(table)) is None:
            # Here, because a thread has no deadline in force.
            seconds = time_left(get_config(self.using).for_table(table).operation_timeout)
            until = clock.monotonic() + seconds
            with self._noted("DescribeTable", table):
                names = await InThread(self.using, lambda: self._read_schema(table, until))
            known[table] = names
        return names

    @contextmanager
    def _noted(self, operation: str, table: str) -> Iterator[None]:
        """Log the operation of the block, and translate its errors."""
        started, error = clock.monotonic(), ""
        try:
            yield
        except ClientError as exc:
            error = code_of(exc)
            raise answer_error(exc, operation, table) from exc
        except StoreError as exc:
            error = type(exc).__name__
            raise
        finally:
            if get_config(self.using).log_operations:
                self._log(operation, table, clock.monotonic() - started, error)

    def _log(self, operation: str, table: str, seconds: float, error: str) -> None:
        logger.info(
            "%s on %s took %.1f ms%s.",
            operation, table, seconds * 1000, f" and ended in {error}" if error else "",
            extra={
                "dynamodb_operation": operation,
                "dynamodb_table": table,
                "dynamodb_using": self.using,
                "dynamodb_seconds": seconds,
            },
        )  # fmt: skip

    def _read_schema(self, table: str, until: float) -> tuple[str, ...]:
        config = get_config(self.using)
        # The same table of the other alias has the same key.
        other = config.failover
        name = other and get_config(other).same_table(config, table)
        left = _seconds_to(until)
        seconds = min(config.for_table(table).read_timeout, left / 2 if name else left)
        try:
            description = get_control(self.using).describe(table, seconds=seconds)
        except StoreUnavailable:
            if not (other and name):
                raise
            description = get_control(other).describe(name, seconds=_seconds_to(until))
        if description is None:
            raise TableMissingError(
                f"The table {table!r} of the alias {self.using!r} does not exist "
                f"({get_control(self.using).place}). Create it, or correct its name, REGION or "
                "ENDPOINT_URL."
            )
        return tuple(each["AttributeName"] for each in description["KeySchema"])


def answer_error(exc: ClientError, operation: str, table: str) -> AnswerError:
    """Return the error of this package for an error that DynamoDB answered."""
    code, where = code_of(exc), f"{operation} on {table}"
    response: Any = exc.response
    if code == CONDITION_FAILED:
        item = response.get("Item")
        return ConditionFailedError(
            f"The condition of {where} failed; nothing was written.",
            code=code, item=from_raw_item(item) if item else None,
        )  # fmt: skip
    if code == _CANCELLED:
        reasons = [_reason(each) for each in response.get("CancellationReasons") or ()]
        codes = ", ".join(f"{at}: {each.code}" for at, each in enumerate(reasons) if each.code)
        return TransactionCancelledError(
            f"{where} was cancelled; nothing was written. Reasons by operation: {codes}.",
            code=code, reasons=reasons,
        )  # fmt: skip
    return AnswerError(f"{where} was answered with {code}; see the __cause__.", code=code)


def _seconds_to(until: float) -> float:
    # 0 seconds would be no limit.
    return max(0.001, until - clock.monotonic())


def _reason(found: Mapping[str, Any]) -> CancellationReason:
    code, item = str(found.get("Code") or ""), found.get("Item")
    return CancellationReason("" if code == "None" else code, from_raw_item(item) if item else None)


def _no_schemas(using: str) -> dict[str, tuple[str, ...]]:
    return {}


# A table that is deleted and made again with another key, under the same name, is not noticed.
_schemas = PerProcess(_no_schemas)
