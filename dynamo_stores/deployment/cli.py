"""
The commands of AWS's command line, as a script for a POSIX shell.

What exists is left as it is, or is set again to the same, so the script may be repeated.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

from .backups import ASSUME_ROLE, MANAGED_POLICIES
from .description import Deployment, Table
from .names import plain
from .parameters import ALARMS, BACKUPS, CLOUDTRAIL, DASHBOARD, VPC_ENDPOINT
from .trail import event_selectors, trail_policy

# A variable of the shell inside of a JSON document.
_VARIABLE = re.compile(r"\x00(\w+)\x00")


def render(deployment: Deployment) -> str:
    """Return the script."""
    return "\n".join(_lines(deployment)) + "\n"


def _variable(name: str) -> str:
    return f"\x00{name}\x00"


def _quoted(text: str) -> str:
    """Return a text as one word of the shell, in which variables are expanded."""
    parts = _VARIABLE.split(text)
    words = [
        f'"${part}"' if place % 2 else shlex.quote(part) for place, part in enumerate(parts) if part
    ]
    return "".join(words) or "''"


def _command(service: str, operation: str, request: dict[str, Any]) -> str:
    document = json.dumps(request, separators=(",", ":")).replace("\\u0000", "\x00")
    return f"aws {service} {operation} --cli-input-json {_quoted(document)}"


def _unless(test: str, command: str) -> str:
    return f"{test} >/dev/null 2>&1 ||\n  {command} >/dev/null"


def _lines(of: Deployment) -> Iterator[str]:
    yield "#!/bin/sh"
    yield f"# Creates the tables of {of.base}, and what watches them."
    if of.region is None:
        yield "# The region and the account are those of the AWS command line."
    else:
        yield "# The region is that of the settings; the account is that of the AWS command line."
    for note in of.notes:
        yield f"# {note}"
    yield "set -eu"
    if of.region is not None:
        region = shlex.quote(of.region)
        yield f"export AWS_REGION={region} AWS_DEFAULT_REGION={region}"
    yield "# AWS refuses some requests for seconds after what they need was created."
    yield "retry() {"
    yield "  TRIES=0"
    yield '  until "$@"; do'
    yield "    TRIES=$((TRIES + 1))"
    yield '    [ "$TRIES" -lt 6 ] || return 1'
    yield '    sleep "${RETRY_WAIT:-10}"'
    yield "  done"
    yield "}"
    for table in of.tables:
        yield from _table(table)
    if of.has(ALARMS):
        yield from _alarms(of)
    if of.has(DASHBOARD):
        yield ""
        yield from _region()
        body = json.dumps(of.dashboard("\x00REGION\x00")).replace("\\u0000", "\x00")
        # An argument has 128 KB at most on Linux, and a dashboard of many tables is longer.
        yield f"printf %s {_quoted(body)} |"
        name = shlex.quote(of.dashboard_name)
        put = f"aws cloudwatch put-dashboard --dashboard-name {name}"
        yield f"  {put} --dashboard-body file:///dev/stdin >/dev/null"
    for target in of.targets:
        yield ""
        service = "application-autoscaling"
        yield _command(service, "register-scalable-target", target.target_request())
        yield _command(service, "put-scaling-policy", target.policy_request()) + " >/dev/null"
    for table in of.tables:
        yield from _replicas(table)
    if of.has(BACKUPS) and of.backups is not None:
        yield from _backups(of)
    if of.has(VPC_ENDPOINT):
        yield from _vpc_endpoint(of)
    if of.has(CLOUDTRAIL):
        yield from _trail(of)


def _table(table: Table) -> Iterator[str]:
    spec, name = table.spec, shlex.quote(table.name)
    yield ""
    describe = f"aws dynamodb describe-table --table-name {name}"
    yield _unless(describe, _command("dynamodb", "create-table", spec.as_request()))
    yield f"aws dynamodb wait table-exists --table-name {name}"
    if spec.ttl is not None:
        request = {
            "TableName": spec.name,
            "TimeToLiveSpecification": {"AttributeName": spec.ttl, "Enabled": True},
        }
        state = (
            f"aws dynamodb describe-time-to-live --table-name {name} "
            "--query TimeToLiveDescription.TimeToLiveStatus --output text"
        )
        enable = _command("dynamodb", "update-time-to-live", request)
        yield f'case "$({state})" in ENABL*) ;; *)\n  {enable} >/dev/null ;; esac'
    if spec.options.point_in_time_recovery:
        request = {
            "TableName": spec.name,
            "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
        }
        yield f"retry {_command('dynamodb', 'update-continuous-backups', request)} >/dev/null"


def _replicas(table: Table) -> Iterator[str]:
    name = shlex.quote(table.name)
    for replica in table.replicas:
        create: dict[str, Any] = {"RegionName": replica.region}
        encryption = replica.options.as_request().get("SSESpecification", {})
        if "KMSMasterKeyId" in encryption:
            create["KMSMasterKeyId"] = encryption["KMSMasterKeyId"]
        request = {"TableName": table.name, "ReplicaUpdates": [{"Create": create}]}
        yield ""
        yield f"aws dynamodb wait table-exists --table-name {name}"
        yield (
            f"aws dynamodb describe-table --table-name {name} "
            "--query 'Table.Replicas[].RegionName' --output text |"
        )
        yield f"  grep -qw {shlex.quote(replica.region)} ||"
        yield f"  {_command('dynamodb', 'update-table', request)} >/dev/null"


def _alarms(of: Deployment) -> Iterator[str]:
    yield ""
    if topic := of.value("AlarmTopicArn"):
        yield f"TOPIC={shlex.quote(topic)}"
    else:
        create = f"aws sns create-topic --name {shlex.quote(of.topic_name)}"
        yield f"TOPIC=$({create} --query TopicArn --output text)"
        if mail := of.value("AlarmEmail"):
            yield (
                f'aws sns subscribe --topic-arn "$TOPIC" --protocol email '
                f"--notification-endpoint {shlex.quote(mail)} >/dev/null"
            )
    for alarm in of.alarms:
        limit = alarm.threshold
        limit = of.value(limit) if isinstance(limit, str) else limit
        yield _command(
            "cloudwatch", "put-metric-alarm", alarm.as_request(limit, _variable("TOPIC"))
        )


def _region() -> Iterator[str]:
    yield "REGION=$(aws configure get region || true)"
    yield 'REGION="${AWS_REGION:-${AWS_DEFAULT_REGION:-${REGION:-us-east-1}}}"'


def _account() -> Iterator[str]:
    who = "aws sts get-caller-identity --output text --query"
    yield f"ACCOUNT=$({who} Account)"
    yield f"PARTITION=$({who} Arn | cut -d: -f2)"


def _backups(of: Deployment) -> Iterator[str]:
    plan = of.backups
    assert plan is not None  # noqa: S101 - for the type checker
    name = shlex.quote(plan.name)
    yield ""
    yield from _account()
    yield _unless(
        f"aws backup describe-backup-vault --backup-vault-name {name}",
        f"aws backup create-backup-vault --backup-vault-name {name}",
    )
    role = {"RoleName": plan.name, "AssumeRolePolicyDocument": json.dumps(ASSUME_ROLE)}
    yield _unless(f"aws iam get-role --role-name {name}", _command("iam", "create-role", role))
    for policy in MANAGED_POLICIES:
        arn = f"arn:{_variable('PARTITION')}:iam::aws:policy/{policy}"
        yield f"aws iam attach-role-policy --role-name {name} --policy-arn {_quoted(arn)}"
    yield f"ROLE=$(aws iam get-role --role-name {name} --query Role.Arn --output text)"
    region = of.value("BackupCopyRegion")
    vault = f"backup-vault:{of.value('BackupCopyVault')}"
    copy = f"arn:{_variable('PARTITION')}:backup:{region}:{_variable('ACCOUNT')}:{vault}"
    request = plan.as_request(
        plan.name, of.value("BackupSchedule"), of.value("BackupRetentionDays"),
        copy if region else None,
    )  # fmt: skip
    query = f"BackupPlansList[?BackupPlanName=='{plan.name}'].BackupPlanId | [0]"
    find = f"aws backup list-backup-plans --query {shlex.quote(query)} --output text"
    yield f"PLAN=$({find})"
    create = _command("backup", "create-backup-plan", {"BackupPlan": request})
    yield 'if [ "$PLAN" = None ]; then'
    yield f"  PLAN=$({create} --query BackupPlanId --output text)"
    yield "fi"
    query = f"BackupSelectionsList[?SelectionName=='{plan.name}'].SelectionId | [0]"
    find = (
        f'aws backup list-backup-selections --backup-plan-id "$PLAN" --query {shlex.quote(query)}'
    )
    yield f"SELECTION=$({find} --output text)"
    yield 'if [ "$SELECTION" = None ]; then'
    yield "  ARNS="
    for table in plan.tables:
        describe = f"aws dynamodb describe-table --table-name {shlex.quote(table)}"
        yield f"  ARN=$({describe} --query Table.TableArn --output text)"
        yield '  ARNS="$ARNS${ARNS:+\\",\\"}$ARN"'
    selection = {
        "BackupPlanId": _variable("PLAN"),
        "BackupSelection": {
            "SelectionName": plan.name,
            "IamRoleArn": _variable("ROLE"),
            "Resources": [_variable("ARNS")],
        },
    }
    yield f"  retry {_command('backup', 'create-backup-selection', selection)} >/dev/null"
    yield "fi"


def _vpc_endpoint(of: Deployment) -> Iterator[str]:
    vpc = of.value("VpcId")
    if not vpc:
        yield "# No VPC was named by the parameter VpcId, so there is no endpoint."
        return
    yield ""
    yield from _region()
    request: dict[str, Any] = {
        "VpcEndpointType": "Gateway",
        "VpcId": vpc,
        "ServiceName": f"com.amazonaws.{_variable('REGION')}.dynamodb",
    }
    if tables := of.value("RouteTableIds"):
        request["RouteTableIds"] = tables.split(",")
    service = _quoted(f"Name=service-name,Values={request['ServiceName']}")
    find = (
        f"aws ec2 describe-vpc-endpoints --filters Name=vpc-id,Values={vpc} {service} "
        "--query 'VpcEndpoints[].VpcEndpointId' --output text"
    )
    # Not within the test: there the shell would go on after a refusal.
    yield f"ENDPOINT=$({find})"
    yield '[ -n "$ENDPOINT" ] ||'
    yield f"  {_command('ec2', 'create-vpc-endpoint', request)} >/dev/null"


def _trail(of: Deployment) -> Iterator[str]:
    name = of.trail_name
    # A name of 63 characters at most, with the account and the longest region.
    prefix = plain(name.lower().replace("_", "-").lstrip("-"), 35)
    yield ""
    yield from _account()
    yield from _region()
    yield f"BUCKET={prefix}-$ACCOUNT-$REGION"
    yield _unless('aws s3api head-bucket --bucket "$BUCKET"', 'aws s3 mb "s3://$BUCKET"')
    bucket = _variable("BUCKET")
    block = {
        "Bucket": bucket,
        "PublicAccessBlockConfiguration": {
            "BlockPublicAcls": True,
            "BlockPublicPolicy": True,
            "IgnorePublicAcls": True,
            "RestrictPublicBuckets": True,
        },
    }
    yield _command("s3api", "put-public-access-block", block)
    rule = {
        "ID": "retention",
        "Status": "Enabled",
        "Filter": {},
        "Expiration": {"Days": of.value("TrailRetentionDays")},
    }
    request: dict[str, Any] = {"Bucket": bucket, "LifecycleConfiguration": {"Rules": [rule]}}
    yield _command("s3api", "put-bucket-lifecycle-configuration", request)
    arn = f"arn:{_variable('PARTITION')}"
    policy = trail_policy(
        f"{arn}:s3:::{bucket}",
        f"{arn}:s3:::{bucket}/AWSLogs/{_variable('ACCOUNT')}/*",
        f"{arn}:cloudtrail:{_variable('REGION')}:{_variable('ACCOUNT')}:trail/{name}",
    )
    text = json.dumps(policy).replace("\\u0000", "\x00")
    yield _command("s3api", "put-bucket-policy", {"Bucket": bucket, "Policy": text})
    trail = {"Name": name, "S3BucketName": bucket, "EnableLogFileValidation": True}
    yield _unless(
        f"aws cloudtrail get-trail --name {name}", _command("cloudtrail", "create-trail", trail)
    )
    tables = f"{arn}:dynamodb:{_variable('REGION')}:{_variable('ACCOUNT')}:table/"
    arns = [tables + table.name for table in of.tables]
    selectors = {"TrailName": name, "EventSelectors": event_selectors(arns)}
    yield _command("cloudtrail", "put-event-selectors", selectors) + " >/dev/null"
    yield f"aws cloudtrail start-logging --name {name}"
