"""
Every error that this package raises, and the translation of botocore's errors to them.

::

  StoreError
    ConfigurationError            a setting, an argument or a request is wrong; or no table
      InvalidRequestError         DynamoDB or the client found a request invalid
      TableMissingError           the table does not exist
    ItemTooLargeError             more than DynamoDB or the settings allow; nothing was written
    BackupError                   a backup is damaged, or does not fit its table or the request
    LockError                     a with block could not take the lock
    DedupeError                   a deduplicated job has no result
      DedupeFailedError           it failed; carries the type and the message of the error
      DedupeTimeoutError          it was still running when the time to wait had passed
    AnswerError                   of the client: DynamoDB answered with an error
      ConditionFailedError        a condition failed; has the item as it is
      TransactionCancelledError   a transaction was cancelled; has its reasons
    BatchIncompleteError          of the client: operations of a batch were not processed
    RateLimited                   a request over its limit; a subclass of PermissionDenied
    StoreUnavailable              DynamoDB could not answer: no connection, or an error inside it
      StoreRefused                credentials, signature or rights; or the answer is not DynamoDB's
      CircuitBreakerOpenError     no request was sent: the breaker is open
      ThrottlingError             DynamoDB throttled the requests until the deadline
      OperationTimeoutError       no answer before the deadline

Any other error of DynamoDB (a failed condition, a cancelled transaction) is an answer. Callers of
models get it as PynamoDB's own exception, callers of the client as an AnswerError. botocore's
original is the ``__cause__``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from botocore import exceptions as botocore
from django.core.exceptions import ImproperlyConfigured, PermissionDenied

from .invalid_requests import advice_on

E = TypeVar("E", bound=BaseException)


class StoreError(Exception):
    """Base of every error raised by dynamo_stores."""


class ConfigurationError(StoreError, ImproperlyConfigured):
    """
    A setting or an argument is wrong, a table is missing, or DynamoDB found a request invalid.

    The message names what was expected. It is raised with ``IGNORE_EXCEPTIONS``, too.
    """


class InvalidRequestError(ConfigurationError):
    """A request is not valid: DynamoDB refused it, or it was not sent."""


class TableMissingError(ConfigurationError):
    """The table of a request does not exist."""


class ItemTooLargeError(StoreError, ValueError):
    """An item is over DynamoDB's 400 KB, or a value over ``MAX_VALUE_BYTES``; not written."""


class BackupError(StoreError):
    """A backup is damaged, incomplete, or does not fit its table; the message names the file."""


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


class AnswerError(StoreError):
    """DynamoDB answered a request of the client with an error; ``code`` is its name."""

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class ConditionFailedError(AnswerError):
    """
    The condition of a write failed; nothing was written.

    ``item`` is the item as it is, in plain values; None if it does not exist.
    """

    def __init__(self, message: str, *, code: str = "", item: dict[str, Any] | None = None) -> None:
        super().__init__(message, code=code)
        self.item = item


@dataclass(frozen=True, slots=True)
class CancellationReason:
    """
    Why an operation cancelled its transaction: DynamoDB's ``code`` (``ConditionalCheckFailed``),
    ``""`` if it did not; and the ``item`` as it is, for a failed condition.
    """

    code: str = ""
    item: dict[str, Any] | None = None


class TransactionCancelledError(AnswerError):
    """
    A transaction was cancelled; nothing was written.

    ``reasons`` has a CancellationReason for each operation, in their order.
    """

    def __init__(
        self, message: str, *, code: str = "", reasons: Iterable[CancellationReason] = ()
    ) -> None:
        super().__init__(message, code=code)
        self.reasons = tuple(reasons)


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
    For ``get_many`` of a cache, ``found`` holds the values that were read before. ``counts`` is
    False if the error says nothing about DynamoDB, and so is not reported to the circuit breaker:
    nothing was sent, or the caller's deadline left no time for an answer.
    """

    counts: bool = True
    unprocessed: Mapping[str, Any] | None = None
    responses: Mapping[str, list[dict[str, Any]]] | None = None
    found: Mapping[str, Any] | None = None


class StoreRefused(StoreUnavailable):
    """
    AWS refused the credentials, the signature or the rights of the request, or the answer was not
    DynamoDB's. Not retried; it may pass by itself, as an expired token does.
    """


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

    @property
    def is_curable(self) -> bool:
        """Whether more provisioned capacity of the table or the index ends such throttles."""
        return not self.reason.endswith((HOT_PARTITION, ACCOUNT_LIMIT, ON_DEMAND_MAXIMUM))

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


class BatchIncompleteError(StoreError):
    """
    Operations of a batch were not processed; the reason is the ``__cause__``: StoreUnavailable, or
    an error of the caller, after which the same operations would fail again.

    ``leftovers`` are those of the first ``read`` operations that were not written, without those
    that a later one replaced; the operations after them were not read. One that is not valid is the
    last of them. ``written`` is the number of operations that were written.
    """

    def __init__(
        self, message: str, *, leftovers: Iterable[Any] = (), written: int = 0, read: int = 0
    ) -> None:
        super().__init__(message)
        self.leftovers = list(leftovers)
        self.written = written
        self.read = read


def retry_after_of(exc: BaseException) -> int:
    """Return the whole seconds after which to try again, 1 if ``exc`` does not know."""
    return max(1, math.ceil(getattr(exc, "retry_after", 0.0)))


# The errors that a call to DynamoDB can raise, for callers that treat all of them alike.
CALL_ERRORS = (StoreError, botocore.BotoCoreError, botocore.ClientError)

CONDITION_FAILED = "ConditionalCheckFailedException"
TABLE_MISSING = "ResourceNotFoundException"
TABLE_IN_USE = "ResourceInUseException"
LIMIT_EXCEEDED = "LimitExceededException"
NOT_ALLOWED = "AccessDeniedException"
# The ends of the names of reasons for throttling that more provisioned capacity does not end.
HOT_PARTITION = "KeyRangeThroughputExceeded"
ACCOUNT_LIMIT = "AccountLimitExceeded"
ON_DEMAND_MAXIMUM = "MaxOnDemandThroughputExceeded"
THROTTLING_CODES = frozenset(
    [
        "ProvisionedThroughputExceededException", "RequestLimitExceeded", "RequestThrottled",
        "RequestThrottledException", "ThrottledException", "Throttling", "ThrottlingException",
        "TooManyRequestsException",
    ]
)  # fmt: skip
_INVALID = "ValidationException"
# A transaction that is cancelled names these codes per item instead.
_CANCELLED_BY_THROTTLING = frozenset(["ThrottlingError", "ProvisionedThroughputExceeded"])
_CANCELLED_BY_CONFLICT = frozenset(["TransactionConflict"])
_CONFLICT_CODES = frozenset(
    [
        "ReplicatedWriteConflictException", "TransactionConflictException",
        "TransactionInProgressException",
    ]
)  # fmt: skip
_TRANSIENT_CODES = frozenset(
    [
        "InternalFailure", "InternalServerError", "RequestTimeout", "RequestTimeoutException",
        "ServiceUnavailable", "ServiceUnavailableException",
    ]
)  # fmt: skip
_TRANSIENT_STATUSES = frozenset([408, 429])
_REFUSED_CODES = frozenset(
    [
        "AccessDenied", NOT_ALLOWED, "ExpiredToken", "ExpiredTokenException",
        "IncompleteSignature", "IncompleteSignatureException", "InvalidAccessKeyId",
        "InvalidClientTokenId", "InvalidSignatureException", "MissingAuthenticationToken",
        "MissingAuthenticationTokenException", "OptInRequired", "RequestExpired",
        "RequestTimeTooSkewed", "SignatureDoesNotMatch", "UnrecognizedClientException",
    ]
)  # fmt: skip
_NO_CREDENTIALS = (
    botocore.NoCredentialsError,
    botocore.PartialCredentialsError,
    botocore.CredentialRetrievalError,
    botocore.MetadataRetrievalError,
    botocore.SSOError,
    botocore.TokenRetrievalError,
)
_SET_CREDENTIALS = "Set them by environment, profile or role, as for every AWS client."
_CHECK_ENDPOINT = "Check ENDPOINT_URL, and proxies on the way."
_WRONG_CONFIGURATION = (
    botocore.ConfigNotFound,
    botocore.ConfigParseError,
    botocore.EndpointProviderError,
    botocore.InvalidConfigError,
    botocore.InvalidRegionError,
    botocore.ProfileNotFound,
)
_MAX_SENTENCE = 300


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


def system_error(exc: BaseException) -> str:
    """Return the operating system's error behind ``exc``, such as ``connection refused``."""
    cause: Any = exc
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
        # botocore keeps the error of its HTTP client here.
        cause = cause.__cause__ or getattr(cause, "kwargs", {}).get("error") or cause.__context__
    return ""


_REFUSED = "connection refused"
_ON_THIS_MACHINE = re.compile(r"endpoint (?:127(?:\.\d+){3}|localhost|\[?::1\]?)(?=[:;, ]|$)")


def store_error(
    exc: Exception, *, operation: str, table: str, using: str, place: str = ""
) -> StoreError | None:
    """
    Return the error of this package for ``exc``, or None if ``exc`` is an answer of DynamoDB.

    The message names the operation, the table and the ``place`` (endpoint and region), and never
    the content of request or response.
    """
    return unavailable(exc, operation=operation, table=table, place=place) or _misconfigured(
        exc, operation=operation, table=table, using=using, place=place
    )


def unavailable(
    exc: Exception, *, operation: str, table: str, place: str = ""
) -> StoreUnavailable | None:
    """Return the StoreUnavailable for ``exc``, or None if DynamoDB answered."""
    where = f"{operation} on {table}"
    match exc:
        case StoreUnavailable():
            return exc
        case botocore.ClientError():
            return _from_response(exc.response, where, place)
        case botocore.ReadTimeoutError() | botocore.ConnectTimeoutError():
            return OperationTimeoutError(f"{where} got no answer in time{_details(place)}.")
        case botocore.HTTPClientError() | botocore.ConnectionError():
            error = system_error(exc) or type(exc).__name__
            advice = ""
            if isinstance(exc, botocore.SSLError):
                # It speaks plain HTTP, or has another certificate: it may not be DynamoDB's.
                advice = f" {_CHECK_ENDPOINT}"
            elif error == _REFUSED and _ON_THIS_MACHINE.search(place):
                advice = " Start the engine on this machine, such as by 'manage.py dynamo_local'."
            return StoreUnavailable(f"{where} got no answer{_details(error, place)}.{advice}")
        case _ if _lacks_credentials(exc):
            details = _details(type(exc).__name__, place)
            return StoreRefused(
                f"{where} was not sent: no valid AWS credentials were found{details}. "
                f"{_SET_CREDENTIALS}"
            )
    return None


def client_error(exc: botocore.BotoCoreError, using: str) -> StoreError | None:
    """Return the error for a client of the alias ``using`` that cannot be made, None if unknown."""
    if isinstance(exc, botocore.NoRegionError):
        return ConfigurationError(
            f"DYNAMO_STORES[{using!r}]['REGION'] is not set, and botocore finds no region. Set "
            "REGION, or AWS_DEFAULT_REGION in the environment."
        )
    if isinstance(exc, _WRONG_CONFIGURATION):
        setting = "PROFILE" if isinstance(exc, botocore.ProfileNotFound) else "REGION"
        return ConfigurationError(
            f"The client of the alias {using!r} cannot be made: {str(exc).removesuffix('.')}. "
            f"Correct DYNAMO_STORES[{using!r}][{setting!r}], or botocore's configuration."
        )
    if not _lacks_credentials(exc):
        return None
    return StoreRefused(
        f"No valid AWS credentials were found for the alias {using!r} ({type(exc).__name__}). "
        f"{_SET_CREDENTIALS}"
    )


def _lacks_credentials(exc: Exception) -> bool:
    # botocore has no class for credentials that are expired right after a refresh.
    return isinstance(exc, _NO_CREDENTIALS) or (
        isinstance(exc, RuntimeError) and str(exc).startswith("Credentials were refreshed")
    )


def _misconfigured(
    exc: Exception, *, operation: str, table: str, using: str, place: str
) -> StoreError | None:
    if isinstance(exc, ConfigurationError):
        return exc
    if not isinstance(exc, botocore.ClientError):
        return None
    code, message = _code_and_message(exc.response)
    if code == TABLE_MISSING:
        several = " (or another table of the call)" if operation.startswith(_ON_TABLES) else ""
        return TableMissingError(
            f"{operation}: the table {table!r}{several} of the alias {using!r} does not exist"
            f"{_details(place)}. Create it with 'manage.py dynamo_create_tables', or correct "
            "TABLE_NAME, REGION or ENDPOINT_URL."
        )
    if code != _INVALID:
        return None
    if message.startswith("Item size"):
        return ItemTooLargeError(
            f"{operation} on {table}: an item exceeds DynamoDB's limit of 400 KB; nothing was "
            "written."
        )
    return InvalidRequestError(
        f"{operation} on {table} of the alias {using!r} is not valid for DynamoDB"
        f"{_details(place)}. {advice_on(message)} DynamoDB's message is in the __cause__."
    )


# Operations that may name several tables.
_ON_TABLES = ("Batch", "Transact")


def _from_response(response: Mapping[str, Any], where: str, place: str) -> StoreUnavailable | None:
    code, message = _code_and_message(response)
    if code in THROTTLING_CODES:
        return ThrottlingError(f"{where} was throttled ({code}).", reasons=_reasons(response))
    if code == "TransactionCanceledException":
        return _from_cancelled(response, where)
    if code in _CONFLICT_CODES:
        return _conflict(where, code)
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _TRANSIENT_CODES or status >= 500:
        return StoreUnavailable(
            f"{where} failed inside DynamoDB{_details(code or str(status), place)}."
        )
    if code in _REFUSED_CODES or code.startswith("KMS"):
        sentence = "" if code.startswith("IncompleteSignature") else f": {message}"
        return StoreRefused(f"{where} was refused{_details(code, place)}{sentence}")
    if status in _TRANSIENT_STATUSES:
        return StoreUnavailable(f"{where} got no answer{_details(f'HTTP {status}', place)}.")
    if code.isdigit():
        # botocore has the status for the code if the body has none.
        return StoreRefused(
            f"{where} was not answered by DynamoDB{_details(f'HTTP {code}', place)}. "
            f"{_CHECK_ENDPOINT}"
        )
    return None


def _from_cancelled(response: Mapping[str, Any], where: str) -> StoreUnavailable | None:
    reasons = response.get("CancellationReasons") or ()
    codes = {reason.get("Code") for reason in reasons} - {"None", None}
    # With any other code among them the transaction was refused for good.
    if not codes or not codes <= _CANCELLED_BY_THROTTLING | _CANCELLED_BY_CONFLICT:
        return None
    if codes & _CANCELLED_BY_CONFLICT:
        return _conflict(where, "TransactionConflict")
    found = tuple(each for reason in reasons for each in _reasons(reason))
    return ThrottlingError(f"{where} was cancelled by throttling.", reasons=found)


def _conflict(where: str, code: str) -> StoreUnavailable:
    error = StoreUnavailable(f"{where} conflicted with another request ({code}).")
    error.counts = False
    return error


def _code_and_message(response: Mapping[str, Any]) -> tuple[str, str]:
    """Return the code, and the first line of the message: further ones quote the request."""
    error = response.get("Error", {})
    lines = str(error.get("Message") or "").splitlines()
    return str(error.get("Code", "")), lines[0][:_MAX_SENTENCE] if lines else ""


def _details(*parts: str) -> str:
    known = "; ".join(part for part in parts if part)
    return f" ({known})" if known else ""


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
