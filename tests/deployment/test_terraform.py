"""The document of Terraform: by the provider's arguments, its references, and Terraform itself."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest

from dynamo_stores.infrastructure.tables import wanted_tables
from tests.deployment.conftest import EVERYTHING, KEY, infrastructure

ALL = ["auto-scaling", "backups", "vpc-endpoint", "cloudtrail"]
# The provider's arguments, by its documentation (hashicorp/aws 6): a type, or those of a
# block. Of a list of blocks the one element here is each of them.
INDEX = {
    "name": str, "hash_key": str, "range_key": str, "projection_type": str,
    "non_key_attributes": list, "read_capacity": int, "write_capacity": int,
}  # fmt: skip
META = {"lifecycle": {"prevent_destroy": bool, "ignore_changes": list}, "depends_on": list}
SCHEMA = {
    "aws_dynamodb_table": {
        "name": str, "billing_mode": str, "hash_key": str, "range_key": str,
        "read_capacity": int, "write_capacity": int,
        "attribute": [{"name": str, "type": str}],
        "global_secondary_index": [INDEX],
        "local_secondary_index": [
            {name: INDEX[name] for name in INDEX if name not in ("hash_key", "read_capacity")}
        ],
        "ttl": {"attribute_name": str, "enabled": bool},
        "point_in_time_recovery": {"enabled": bool},
        "server_side_encryption": {"enabled": bool, "kms_key_arn": str},
        "stream_enabled": bool, "stream_view_type": str, "deletion_protection_enabled": bool,
        "table_class": str, "tags": dict,
    },
    "aws_dynamodb_table_replica": {
        "provider": str, "global_table_arn": str, "kms_key_arn": str,
        "point_in_time_recovery": bool, "deletion_protection_enabled": bool,
        "table_class_override": str, "tags": dict,
    },
    "aws_cloudwatch_metric_alarm": {
        "alarm_name": str, "alarm_description": str, "namespace": str, "metric_name": str,
        "dimensions": dict, "statistic": str, "period": int, "evaluation_periods": int,
        "datapoints_to_alarm": int, "threshold": (int, str), "comparison_operator": str,
        "treat_missing_data": str, "alarm_actions": list, "ok_actions": list,
    },
    "aws_cloudwatch_dashboard": {"dashboard_name": str, "dashboard_body": str},
    "aws_sns_topic": {"count": str, "name": str},
    "aws_sns_topic_subscription": {
        "count": str, "topic_arn": str, "protocol": str, "endpoint": str
    },
    "aws_appautoscaling_target": {
        "service_namespace": str, "resource_id": str, "scalable_dimension": str,
        "min_capacity": int, "max_capacity": int,
    },
    "aws_appautoscaling_policy": {
        "name": str, "policy_type": str, "service_namespace": str, "resource_id": str,
        "scalable_dimension": str,
        "target_tracking_scaling_policy_configuration": {
            "target_value": float,
            "predefined_metric_specification": {"predefined_metric_type": str},
        },
    },
    "aws_backup_vault": {"name": str},
    "aws_backup_plan": {
        "name": str,
        "rule": {
            "rule_name": str, "target_vault_name": str, "schedule": str,
            "lifecycle": {"delete_after": str},
            "dynamic": {
                "copy_action": {
                    "for_each": str,
                    "content": {"destination_vault_arn": str, "lifecycle": {"delete_after": str}},
                }
            },
        },
    },
    "aws_backup_selection": {"name": str, "plan_id": str, "iam_role_arn": str, "resources": list},
    "aws_iam_role": {"name": str, "assume_role_policy": str},
    "aws_iam_role_policy_attachment": {"role": str, "policy_arn": str},
    "aws_vpc_endpoint": {
        "count": str, "vpc_endpoint_type": str, "vpc_id": str, "service_name": str,
        "route_table_ids": str,
    },
    "aws_s3_bucket": {"bucket_prefix": str},
    "aws_s3_bucket_public_access_block": {
        "bucket": str, "block_public_acls": bool, "block_public_policy": bool,
        "ignore_public_acls": bool, "restrict_public_buckets": bool,
    },
    "aws_s3_bucket_lifecycle_configuration": {
        "bucket": str,
        "rule": {"id": str, "status": str, "filter": dict, "expiration": {"days": str}},
    },
    "aws_s3_bucket_policy": {"bucket": str, "policy": str},
    "aws_cloudtrail": {
        "name": str, "s3_bucket_name": str, "enable_log_file_validation": bool,
        "event_selector": {
            "read_write_type": str, "include_management_events": bool,
            "data_resource": {"type": str, "values": list},
        },
    },
}  # fmt: skip


def document(*arguments, **options):
    return json.loads(infrastructure("--format", "terraform", *arguments, **options).out)


def mistakes(value, schema, where):
    """Yield what the provider does not know, or has with another type."""
    if isinstance(schema, list):
        for each in value:
            yield from mistakes(each, schema[0], where)
    elif isinstance(schema, dict):
        for name, each in value.items():
            if name in schema:
                yield from mistakes(each, schema[name], f"{where}.{name}")
            else:
                yield f"{where}.{name} is unknown"
    elif not isinstance(value, schema):
        yield f"{where} is {value!r}"


@pytest.fixture
def everything(project, orders):
    """All that the settings know, in two regions."""
    west = {"west": {**EVERYTHING, "REGION": "us-west-2", "ENCRYPTION_KEY": "alias/shop"}}
    project(west, **{**EVERYTHING, "FAILOVER": "west"})
    return document(using=["default"], with_=ALL)


def test_arguments_are_those_of_the_provider(everything):
    for kind, found in everything["resource"].items():
        for label, arguments in found.items():
            where = f"{kind}.{label}"
            assert not list(mistakes(arguments, {**SCHEMA[kind], **META}, where))
    assert set(everything["resource"]) == set(SCHEMA)


def test_references_lead_to_what_is_there(everything):
    """Variables, data and resources; and every variable has a default and is used."""
    text = json.dumps({k: v for k, v in everything.items() if k != "variable"})
    text = re.sub(r"\$\$\{[^}]*\}", "", text)
    used = set(re.findall(r"\bvar\.(\w+)", text))
    assert used == set(everything["variable"])
    assert all("default" in each for each in everything["variable"].values())
    for kind, label in re.findall(r"data\.(aws_\w+)\.(\w+)\.", text):
        assert label in everything["data"][kind]
    for kind, label in re.findall(r"(?<![.\w])(aws_\w+)\.(\w+)", text):
        assert label in everything["resource"].get(kind, {}) or kind in everything["data"]


def test_tables_are_those_of_the_models(everything):
    tables = {each["name"]: each for each in everything["resource"]["aws_dynamodb_table"].values()}
    specs = [spec for spec in wanted_tables() if spec.using == "default"]
    assert set(tables) == {spec.name for spec in specs}
    for spec in specs:
        of = tables[spec.name]
        assert (of["hash_key"], of.get("range_key")) == (spec.keys.partition, spec.keys.sort)
        assert {each["name"]: each["type"] for each in of["attribute"]} == dict(spec.types)
        indexes = [*of.get("global_secondary_index", ()), *of.get("local_secondary_index", ())]
        assert {each["name"] for each in indexes} == {index.name for index in spec.indexes}
        assert of.get("ttl", {}).get("attribute_name") == spec.ttl
        assert of["point_in_time_recovery"] == {"enabled": True}
        assert of["server_side_encryption"] == {"enabled": True, "kms_key_arn": KEY}
        assert of["tags"] == {"team": "a $${b} 'c'", "stage": "test"}
        assert of["lifecycle"]["prevent_destroy"]
        assert of["billing_mode"] == spec.billing_mode


def test_replicas_are_made_after_the_auto_scaling_that_they_need(everything):
    """In the other region, with the key that is found there by its alias."""
    tables = everything["resource"]["aws_dynamodb_table"]
    replicas = everything["resource"]["aws_dynamodb_table_replica"]
    assert len(replicas) == len(tables) - 1  # none of the control table
    assert everything["provider"] == {"aws": [{"alias": "us-west-2", "region": "us-west-2"}]}
    ((label, data),) = everything["data"]["aws_kms_key"].items()
    assert data == {"key_id": "alias/shop", "provider": "aws.us-west-2"}
    for each in replicas.values():
        assert each["kms_key_arn"] == f"${{data.aws_kms_key.{label}.arn}}"
        assert each["provider"] == "aws.us-west-2"
        table = each["global_table_arn"].split(".")[1]
        assert "replica" in tables[table]["lifecycle"]["ignore_changes"]
        policies = everything["resource"]["aws_appautoscaling_policy"]
        of = tables[table]["name"]
        wanted = [
            f"aws_appautoscaling_policy.{name}"
            for name in policies
            if everything["resource"]["aws_appautoscaling_target"][name]["resource_id"].split("/")[
                1
            ]
            == of
        ]
        assert wanted
        assert sorted(each["depends_on"]) == sorted(wanted)


def terraform(folder, *arguments):
    """Return what Terraform says about the document in a folder; it asks no registry."""
    return subprocess.run(
        ["terraform", f"-chdir={folder}", *arguments, "-no-color"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


@pytest.mark.skipif(shutil.which("terraform") is None, reason="Terraform is not installed.")
def test_terraform_reads_it(everything, tmp_path):
    """Its parser alone: the provider's schema would come from Terraform's registry."""
    (tmp_path / "main.tf.json").write_text(json.dumps(everything))
    assert terraform(tmp_path, "get").returncode == 0
    wrong = {**everything, "variable": {"a": {"defalt": 1}}}
    (tmp_path / "main.tf.json").write_text(json.dumps(wrong))
    assert terraform(tmp_path, "get").returncode != 0


@pytest.mark.skipif(shutil.which("terraform") is None, reason="Terraform is not installed.")
def test_terraform_accepts_the_defaults_and_refuses_wrong_values(everything, tmp_path):
    """Variables need no provider."""
    variables = {"variable": everything["variable"], "output": {"a": {"value": "${var.vpc_id}"}}}
    (tmp_path / "main.tf.json").write_text(json.dumps(variables))
    for values, is_right in (
        ([], True),
        (["vpc_id=vpc-12", "alarm_email=ops@example.com", "throttle_events=3"], True),
        (["alarm_email=nobody"], False),
        (["throttle_events=0"], False),
    ):
        done = terraform(tmp_path, "plan", "-input=false", *(f"-var={each}" for each in values))
        assert (done.returncode == 0) is is_right, done.stderr
