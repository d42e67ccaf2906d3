"""
The streams API of one alias: streams, shards and records, one attempt a call.

It is not DynamoDB's data plane: it has an endpoint, limits and errors of its own, and costs nothing
of a table's throughput. So it has no circuit breaker; the readers of shards wait and ask again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from ..calls.account import get_account
from ..calls.client import check_answer, make_client
from ..calls.control import get_control
from ..conf import get_config
from ..exceptions import (
    LIMIT_EXCEEDED,
    TABLE_MISSING,
    ConfigurationError,
    StoreError,
    StoreUnavailable,
    ThrottlingError,
    client_error,
    code_of,
    unavailable,
)
from .records import StreamRecord, label_of_arn
from .shards import Shard, ShardId

# Records of one GetRecords at most; DynamoDB also stops at 1 MB.
MAX_RECORDS = 1000
_TRIMMED = "TrimmedDataAccessException"
_EXPIRED = "ExpiredIteratorException"


class TrimmedError(StoreError):
    """The position is older than 24 hours: its records are trimmed."""


class ShardMissingError(StoreError):
    """The stream or the shard does not exist: all of its records are trimmed."""


class HiddenError(StoreUnavailable):
    """
    A stream or a shard is missing that cannot be trimmed yet: the endpoint is wrong, or the table
    was deleted.
    """


class ExpiredIteratorError(StoreError):
    """An iterator is valid for 15 minutes."""


class Page(NamedTuple):
    """The records of a request, and the iterator of the next; None at the end of the shard."""

    records: list[StreamRecord]
    iterator: str | None


class StreamsClient:
    """
    The streams of one table. ``endpoint_url`` is that of the streams API, by default the one of the
    alias's ``ENDPOINT_URL`` or AWS's.

    Methods raise StoreUnavailable without an answer, and ThrottlingError if asked too often.
    """

    def __init__(self, table: str, using: str, endpoint_url: str | None = None) -> None:
        self.table = table
        self.using = using
        config = get_config(using)
        url = endpoint_url or streams_endpoint(config.endpoint_url)
        config = dataclasses.replace(config, endpoint_url=url)
        try:
            self._client: Any = make_client(config, get_account(using), service="dynamodbstreams")
        except BotoCoreError as exc:
            failure = client_error(exc, using)
            if failure is None:
                raise
            raise failure from exc
        # botocore takes half an answer for an empty one, which would be the end of a shard.
        self._client.meta.events.register_first("after-call.dynamodb-streams", check_answer)

    def streams(self) -> list[str]:
        """
        Return the ARNs of the table's streams, the oldest first: also of disabled ones, whose
        records DynamoDB keeps for 24 hours.

        Raises ConfigurationError if the table does not exist, or never had a stream.
        """
        found: dict[str, str] = {}
        request: dict[str, Any] = {"TableName": self.table}
        while True:
            answer = self._call("ListStreams", request)
            for each in answer["Streams"]:
                found[each["StreamLabel"]] = each["StreamArn"]
            if not answer.get("LastEvaluatedStreamArn"):
                break
            request["ExclusiveStartStreamArn"] = answer["LastEvaluatedStreamArn"]
        if not found:
            self._explain_missing()
        return [found[label] for label in sorted(found)]

    def shards(self, arn: str) -> list[Shard]:
        """Return the shards of a stream that are not trimmed; a request for each 100."""
        return list(self._shards(arn))

    def _shards(self, arn: str) -> Iterator[Shard]:
        label = label_of_arn(arn)
        request: dict[str, Any] = {"StreamArn": arn}
        while True:
            description = self._call("DescribeStream", request)["StreamDescription"]
            for each in description["Shards"]:
                parent = each.get("ParentShardId")
                yield Shard(
                    ShardId(label, each["ShardId"]),
                    ShardId(label, parent) if parent else None,
                    bool(each.get("SequenceNumberRange", {}).get("EndingSequenceNumber")),
                )
            if not description.get("LastEvaluatedShardId"):
                return
            request["ExclusiveStartShardId"] = description["LastEvaluatedShardId"]

    def iterator(self, arn: str, shard: str, *, after: str | None = None) -> str:
        """
        Return an iterator from the record after the sequence number ``after``, by default from the
        oldest. Raises TrimmedError and ShardMissingError.
        """
        request = {"StreamArn": arn, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"}
        if after is not None:
            request |= {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": after}
        return str(self._call("GetShardIterator", request)["ShardIterator"])

    def latest(self, arn: str, shard: str) -> str:
        """Return an iterator from the next record that is written. Raises ShardMissingError."""
        request = {"StreamArn": arn, "ShardId": shard, "ShardIteratorType": "LATEST"}
        return str(self._call("GetShardIterator", request)["ShardIterator"])

    def records(self, arn: str, iterator: str, most: int = MAX_RECORDS) -> Page:
        """
        Return at most ``most`` records at ``iterator``, also none. Raises TrimmedError,
        ExpiredIteratorError and ShardMissingError.
        """
        answer = self._call("GetRecords", {"ShardIterator": iterator, "Limit": most})
        records = [StreamRecord.from_api(each, arn) for each in answer["Records"]]
        return Page(records, answer.get("NextShardIterator") or None)

    def hidden(self, what: str) -> HiddenError:
        """Return the error that a stream or a shard is missing, which cannot be trimmed."""
        return HiddenError(
            f"{what} of {self.table} is not at the streams endpoint {self._endpoint}, and was open "
            "less than 24 hours ago, so it cannot be trimmed. Nothing is left out; it is looked "
            "for again. Correct --stream-endpoint, ENDPOINT_URL or REGION. If the table was "
            "deleted and created again, use another --consumer."
        )

    def close(self) -> None:
        """Close the sockets."""
        self._client.close()

    def _call(self, operation: str, request: dict[str, Any]) -> Any:
        try:
            return self._client._make_api_call(operation, request)
        except ClientError as exc:
            where = f"{operation} of the stream of {self.table}"
            match code_of(exc):
                case code if code == _TRIMMED:
                    raise TrimmedError(f"{where}: its records are trimmed.") from exc
                case code if code == _EXPIRED:
                    raise ExpiredIteratorError(f"{where}: the iterator is expired.") from exc
                case code if code == LIMIT_EXCEEDED:
                    raise ThrottlingError(
                        f"{where} was throttled ({code}): a shard may have two readers."
                    ) from exc
                case code if code == TABLE_MISSING and operation != "ListStreams":
                    raise ShardMissingError(f"{where}: it does not exist any more.") from exc
            raise self._failure(operation, exc) from exc
        except Exception as exc:
            raise self._failure(operation, exc) from exc

    def _failure(self, operation: str, exc: Exception) -> Exception:
        place = f"endpoint {self._endpoint}"
        table = f"the stream of {self.table}"
        return unavailable(exc, operation=operation, table=table, place=place) or exc

    def _explain_missing(self) -> None:
        control = get_control(self.using)
        description = control.describe(self.table)
        if description is None:
            raise ConfigurationError(
                f"The table {self.table!r} of the alias {self.using!r} does not exist "
                f"({control.place}). Correct its name, REGION or ENDPOINT_URL."
            )
        if not description.get("LatestStreamArn"):
            raise ConfigurationError(
                f"The table {self.table!r} has no stream. Set STREAM to 'NEW_AND_OLD_IMAGES' for "
                "it and run 'manage.py dynamo_update_tables', or switch its stream on in AWS."
            )
        raise ConfigurationError(
            f"The streams endpoint {self._endpoint} does not know the stream of the table "
            f"{self.table!r}. Set the option --stream-endpoint."
        )

    @property
    def _endpoint(self) -> str:
        # A URL may have a name and a password.
        return str(urlsplit(self._client.meta.endpoint_url).netloc).rpartition("@")[2]


def streams_endpoint(url: str | None) -> str | None:
    """
    Return the streams endpoint for the ``ENDPOINT_URL`` of an alias: a local engine has both at one
    address, AWS has a host of its own.
    """
    if url is None:
        return None
    parts = urlsplit(url)
    if (parts.hostname or "").startswith("dynamodb.") and "amazonaws.com" in parts.netloc:
        return parts._replace(netloc=f"streams.{parts.netloc}").geturl()
    return url
