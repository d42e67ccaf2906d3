"""The template of AWS CloudFormation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ..infrastructure.options import TableOptions
from ..infrastructure.tables import IndexSpec
from .backups import ASSUME_ROLE, MANAGED_POLICIES
from .description import Deployment, Table
from .names import logical_ids
from .parameters import ALARMS, BACKUPS, CLOUDTRAIL, DASHBOARD, VPC_ENDPOINT, Parameter
from .scaling import ScalingTarget
from .trail import event_selectors, trail_policy

_Resources = dict[str, dict[str, Any]]
# Whatever happens to the stack, the items stay.
_KEPT = {"DeletionPolicy": "Retain", "UpdateReplacePolicy": "Retain"}
_PARTITION, _REGION, _ACCOUNT = "${AWS::Partition}", "${AWS::Region}", "${AWS::AccountId}"


def render(deployment: Deployment) -> str:
    """Return the template as JSON."""
    return json.dumps(template(deployment), indent=2)


def template(deployment: Deployment) -> dict[str, Any]:
    """Return the template; every parameter has a default."""
    return _Template(deployment).whole()


def _ref(name: str) -> dict[str, str]:
    return {"Ref": name}


def _sub(text: str) -> dict[str, str]:
    return {"Fn::Sub": text}


def _literal(text: str) -> str:
    """Return a text for Fn::Sub that stands for itself."""
    return text.replace("${", "${!")


def _is_set(parameter: str) -> dict[str, Any]:
    return {"Fn::Not": [{"Fn::Equals": [_ref(parameter), ""]}]}


def _attribute(resource: str, name: str) -> dict[str, list[str]]:
    return {"Fn::GetAtt": [resource, name]}


class _Template:
    def __init__(self, deployment: Deployment) -> None:
        self._of = deployment
        self._ids = logical_ids(table.name for table in deployment.tables)
        self._conditions: dict[str, Any] = {}
        self._resources: _Resources = {}

    def whole(self) -> dict[str, Any]:
        of = self._of
        for table in of.tables:
            self._resources[self._table_id(table.name)] = (
                _global_table(table, of.targets) if table.replicas else _table(table)
            )
        if of.has(ALARMS):
            self._alarms()
        if of.has(DASHBOARD):
            body = _literal(json.dumps(of.dashboard("REGION"))).replace(
                '"region": "REGION"', f'"region": "{_REGION}"'
            )
            self._add(
                "Dashboard", "AWS::CloudWatch::Dashboard",
                DashboardName=of.dashboard_name, DashboardBody=_sub(body),
            )  # fmt: skip
        self._targets()
        if of.has(BACKUPS) and of.backups is not None:
            self._backups()
        if of.has(VPC_ENDPOINT):
            self._vpc_endpoint()
        if of.has(CLOUDTRAIL):
            self._trail()
        where = f" in {of.region}" if of.region else ""
        found: dict[str, Any] = {
            "AWSTemplateFormatVersion": "2010-09-09",
            "Description": f"Tables of {of.base}{where}, and what watches them.",
        }
        if of.notes:
            found["Metadata"] = {"Notes": [*of.notes]}
        if of.parameters:
            found["Parameters"] = {name: _parameter(each) for name, each in of.parameters.items()}
        if self._conditions:
            found["Conditions"] = self._conditions
        found["Resources"] = self._resources
        found["Outputs"] = dict(self._outputs())
        return found

    def _add(self, id_: str, kind: str, /, condition: str = "", **properties: Any) -> None:
        resource: dict[str, Any] = {"Type": kind}
        if condition:
            resource["Condition"] = condition
        self._resources[id_] = {**resource, "Properties": properties}

    def _table_id(self, name: str) -> str:
        return f"{self._ids[name]}Table"

    def _arn(self, name: str) -> dict[str, list[str]]:
        return _attribute(self._table_id(name), "Arn")

    def _alarms(self) -> None:
        self._conditions["CreateTopic"] = {"Fn::Equals": [_ref("AlarmTopicArn"), ""]}
        self._conditions["SendMail"] = {
            "Fn::And": [{"Condition": "CreateTopic"}, _is_set("AlarmEmail")]
        }
        self._add("AlarmTopic", "AWS::SNS::Topic", "CreateTopic", TopicName=self._of.topic_name)
        self._add(
            "AlarmMail", "AWS::SNS::Subscription", "SendMail",
            TopicArn=_ref("AlarmTopic"), Protocol="email", Endpoint=_ref("AlarmEmail"),
        )  # fmt: skip
        topic = {"Fn::If": ["CreateTopic", _ref("AlarmTopic"), _ref("AlarmTopicArn")]}
        ids = logical_ids(alarm.name for alarm in self._of.alarms)
        for alarm in self._of.alarms:
            named = isinstance(alarm.threshold, str)
            threshold: Any = _ref(str(alarm.threshold)) if named else alarm.threshold
            properties = alarm.as_request(threshold, topic)
            self._add(f"{ids[alarm.name]}Alarm", "AWS::CloudWatch::Alarm", **properties)

    def _targets(self) -> None:
        inline = {table.name for table in self._of.tables if table.replicas}
        targets = [each for each in self._of.targets if each.table not in inline]
        ids = logical_ids(f"{each.resource_id}/{each.kind}" for each in targets)
        for each in targets:
            id_ = ids[f"{each.resource_id}/{each.kind}"]
            target = each.target_request()
            self._add(f"{id_}Target", "AWS::ApplicationAutoScaling::ScalableTarget", **target)
            self._resources[f"{id_}Target"]["DependsOn"] = self._table_id(each.table)
            self._add(
                f"{id_}Policy", "AWS::ApplicationAutoScaling::ScalingPolicy",
                PolicyName=each.policy_name,
                PolicyType="TargetTrackingScaling",
                ScalingTargetId=_ref(f"{id_}Target"),
                TargetTrackingScalingPolicyConfiguration=each.tracking(),
            )  # fmt: skip

    def _backups(self) -> None:
        plan = self._of.backups
        assert plan is not None  # noqa: S101 - for the type checker
        self._conditions["CopyBackups"] = _is_set("BackupCopyRegion")
        self._add("BackupVault", "AWS::Backup::BackupVault", BackupVaultName=plan.name)
        self._resources["BackupVault"] |= _KEPT
        self._add(
            "BackupRole", "AWS::IAM::Role",
            AssumeRolePolicyDocument=ASSUME_ROLE,
            ManagedPolicyArns=[
                _sub(f"arn:{_PARTITION}:iam::aws:policy/{each}") for each in MANAGED_POLICIES
            ],
        )  # fmt: skip
        vault = f"arn:{_PARTITION}:backup:${{BackupCopyRegion}}:{_ACCOUNT}:backup-vault:"
        request = plan.as_request(
            _ref("BackupVault"), _ref("BackupSchedule"), _ref("BackupRetentionDays"),
            _sub(f"{vault}${{BackupCopyVault}}"),
        )  # fmt: skip
        (rule,) = request.pop("Rules")
        rule["TargetBackupVault"] = rule.pop("TargetBackupVaultName")
        rule["CopyActions"] = {"Fn::If": ["CopyBackups", rule["CopyActions"], _ref("AWS::NoValue")]}
        self._add(
            "BackupPlan", "AWS::Backup::BackupPlan",
            BackupPlan={**request, "BackupPlanRule": [rule]},
        )  # fmt: skip
        self._add(
            "BackupSelection", "AWS::Backup::BackupSelection",
            BackupPlanId=_ref("BackupPlan"),
            BackupSelection={
                "SelectionName": plan.name,
                "IamRoleArn": _attribute("BackupRole", "Arn"),
                "Resources": [self._arn(name) for name in plan.tables],
            },
        )  # fmt: skip

    def _vpc_endpoint(self) -> None:
        self._conditions["HasVpc"] = _is_set("VpcId")
        self._conditions["HasRouteTables"] = {
            "Fn::Not": [{"Fn::Equals": [{"Fn::Join": ["", _ref("RouteTableIds")]}, ""]}]
        }
        self._add(
            "VpcEndpoint", "AWS::EC2::VPCEndpoint", "HasVpc",
            VpcEndpointType="Gateway",
            VpcId=_ref("VpcId"),
            ServiceName=_sub(f"com.amazonaws.{_REGION}.dynamodb"),
            RouteTableIds={
                "Fn::If": ["HasRouteTables", _ref("RouteTableIds"), _ref("AWS::NoValue")]
            },
        )  # fmt: skip

    def _trail(self) -> None:
        name = self._of.trail_name
        self._add(
            "TrailBucket", "AWS::S3::Bucket",
            BucketEncryption={
                "ServerSideEncryptionConfiguration": [
                    {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
                ]
            },
            PublicAccessBlockConfiguration={
                "BlockPublicAcls": True,
                "BlockPublicPolicy": True,
                "IgnorePublicAcls": True,
                "RestrictPublicBuckets": True,
            },
            LifecycleConfiguration={
                "Rules": [
                    {
                        "Id": "retention",
                        "Status": "Enabled",
                        "ExpirationInDays": _ref("TrailRetentionDays"),
                    }
                ]
            },
        )  # fmt: skip
        self._resources["TrailBucket"] |= _KEPT
        trail = _sub(f"arn:{_PARTITION}:cloudtrail:{_REGION}:{_ACCOUNT}:trail/{name}")
        self._add(
            "TrailBucketPolicy", "AWS::S3::BucketPolicy",
            Bucket=_ref("TrailBucket"),
            PolicyDocument=trail_policy(
                _attribute("TrailBucket", "Arn"),
                _sub(f"${{TrailBucket.Arn}}/AWSLogs/{_ACCOUNT}/*"),
                trail,
            ),
        )  # fmt: skip
        self._add(
            "Trail", "AWS::CloudTrail::Trail",
            TrailName=name,
            S3BucketName=_ref("TrailBucket"),
            IsLogging=True,
            EnableLogFileValidation=True,
            EventSelectors=event_selectors([self._arn(table.name) for table in self._of.tables]),
        )  # fmt: skip
        self._resources["Trail"]["DependsOn"] = "TrailBucketPolicy"

    def _outputs(self) -> Iterator[tuple[str, Any]]:
        for table in self._of.tables:
            id_ = self._table_id(table.name)
            yield f"{id_}Arn", {"Value": _attribute(id_, "Arn")}
            if table.spec.options.stream not in (None, "OFF"):
                yield f"{id_}StreamArn", {"Value": _attribute(id_, "StreamArn")}
        if self._of.has(ALARMS):
            yield "AlarmTopicArn", {"Condition": "CreateTopic", "Value": _ref("AlarmTopic")}


def _parameter(each: Parameter) -> dict[str, Any]:
    found: dict[str, Any] = {"Description": each.text[0].upper() + each.text[1:]}
    if each.is_number:
        return {
            "Type": "Number", "Default": each.default, **found,
            "MinValue": each.low, "MaxValue": each.high,
        }  # fmt: skip
    if each.is_list:
        return {"Type": "CommaDelimitedList", "Default": each.default, **found}
    return {
        "Type": "String", "Default": each.default, **found, "AllowedPattern": f"^{each.pattern}$",
    }  # fmt: skip


def _table(table: Table) -> dict[str, Any]:
    spec = table.spec
    # CreateTable has the same names, but for the encryption and the stream.
    properties = spec.as_request()
    if "SSESpecification" in properties:
        properties["SSESpecification"] = _encryption(properties["SSESpecification"])
    if "StreamSpecification" in properties:
        properties["StreamSpecification"].pop("StreamEnabled")
    properties |= _ttl(table)
    properties |= _recovery(spec.options)
    return {"Type": "AWS::DynamoDB::Table", **_KEPT, "Properties": properties}


def _encryption(request: Mapping[str, Any]) -> dict[str, Any]:
    return {"SSEEnabled": request["Enabled"], **{k: request[k] for k in request if k != "Enabled"}}


def _ttl(table: Table) -> dict[str, Any]:
    if table.spec.ttl is None:
        return {}
    return {"TimeToLiveSpecification": {"AttributeName": table.spec.ttl, "Enabled": True}}


def _recovery(options: TableOptions) -> dict[str, Any]:
    if options.point_in_time_recovery is None:
        return {}
    return {
        "PointInTimeRecoverySpecification": {
            "PointInTimeRecoveryEnabled": options.point_in_time_recovery
        }
    }


def _global_table(table: Table, targets: tuple[ScalingTarget, ...]) -> dict[str, Any]:
    request = table.spec.as_request()
    properties: dict[str, Any] = {
        name: request[name]
        for name in (
            "TableName", "KeySchema", "AttributeDefinitions", "BillingMode",
            "LocalSecondaryIndexes",
        )
        if name in request
    }  # fmt: skip
    own = {each.kind: each for each in targets if each.table == table.name and not each.index}
    properties["StreamSpecification"] = {"StreamViewType": table.spec.options.stream}
    indexes = [each for each in table.spec.indexes if each.is_global]
    if table.is_provisioned:
        properties["WriteProvisionedThroughputSettings"] = _scaled(own["Write"])
    if indexes:
        properties["GlobalSecondaryIndexes"] = [
            _global_index(each, table, targets) for each in indexes
        ]
    if "SSESpecification" in request:
        properties["SSESpecification"] = {"SSEEnabled": True, "SSEType": "KMS"}
    properties |= _ttl(table)
    here = _replica(_ref("AWS::Region"), table.spec.options, table, targets)
    properties["Replicas"] = [
        here,
        *(_replica(each.region, each.options, table, targets) for each in table.replicas),
    ]
    return {"Type": "AWS::DynamoDB::GlobalTable", **_KEPT, "Properties": properties}


def _global_index(
    index: IndexSpec, table: Table, targets: tuple[ScalingTarget, ...]
) -> dict[str, Any]:
    found = index.as_request()
    if table.is_provisioned:
        found["WriteProvisionedThroughputSettings"] = _scaled(
            _target(targets, table.name, index.name, "Write")
        )
    return found


def _target(
    targets: tuple[ScalingTarget, ...], table: str, index: str | None, kind: str
) -> ScalingTarget | None:
    return next(
        (each for each in targets if (each.table, each.index, each.kind) == (table, index, kind)),
        None,
    )


def _scaled(target: ScalingTarget | None, units: int | None = None) -> dict[str, Any]:
    if target is None:
        return {"ReadCapacityUnits": units}
    return {
        f"{target.kind}CapacityAutoScalingSettings": {
            "MinCapacity": target.minimum,
            "MaxCapacity": target.maximum,
            "TargetTrackingScalingPolicyConfiguration": {"TargetValue": target.percent},
        }
    }


def _replica(
    region: Any, options: TableOptions, table: Table, targets: tuple[ScalingTarget, ...]
) -> dict[str, Any]:
    request = options.as_request()
    found: dict[str, Any] = {"Region": region, **_recovery(options)}
    found |= {
        name: request[name]
        for name in ("DeletionProtectionEnabled", "TableClass", "Tags")
        if name in request
    }
    if (key := request.get("SSESpecification", {}).get("KMSMasterKeyId")) is not None:
        found["SSESpecification"] = {"KMSMasterKeyId": key}
    if table.is_provisioned:
        units = table.spec.throughput_request()["ReadCapacityUnits"]
        found["ReadProvisionedThroughputSettings"] = _scaled(
            _target(targets, table.name, None, "Read"), units
        )
        indexes = [each.name for each in table.spec.indexes if each.is_global]
        if indexes:
            found["GlobalSecondaryIndexes"] = [
                {
                    "IndexName": name,
                    "ReadProvisionedThroughputSettings": _scaled(
                        _target(targets, table.name, name, "Read"), units
                    ),
                }
                for name in indexes
            ]
    return found
