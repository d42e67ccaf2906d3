"""The policies: what is in them, and that a linter of policies finds nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from dynamo_stores.deployment import iam
from dynamo_stores.exceptions import ConfigurationError
from dynamo_stores.infrastructure.tables import IndexSpec, KeySchema, TableSpec, wanted_tables

PLACE = iam.Place("aws", "eu-west-1", "123456789012")
TOPIC = "arn:aws:sns:eu-west-1:123456789012:alarms"
KEY = "arn:aws:kms:eu-west-1:123456789012:key/0a1b2c3d-0000-4000-8000-000000000000"
EVERYTHING = {
    "BILLING_MODE": "PROVISIONED",
    "SCALING": {"ENABLED": True, "AUTO_SCALING": "raise_minimum"},
    "NOTIFY": {"TOPIC": TOPIC},
    "STREAM": "NEW_AND_OLD_IMAGES",
    "POINT_IN_TIME_RECOVERY": True,
    "TAGS": {"team": "forum"},
    "ENCRYPTION_KEY": KEY,
    "METRICS": {
        "NAMESPACE": "Forum",
        "SINKS": [
            "dynamo_stores.monitoring.sinks.cloudwatch.CloudWatchSink",
            "dynamo_stores.monitoring.sinks.xray.XRaySink",
        ],
    },
}


@pytest.fixture
def policies(settings):
    """``policies(**changes)``: the policies of the project with these settings, by role."""

    def make(**changes):
        base = {**settings.DYNAMO_STORES["default"], "TABLE_PREFIX": "", **changes}
        settings.DYNAMO_STORES = {"default": base}
        specs = wanted_tables()
        return {role: iam.policy(role, specs, lambda using: PLACE) for role in iam.ROLES}

    return make


def grants(document):
    """Return each action with each of its resources, and the conditions."""
    return {
        (action, resource): each.get("Condition")
        for each in document["Statement"]
        for action in listed(each["Action"])
        for resource in listed(each["Resource"])
    }


def listed(value):
    return [value] if isinstance(value, str) else value


# In a process of its own: importing it leaves files open.
LINTER = """
import json, sys
from parliament import analyze_policy_string
found = [analyze_policy_string(json.dumps(each)).findings for each in json.load(sys.stdin)]
print(json.dumps([[str(finding) for finding in each] for each in found]))
"""


@pytest.mark.parametrize("changes", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_a_linter_finds_nothing(policies, changes):
    documents = [*policies(**changes).values()]
    wrong = {**documents[0]["Statement"][0], "Action": "dynamodb:Get"}
    documents.append({**documents[0], "Statement": [wrong]})
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LINTER],
        input=json.dumps(documents),
        capture_output=True,
        text=True,
        check=True,
    )
    *found, (planted,) = json.loads(answer.stdout)
    assert found == [[], [], []]
    assert "UNKNOWN_ACTION" in planted


@pytest.mark.parametrize("changes", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_only_what_has_no_resource_is_allowed_on_all(policies, changes):
    """And no action is a pattern."""
    for document in policies(**changes).values():
        found = grants(document)
        assert not [action for action, _ in found if "*" in action]
        assert {action for action, resource in found if resource == "*"} <= {
            "application-autoscaling:DescribeScalableTargets",
            "cloudwatch:PutMetricData",
            "dynamodb:DescribeLimits",
            "dynamodb:ListStreams",
            "xray:PutTelemetryRecords",
            "xray:PutTraceSegments",
        }
        assert iam.length_of(document) <= iam.MOST_CHARACTERS


def test_by_default_only_tables_are_used(policies):
    """And the roles of processes change none."""
    for role, document in policies().items():
        actions = {action for action, _ in grants(document)}
        assert {action.partition(":")[0] for action in actions} == {"dynamodb"}
        assert ("dynamodb:UpdateTable" in actions) == (role == "deployer")


def test_metrics_are_limited_to_their_namespace(policies):
    found = grants(policies(**EVERYTHING)["web"])
    assert found["cloudwatch:PutMetricData", "*"] == {
        "StringEquals": {"cloudwatch:namespace": "Forum"}
    }
    assert ("sns:Publish", TOPIC) in found


def test_keys_are_used_by_dynamodb_alone(policies):
    """The deployer creates tables with them; the others read."""
    found = policies(ENCRYPTION_KEY="alias/forum")
    for role, document in found.items():
        of_keys = {a: c for (a, _), c in grants(document).items() if a.startswith("kms:")}
        assert ("kms:CreateGrant" in of_keys) == (role == "deployer")
        assert of_keys["kms:Decrypt"]["StringLike"] == {
            "kms:ViaService": "dynamodb.*.amazonaws.com"
        }
        for condition in of_keys.values():
            assert condition["ForAnyValue:StringEquals"] == {"kms:ResourceAliases": "alias/forum"}


def test_tables_in_another_account(policies):
    """The processes assume the role of the alias."""
    role = "arn:aws:iam::210987654321:role/tables"
    assert ("sts:AssumeRole", role) in grants(policies(ROLE_ARN=role)["web"])


def spec(role_actions):
    index = IndexSpec("ByOwner", KeySchema("owner"))
    keys = KeySchema("id")
    return TableSpec("orders", "default", keys, {}, (index,), role_actions=role_actions)


def actions(role, found):
    document = iam.policy(role, [spec(found)], lambda using: PLACE)
    return {
        (action.partition(":")[2], resource.rpartition(":")[2])
        for action, resource in grants(document)
    }


def test_a_model_without_role_actions_has_all_of_them():
    found = actions("worker", None)
    assert ("Scan", "table/orders/index/ByOwner") in found
    assert ("ConditionCheckItem", "table/orders") in found
    assert len(found) == 12


def test_role_actions_are_all_that_a_role_may():
    declared = {"worker": ["GetItem", "Query/ByOwner"]}
    assert actions("worker", declared) == {
        ("GetItem", "table/orders"),
        ("Query", "table/orders/index/ByOwner"),
    }
    assert actions("web", declared) == {("DescribeTable", "table/orders")}


@pytest.mark.parametrize(
    "wrong",
    [
        {"web": ["Get"]},
        {"cron": ["GetItem"]},
        {"web": ["Query/Nope"]},
        {"web": ["PutItem/ByOwner"]},
    ],
)
def test_wrong_role_actions_are_explained(wrong):
    with pytest.raises(ConfigurationError, match="role_actions of the model of orders has"):
        actions("web", wrong)
    with pytest.raises(ConfigurationError, match="There is no role 'cron'; expected web,"):
        iam.policy("cron", [], lambda using: PLACE)
