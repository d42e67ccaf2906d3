"""
The policies of IAM: for each role the actions that its processes call, and on what.

``web`` serves requests, ``worker`` runs Celery's tasks and streams, ``deployer`` creates and
changes tables. What the stores need is stated here, and ``role_actions`` of a model say what the
project does with its table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from django.utils.module_loading import import_string

from ..conf import get_config
from ..exceptions import ConfigurationError
from ..infrastructure.options import AWS_MANAGED, AWS_OWNED, TableOptions
from ..infrastructure.tables import TableSpec
from ..models import DATA_ACTIONS
from ..monitoring.dashboard import local_endpoint, region_of
from .description import Deployment, Table
from .names import begin_of_alarms
from .parameters import ALARMS, DASHBOARD

WEB, WORKER, DEPLOYER = "web", "worker", "deployer"
ROLES: Final = (WEB, WORKER, DEPLOYER)
# Characters of a managed policy, without white space.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
MOST_CHARACTERS = 6_144

# The actions on the table of the stores, for both roles: tasks use the stores, too.
_ON_STORE = frozenset(
    [
        *("BatchGetItem", "BatchWriteItem", "DeleteItem", "GetItem", "PutItem"),
        *("Query", "Query/GSI1", "Scan", "UpdateItem"),
    ]
)
# And on the control table: the pages of the admin act, and the tasks delete what is old.
_ON_CONTROL = {
    WEB: frozenset(["BatchGetItem", "GetItem", "PutItem", "Query", "UpdateItem"]),
    WORKER: frozenset(
        ["BatchWriteItem", "DeleteItem", "GetItem", "PutItem", "Query", "UpdateItem"]
    ),
}
_TO_REPLICATE = (
    *("BatchWriteItem", "CreateTable", "CreateTableReplica", "DeleteItem", "GetItem"),
    *("PutItem", "Query", "Scan", "UpdateItem"),
)
_ON_PLANS = (
    *("CreateBackupPlan", "CreateBackupSelection", "DeleteBackupSelection", "GetBackupPlan"),
    *("GetBackupSelection", "ListBackupSelections", "UpdateBackupPlan"),
)
_ON_BACKUP_ROLE = (
    *("AttachRolePolicy", "CreateRole", "GetRole", "ListAttachedRolePolicies", "PassRole"),
    "UpdateAssumeRolePolicy",
)
_OF_STREAMS = ("DescribeStream", "GetRecords", "GetShardIterator")
# What DynamoDB needs of a key to create a table with it.
_TO_CREATE = ("CreateGrant", "Encrypt", "GenerateDataKey", "ReEncryptFrom", "ReEncryptTo")


class Place(NamedTuple):
    """Where tables are: the parts of their ARNs, which may be variables of a template."""

    partition: str
    region: str
    account: str

    def arn(self, service: str, resource: str) -> str:
        """Return the ARN of ``resource`` of ``service``."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{resource}"

    def table(self, resource: str) -> str:
        """Return the ARN of a table, or of ``table/index/name`` and the like."""
        return self.arn("dynamodb", f"table/{resource}")


class Grant(NamedTuple):
    """One action on one resource, and the conditions as JSON."""

    action: str
    resource: str
    conditions: str = "{}"


Places = Callable[[str], Place]


def policy(role: str, deployments: Iterable[Deployment], place_of: Places) -> dict[str, Any]:
    """
    Return the policy document of ``role``; ``place_of`` returns the place of an alias.

    Raises ConfigurationError if ``role_actions`` of a model has an unknown role or action.
    """
    if role not in ROLES:
        raise ConfigurationError(f"There is no role {role!r}; expected {', '.join(ROLES)}.")
    deployments, found = list(deployments), set[Grant]()
    specs = [spec for each in deployments for spec in each.watched]
    for spec in specs:
        place = place_of(spec.using)
        found |= _of_deployer(spec, place) if role == DEPLOYER else _of_process(role, spec, place)
        found |= _of_key(role, spec, place)
    for using in dict.fromkeys(spec.using for spec in specs):
        found |= _of_alias(role, using, specs, place_of(using))
    if role == DEPLOYER:
        for each in deployments:
            found |= _of_parts(each, place_of)
    return {"Version": "2012-10-17", "Statement": _statements(found)}


def place_in(account: str | None) -> Places:
    """
    Return a function from an alias to its place, in ``account`` unless ``ROLE_ARN`` names another.

    That raises ConfigurationError if nothing says the account, or the region.
    """

    def place_of(using: str) -> Place:
        role = get_config(using).role_arn
        found = role.split(":")[4] if role else account
        if found is None and local_endpoint(using) is not None:
            found = "0" * 12
        if found is None:
            raise ConfigurationError(
                "A policy names the account of its tables. Give it by --account; "
                "'aws sts get-caller-identity' prints it."
            )
        region = region_of(using)
        return Place(_partition_of(region), region, found)

    return place_of


def _partition_of(region: str) -> str:
    begins = {"cn-": "aws-cn", "us-gov-": "aws-us-gov"}
    return next((name for start, name in begins.items() if region.startswith(start)), "aws")


def render(role: str | None, deployments: Iterable[Deployment], account: str | None) -> str:
    """Return the policy of ``role`` as JSON, or those of all roles by name."""
    deployments, place_of = list(deployments), place_in(account)
    if role is not None:
        return json.dumps(policy(role, deployments, place_of), indent=2)
    found = {each: policy(each, deployments, place_of) for each in ROLES}
    return json.dumps(found, indent=2)


def length_of(document: Mapping[str, Any]) -> int:
    """Return the characters of a policy that count against IAM's limit."""
    return len(re.sub(r"\s", "", json.dumps(document)))


def _of_process(role: str, spec: TableSpec, place: Place) -> set[Grant]:
    config = get_config(spec.using)
    if spec.name == config.store_table:
        wanted = _ON_STORE
    elif spec.name == config.control_table:
        wanted = _ON_CONTROL[role]
    else:
        wanted = frozenset(_actions_of_model(role, spec))
    found = {
        Grant(
            f"dynamodb:{action}",
            place.table(f"{spec.name}/index/{index}" if index else spec.name),
        )
        for action, _, index in (each.partition("/") for each in wanted)
    }
    is_provisioned, is_read = spec.billing_mode == "PROVISIONED", _has_stream(spec)
    if role == WEB or is_provisioned or is_read:
        # The pages of the admin describe every table.
        found.add(Grant("dynamodb:DescribeTable", place.table(spec.name)))
    if is_provisioned:
        found.add(Grant("dynamodb:UpdateTable", place.table(spec.name)))
    if role == WORKER and is_read:
        streams = place.table(f"{spec.name}/stream/*")
        found |= {Grant(f"dynamodb:{action}", streams) for action in _OF_STREAMS}
        found.add(Grant("dynamodb:ListStreams", "*"))
    return found


def _has_stream(spec: TableSpec) -> bool:
    return spec.options.stream not in (None, "OFF")


def _actions_of_model(role: str, spec: TableSpec) -> Collection[str]:
    if spec.role_actions is None:
        indexes = {f"{action}/{each.name}" for each in spec.indexes for action in ("Query", "Scan")}
        return {*DATA_ACTIONS, *indexes}
    known = {each.name for each in spec.indexes}
    for name, actions in spec.role_actions.items():
        for each in actions:
            action, _, index = each.partition("/")
            if (
                name not in (WEB, WORKER)
                or action not in DATA_ACTIONS
                or (index and (index not in known or action not in ("Query", "Scan")))
            ):
                raise ConfigurationError(
                    f"role_actions of the model of {spec.name} has {each!r} for the role {name!r}; "
                    f"expected the roles {WEB!r} and {WORKER!r}, the actions "
                    f"{', '.join(DATA_ACTIONS)}, and 'Query/index' or 'Scan/index' for an index of "
                    "the table."
                )
    return spec.role_actions.get(role, ())


def _of_deployer(spec: TableSpec, place: Place) -> set[Grant]:
    options, actions = spec.options, {"CreateTable", "DescribeTable", "UpdateTable"}
    if spec.ttl is not None:
        actions |= {"DescribeTimeToLive", "UpdateTimeToLive"}
    if options.point_in_time_recovery is not None:
        actions |= {"DescribeContinuousBackups", "UpdateContinuousBackups"}
    if options.tags is not None:
        actions |= {"ListTagsOfResource", "TagResource"}
    return {Grant(f"dynamodb:{action}", place.table(spec.name)) for action in actions}


def _of_parts(of: Deployment, place_of: Places) -> set[Grant]:
    """Return the grants for what ``dynamo_infrastructure --apply`` sets beside the tables."""
    place = place_of((*of.aliases, *(spec.using for spec in of.watched))[0])
    role, found = place._replace(region=""), set[Grant]()
    for table in of.tables:
        found |= _of_replicas(table, place_of(table.spec.using))
    if of.has(ALARMS):
        # Names of alarms begin with that of their table, or of the stores' table.
        names = {spec.name for spec in of.watched} | {of.base}
        alarms = [place.arn("cloudwatch", f"alarm:{begin_of_alarms(name)}*") for name in names]
        found |= {Grant("cloudwatch:PutMetricAlarm", each) for each in alarms}
        found.add(Grant("cloudwatch:DescribeAlarms", place.arn("cloudwatch", "alarm:*")))
        if not of.value("AlarmTopicArn"):
            topic = place.arn("sns", of.topic_name)
            found |= {
                Grant(f"sns:{action}", topic)
                for action in ("CreateTopic", "ListSubscriptionsByTopic", "Subscribe")
            }
            found.add(Grant("sns:ListTopics", "*"))
    if of.has(DASHBOARD):
        dashboard = role.arn("cloudwatch", f"dashboard/{of.dashboard_name}")
        found |= {Grant(f"cloudwatch:{action}Dashboard", dashboard) for action in ("Get", "Put")}
    if of.targets:
        scaling = "application-autoscaling"
        target = place.arn(scaling, "scalable-target/*")
        found |= {
            Grant(f"{scaling}:DescribeScalableTargets", "*"),
            Grant(f"{scaling}:DescribeScalingPolicies", "*"),
            Grant(f"{scaling}:PutScalingPolicy", target),
            Grant(f"{scaling}:RegisterScalableTarget", target),
            _service_role(role, "dynamodb.application-autoscaling"),
        }
    if of.backups is not None:
        vault = place.arn("backup", f"backup-vault:{of.backups.name}")
        plans = place.arn("backup", "backup-plan:*")
        own = role.arn("iam", f"role/{of.backups.name}")
        found |= {Grant(f"backup:{action}", plans) for action in _ON_PLANS}
        found |= {Grant(f"iam:{action}", own) for action in _ON_BACKUP_ROLE}
        found |= {
            Grant(f"backup:{action}", "*") for action in ("ListBackupPlans", "ListBackupVaults")
        }
        found |= {
            Grant("backup:CreateBackupVault", vault),
            Grant("backup-storage:MountCapsule", "*"),
        }
    return found


def _of_replicas(table: Table, place: Place) -> set[Grant]:
    if not table.replicas:
        return set()
    # DynamoDB fills a replica in the name of the caller.
    # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/V2gt_IAM.html
    found = set[Grant]()
    for replica in table.replicas:
        there = place._replace(region=replica.region)
        actions = (*_TO_REPLICATE, *_to_describe(replica.options))
        found |= {Grant(f"dynamodb:{action}", there.table(table.name)) for action in actions}
        found |= _of_key_name(replica.options.encryption_key, there)
    return {*found, _service_role(place._replace(region=""), "replication.dynamodb")}


def _to_describe(options: TableOptions) -> Iterator[str]:
    yield "DescribeTable"
    if options.point_in_time_recovery is not None:
        yield "DescribeContinuousBackups"
    if options.tags is not None:
        yield "ListTagsOfResource"


def _service_role(place: Place, service: str) -> Grant:
    name = f"{service}.amazonaws.com"
    return Grant(
        "iam:CreateServiceLinkedRole",
        place.arn("iam", f"role/aws-service-role/{name}/*"),
        json.dumps({"StringLike": {"iam:AWSServiceName": name}}),
    )


def _of_key(role: str, spec: TableSpec, place: Place) -> set[Grant]:
    """Return the grants on the key in KMS, which DynamoDB uses for the caller."""
    key = spec.options.encryption_key
    if key is None or key == AWS_OWNED:
        return set()
    if key in AWS_MANAGED:
        return _of_key_name(key, place) if role == DEPLOYER else set()
    resource, of_key = _key_in(key, place)
    via = {"StringLike": {"kms:ViaService": "dynamodb.*.amazonaws.com"}}
    found = {Grant("kms:Decrypt", resource, json.dumps({**of_key, **via}))}
    if role == DEPLOYER:
        found |= {
            Grant(f"kms:{action}", resource, json.dumps({**of_key, **via})) for action in _TO_CREATE
        }
        found.add(Grant("kms:DescribeKey", resource, json.dumps(of_key)))
    return found


def _of_key_name(key: str | None, place: Place) -> set[Grant]:
    """Return the grant to ask KMS for the key that an alias names, as a comparison does."""
    if key in AWS_MANAGED:
        key = f"alias/{AWS_MANAGED[0]}"
    if key is None or "alias/" not in key:
        return set()
    resource, of_key = _key_in(key, place)
    return {Grant("kms:DescribeKey", resource, json.dumps(of_key))}


def _key_in(key: str, place: Place) -> tuple[str, dict[str, Any]]:
    """Return the resource and the condition of a key of KMS."""
    if "alias/" in key:
        alias = key[key.index("alias/") :]
        condition = {"ForAnyValue:StringEquals": {"kms:ResourceAliases": alias}}
        return place.arn("kms", "key/*"), condition
    return key if key.startswith("arn:") else place.arn("kms", f"key/{key}"), {}


def _of_alias(role: str, using: str, specs: Iterable[TableSpec], place: Place) -> set[Grant]:
    config = get_config(using)
    found: set[Grant] = set()
    if config.role_arn:
        found.add(Grant("sts:AssumeRole", config.role_arn))
    if role == DEPLOYER:
        return found
    # Settings of single tables are theirs.
    scaling = [
        each.config.scaling
        for each in specs
        if each.using == using and each.billing_mode == "PROVISIONED"
    ]
    if scaling:
        found.add(Grant("application-autoscaling:DescribeScalableTargets", "*"))
        if any(each.enabled or each.schedule is not None for each in scaling):
            found.add(Grant("dynamodb:DescribeLimits", "*"))
        if any(each.auto_scaling == "raise_minimum" for each in scaling):
            found.add(
                Grant(
                    "application-autoscaling:RegisterScalableTarget",
                    place.arn("application-autoscaling", "scalable-target/*"),
                )
            )
    if config.notify.topic:
        found.add(Grant("sns:Publish", config.notify.topic))
    namespace = json.dumps({"StringEquals": {"cloudwatch:namespace": config.metrics.namespace}})
    for action in {each for path in config.metrics.sinks for each in import_string(path).actions}:
        of_metrics = action == "cloudwatch:PutMetricData"
        found.add(Grant(action, "*", namespace) if of_metrics else Grant(action, "*"))
    return found


def _statements(grants: Iterable[Grant]) -> list[dict[str, Any]]:
    """Return the fewest statements with exactly these grants: one for each set of actions."""
    actions: dict[tuple[str, str], set[str]] = {}
    for grant in grants:
        actions.setdefault((grant.resource, grant.conditions), set()).add(grant.action)
    resources: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for (resource, conditions), found in sorted(actions.items()):
        resources.setdefault((tuple(sorted(found)), conditions), []).append(resource)
    return [
        {
            "Effect": "Allow",
            "Action": list(found),
            "Resource": where[0] if len(where) == 1 else where,
            **({"Condition": json.loads(conditions)} if conditions != "{}" else {}),
        }
        for (found, conditions), where in sorted(resources.items())
    ]
