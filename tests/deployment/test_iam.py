"""The policies: what is in them, and that a linter of policies finds nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from django.core.management import CommandError

from dynamo_stores.deployment import iam
from dynamo_stores.deployment.description import describe
from dynamo_stores.exceptions import ConfigurationError
from dynamo_stores.infrastructure.tables import IndexSpec, KeySchema, TableSpec, wanted_tables
from dynamo_stores.monitoring.sinks import Sink
from tests.helpers.commands import run

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
    "parts": ["auto-scaling", "backups"],
    "METRICS": {
        "NAMESPACE": "Forum",
        "SINKS": [
            "dynamo_stores.monitoring.sinks.cloudwatch.CloudWatchSink",
            "dynamo_stores.monitoring.sinks.xray.XRaySink",
        ],
    },
}


class FirehoseSink(Sink):
    """A sink of a project, which says what it calls."""

    actions = ("firehose:PutRecord",)


@pytest.fixture
def policies(settings):
    """``policies(**changes)``: the policies of the project with these settings, by role."""

    def make(parts=(), **changes):
        base = {**settings.DYNAMO_STORES["default"], "TABLE_PREFIX": "", **changes}
        settings.DYNAMO_STORES = {"default": base}
        found = describe(wanted_tables(), ["default"], with_=parts)
        return {role: iam.policy(role, found, lambda using: PLACE) for role in iam.ROLES}

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
            "application-autoscaling:DescribeScalingPolicies",
            "backup-storage:MountCapsule",
            "backup:ListBackupPlans",
            "backup:ListBackupVaults",
            "cloudwatch:PutMetricData",
            "dynamodb:DescribeLimits",
            "dynamodb:ListStreams",
            "sns:ListTopics",
            "xray:PutTelemetryRecords",
            "xray:PutTraceSegments",
        }
        assert iam.length_of(document) <= iam.MOST_CHARACTERS


def test_by_default_processes_only_use_tables(policies):
    """And change none; the deployer sets alarms and a dashboard, too."""
    for role, document in policies().items():
        actions = {action for action, _ in grants(document)}
        services = {action.partition(":")[0] for action in actions}
        assert services == {"dynamodb", *(["cloudwatch", "sns"] if role == "deployer" else [])}
        assert ("dynamodb:UpdateTable" in actions) == (role == "deployer")


def test_metrics_are_limited_to_their_namespace(policies):
    found = grants(policies(**EVERYTHING)["web"])
    assert found["cloudwatch:PutMetricData", "*"] == {
        "StringEquals": {"cloudwatch:namespace": "Forum"}
    }
    assert ("sns:Publish", TOPIC) in found


def test_sinks_of_a_project_say_what_they_call(policies):
    metrics = {"SINKS": ["tests.deployment.test_iam.FirehoseSink"]}
    found = policies(METRICS=metrics)
    assert [("firehose:PutRecord", "*") in grants(found[role]) for role in iam.ROLES] == [
        True,
        True,
        False,
    ]


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


def test_the_key_that_aws_manages_is_looked_up_by_the_deployer(policies):
    """A comparison asks KMS which one it is; nobody needs it otherwise."""
    for role, document in policies(ENCRYPTION_KEY="aws/dynamodb").items():
        of_keys = {a: c for (a, _), c in grants(document).items() if a.startswith("kms:")}
        assert of_keys == (
            {
                "kms:DescribeKey": {
                    "ForAnyValue:StringEquals": {"kms:ResourceAliases": "alias/aws/dynamodb"}
                }
            }
            if role == "deployer"
            else {}
        )


def test_tables_in_another_account(policies):
    """The processes assume the role of the alias."""
    role = "arn:aws:iam::210987654321:role/tables"
    assert ("sts:AssumeRole", role) in grants(policies(ROLE_ARN=role)["web"])


def spec(role_actions):
    index = IndexSpec("ByOwner", KeySchema("owner"))
    keys = KeySchema("id")
    return TableSpec("orders", "default", keys, {}, (index,), role_actions=role_actions)


def actions(role, found):
    found = describe([spec(found)], [], without=["alarms", "dashboard"])
    document = iam.policy(role, found, lambda using: PLACE)
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


def test_the_command_prints_one_policy_or_all(settings):
    """The account is that of the option; a document of all roles has them by name."""
    settings.DYNAMO_STORES = {"default": {"REGION": "eu-west-1"}}
    everything = json.loads(run("dynamo_infrastructure", format="iam", account="123456789012"))
    assert [*everything] == ["web", "worker", "deployer"]
    one = run("dynamo_infrastructure", format="iam", account="123456789012", role="web")
    assert json.loads(one) == everything["web"]
    assert "arn:aws:dynamodb:eu-west-1:123456789012:table/dynamo-stores" in one


def test_policies_for_an_engine_on_this_machine_say_so(settings, capsys):
    settings.DYNAMO_STORES = {
        "default": {"REGION": "eu-west-1", "ENDPOINT_URL": "http://127.0.0.1:8400"}
    }
    assert "arn:aws:dynamodb:eu-west-1:000000000000:" in run("dynamo_infrastructure", format="iam")
    assert "Note: the policies are for the engine at" in capsys.readouterr().err
    run("dynamo_infrastructure", format="iam", account="123456789012")
    assert "the engine at" not in capsys.readouterr().err


def test_the_command_needs_an_account(settings):
    settings.DYNAMO_STORES = {"default": {"REGION": "eu-west-1"}}
    with pytest.raises(CommandError, match="names the account of its tables"):
        run("dynamo_infrastructure", format="iam")
    with pytest.raises(CommandError, match="'12' is not an id of an account; expected twelve"):
        run("dynamo_infrastructure", "--format=iam", "--account=12")
    with pytest.raises(CommandError, match="--role and --account are for --format iam"):
        run("dynamo_infrastructure", format="cli", role="web")


@pytest.mark.parametrize(
    ("region", "partition"),
    [("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov"), ("eu-west-1", "aws")],
)
def test_partitions(settings, region, partition):
    settings.DYNAMO_STORES = {"default": {"REGION": region}}
    assert iam.place_in("123456789012")("default").partition == partition


def test_replicas_are_filled_for_the_deployer(settings):
    """In the other region; and DynamoDB's own role may be created."""
    settings.DYNAMO_STORES = {
        "default": {
            "REGION": "eu-west-1", "FAILOVER": "other", "TAGS": {"stage": "test"},
            "ENCRYPTION_KEY": "alias/forum",
        },
        "other": {"REGION": "eu-central-1"},
    }  # fmt: skip
    found = describe(wanted_tables(), ["default"])
    documents = {role: iam.policy(role, found, iam.place_in("1" * 12)) for role in iam.ROLES}
    replica = f"arn:aws:dynamodb:eu-central-1:{'1' * 12}:table/dynamo-stores"
    assert ("dynamodb:CreateTableReplica", replica) in grants(documents["deployer"])
    # --diff compares its options, those for which the settings have a value.
    assert ("dynamodb:DescribeTable", replica) in grants(documents["deployer"])
    assert ("dynamodb:ListTagsOfResource", replica) in grants(documents["deployer"])
    assert ("dynamodb:DescribeContinuousBackups", replica) not in grants(documents["deployer"])
    keys = f"arn:aws:kms:eu-central-1:{'1' * 12}:key/*"
    assert ("kms:DescribeKey", keys) in grants(documents["deployer"])
    assert ("kms:DescribeKey", keys) not in grants(documents["web"])
    assert ("dynamodb:CreateTableReplica", replica) not in grants(documents["web"])
    assert ("dynamodb:GetItem", replica) in grants(documents["web"])


@pytest.mark.parametrize("scaling", [{"ENABLED": True}, {"SCHEDULE": "learnt"}])
def test_settings_of_a_single_table_are_followed(policies, settings, scaling):
    """The quota is read to scale it, and the minimum of auto scaling is raised."""
    one = {"BILLING_MODE": "PROVISIONED", "SCALING": {**scaling, "AUTO_SCALING": "raise_minimum"}}
    name = settings.DYNAMO_STORES["default"].get("TABLE_NAME", "dynamo-stores")
    for role in (iam.WEB, iam.WORKER):
        allowed = {action for action, _ in grants(policies(TABLES={name: one})[role])}
        assert "dynamodb:DescribeLimits" in allowed
        assert "application-autoscaling:RegisterScalableTarget" in allowed


def test_another_alias_that_is_asked_is_named(settings, capsys):
    """Without its tables in the policy, a failover is refused."""
    default = settings.DYNAMO_STORES["default"]
    west = {**default, "REGION": "us-west-2"}
    settings.DYNAMO_STORES = {"default": {**default, "FAILOVER": "west"}, "west": west}
    arguments = ("dynamo_infrastructure", "--format=iam", "--account=123456789012")
    run(*arguments, "--using=default")
    assert "the tables of 'west', FAILOVER of 'default'" in capsys.readouterr().err
    run(*arguments, "--using=default", "--using=west")
    assert "FAILOVER" not in capsys.readouterr().err
