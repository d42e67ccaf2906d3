"""The control plane: what is sent again, and what is not."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from dynamo_stores.calls.control import ControlPlane
from dynamo_stores.exceptions import StoreUnavailable

MISSING = "there-is-no-such-table"


@pytest.fixture
def control(alias, dynamo_faults):
    return ControlPlane(alias(ENDPOINT_URL=dynamo_faults.url))


def fail(faults, times):
    faults.fail("DescribeTable", times=times, status=500, code="InternalFailure")


def test_a_failure_inside_dynamodb_is_attempted_again(control, dynamo_faults):
    """Two failures and an answer."""
    fail(dynamo_faults, times=2)
    assert control.describe(MISSING) is None


def test_there_are_three_attempts(control, dynamo_faults):
    """The fourth would have got an answer."""
    fail(dynamo_faults, times=3)
    with pytest.raises(StoreUnavailable, match="failed inside DynamoDB"):
        control.describe(MISSING)
    assert control.describe(MISSING) is None


def test_no_attempt_begins_after_the_time(control, dynamo_faults):
    """The third would begin 0.4 seconds after the first."""
    assert control.describe(MISSING) is None
    fail(dynamo_faults, times=2)
    with pytest.raises(StoreUnavailable, match=r"failed inside DynamoDB|no answer in time"):
        control.describe(MISSING, seconds=0.3)


def test_a_refusal_is_not_attempted_again(control, dynamo_faults):
    """It is DynamoDB's answer."""
    dynamo_faults.fail("DescribeTable", times=1, status=400, code="ValidationException")
    with pytest.raises(ClientError, match="ValidationException"):
        control.describe(MISSING)
    assert control.describe(MISSING) is None
