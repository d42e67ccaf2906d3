"""The template of CloudFormation: by cfn-lint, by stacks in local engines, and against settings."""

from __future__ import annotations

import dataclasses
import json

import pytest
from cfnlint.api import lint
from cfnlint.config import ManualArgs
from django.core.management import CommandError, call_command

from dynamo_stores.calls.control import get_control
from dynamo_stores.conf import get_config
from dynamo_stores.deployment.alarms import alarms_of_table
from dynamo_stores.deployment.names import begin_of_alarms, logical_ids
from dynamo_stores.infrastructure.tables import differences, read_table, wanted_tables
from dynamo_stores.monitoring.metrics import FAMILIES
from dynamo_stores.monitoring.sinks.series import DIMENSIONS
from tests.deployment.conftest import CLOUDWATCH, EVERYTHING, KEY, infrastructure

ALL = ["auto-scaling", "backups", "vpc-endpoint", "cloudtrail"]


def template(*arguments, **options):
    return json.loads(infrastructure("--format", "cloudformation", *arguments, **options).out)


def resources(found, kind):
    return [
        each["Properties"] for each in found["Resources"].values() if each["Type"] == f"AWS::{kind}"
    ]


def findings(found, region="eu-west-1"):
    return [
        f"{each.rule.id} {each.message}"
        for each in lint(
            json.dumps(found), config=ManualArgs(regions=[region], include_checks=["I"])
        )
        # Names are those of the settings, and retained resources are wanted.
        if each.rule.id not in ("I3042",)
    ]


def stack_of(cloudformation, found, name):
    """Create a stack, and return its outputs."""
    cloudformation.create_stack(
        StackName=name, TemplateBody=json.dumps(found), Capabilities=["CAPABILITY_IAM"]
    )
    cloudformation.get_waiter("stack_create_complete").wait(
        StackName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    (stack,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
    return {each["OutputKey"]: each["OutputValue"] for each in stack.get("Outputs", ())}


def unapplied(using, name):
    """Return the differences of a stack's table but those that no local engine applies."""
    (spec,) = [each for each in wanted_tables() if each.name == name and each.using == using]
    found = differences(spec, read_table(spec))
    return [each for each in found if "TTL" not in each and "point-in-time" not in each]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"with_": ALL, "without": ["alarms"]}], ids=["usual", "all"]
)
def test_cfn_lint_finds_nothing_in_the_project(project, options):
    project()
    found = template(**options)
    assert not findings(found)
    assert all("Default" in each for each in found["Parameters"].values())


@pytest.mark.slow
def test_cfn_lint_finds_nothing_with_everything_on(project, orders):
    """Provisioned, with streams, keys, tags, local and global indexes, and every part."""
    project(**EVERYTHING)
    assert not findings(template(with_=ALL))


def test_cfn_lint_finds_nothing_with_less(project, orders):
    """Of one table, and without alarms and dashboard."""
    name = project(**EVERYTHING)
    table = [f"{name.removesuffix('dynamo-stores')}orders"]
    assert not findings(template(table=table, with_=ALL))
    assert not findings(template(table=table, without=["alarms", "dashboard"]))


@pytest.mark.parametrize("changes", [{}, {"BILLING_MODE": "PAY_PER_REQUEST"}], ids=["units", "not"])
def test_cfn_lint_finds_nothing_in_global_tables(project, orders, changes):
    """With and without reads that are scaled; and in the other region."""
    others = {"west": {**EVERYTHING, "REGION": "us-west-2", "ENCRYPTION_KEY": None}}
    project(others, **{**EVERYTHING, **changes, "FAILOVER": "west"})
    less = {"without": ["alarms", "dashboard"]}
    for parts in ([], ALL):
        assert not findings(template(using=["default"], with_=parts, **less))
    assert not findings(template(using=["west"], with_=ALL, **less), "us-west-2")


def test_tables_of_a_stack_match_their_models(project, ministack, client, orders):
    """But for TTL and point-in-time recovery, which are compared in the template."""
    using = "default"
    units = {"BASE_READ_CAPACITY": 7, "BASE_WRITE_CAPACITY": 3}
    project(
        ENDPOINT_URL=ministack, BILLING_MODE="PROVISIONED", SCALING=units,
        STREAM="NEW_IMAGE", DELETION_PROTECTION=True, POINT_IN_TIME_RECOVERY=True,
    )  # fmt: skip
    found = template()
    outputs = stack_of(client("cloudformation", ministack), found, "models")
    specs = wanted_tables()
    assert len(specs) == 7
    by_name = {each["TableName"]: each for each in resources(found, "DynamoDB::Table")}
    for spec in specs:
        assert unapplied(using, spec.name) == []
        of = by_name[spec.name]
        ttl = of.get("TimeToLiveSpecification")
        assert ttl == (spec.ttl and {"AttributeName": spec.ttl, "Enabled": True})
        assert of["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    for spec in specs:
        call_command("dynamo_update_tables", table=[spec.name], interactive=False, stdout=Silent())
    call_command("dynamo_verify", stdout=Silent())
    assert sum(name.endswith("TableStreamArn") for name in outputs) == 7
    # Alarms and dashboard are those that the command would set.
    assert "Nothing differs" in infrastructure("--diff").out
    topics = [each["TopicArn"] for each in client("sns", ministack).list_topics()["Topics"]]
    assert outputs["AlarmTopicArn"] in topics


# moto has no alarms or backups in stacks, and says so.
@pytest.mark.filterwarnings("ignore:Tried to parse")
def test_options_that_only_moto_applies_match_too(project, moto, client):
    """Tags. A key of KMS is one more that no local engine applies from a stack."""
    name = project(
        ENDPOINT_URL=moto, TAGS={"team": "a"}, ENCRYPTION_KEY=KEY, STREAM="KEYS_ONLY",
        METRICS={"SINKS": [CLOUDWATCH]},
    )  # fmt: skip
    found = template(with_=["backups", "cloudtrail", "vpc-endpoint"])
    stack_of(client("cloudformation", moto), found, "options")
    assert [each.partition(" is ")[0] for each in unapplied("default", name)] == [
        "its encryption key"
    ]
    for each in resources(found, "DynamoDB::Table"):
        encryption = {"SSEEnabled": True, "SSEType": "KMS", "KMSMasterKeyId": KEY}
        assert each["SSESpecification"] == encryption


def test_global_tables_are_accepted(project, ministack, client):
    """One resource for both regions, and the control tables apart."""
    url = {"ENDPOINT_URL": ministack}
    name = project({"west": {**url, "REGION": "us-west-2"}}, **url, FAILOVER="west")
    found = template(using=["default"])
    (table,) = [
        each for each in resources(found, "DynamoDB::GlobalTable") if each["TableName"] == name
    ]
    regions = [each["Region"] for each in table["Replicas"]]
    assert regions == [{"Ref": "AWS::Region"}, "us-west-2"]
    (control,) = resources(found, "DynamoDB::Table")
    assert control["TableName"] == f"{name}-control"
    (west,) = resources(template(using=["west"]), "DynamoDB::Table")
    assert west["TableName"] == f"{name}-control"
    stack_of(client("cloudformation", ministack), found, "global")
    assert unapplied("default", name) == []
    assert get_control("default").describe(name)["StreamSpecification"]["StreamEnabled"]
    apart = template(using=["west"], without=["replicas"])
    assert name in [each["TableName"] for each in resources(apart, "DynamoDB::Table")]


def test_aliases_of_two_regions_are_two_documents(project):
    name = project({"west": {"REGION": "us-west-2"}})
    assert template(table=[f"{name.removesuffix('dynamo-stores')}forum-posts"])["Resources"]
    with pytest.raises(CommandError, match=r"are of several regions.*by --using"):
        infrastructure("--format", "cloudformation")


@pytest.mark.parametrize(
    ("west", "default", "words"),
    [
        ({"REGION": None}, {}, "'west' is FAILOVER of 'default' and has no REGION"),
        ({}, {"STREAM": "KEYS_ONLY"}, "replication needs one of NEW_AND_OLD_IMAGES"),
        ({}, {"ENCRYPTION_KEY": KEY.replace("mrk-", "")}, "one of a single region"),
        ({"ENCRYPTION_KEY": "aws/dynamodb"}, {}, "Set a key of KMS for both"),
    ],
)
def test_what_cannot_be_replicated_is_an_error(project, west, default, words):
    project({"west": {"REGION": "us-west-2", **west}}, **default, FAILOVER="west")
    with pytest.raises(CommandError, match=words):
        infrastructure("--format", "cloudformation", using=["default"])


def test_keys_of_replicas_are_those_of_their_region(project):
    name = project({"west": {"REGION": "us-west-2"}}, ENCRYPTION_KEY=KEY, FAILOVER="west")
    found = resources(template(using=["default"]), "DynamoDB::GlobalTable")
    (table,) = [each for each in found if each["TableName"] == name]
    keys = [each["SSESpecification"]["KMSMasterKeyId"] for each in table["Replicas"]]
    assert keys == [KEY, KEY.replace("eu-west-1", "us-west-2")]


# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/metrics-dimensions.html
BY_TABLE = [["TableName"], ["TableName", "GlobalSecondaryIndexName"]]
METRICS = {
    "ReadThrottleEvents": BY_TABLE,
    "WriteThrottleEvents": BY_TABLE,
    "SystemErrors": [["TableName", "Operation"]],
    "SuccessfulRequestLatency": [["TableName", "Operation"]],
    "AccountProvisionedReadCapacityUtilization": [[]],
    "AccountProvisionedWriteCapacityUtilization": [[]],
    "MaxProvisionedTableReadCapacityUtilization": [[]],
    "MaxProvisionedTableWriteCapacityUtilization": [[]],
}


def test_each_alarm_is_on_a_metric_that_exists(project, orders):
    """By DynamoDB's documentation, and by what the sinks publish; none is on UserErrors."""
    project(**EVERYTHING)
    alarms = resources(template(), "CloudWatch::Alarm")
    for alarm in alarms:
        names = [each["Name"] for each in alarm.get("Dimensions", ())]
        if alarm["Namespace"] == "AWS/DynamoDB":
            assert names in METRICS[alarm["MetricName"]], alarm
        else:
            assert alarm["Namespace"] == "Shop"
            assert names[1:] in DIMENSIONS[alarm["MetricName"]]
            assert names[0] == "using"
        assert "Metrics" not in alarm
    found = {each["MetricName"] for each in alarms}
    assert found == {*METRICS, "breaker_open", "scale_down_checks", "stuck_scale_downs"}
    text = json.dumps(alarms)
    assert "UserErrors" not in text
    assert "ThrottledRequests" not in text
    assert FAMILIES["breaker_open"].labels == ("table",)


def test_throttles_have_an_alarm_for_each_table_index_and_direction(project, orders):
    project()
    found = {
        tuple(each["Value"] for each in alarm["Dimensions"]): alarm["Threshold"]
        for alarm in resources(template(), "CloudWatch::Alarm")
        if alarm["MetricName"] == "WriteThrottleEvents"
    }
    wanted = {
        (spec.name, *index)
        for spec in wanted_tables()
        for index in [(), *((each.name,) for each in spec.indexes if each.is_global)]
    }
    assert set(found) == wanted
    assert len(wanted) == 7 + 6
    assert set(map(str, found.values())) == {"{'Ref': 'ThrottleEvents'}"}


def test_own_dimensions_of_a_sink_are_those_of_the_alarms(project):
    """A metric that the sink is told to leave out has no alarm."""
    options = {CLOUDWATCH: {"DIMENSIONS": {"breaker_open": []}}}
    project(METRICS={"SINKS": [CLOUDWATCH], "OPTIONS": options})
    found = {each["MetricName"] for each in resources(template(), "CloudWatch::Alarm")}
    assert "breaker_open" not in found
    assert "stuck_scale_downs" in found
    assert "scale_down_checks" not in found  # on demand: nothing checks


def test_a_project_without_a_sink_is_told_so(project):
    project()
    printed = infrastructure("--format", "cloudformation")
    assert "publishes to CloudWatch" in printed.err
    json.loads(printed.out)


def test_what_it_costs_is_said_before_it_exists(project):
    """Not with policies, nor with a comparison."""
    name = project()
    printed = infrastructure("--format", "cloudformation", with_=["backups", "cloudtrail"])
    count = len(resources(json.loads(printed.out), "CloudWatch::Alarm"))
    assert f"{count} alarms cost about {count / 10:.2f} USD a month" in printed.err
    assert "and costs about 3 USD a month" in printed.err
    assert "is kept for 35 days, and costs about 0.10 USD a month for each GB" in printed.err
    assert "about 1 USD for a million reads and writes of items" in printed.err
    small = infrastructure(
        "--format", "cloudformation", table=[f"{name}-control"], without=["alarms"]
    )
    assert "USD" not in small.err
    assert infrastructure("--format", "iam", account="123456789012").err == ""


def test_the_region_of_the_settings_is_named(project):
    project(REGION="eu-west-1")
    assert (
        " in eu-west-1, "
        in json.loads(infrastructure("--format", "cloudformation").out)["Description"]
    )
    project(REGION=None)
    assert " in " not in json.loads(infrastructure("--format", "cloudformation").out)["Description"]


def test_auto_scaling_stands_aside_for_the_library(project, orders):
    """Left out where SCALING is on, unless both work together; on demand there is none."""
    name = project(
        BILLING_MODE="PROVISIONED",
        TABLES={
            "orders": {"SCALING": {"ENABLED": True}},
            "forum-users": {"SCALING": {"ENABLED": True, "AUTO_SCALING": "raise_minimum"}},
            "forum-posts": {"BILLING_MODE": "PAY_PER_REQUEST"},
        },
    )
    printed = infrastructure("--format", "cloudformation", with_=["auto-scaling"])
    found = resources(json.loads(printed.out), "ApplicationAutoScaling::ScalableTarget")
    tables = {each["ResourceId"].split("/")[1] for each in found}
    prefix = name.removesuffix("dynamo-stores")
    assert tables == {name, *(f"{prefix}forum-{each}" for each in ("users", "threads", "support"))}
    assert f"{prefix}orders: no Application Auto Scaling" in printed.err
    of_store = [each for each in found if f"table/{name}/index/" in each["ResourceId"]]
    assert [(each["MinCapacity"], each["MaxCapacity"]) for each in of_store] == [(5, 100), (5, 50)]


def test_parameters_are_checked_and_become_defaults(project):
    project()
    values = ["ThrottleEvents=3", "AlarmEmail=ops@example.com"]
    found = template(parameter=values)["Parameters"]
    assert found["ThrottleEvents"]["Default"] == 3
    assert found["AlarmEmail"]["Default"] == "ops@example.com"
    for value, words in (
        ("ThrottleEvents=0", "expected a whole number from 1"),
        ("ThrottleEvent=1", "did you mean 'ThrottleEvents'"),
        ("AlarmEmail=nobody", "expected an address"),
        ("VpcId=vpc-1", "belongs to 'vpc-endpoint', which is left out"),
        ("VpcId", "expected NAME=VALUE"),
    ):
        with pytest.raises(CommandError, match=words):
            infrastructure("--format", "cloudformation", parameter=[value])


def test_nothing_is_asked_for_a_document(project):
    """The endpoint does not answer."""
    project(ENDPOINT_URL="http://127.0.0.1:9")
    for name in ("cloudformation", "terraform", "cli", "dashboard"):
        assert infrastructure("--format", name).out


def test_one_table_has_its_own_names(project):
    """Documents of two tables do not overwrite each other's dashboard or topic."""
    project()
    prefix = get_config("default").table_prefix
    found = template(table=[f"{prefix}forum-posts"])
    (table,) = resources(found, "DynamoDB::Table")
    (dashboard,) = resources(found, "CloudWatch::Dashboard")
    assert table["TableName"] == dashboard["DashboardName"] == f"{prefix}forum-posts"
    (topic,) = resources(found, "SNS::Topic")
    assert topic["TopicName"] == f"{prefix}forum-posts-alarms"
    names = [each["AlarmName"] for each in resources(found, "CloudWatch::Alarm")]
    assert all(each.startswith(f"{prefix}forum-posts-") for each in names)


class Silent:
    def write(self, *args):
        pass

    def flush(self):
        pass


def test_alarms_of_an_index_and_of_a_table_of_the_same_words(project):
    """An index GSI1 of a table, and a table that is named as both together."""
    name = project()
    specs = [each for each in wanted_tables() if each.name == name]
    specs.append(dataclasses.replace(specs[0], name=f"{name}-GSI1"))
    names = [alarm.name for spec in specs for alarm in alarms_of_table(spec)]
    assert len(names) == len({*names})


def test_names_of_255_characters(project):
    """As long as a table's may be: ids have 255 characters at most, and policies match."""
    project()
    long = "a" * 255
    (name, other) = logical_ids([long, "b" * 255]).values()
    assert name != other
    assert len(f"{name}TableStreamArn") <= 255
    spec = dataclasses.replace(wanted_tables()[0], name=long)
    for alarm in alarms_of_table(spec):
        assert len(alarm.name) == 255
        assert alarm.name.startswith(begin_of_alarms(long))
    assert begin_of_alarms("orders") == "orders-"
