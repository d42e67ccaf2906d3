"""--diff and --apply, on local engines: tables, alarms, dashboard, scaling targets, backups."""

from __future__ import annotations

import io
import json
import re

import pytest
from django.core.management import CommandError, call_command

from dynamo_stores.calls.control import get_control
from dynamo_stores.infrastructure.tables import wanted_tables
from dynamo_stores.testing import EmbeddedEngine, FaultProxy
from tests.deployment.conftest import CLOUDWATCH, infrastructure
from tests.helpers.replicating import ReplicatingTables


def diff(**options):
    """Return what --diff names, [] if nothing differs."""
    try:
        printed = infrastructure("--diff", **options).out
    except CommandError as exc:
        failure = exc
    else:
        assert printed.endswith("Nothing differs.\n")
        return []
    assert failure.returncode == 1
    return [line.strip() for line in str(failure).splitlines()[1:]]


def apply(**options):
    return infrastructure("--apply", interactive=False, **options).out


@pytest.mark.parametrize("engine", ["ministack", "moto"])
def test_apply_makes_all_that_diff_names_and_may_be_repeated(project, engine, request, client):
    """Tables with all options, alarms, topic with mail, and the dashboard."""
    url = request.getfixturevalue(engine)
    name = project(
        ENDPOINT_URL=url, STREAM="NEW_IMAGE", POINT_IN_TIME_RECOVERY=True,
        METRICS={"SINKS": [CLOUDWATCH], "NAMESPACE": "Shop"},
    )  # fmt: skip
    mail = {"parameter": ["AlarmEmail=ops@example.com"]}
    before = diff(**mail)
    assert f"{name}: does not exist" in before
    assert f"not done: create the topic {name}-alarms" in before
    assert f"not done: create the alarm {name}-read-throttles-GSI1" in before
    assert f"not done: create the dashboard {name}" in before
    printed = apply(**mail)
    plan, done = printed.split("1 of ", 1)
    assert f"  create the table {name}\n" in plan
    assert f"create the alarm {name}-breaker-open" in done
    assert printed.endswith("All is set.\n")
    assert diff(**mail) == []
    again = apply(**mail)
    assert again.endswith("Nothing differs.\n")
    assert "1 of" not in again
    cloudwatch = client("cloudwatch", url)
    (alarm,) = cloudwatch.describe_alarms(AlarmNames=[f"{name}-breaker-open"])["MetricAlarms"]
    assert (alarm["Namespace"], alarm["MetricName"]) == ("Shop", "breaker_open")
    assert alarm["Dimensions"] == [
        {"Name": "using", "Value": "default"}, {"Name": "table", "Value": name}
    ]  # fmt: skip
    (topic,) = alarm["AlarmActions"]
    assert topic.endswith(f":{name}-alarms")
    (mailed,) = client("sns", url).list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    assert mailed["Endpoint"] == "ops@example.com"


def test_what_others_changed_is_named_and_set_again(project, ministack, client):
    """A threshold, a widget, an index, and a table that lost its deletion protection."""
    name = project(ENDPOINT_URL=ministack, DELETION_PROTECTION=True)
    apply()
    cloudwatch = client("cloudwatch", ministack)
    alarm = f"{name}-read-throttles"
    (found,) = cloudwatch.describe_alarms(AlarmNames=[alarm])["MetricAlarms"]
    kept = (
        "AlarmName", "AlarmActions", "OKActions", "MetricName", "Namespace", "Statistic", "Period",
        "EvaluationPeriods", "DatapointsToAlarm", "ComparisonOperator", "Dimensions",
        "AlarmDescription", "TreatMissingData",
    )  # fmt: skip
    cloudwatch.put_metric_alarm(**{each: found[each] for each in kept}, Threshold=99.0)
    silent = f"{name}-write-throttles"
    cloudwatch.disable_alarm_actions(AlarmNames=[silent])
    body = json.loads(cloudwatch.get_dashboard(DashboardName=name)["DashboardBody"])
    body["widgets"].pop()
    cloudwatch.put_dashboard(DashboardName=name, DashboardBody=json.dumps(body))
    update = {"TableName": name, "DeletionProtectionEnabled": False}
    get_control("default").call("UpdateTable", update)
    assert diff() == [
        f"{name}: its deletion protection is off, expected on",
        f"not done: change the alarm {alarm}: Threshold",
        f"not done: change the alarm {silent}: ActionsEnabled",
        f"not done: change the dashboard {name}",
    ]
    assert f"change the table {name}: switch deletion protection on" in apply()
    assert diff() == []
    assert diff(parameter=["ThrottleEvents=11"])
    assert diff(without=["alarms", "dashboard"]) == []


def test_what_a_table_cannot_become_stops_nothing_else(project, settings, ministack):
    """A stream is not removed without permission; the exit status says that it is there."""
    url = {"ENDPOINT_URL": ministack}
    name = project(**url, STREAM="NEW_IMAGE", DELETION_PROTECTION=False)
    options = {"table": [name], "without": ["dashboard"]}
    apply(table=[name], without=["alarms", "dashboard"])
    default = settings.DYNAMO_STORES["default"]
    changed = {**default, "STREAM": "OFF", "DELETION_PROTECTION": True}
    settings.DYNAMO_STORES = {"default": changed}
    with pytest.raises(CommandError, match="its stream is NEW_IMAGE, expected OFF") as failed:
        apply(**options)
    assert "deletion protection" not in str(failed.value)
    assert diff(**options) == [f"{name}: its stream is NEW_IMAGE, expected OFF"]
    with pytest.raises(CommandError, match="its stream is NEW_IMAGE, expected OFF"):
        apply(**options)


def test_scaling_targets_are_set_and_compared(project, moto, client):
    """Of a table and its index; a minimum that the library raised is no difference."""
    both = {"ENABLED": True, "AUTO_SCALING": "raise_minimum", "AUTO_SCALING_ENDPOINT_URL": moto}
    name = project(
        ENDPOINT_URL=moto, BILLING_MODE="PROVISIONED", TABLES={"dynamo-stores": {"SCALING": both}}
    )
    options = {"with_": ["auto-scaling"], "without": ["alarms", "dashboard"]}
    table = [name, f"{name.removesuffix('dynamo-stores')}forum-posts"]
    apply(table=table, **options)
    assert diff(table=table, **options) == []
    scaling = client("application-autoscaling", moto)
    keys = {"ServiceNamespace": "dynamodb", "ScalableDimension": "dynamodb:table:ReadCapacityUnits"}
    for each in table:
        scaling.register_scalable_target(ResourceId=f"table/{each}", MinCapacity=50, **keys)
    (different,) = diff(table=table, **options)
    assert different == (
        f"not done: scale the read units of table/{table[1]} between 5 and 100 by Application "
        "Auto Scaling"
    )
    apply(table=table, **options)
    found = scaling.describe_scalable_targets(
        ServiceNamespace="dynamodb", ResourceIds=[f"table/{name}/index/GSI1"]
    )["ScalableTargets"]
    assert {(each["MinCapacity"], each["MaxCapacity"]) for each in found} == {(5, 100), (5, 50)}
    policies = scaling.describe_scaling_policies(
        ServiceNamespace="dynamodb", ResourceId=f"table/{table[1]}"
    )["ScalingPolicies"]
    tracking = [each["TargetTrackingScalingPolicyConfiguration"] for each in policies]
    assert {each["TargetValue"] for each in tracking} == {70.0}


def test_scaling_that_is_suspended_or_never_lowers_differs(project, moto, client):
    """Raised capacity would stay, or none would be raised."""
    name = project(ENDPOINT_URL=moto, BILLING_MODE="PROVISIONED")
    options = {"with_": ["auto-scaling"], "without": ["alarms", "dashboard"], "table": [name]}
    apply(**options)
    key = {
        "ServiceNamespace": "dynamodb", "ResourceId": f"table/{name}",
        "ScalableDimension": "dynamodb:table:ReadCapacityUnits",
    }  # fmt: skip
    scaling = client("application-autoscaling", moto)
    scaling.register_scalable_target(**key, SuspendedState={"DynamicScalingInSuspended": True})
    (policy,) = [
        each
        for each in scaling.describe_scaling_policies(
            ServiceNamespace="dynamodb", ResourceId=f"table/{name}"
        )["ScalingPolicies"]
        if each["ScalableDimension"] == key["ScalableDimension"]
    ]
    tracking = {**policy["TargetTrackingScalingPolicyConfiguration"], "DisableScaleIn": True}
    scaling.put_scaling_policy(
        **key, PolicyName=policy["PolicyName"], PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration=tracking,
    )  # fmt: skip
    assert [each.partition(" by ")[0] for each in diff(**options)] == [
        f"not done: scale the read units of table/{name} between 5 and 100",
        f"not done: aim at 70 % of the read units of table/{name}",
    ]
    apply(**options)
    assert diff(**options) == []


def test_a_role_that_lacks_a_policy_gets_it(project, ministack, client):
    """As after an --apply that failed between the role and its policies."""
    name = project(ENDPOINT_URL=ministack)
    options = {"with_": ["backups"], "without": ["alarms", "dashboard"]}
    apply(**options)
    iam, role = client("iam", ministack), f"{name}-backups"
    policy = "service-role/AWSBackupServiceRolePolicyForRestores"
    iam.detach_role_policy(RoleName=role, PolicyArn=f"arn:aws:iam::aws:policy/{policy}")
    assert diff(**options) == [f"not done: attach {policy} to the role {role}"]
    apply(**options)
    assert diff(**options) == []
    assert len(iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]) == 2


@pytest.mark.parametrize("effect", ["Allow", "Deny"])
def test_a_role_that_aws_backup_may_not_assume_differs(project, ministack, client, effect):
    """A trust policy with conditions of the account's owner stays."""
    name = project(ENDPOINT_URL=ministack)
    options = {"with_": ["backups"], "without": ["alarms", "dashboard"]}
    apply(**options)
    iam, role = client("iam", ministack), f"{name}-backups"
    statement = {
        "Effect": effect, "Principal": {"Service": ["backup.amazonaws.com"]},
        "Action": ["sts:AssumeRole"], "Condition": {"StringEquals": {"aws:SourceAccount": "1"}},
    }  # fmt: skip
    policy = {"Version": "2012-10-17", "Statement": statement}
    iam.update_assume_role_policy(RoleName=role, PolicyDocument=json.dumps(policy))
    found = diff(**options)
    assert found == (
        [] if effect == "Allow" else [f"not done: let AWS Backup alone assume the role {role}"]
    )
    apply(**options)
    assert diff(**options) == []
    policy = iam.get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"]
    assert ("Condition" in policy["Statement"]) == (effect == "Allow")


def test_a_backup_plan_is_set_and_compared(project, ministack, client):
    """With its vault, role and selection; another schedule, and a copy, are changes."""
    name = project(ENDPOINT_URL=ministack)
    options = {"with_": ["backups"], "without": ["alarms", "dashboard"]}
    apply(**options)
    assert diff(**options) == []
    values = ["BackupRetentionDays=7", "BackupCopyRegion=eu-west-3"]
    assert diff(parameter=values, **options) == [f"not done: change the backup plan {name}-backups"]
    apply(parameter=values, **options)
    assert diff(parameter=values, **options) == []
    backup = client("backup", ministack)
    (plan,) = [
        each
        for each in backup.list_backup_plans()["BackupPlansList"]
        if each["BackupPlanName"] == f"{name}-backups"
    ]
    (rule,) = backup.get_backup_plan(BackupPlanId=plan["BackupPlanId"])["BackupPlan"]["Rules"]
    assert rule["Lifecycle"] == {"DeleteAfterDays": 7}
    (copy,) = rule["CopyActions"]
    assert re.fullmatch(
        r"arn:aws:backup:eu-west-3:\d+:backup-vault:Default", copy["DestinationBackupVaultArn"]
    )
    (selection,) = backup.list_backup_selections(BackupPlanId=plan["BackupPlanId"])[
        "BackupSelectionsList"
    ]
    found = backup.get_backup_selection(
        BackupPlanId=plan["BackupPlanId"], SelectionId=selection["SelectionId"]
    )["BackupSelection"]["Resources"]
    wanted = {spec.name for spec in wanted_tables()} - {f"{name}-control"}
    assert {each.rpartition("/")[2] for each in found} == wanted


def test_a_failure_leaves_what_was_done_and_names_the_rest(project, ministack):
    """A table without TTL; the next run does the rest."""
    with FaultProxy(ministack) as relay:
        name = project(ENDPOINT_URL=relay.url)
        options = {"table": [name, f"{name}-control"], "endpoint_url": ministack}
        relay.fail("UpdateTimeToLive")
        with pytest.raises(CommandError) as failed:
            apply(**options)
        first, cause, *rest = str(failed.value).splitlines()
        assert first.startswith(f"Could not create the table {name}: ")
        assert "UpdateTimeToLive" in cause
        assert rest[:4] == [
            "What was done stays; run the command again to continue.",
            "Not done:",
            f"  create the table {name}-control",
            f"  create the topic {name}-alarms",
        ]
        relay.clear()
        printed = apply(**options)
        assert f"change the table {name}: enable TTL for the attribute TTL" in printed
        assert printed.endswith("All is set.\n")


def test_nothing_is_done_without_an_answer(project, ministack, monkeypatch):
    """The plan is printed, and the answer is no."""
    name = project(ENDPOINT_URL=ministack)
    monkeypatch.setattr("builtins.input", lambda question: "n")
    with pytest.raises(CommandError, match="Cancelled; nothing was changed"):
        infrastructure("--apply", table=[name])
    assert get_control("default").describe(name) is None


def test_replicas_are_added_where_failover_wants_them(project, ministack):
    """By dynamo_replicas' own way, after the tables; --diff names a missing one."""
    with ReplicatingTables(ministack, 0.0) as relay:
        west = {"ENDPOINT_URL": ministack, "REGION": "us-west-2"}
        name = project(
            {"west": west}, ENDPOINT_URL=relay.url, STREAM="NEW_AND_OLD_IMAGES", FAILOVER="west"
        )
        options = {"using": ["default"], "table": [name], "without": ["alarms", "dashboard"]}
        assert f"not done: add a replica of {name} in us-west-2" in diff(**options)
        apply(**options)
        assert relay.changes == [("Create", "us-west-2")]
        assert diff(**options) == []


def test_options_of_replicas_are_compared(project, ministack):
    """With those of their alias, or else of the first one; a replica may be out of reach."""
    with ReplicatingTables(ministack, 0.0) as relay, FaultProxy(ministack) as there:
        west = {"ENDPOINT_URL": there.url, "REGION": "us-west-2", "TAGS": {"stage": "west"}}
        name = project(
            {"west": west}, ENDPOINT_URL=relay.url, STREAM="NEW_AND_OLD_IMAGES", FAILOVER="west",
            POINT_IN_TIME_RECOVERY=True, TAGS={"stage": "east"},
        )  # fmt: skip
        options = {"using": ["default"], "table": [name], "without": ["alarms", "dashboard"]}
        apply(**options)
        call_command("dynamo_create_tables", using=["west"], table=[name], stdout=io.StringIO())
        where = f"{name} in us-west-2"
        assert diff(**options) == [
            f"{where}: its point-in-time recovery is off, expected on",
            f"{where}: its stream is OFF, expected NEW_AND_OLD_IMAGES",
        ]
        stream = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
        recovery = {"PointInTimeRecoveryEnabled": True}
        west = get_control("west")
        west.call("UpdateTable", {"TableName": name, "StreamSpecification": stream})
        west.call(
            "UpdateContinuousBackups",
            {"TableName": name, "PointInTimeRecoverySpecification": recovery},
        )
        assert diff(**options) == []
        there.fail("DescribeTable", status=400, code="AccessDeniedException")
        (line,) = diff(**options)
        assert line.startswith(f"{where} could not be compared: ")


@pytest.mark.parametrize("what", ["--diff", "--apply"])
def test_an_endpoint_that_is_no_url_is_refused(project, what):
    """Before any request."""
    project()
    with pytest.raises(CommandError, match="--endpoint-url is engine:1; expected a URL such as"):
        infrastructure(what, endpoint_url="engine:1")


def test_parts_of_documents_alone_are_refused(project):
    project()
    with pytest.raises(CommandError, match="--with vpc-endpoint is for --format"):
        infrastructure("--diff", with_=["vpc-endpoint"])


@pytest.mark.parametrize("without", [["alarms"], ["dashboard"]])
def test_a_local_engine_gets_all_requests(project, ministack, without):
    """One without CloudWatch and SNS is named, and nothing goes to AWS instead."""
    name = project(ENDPOINT_URL=ministack)
    apply(table=[name], without=["alarms", "dashboard"])
    with EmbeddedEngine() as engine:
        (line,) = diff(table=[name], without=without, endpoint_url=engine.url)
    assert line.startswith(f"could not be compared: The engine at {engine.url} does not answer")
    assert "--endpoint-url" in line
