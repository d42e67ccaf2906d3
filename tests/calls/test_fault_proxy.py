"""The relay of faults refuses what would be no fault at all."""

from __future__ import annotations

import http.client
import json
import time
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import pytest

from dynamo_stores.testing import FaultProxy

FAULTS = {
    "throttle": (),
    "fail": (),
    "delay": (1.0,),
    "hang": (),
    "lose_answer": (),
    "reset": (),
    "cut": (),
}


@pytest.mark.parametrize(("fault", "arguments"), FAULTS.items())
def test_an_operation_that_does_not_exist_is_refused(dynamo_faults, fault, arguments):
    """The message has the name that is meant."""
    inject = getattr(dynamo_faults, fault)
    for wrong, end in (("Getitem", "; did you mean 'GetItem'?"), ("Nope", "."), ("", ".")):
        with pytest.raises(ValueError, match="is not an operation of DynamoDB") as refused:
            inject(*arguments, wrong)
        assert str(refused.value) == f"{wrong!r} is not an operation of DynamoDB{end}"
    for right in ("*", "GetItem", "UpdateTimeToLive", "GetRecords"):
        inject(*arguments, right)


@pytest.mark.parametrize(("fault", "arguments"), FAULTS.items())
@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "1"])
def test_a_fault_that_never_happens_is_refused(dynamo_faults, fault, arguments, wrong):
    """times=0 would be one; a negative number would be all requests."""
    with pytest.raises(ValueError, match=f"^times is {wrong!r}; expected the number of requests"):
        getattr(dynamo_faults, fault)(*arguments, times=wrong)


@pytest.mark.parametrize("wrong", ["*", "PutItem", "BatchWrite", "TransactWriteItems"])
def test_only_batches_are_taken_in_part(dynamo_faults, wrong):
    """Other operations have no items to leave unprocessed."""
    with pytest.raises(ValueError, match="is not an operation with a batch"):
        dynamo_faults.take_in_part(wrong, 1)


@pytest.mark.parametrize(
    "wrong", ["127.0.0.1:8400", "localhost:8400", "https://127.0.0.1:8400", "http://", ""]
)
def test_an_address_that_is_no_http_url_is_refused(wrong):
    """The relay could not forward a request to it, and each would look like a fault."""
    with pytest.raises(ValueError, match=r"is not the http URL of an engine; expected one such as"):
        FaultProxy(wrong)
    with pytest.raises(ValueError, match="Port"):
        FaultProxy("http://127.0.0.1:port")


def test_what_the_relay_answers_itself_has_a_date(dynamo_faults):
    """As DynamoDB's errors have, of which the client learns the time."""
    dynamo_faults.fail("GetItem")
    dynamo_faults.throttle("PutItem")
    dynamo_faults.take_in_part("BatchGetItem", 0)
    for operation in ("GetItem", "PutItem", "BatchGetItem"):
        connection = http.client.HTTPConnection(urlsplit(dynamo_faults.url).netloc)
        target = {"X-Amz-Target": f"DynamoDB_20120810.{operation}"}
        connection.request("POST", "/", json.dumps({"RequestItems": {"t": {"Keys": []}}}), target)
        (date,) = connection.getresponse().headers.get_all("Date")
        assert abs(parsedate_to_datetime(date).timestamp() - time.time()) < 300
        connection.close()
