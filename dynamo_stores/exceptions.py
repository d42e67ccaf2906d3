"""
Every error that this package raises, and the translation of botocore's errors to them.

* StoreError
  + ConfigurationError          a setting or an argument is wrong; nothing was sent
  + ItemTooLargeError           more than DynamoDB or the settings allow; nothing was sent
  + LockError                   ``with`` could not take the lock
  + DedupeError                 a deduplicated job has no result
    - DedupeFailedError           it failed; carries the type and the message of the error
    - DedupeTimeoutError          it was still running when the time to wait had passed
  + RateLimited                 a request over its limit; a subclass of PermissionDenied
  + StoreUnavailable            DynamoDB could not answer: no connection, or an error inside it
    - CircuitBreakerOpenError     no request was sent: the breaker is open
    - ThrottlingError             DynamoDB throttled the requests until the deadline
    - OperationTimeoutError       no answer before the deadline

Any other error of DynamoDB (a failed condition, a bad request, a missing table) is an answer, and
reaches the caller as PynamoDB's own exception. botocore's original is the ``__cause__``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from botocore import exceptions as botocore
from django.core.exceptions import ImproperlyConfigured, PermissionDenied

E = TypeVar("E", bound=BaseException)


class StoreError(Exception):
    """Base of every error raised by dynamo_stores."""


class ConfigurationError(StoreError, ImproperlyConfigured):
    """A setting or an argument is wrong; the message names what was expected."""


class ItemTooLargeError(StoreError, ValueError):
    """An item is over DynamoDB's 400 KB, or a value over ``MAX_VALUE_BYTES``; nothing was sent."""


class LockError(StoreError):
    """``with`` could not take the lock, and its block did not run."""


class DedupeError(StoreError):
    """A deduplicated job has no result, or none that can be stored."""


class DedupeFailedError(DedupeError):
    """
    The job failed in the process that ran it.

    ``original_type`` is the qualified name of the class of the error, ``original_message`` its
    message.
    """

    def __init__(self, original_type: str, original_message: str) -> None:
        super().__init__(f"The job failed with {original_type}: {original_message}")
        self.original_type = original_type
        self.original_message = original_message

    def __reduce__(self) -> Any:
        return type(self), (self.original_type, self.original_message)


class DedupeTimeoutError(DedupeError):
    """The job was still running after ``MAX_WAIT`` seconds; it keeps running."""


class RateLimited(StoreError, PermissionDenied):
    """
    A request is over the limit of its view.

    ``status`` is the decision (:class:`~dynamo_stores.stores.RateLimitStatus`).
    """

    def __init__(self, *args: Any, status: Any = None) -> None:
        super().__init__(*(args or ("Too many requests.",)))
        self.status = status


# The name in django-ratelimit.
Ratelimited = RateLimited


class StoreUnavailable(StoreError):
    """
    DynamoDB could not answer; a later attempt may succeed.

    For a batch, ``unprocessed`` holds the requests that DynamoDB did not process (``RequestItems``
    of DynamoDB-JSON by table) and ``responses`` the items that it had returned before (by table).
    For ``get_many`` of a cache, ``found`` holds the values that were read before.
    """

    unprocessed: Mapping[str, Any] | None = None
    responses: Mapping[str, list[dict[str, Any]]] | None = None
    found: Mapping[str, Any] | None = None


class CircuitBreakerOpenError(StoreUnavailable):
    """No request was sent: the breaker is open. ``retry_after`` is in seconds."""

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class ThrottlingReason:
    """
    Why DynamoDB throttled: ``reason`` is its name (``TableReadKeyRangeThroughputExceeded``),
    ``resource`` the ARN of the table or index, ``""`` if DynamoDB did not return it.
    """

    reason: str
    resource: str = ""

    @property
    def table(self) -> str:
        """The table's name in the ARN (``…:table/NAME/index/INDEX``), or ``""``."""
        return self._part(1)

    @property
    def index(self) -> str:
        """The index's name in the ARN, or ``""`` for the table itself."""
        return self._part(3)

    def _part(self, number: int) -> str:
        parts = self.resource.rpartition(":")[2].split("/")
        return parts[number] if parts[0] == "table" and len(parts) > number else ""


class ThrottlingError(StoreUnavailable):
    """
    DynamoDB throttled every attempt until the deadline.

    ``retry_after`` is the number of seconds to wait before the next attempt; ``reasons`` are those
    that DynamoDB returned.
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
    """The operation, with all its attempts and waits, did not finish before its deadline."""


# The errors that a call to DynamoDB can raise, for callers that treat all of them alike.
CALL_ERRORS = (StoreError, botocore.BotoCoreError, botocore.ClientError)

CONDITION_FAILED = "ConditionalCheckFailedException"
TABLE_MISSING = "ResourceNotFoundException"
TABLE_IN_USE = "ResourceInUseException"
LIMIT_EXCEEDED = "LimitExceededException"
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


def copy_of(error: E) -> E:
    """
    Return the same error as an object of its own, caused by ``error``.

    An exception object belongs to one caller, who adds a traceback and results to it.
    """
    copy = type(error).__new__(type(error))
    copy.args = error.args
    copy.__dict__.update(error.__dict__)
    if isinstance(copy, StoreUnavailable):
        copy.found = None
    copy.__cause__ = error
    return copy


def code_of(exc: BaseException) -> str:
    """Return DynamoDB's error code, ``""`` for an error without a response of DynamoDB."""
    # PynamoDB's exceptions have botocore's original as ``cause``.
    cause = exc.__cause__ or getattr(exc, "cause", None)
    response: Any = getattr(cause, "response", None) or getattr(exc, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, Mapping) else ""


def unavailable(exc: Exception, *, operation: str, table: str) -> StoreUnavailable | None:
    """
    Return the StoreUnavailable for ``exc``, or None if ``exc`` is an answer of DynamoDB.

    The message names the operation and the table, and never the content of request or response.
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
                "profile or role, as for every AWS client."
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
    # The spelling of the key differs between errors.
    listed = response.get("ThrottlingReasons") or response.get("throttlingReasons") or ()
    return tuple(
        ThrottlingReason(
            reason=str(each.get("reason") or each.get("Reason") or ""),
            resource=str(each.get("resource") or each.get("Resource") or ""),
        )
        for each in listed
    )
