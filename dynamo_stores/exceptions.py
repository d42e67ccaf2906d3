"""
Every error this package raises, and the one translation from botocore's.

* StoreError
  + ConfigurationError          a setting or an argument is wrong; nothing was sent
  + ItemTooLargeError           more than DynamoDB or the settings allow; nothing was sent
  + LockError                   a lock was not got by ``with``
  + DedupeError                 a deduplicated job has no result
    - DedupeFailedError           it failed where it ran; says how
    - DedupeTimeoutError          it was still running when the time to wait was up
  + RateLimited                 a view was asked too often; Django takes it for a PermissionDenied
  + StoreUnavailable            the store could not answer: no connection, or an error inside it
    - CircuitBreakerOpenError     not tried: the breaker is open
    - ThrottlingError             tried, and DynamoDB asked to slow down
    - OperationTimeoutError       tried, and ran out of time

Anything else DynamoDB says (a failed condition, a bad request, a missing table) is an answer,
and reaches the caller as PynamoDB's own exception. botocore's original is the ``__cause__``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from botocore import exceptions as botocore
from django.core.exceptions import ImproperlyConfigured, PermissionDenied


class StoreError(Exception):
    """Base of every error raised by dynamo_stores."""


class ConfigurationError(StoreError, ImproperlyConfigured):
    """A setting or an argument is wrong; the message says what was expected."""


class ItemTooLargeError(StoreError, ValueError):
    """Over DynamoDB's 400 KB for one item, or over ``MAX_VALUE_BYTES``; nothing was sent."""


class LockError(StoreError):
    """``with`` did not get the lock, and its block did not run."""


class DedupeError(StoreError):
    """A deduplicated job has no result, or none that can be stored."""


class DedupeFailedError(DedupeError):
    """
    The job failed in the process that ran it.

    ``original_type`` is the qualified name of the error's class there, ``original_message`` what
    it said.
    """

    def __init__(self, original_type: str, original_message: str) -> None:
        super().__init__(f"The job failed with {original_type}: {original_message}")
        self.original_type = original_type
        self.original_message = original_message


class DedupeTimeoutError(DedupeError):
    """The job was still running after ``MAX_WAIT`` seconds; it goes on."""


class RateLimited(StoreError, PermissionDenied):
    """
    A view was asked more often than its limit allows.

    ``status`` is what was decided (:class:`~dynamo_stores.stores.RateLimitStatus`).
    """

    def __init__(self, *args: Any, status: Any = None) -> None:
        super().__init__(*(args or ("Too many requests.",)))
        self.status = status


# Its name in django-ratelimit.
Ratelimited = RateLimited


class StoreUnavailable(StoreError):
    """
    DynamoDB could not answer; trying later may help.

    For a batch, ``unprocessed`` holds what DynamoDB did not take (``RequestItems`` of
    DynamoDB-JSON by table) and ``responses`` what it had returned by then (items by table); for a
    cache's ``get_many``, ``found`` holds the values read by then.
    """

    unprocessed: Mapping[str, Any] | None = None
    responses: Mapping[str, list[dict[str, Any]]] | None = None
    found: Mapping[str, Any] | None = None


class CircuitBreakerOpenError(StoreUnavailable):
    """The call was not made: the breaker is open. ``retry_after`` is in seconds."""

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class ThrottlingReason:
    """
    Why DynamoDB throttled: ``reason`` in its words (``TableReadKeyRangeThroughputExceeded``),
    ``resource`` the ARN of the table or index, ``""`` where it was not told.
    """

    reason: str
    resource: str = ""

    @property
    def table(self) -> str:
        """The table's name out of the ARN (``…:table/NAME/index/INDEX``), or ``""``."""
        return self._part(1)

    @property
    def index(self) -> str:
        """The index's name out of the ARN, or ``""`` for the table itself."""
        return self._part(3)

    def _part(self, number: int) -> str:
        parts = self.resource.rpartition(":")[2].split("/")
        return parts[number] if parts[0] == "table" and len(parts) > number else ""


class ThrottlingError(StoreUnavailable):
    """
    DynamoDB refused for lack of throughput until the deadline.

    ``retry_after`` is a number of seconds worth waiting; ``reasons`` is what DynamoDB named.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after: float = 1.0,
        reasons: Iterable[ThrottlingReason] = (),
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.reasons = tuple(reasons)


class OperationTimeoutError(StoreUnavailable):
    """The operation, all attempts and waits included, did not finish in time."""


# What a call to DynamoDB can raise, for callers to whom every failure means the same.
CALL_ERRORS = (StoreError, botocore.BotoCoreError, botocore.ClientError)

CONDITION_FAILED = "ConditionalCheckFailedException"
TABLE_MISSING = "ResourceNotFoundException"
TABLE_IN_USE = "ResourceInUseException"
DECREASE_REFUSED = "LimitExceededException"
NOT_ALLOWED = "AccessDeniedException"
THROTTLING_CODES = frozenset(
    ["ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded"]
)
# A transaction that is cancelled names these codes per item instead.
_CANCELLED_BY_THROTTLING = frozenset(["ThrottlingError", "ProvisionedThroughputExceeded"])
_TRANSIENT_CODES = frozenset(
    ["InternalServerError", "ServiceUnavailable", "TransactionInProgressException"]
)
_NO_CREDENTIALS = (
    botocore.NoCredentialsError,
    botocore.PartialCredentialsError,
    botocore.CredentialRetrievalError,
)


def code_of(exc: BaseException) -> str:
    """Return DynamoDB's error code, ``""`` for an error that is not DynamoDB's answer."""
    response: Any = getattr(exc.__cause__, "response", None) or getattr(exc, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, Mapping) else ""


def unavailable(exc: Exception, *, operation: str, table: str) -> StoreUnavailable | None:
    """
    Return the StoreUnavailable that ``exc`` means, or None if ``exc`` is an answer.

    The message names operation and table and never what was asked or answered.
    """
    where = f"{operation} on {table}"
    match exc:
        case StoreUnavailable():
            return exc
        case botocore.ClientError():
            return _from_response(exc.response, where)
        case botocore.ReadTimeoutError() | botocore.ConnectTimeoutError():
            return OperationTimeoutError(f"{where} got no answer in time.")
        case botocore.HTTPClientError() | botocore.ConnectionError():
            return StoreUnavailable(f"{where} got no answer ({type(exc).__name__}).")
        case _ if isinstance(exc, _NO_CREDENTIALS):
            return StoreUnavailable(
                f"{where} was not sent: no AWS credentials were found. Set them by environment, "
                "profile or role as for every AWS client."
            )
    return None


def _from_response(response: Mapping[str, Any], where: str) -> StoreUnavailable | None:
    code = str(response.get("Error", {}).get("Code", ""))
    if code in THROTTLING_CODES:
        return ThrottlingError(f"{where} was throttled ({code}).", reasons=_reasons(response))
    if code == "TransactionCanceledException":
        reasons = response.get("CancellationReasons") or ()
        codes = {reason.get("Code") for reason in reasons} - {"None", None}
        # With any other code among them the transaction was refused for good.
        if codes and codes <= _CANCELLED_BY_THROTTLING:
            found = tuple(each for reason in reasons for each in _reasons(reason))
            return ThrottlingError(f"{where} was cancelled by throttling.", reasons=found)
        return None
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _TRANSIENT_CODES or status >= 500:
        return StoreUnavailable(f"{where} failed inside DynamoDB ({code or status}).")
    return None


def _reasons(response: Mapping[str, Any]) -> tuple[ThrottlingReason, ...]:
    # The key is spelt differently from one error to the other.
    listed = response.get("ThrottlingReasons") or response.get("throttlingReasons") or ()
    return tuple(
        ThrottlingReason(
            reason=str(each.get("reason") or each.get("Reason") or ""),
            resource=str(each.get("resource") or each.get("Resource") or ""),
        )
        for each in listed
    )
