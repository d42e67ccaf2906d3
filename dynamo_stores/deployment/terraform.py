"""
The document of Terraform, for a file whose name ends in ``.tf.json``.

The arguments are those of the provider ``hashicorp/aws``, version 6 or newer.
"""

from __future__ import annotations

import json
import re
from typing import Any

from ..infrastructure.options import AWS_MANAGED, TableOptions
from ..infrastructure.tables import IndexSpec, TableSpec
from .backups import ASSUME_ROLE, MANAGED_POLICIES
from .description import Deployment, Table
from .names import labels, plain
from .parameters import (
    ALARMS,
    AUTO_SCALING,
    BACKUPS,
    CLOUDTRAIL,
    DASHBOARD,
    VPC_ENDPOINT,
    Parameter,
)
from .scaling import ScalingTarget
from .trail import trail_policy

_REGION = "${data.aws_region.current.id}"
_ACCOUNT = "${data.aws_caller_identity.current.account_id}"
_PARTITION = "${data.aws_partition.current.partition}"


def render(deployment: Deployment) -> str:
    """Return the document as JSON."""
    return json.dumps(document(deployment), indent=2)


def document(deployment: Deployment) -> dict[str, Any]:
    """Return the document; every variable has a default."""
    return _Document(deployment).whole()


def variable(name: str) -> str:
    """Return the name of the variable for a parameter."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _var(name: str) -> str:
    return f"${{var.{variable(name)}}}"


def _literal(value: Any) -> Any:
    """Return a value in which no text is a template."""
    if isinstance(value, str):
        return value.replace("${", "$${").replace("%{", "%%{")
    if isinstance(value, dict):
        return {_literal(name): _literal(each) for name, each in value.items()}
    return [_literal(each) for each in value] if isinstance(value, list) else value


class _Document:
    def __init__(self, deployment: Deployment) -> None:
        self._of = deployment
        self._labels = labels(table.name for table in deployment.tables)
        self._resources: dict[str, dict[str, Any]] = {}
        self._target_labels = labels(_target_name(each) for each in deployment.targets)
        self._regions = list(
            dict.fromkeys(each.region for table in deployment.tables for each in table.replicas)
        )
        self._data: dict[str, dict[str, Any]] = {
            "aws_region": {"current": {}},
            "aws_caller_identity": {"current": {}},
            "aws_partition": {"current": {}},
        }

    def whole(self) -> dict[str, Any]:
        of = self._of
        for table in of.tables:
            self._add("aws_dynamodb_table", self._labels[table.name], **self._table(table))
            self._replicas(table)
        if of.has(ALARMS):
            self._alarms()
        if of.has(DASHBOARD):
            body = json.dumps(_literal(of.dashboard("REGION"))).replace(
                '"region": "REGION"', f'"region": "{_REGION}"'
            )
            self._add(
                "aws_cloudwatch_dashboard", "dashboard",
                dashboard_name=of.dashboard_name, dashboard_body=body,
            )  # fmt: skip
        self._targets()
        if of.has(BACKUPS) and of.backups is not None:
            self._backups()
        if of.has(VPC_ENDPOINT):
            self._vpc_endpoint()
        if of.has(CLOUDTRAIL):
            self._trail()
        found: dict[str, Any] = {}
        if of.notes:
            # Terraform ignores members of this name.
            found["//"] = " ".join(of.notes)
        found["terraform"] = {
            "required_version": ">= 1.5",
            "required_providers": {"aws": {"source": "hashicorp/aws", "version": ">= 6.0"}},
        }
        if self._regions:
            found["provider"] = {
                "aws": [{"alias": region, "region": region} for region in self._regions]
            }
        if of.parameters:
            found["variable"] = {
                variable(name): _variable(each) for name, each in of.parameters.items()
            }
        found["data"] = self._data
        found["resource"] = self._resources
        found["output"] = {
            f"{label}_arn": {"value": f"${{aws_dynamodb_table.{label}.arn}}"}
            for label in self._labels.values()
        }
        return found

    def _add(self, kind: str, label: str, /, **arguments: Any) -> None:
        self._resources.setdefault(kind, {})[label] = arguments

    def _table(self, table: Table) -> dict[str, Any]:
        spec, options = table.spec, table.spec.options
        found: dict[str, Any] = {
            "name": spec.name,
            "billing_mode": spec.billing_mode,
            **_keys(spec.keys.partition, spec.keys.sort),
            "attribute": [
                {"name": name, "type": kind} for name, kind in sorted(spec.types.items())
            ],
            **_units(spec),
        }
        for index in spec.indexes:
            if index.is_global:
                each = {**_index(index), **_keys(index.keys.partition, index.keys.sort)}
                found.setdefault("global_secondary_index", []).append({**each, **_units(spec)})
            else:
                each = {**_index(index), "range_key": index.keys.sort}
                found.setdefault("local_secondary_index", []).append(each)
        if spec.ttl is not None:
            found["ttl"] = {"attribute_name": spec.ttl, "enabled": True}
        found |= self._options(options)
        found = _literal(found)
        if (key := self._key(options)) is not None:
            found["server_side_encryption"]["kms_key_arn"] = key
        found["lifecycle"] = {"prevent_destroy": True, **self._ignored(table)}
        return found

    def _replicas(self, table: Table) -> None:
        # Not as blocks of the table: auto scaling, which provisioned ones need first, needs it.
        for replica in table.replicas:
            options = replica.options
            found: dict[str, Any] = {
                "provider": f"aws.{replica.region}",
                "global_table_arn": self._arn(table.name),
            }
            if options.point_in_time_recovery is not None:
                found["point_in_time_recovery"] = options.point_in_time_recovery
            if options.deletion_protection is not None:
                found["deletion_protection_enabled"] = options.deletion_protection
            if options.tags:
                found["tags"] = _literal(dict(options.tags))
            if options.table_class is not None:
                found["table_class_override"] = options.table_class
            if (key := self._key(options, replica.region)) is not None:
                found["kms_key_arn"] = key
            names = self._target_labels
            if policies := [
                f"aws_appautoscaling_policy.{names[_target_name(each)]}"
                for each in self._of.targets
                if each.table == table.name
            ]:
                found["depends_on"] = policies
            found["lifecycle"] = {"prevent_destroy": True}
            label = f"{self._labels[table.name]}_{replica.region.replace('-', '_')}"
            self._add("aws_dynamodb_table_replica", label, **found)

    def _ignored(self, table: Table) -> dict[str, Any]:
        names = ["replica"] if table.replicas else []
        scales = table.spec.config.scaling.enabled or table.replicas or self._of.has(AUTO_SCALING)
        if table.is_provisioned and scales:
            names += ["read_capacity", "write_capacity"]
            if any(index.is_global for index in table.spec.indexes):
                # Its capacity cannot be ignored apart.
                names.append("global_secondary_index")
        return {"ignore_changes": names} if names else {}

    @staticmethod
    def _options(options: TableOptions) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if options.point_in_time_recovery is not None:
            found["point_in_time_recovery"] = {"enabled": options.point_in_time_recovery}
        if options.stream not in (None, "OFF"):
            found |= {"stream_enabled": True, "stream_view_type": options.stream}
        if options.deletion_protection is not None:
            found["deletion_protection_enabled"] = options.deletion_protection
        if options.tags:
            found["tags"] = dict(options.tags)
        if "SSESpecification" in options.as_request():
            found["server_side_encryption"] = {"enabled": True}
        if options.table_class is not None:
            found["table_class"] = options.table_class
        return found

    def _key(self, options: TableOptions, region: str = "") -> str | None:
        """Return the ARN of a key of the customer, which may be looked up in its region."""
        key = options.encryption_key
        if "SSESpecification" not in options.as_request() or key in AWS_MANAGED or key is None:
            return None
        if key.startswith("arn:") and ":alias/" not in key:
            return key
        label = labels([key])[key] + (f"_{region.replace('-', '_')}" if region else "")
        found = {"key_id": key, **({"provider": f"aws.{region}"} if region else {})}
        self._data.setdefault("aws_kms_key", {})[label] = found
        return f"${{data.aws_kms_key.{label}.arn}}"

    def _alarms(self) -> None:
        arn = _var("AlarmTopicArn")
        creates = 'var.alarm_topic_arn == ""'
        self._add(
            "aws_sns_topic", "alarms", count=f"${{{creates} ? 1 : 0}}", name=self._of.topic_name
        )
        self._add(
            "aws_sns_topic_subscription", "alarms",
            count=f'${{{creates} && var.alarm_email != "" ? 1 : 0}}',
            topic_arn="${aws_sns_topic.alarms[0].arn}",
            protocol="email",
            endpoint=_var("AlarmEmail"),
        )  # fmt: skip
        topic = f"${{{creates} ? aws_sns_topic.alarms[0].arn : {arn[2:-1]}}}"
        names = labels(alarm.name for alarm in self._of.alarms)
        for alarm in self._of.alarms:
            named = isinstance(alarm.threshold, str)
            threshold = _var(str(alarm.threshold)) if named else alarm.threshold
            arguments: dict[str, Any] = {
                "alarm_name": alarm.name,
                "alarm_description": alarm.text,
                "namespace": alarm.metric.namespace,
                "metric_name": alarm.metric.name,
                "statistic": alarm.metric.statistic,
                "period": alarm.period,
                "evaluation_periods": alarm.periods,
                "datapoints_to_alarm": alarm.datapoints,
                "comparison_operator": alarm.comparison,
                "treat_missing_data": alarm.missing,
            }
            if alarm.metric.dimensions:
                arguments["dimensions"] = dict(alarm.metric.dimensions)
            self._add(
                "aws_cloudwatch_metric_alarm", names[alarm.name], **_literal(arguments),
                threshold=threshold, alarm_actions=[topic], ok_actions=[topic],
            )  # fmt: skip

    def _targets(self) -> None:
        for each in self._of.targets:
            label = self._target_labels[_target_name(each)]
            self._add(
                "aws_appautoscaling_target", label,
                service_namespace="dynamodb",
                resource_id=each.resource_id,
                scalable_dimension=each.dimension,
                min_capacity=each.minimum,
                max_capacity=each.maximum,
                depends_on=[f"aws_dynamodb_table.{self._labels[each.table]}"],
            )  # fmt: skip
            target = f"aws_appautoscaling_target.{label}"
            tracking = each.tracking()
            metric = tracking["PredefinedMetricSpecification"]["PredefinedMetricType"]
            self._add(
                "aws_appautoscaling_policy", label,
                name=each.policy_name,
                policy_type="TargetTrackingScaling",
                service_namespace=f"${{{target}.service_namespace}}",
                resource_id=f"${{{target}.resource_id}}",
                scalable_dimension=f"${{{target}.scalable_dimension}}",
                target_tracking_scaling_policy_configuration={
                    "target_value": each.percent,
                    "predefined_metric_specification": {"predefined_metric_type": metric},
                },
            )  # fmt: skip

    def _backups(self) -> None:
        plan = self._of.backups
        assert plan is not None  # noqa: S101 - for the type checker
        self._add("aws_backup_vault", "backups", name=plan.name)
        self._add(
            "aws_iam_role", "backups", name=plan.name, assume_role_policy=json.dumps(ASSUME_ROLE)
        )
        for number, policy in enumerate(MANAGED_POLICIES):
            self._add(
                "aws_iam_role_policy_attachment", f"backups_{number}",
                role="${aws_iam_role.backups.name}",
                policy_arn=f"arn:{_PARTITION}:iam::aws:policy/{policy}",
            )  # fmt: skip
        lifecycle = {"delete_after": _var("BackupRetentionDays")}
        vault = f"arn:{_PARTITION}:backup:{_var('BackupCopyRegion')}:{_ACCOUNT}:backup-vault:"
        self._add(
            "aws_backup_plan", "backups",
            name=plan.name,
            rule={
                "rule_name": plan.name,
                "target_vault_name": "${aws_backup_vault.backups.name}",
                "schedule": _var("BackupSchedule"),
                "lifecycle": lifecycle,
                "dynamic": {
                    "copy_action": {
                        "for_each": '${var.backup_copy_region == "" ? [] : [1]}',
                        "content": {
                            "destination_vault_arn": vault + _var("BackupCopyVault"),
                            "lifecycle": lifecycle,
                        },
                    }
                },
            },
        )  # fmt: skip
        self._add(
            "aws_backup_selection", "backups",
            name=plan.name,
            plan_id="${aws_backup_plan.backups.id}",
            iam_role_arn="${aws_iam_role.backups.arn}",
            resources=[self._arn(name) for name in plan.tables],
        )  # fmt: skip

    def _vpc_endpoint(self) -> None:
        self._add(
            "aws_vpc_endpoint", "dynamodb",
            count='${var.vpc_id == "" ? 0 : 1}',
            vpc_endpoint_type="Gateway",
            vpc_id=_var("VpcId"),
            service_name=f"com.amazonaws.{_REGION}.dynamodb",
            route_table_ids='${compact(split(",", var.route_table_ids))}',
        )  # fmt: skip

    def _trail(self) -> None:
        name = self._of.trail_name
        bucket = "${aws_s3_bucket.trail.id}"
        self._add(
            "aws_s3_bucket", "trail",
            bucket_prefix=plain(name.lower().replace("_", "-").lstrip("-"), 30) + "-",
            lifecycle={"prevent_destroy": True},
        )  # fmt: skip
        self._add(
            "aws_s3_bucket_public_access_block", "trail", bucket=bucket, block_public_acls=True,
            block_public_policy=True, ignore_public_acls=True, restrict_public_buckets=True,
        )  # fmt: skip
        self._add(
            "aws_s3_bucket_lifecycle_configuration", "trail",
            bucket=bucket,
            rule={
                "id": "retention",
                "status": "Enabled",
                "filter": {},
                "expiration": {"days": _var("TrailRetentionDays")},
            },
        )  # fmt: skip
        policy = trail_policy(
            "${aws_s3_bucket.trail.arn}",
            f"${{aws_s3_bucket.trail.arn}}/AWSLogs/{_ACCOUNT}/*",
            f"arn:{_PARTITION}:cloudtrail:{_REGION}:{_ACCOUNT}:trail/{name}",
        )
        self._add("aws_s3_bucket_policy", "trail", bucket=bucket, policy=json.dumps(policy))
        self._add(
            "aws_cloudtrail", "trail",
            name=name,
            s3_bucket_name=bucket,
            enable_log_file_validation=True,
            event_selector={
                "read_write_type": "All",
                "include_management_events": False,
                "data_resource": {
                    "type": "AWS::DynamoDB::Table",
                    "values": [self._arn(table.name) for table in self._of.tables],
                },
            },
            depends_on=["aws_s3_bucket_policy.trail"],
        )  # fmt: skip

    def _arn(self, name: str) -> str:
        return f"${{aws_dynamodb_table.{self._labels[name]}.arn}}"


def _target_name(target: ScalingTarget) -> str:
    return f"{target.resource_id}/{target.kind}"


def _variable(each: Parameter) -> dict[str, Any]:
    found = {
        "type": "number" if each.is_number else "string",
        "default": _literal(each.default),
        "description": _literal(each.text[0].upper() + each.text[1:]),
    }
    name = variable(each.name)
    if each.is_number:
        condition = f"${{var.{name} >= {each.low} && var.{name} <= {each.high}}}"
    else:
        pattern = json.dumps(f"^{each.pattern}$")
        condition = f"${{can(regex({pattern}, var.{name}))}}"
    message = f"The variable {name} is wrong; expected {each.text}"
    return {**found, "validation": {"condition": condition, "error_message": message}}


def _keys(partition: str, sort: str | None) -> dict[str, str]:
    return {"hash_key": partition, **({"range_key": sort} if sort is not None else {})}


def _index(index: IndexSpec) -> dict[str, Any]:
    found: dict[str, Any] = {"name": index.name, "projection_type": index.projection}
    if index.attributes:
        found["non_key_attributes"] = sorted(index.attributes)
    return found


def _units(spec: TableSpec) -> dict[str, int]:
    if spec.billing_mode != "PROVISIONED":
        return {}
    units = spec.throughput_request()
    return {
        "read_capacity": units["ReadCapacityUnits"],
        "write_capacity": units["WriteCapacityUnits"],
    }
