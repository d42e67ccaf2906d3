"""The script of AWS commands: run with a stand-in for ``aws``, and with ``aws`` where it is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest
from botocore.validate import ParamValidator
from django.core.management import call_command

from dynamo_stores.infrastructure.tables import differences, read_table, wanted_tables
from tests.deployment.conftest import CLOUDWATCH, EVERYTHING, infrastructure
from tests.deployment.test_cloudformation import Silent

# A function in place of the command: keeps its words, and answers as for something new.
_AWS = r"""
aws() {
  for word; do
    if [ "$word" = file:///dev/stdin ]; then word=$(cat); fi
    printf '%s\036' "$word"
  done >> "$CALLS"
  printf '\035' >> "$CALLS"
  [ "$2" != "$FAILING" ] || return 254
  if [ "$2" = "$LACKING" ]; then echo None; return; fi
  case "$EXISTING$2 $*" in
    describe-table*Table.TableArn*) echo "arn:aws:dynamodb:eu-west-1:123456789012:table/$4" ;;
    describe-table*|describe-backup-vault*|head-bucket*|get-trail*) return 255 ;;
    get-role*--query*) echo arn:aws:iam::123456789012:role/backups ;;
    get-role*) return 255 ;;
    get-caller-identity*Account) echo 123456789012 ;;
    get-caller-identity*) echo arn:aws:iam::123456789012:user/a ;;
    create-topic*) echo arn:aws:sns:eu-west-1:123456789012:alarms ;;
    list-backup-plans*|list-backup-selections*) echo None ;;
    create-backup-plan*) echo plan-1 ;;
    get*) echo eu-west-1 ;;
    describe-time-to-live*) echo DISABLED ;;
    +describe-time-to-live*) echo ENABLED ;;
    +describe-table*RegionNa*) echo us-west-2 ;;
    +*) echo some-id ;;
  esac
}
"""


@pytest.fixture
def calls(tmp_path):
    """``calls(script)`` runs a script, and returns the words of each of its AWS commands."""

    def run(script, *, existing=False, failing="", lacking=""):
        """
        With ``existing``, all is there already, but for what the operation ``lacking`` lists;
        ``failing`` is an operation that never works.
        """
        log = tmp_path / "calls"
        log.unlink(missing_ok=True)
        done = subprocess.run(
            ["sh"], input=_AWS + script, capture_output=True, text=True, check=False, timeout=600,
            env={**os.environ, "CALLS": str(log), "RETRY_WAIT": "0",
                 "EXISTING": "+" if existing else "",
                 "FAILING": failing or "none", "LACKING": lacking or "none",
                 "ARNS": "of something else"},
        )  # fmt: skip
        assert (done.returncode == 0) == (not failing), done.stderr
        return [each.split("\036")[:-1] for each in log.read_text().split("\035")[:-1]]

    return run


def requests(calls):
    """Yield service, operation and document of the commands that have one."""
    for service, operation, *arguments in calls:
        if "--cli-input-json" in arguments:
            document = arguments[arguments.index("--cli-input-json") + 1]
            yield service, operation, json.loads(document)


@pytest.fixture
def script():
    """``script(…)``: the document."""

    def make(**options):
        return infrastructure("--format", "cli", **options).out

    return make


def test_each_command_is_a_request_that_botocore_knows(project, orders, script, calls, client):
    """Their documents are validated by botocore's models of the services, quotes and all."""
    west = {"west": {**EVERYTHING, "REGION": "us-west-2", "ENCRYPTION_KEY": "alias/shop"}}
    name = project(west, **{**EVERYTHING, "FAILOVER": "west"})
    text = script(
        using=["default"],
        with_=["auto-scaling", "backups", "vpc-endpoint", "cloudtrail"],
        parameter=["VpcId=vpc-12", "RouteTableIds=rtb-1,rtb-2", "BackupCopyRegion=eu-west-3",
                   "AlarmEmail=ops@example.com"],
    )  # fmt: skip
    assert "\nexport AWS_REGION=eu-west-1 AWS_DEFAULT_REGION=eu-west-1\n" in text
    made = calls(text)
    found = list(requests(made))
    for service, operation, document in found:
        model = client(service if service != "s3api" else "s3", None).meta.service_model
        by_name = {each.replace("_", "").lower(): each for each in model.operation_names}
        shape = model.operation_model(by_name[operation.replace("-", "")]).input_shape
        report = ParamValidator().validate(document, shape)
        assert not report.has_errors(), (operation, report.generate_report())
    by = {operation: document for _, operation, document in found}
    topic = "arn:aws:sns:eu-west-1:123456789012:alarms"
    alarms = [document for _, operation, document in found if operation == "put-metric-alarm"]
    assert {each["AlarmActions"][0] for each in alarms} == {topic}
    (put,) = [each for each in made if each[1] == "put-dashboard"]
    assert json.loads(put[-1])["widgets"][2]["properties"]["region"] == "eu-west-1"
    tables = [spec.name for spec in wanted_tables() if spec.using == "default"]
    selection = by["create-backup-selection"]["BackupSelection"]
    assert [each.rpartition("/")[2] for each in selection["Resources"]] == [
        each for each in tables if each != f"{name}-control"
    ]
    (rule,) = by["create-backup-plan"]["BackupPlan"]["Rules"]
    assert rule["CopyActions"][0]["DestinationBackupVaultArn"] == (
        "arn:aws:backup:eu-west-3:123456789012:backup-vault:Default"
    )
    created = [document for _, operation, document in found if operation == "create-table"]
    assert created[0]["Tags"] == [
        {"Key": "stage", "Value": "test"}, {"Key": "team", "Value": "a ${b} 'c'"}
    ]  # fmt: skip
    policy = json.loads(by["put-bucket-policy"]["Policy"])
    assert "123456789012" in policy["Statement"][0]["Condition"]["StringEquals"]["aws:SourceArn"]
    replicas = [document for _, operation, document in found if operation == "update-table"]
    assert {each["ReplicaUpdates"][0]["Create"]["RegionName"] for each in replicas} == {"us-west-2"}
    assert by["create-vpc-endpoint"]["RouteTableIds"] == ["rtb-1", "rtb-2"]
    again = {operation for _, operation, *_ in calls(text, existing=True)}
    changing = {each for each in again if each.startswith(("create", "update"))}
    assert changing == {"create-topic", "update-continuous-backups"}


def test_what_aws_refuses_at_first_is_requested_again(project, script, calls):
    """Six times at most; then the script ends with an error."""
    name = project(POINT_IN_TIME_RECOVERY=True)
    text = script(table=[name], without=["alarms", "dashboard"])
    made = [operation for _, operation, *_ in calls(text, failing="update-continuous-backups")]
    assert made.count("update-continuous-backups") == 6
    assert made[-1] == "update-continuous-backups"


def test_a_backup_plan_without_a_selection_gets_it(project, script, calls):
    """The script ended between both: with the plan alone, nothing is backed up."""
    name = project()
    text = script(with_=["backups"], without=["alarms", "dashboard"])
    made = calls(text, existing=True, lacking="list-backup-selections")
    (selection,) = [
        document for _, operation, document in requests(made)
        if operation == "create-backup-selection"
    ]  # fmt: skip
    assert selection["BackupPlanId"] == "some-id"
    wanted = [spec.name for spec in wanted_tables() if spec.name != f"{name}-control"]
    assert len(selection["BackupSelection"]["Resources"]) == len(wanted)
    made = calls(text, failing="create-backup-selection")
    assert "create-backup-plan" in {operation for _, operation, *_ in made}


def test_a_refused_look_for_an_endpoint_ends_the_script(project, script, calls):
    """A second endpoint could not have the routes of the first."""
    project()
    text = script(
        with_=["vpc-endpoint"], without=["alarms", "dashboard"], parameter=["VpcId=vpc-12"]
    )
    made = calls(text, failing="describe-vpc-endpoints")
    assert [operation for _, operation, *_ in made if "vpc" in operation] == [
        "describe-vpc-endpoints"
    ]


def test_the_bucket_of_a_trail_has_a_name_that_s3_takes(project, script, calls):
    """63 characters at most, also in the region with the longest name; a letter first."""
    project(TABLE_PREFIX="_", TABLE_NAME=30 * "Orders_")
    text = script(with_=["cloudtrail"], without=["alarms", "dashboard"])
    (made,) = [each for each in calls(text) if each[:2] == ["s3", "mb"]]
    bucket = made[2].removeprefix("s3://")
    assert bucket.startswith("orders-")
    assert len(bucket.replace("eu-west-1", "ap-southeast-1")) <= 63


def test_tables_and_alarms_of_its_requests_match_the_models(
    project, script, calls, ministack, client
):
    """All documents are sent to a local engine; then nothing differs."""
    project(ENDPOINT_URL=ministack, STREAM="NEW_IMAGE", METRICS={"SINKS": [CLOUDWATCH]})
    topic = client("sns", ministack).create_topic(Name="alarms")["TopicArn"]
    text = script(without=["dashboard"], parameter=[f"AlarmTopicArn={topic}"])
    for service, operation, document in requests(calls(text)):
        getattr(client(service, ministack), operation.replace("-", "_"))(**document)
    call_command("dynamo_verify", stdout=Silent())
    parameters = {"without": ["dashboard"], "parameter": [f"AlarmTopicArn={topic}"]}
    assert "Nothing differs" in infrastructure("--diff", **parameters).out


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("aws") is None, reason="The AWS command line is not installed.")
def test_it_runs_with_the_aws_command_line(project, script, ministack):
    """A table with all options, and the dashboard."""
    name = project(
        ENDPOINT_URL=ministack, POINT_IN_TIME_RECOVERY=True, TAGS={"team": "a ${b} 'c' \"d\""}
    )
    environment = {
        **os.environ, "AWS_ENDPOINT_URL": ministack, "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local", "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        ["sh"], input=script(table=[f"{name}-control"], without=["alarms"]), capture_output=True,
        text=True, check=False, timeout=300, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (spec,) = [each for each in wanted_tables() if each.name == f"{name}-control"]
    assert differences(spec, read_table(spec)) == []
