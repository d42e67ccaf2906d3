"""
What is beside the tables, compared with AWS and set: alarms, dashboard, scaling targets, backups.

Each step is found by reading, and is safe to repeat.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError
from botocore.parsers import ResponseParserError

from .. import clock
from ..calls.account import get_account
from ..calls.batches import chunks
from ..calls.control import get_control
from ..calls.environment import is_loopback
from ..conf import get_config
from ..exceptions import StoreError, code_of
from ..monitoring.dashboard import local_endpoint, region_of
from .backups import ASSUME_ROLE, MANAGED_POLICIES, trusts_backup
from .description import Deployment
from .parameters import ALARMS, BACKUPS, DASHBOARD
from .scaling import SERVICE, ScalingTarget

# Alarms in one request of DescribeAlarms, and resources in one of DescribeScalableTargets.
_ALARMS_PER_REQUEST, _RESOURCES_PER_REQUEST = 100, 25
# Requests, a second or more apart, until AWS Backup knows a new role.
_ROLE_ATTEMPTS = 10
# Of a scaling target: nothing of it is suspended.
_ACTING = dict.fromkeys(
    ("DynamicScalingInSuspended", "DynamicScalingOutSuspended", "ScheduledScalingSuspended"), False
)
_MISSING = frozenset(
    [
        "ResourceNotFound", "ResourceNotFoundException", "DashboardNotFoundError", "NoSuchEntity",
        "NotFound", "NotFoundException",
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Step:
    """Something that differs: a sentence in the imperative, and what does it."""

    sentence: str
    run: Callable[[], object]


class Services:
    """
    Clients of the other services of AWS, with the account and the region of an alias.

    ``endpoint_url`` is that of all of them. By default it is the alias's own, if that is on this
    machine: then nothing is sent to AWS.
    """

    def __init__(self, using: str, endpoint_url: str | None = None) -> None:
        self.using = using
        self.region = region_of(using)
        self._url = endpoint_url or local_endpoint(using)
        self._clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        """Return botocore's client of a service."""
        if service not in self._clients:
            self._clients[service] = self._make(service)
        return self._clients[service]

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Raise StoreError with advice where an engine on this machine lacks a service."""
        try:
            yield
        except (ResponseParserError, EndpointConnectionError, ClientError) as exc:
            # A refusal has a name, unlike the status of an answer that AWS would not give.
            is_refusal = isinstance(exc, ClientError) and not code_of(exc).isdigit()
            if self._url is None or not is_loopback(self._url) or is_refusal:
                raise
            raise StoreError(
                f"The engine at {self._url} does not answer as AWS does. It may have no "
                "CloudWatch, SNS, Application Auto Scaling or AWS Backup: leave parts out (such as "
                "--without alarms --without dashboard), or name another one by --endpoint-url."
            ) from exc

    def _make(self, service: str) -> Any:
        credentials: dict[str, str] = {}
        is_local = self._url is not None and is_loopback(self._url)
        if is_local and not get_config(self.using).names_account:
            credentials = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
        return get_account(self.using).create_client(
            service,
            region_name=self.region,
            endpoint_url=self._url,
            config=Config(
                connect_timeout=5.0,
                read_timeout=30.0,
                retries={"total_max_attempts": 4, "mode": "standard"},
            ),
            **credentials,
        )


def steps(deployment: Deployment, services: Services) -> list[Step]:
    """
    Return what is missing or differs, in the order in which to set it; reads only.

    Raises botocore's errors, and StoreError for a table that a plan needs and that does not exist
    when its step runs.
    """
    with services.explained():
        return [
            *_alarms(deployment, services),
            *_dashboard(deployment, services),
            *_targets(deployment, services),
            *_backups(deployment, services),
        ]


def _found(read: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return an answer, None if there is no such thing."""
    try:
        return read()
    except ClientError as exc:
        if code_of(exc) in _MISSING:
            return None
        raise


def _pages(client: Any, operation: str, member: str, **request: Any) -> Iterator[Any]:
    for page in client.get_paginator(operation).paginate(**request):
        yield from page.get(member, ())


class _Topic:
    """The topic of the alarms, whose ARN may be known only when it is created."""

    def __init__(self, deployment: Deployment, services: Services) -> None:
        self._client = services.client("sns")
        self.name = deployment.topic_name
        self.arn: str | None = deployment.value("AlarmTopicArn") or None
        self._is_ours = self.arn is None
        self.mail = deployment.value("AlarmEmail") if self._is_ours else ""
        if self.arn is None:
            for each in _pages(self._client, "list_topics", "Topics"):
                if each["TopicArn"].endswith(f":{self.name}"):
                    self.arn = each["TopicArn"]

    def steps(self) -> Iterator[Step]:
        if self.arn is None:
            yield Step(f"create the topic {self.name}", self._create)
        if self.mail and not self._has_mail():
            yield Step("send the alarms by mail, once the address confirms it", self._subscribe)

    def _create(self) -> None:
        # Creating a topic that exists returns it.
        self.arn = self._client.create_topic(Name=self.name)["TopicArn"]

    def _has_mail(self) -> bool:
        if self.arn is None:
            return False
        found = _pages(
            self._client, "list_subscriptions_by_topic", "Subscriptions", TopicArn=self.arn
        )
        return any((each["Protocol"], each["Endpoint"]) == ("email", self.mail) for each in found)

    def _subscribe(self) -> None:
        self._client.subscribe(TopicArn=self.arn, Protocol="email", Endpoint=self.mail)


def _alarms(of: Deployment, services: Services) -> Iterator[Step]:
    if not of.has(ALARMS):
        return
    topic, client = _Topic(of, services), services.client("cloudwatch")
    yield from topic.steps()
    names = [alarm.name for alarm in of.alarms]
    existing = {
        each["AlarmName"]: each
        for some in chunks(names, _ALARMS_PER_REQUEST)
        for each in _pages(client, "describe_alarms", "MetricAlarms", AlarmNames=list(some))
    }
    for alarm in of.alarms:
        limit = alarm.threshold
        limit = of.value(limit) if isinstance(limit, str) else limit

        def put(alarm: Any = alarm, limit: Any = limit) -> None:
            client.put_metric_alarm(**alarm.as_request(limit, topic.arn))

        has, wanted = existing.get(alarm.name), alarm.as_request(limit, topic.arn)
        if has is None:
            yield Step(f"create the alarm {alarm.name}", put)
        elif different := _different(has, wanted):
            yield Step(f"change the alarm {alarm.name}: {', '.join(different)}", put)


def _different(has: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return the names of the arguments that differ; AWS may add some of its own."""
    return [name for name, value in wanted.items() if not _is_as(has.get(name), value)]


def _is_as(has: Any, wanted: Any) -> bool:
    """Return whether a value is as wanted, in whatever order lists are."""
    if isinstance(wanted, Mapping):
        return isinstance(has, Mapping) and not _different(has, wanted)
    if isinstance(wanted, list):
        # An empty one may be left out.
        has = [] if has is None else has
        return (
            isinstance(has, list)
            and len(has) == len(wanted)
            and all(any(_is_as(one, each) for one in has) for each in wanted)
        )
    return bool(has == wanted)


def _dashboard(of: Deployment, services: Services) -> Iterator[Step]:
    if not of.has(DASHBOARD):
        return
    client, name = services.client("cloudwatch"), of.dashboard_name
    body = of.dashboard(services.region)

    def put() -> None:
        answer = client.put_dashboard(DashboardName=name, DashboardBody=json.dumps(body))
        if messages := answer.get("DashboardValidationMessages"):
            text = "; ".join(str(each.get("Message")) for each in messages)
            raise StoreError(f"CloudWatch finds mistakes in the dashboard {name}: {text}")

    has = _found(lambda: client.get_dashboard(DashboardName=name))
    if has is None:
        yield Step(f"create the dashboard {name}", put)
    elif json.loads(has["DashboardBody"]) != body:
        yield Step(f"change the dashboard {name}", put)


def _targets(of: Deployment, services: Services) -> Iterator[Step]:
    if not of.targets:
        return
    client = services.client("application-autoscaling")
    resources = list(dict.fromkeys(target.resource_id for target in of.targets))
    existing = {
        (each["ResourceId"], each["ScalableDimension"]): each
        for some in chunks(resources, _RESOURCES_PER_REQUEST)
        for each in _pages(
            client, "describe_scalable_targets", "ScalableTargets",
            ServiceNamespace=SERVICE, ResourceIds=list(some),
        )
    }  # fmt: skip
    policies = {
        (each["ResourceId"], each["ScalableDimension"]): each
        for resource in resources
        for each in _pages(
            client, "describe_scaling_policies", "ScalingPolicies",
            ServiceNamespace=SERVICE, ResourceId=resource,
        )
        if each["PolicyType"] == "TargetTrackingScaling"
    }  # fmt: skip
    for target in of.targets:
        yield from _target(client, target, existing.get(_key(target)), policies.get(_key(target)))


def _key(target: ScalingTarget) -> tuple[str, str]:
    return target.resource_id, target.dimension


def _target(
    client: Any,
    target: ScalingTarget,
    has: Mapping[str, Any] | None,
    policy: Mapping[str, Any] | None,
) -> Iterator[Step]:
    what = f"{target.kind.lower()} units of {target.resource_id}"

    def register() -> None:
        client.register_scalable_target(**target.target_request(), SuspendedState=_ACTING)

    if has is None or not _is_between(target, has) or any(has.get("SuspendedState", {}).values()):
        limits = f"between {target.minimum} and {target.maximum}"
        yield Step(f"scale the {what} {limits} by Application Auto Scaling", register)
    wanted = target.policy_request()
    if policy is not None:
        # It replaces the one that there is, whatever its name is.
        wanted["PolicyName"] = policy["PolicyName"]
    tracking = (policy or {}).get("TargetTrackingScalingPolicyConfiguration", {})
    # Without scaling in, what was raised stays, and is paid for.
    if _different(tracking, target.tracking()) or tracking.get("DisableScaleIn"):
        yield Step(
            f"aim at {target.percent:g} % of the {what}",
            lambda: client.put_scaling_policy(**wanted),
        )


def _is_between(target: ScalingTarget, has: Mapping[str, Any]) -> bool:
    low, high = int(has["MinCapacity"]), int(has["MaxCapacity"])
    # With AUTO_SCALING "raise_minimum" the library raises the minimum for some time.
    is_low = low >= target.minimum if target.is_shared else low == target.minimum
    return is_low and high == target.maximum


def _backups(of: Deployment, services: Services) -> Iterator[Step]:
    if of.has(BACKUPS) and of.backups is not None:
        yield from _Backups(of, services).steps()


class _Backups:
    """The vault, the role, the plan and the selection of AWS Backup, all of one name."""

    def __init__(self, of: Deployment, services: Services) -> None:
        assert of.backups is not None  # noqa: S101 - for the type checker
        self._of, self._plan = of, of.backups
        self._name = of.backups.name
        self._using = services.using
        self._client, self._iam = services.client("backup"), services.client("iam")
        self._plan_id: str | None = next(
            (
                each["BackupPlanId"]
                for each in _pages(self._client, "list_backup_plans", "BackupPlansList")
                if each["BackupPlanName"] == self._name
            ),
            None,
        )

    def steps(self) -> Iterator[Step]:
        name, client = self._name, self._client
        # DescribeBackupVault of one that does not exist is answered as if it were not allowed.
        vaults = _pages(client, "list_backup_vaults", "BackupVaultList")
        if all(each["BackupVaultName"] != name for each in vaults):
            yield Step(
                f"create the vault {name} of AWS Backup",
                lambda: client.create_backup_vault(BackupVaultName=name),
            )
        role = _found(lambda: self._iam.get_role(RoleName=name))
        if role is None:
            yield Step(f"create the role {name} of AWS Backup", self._create_role)
        else:
            if not trusts_backup(role["Role"]["AssumeRolePolicyDocument"]):
                yield Step(f"let AWS Backup alone assume the role {name}", self._trust)
            if lacking := self._lacking():
                yield Step(f"attach {', '.join(lacking)} to the role {name}", self._attach)
        if self._plan_id is None:
            yield Step(f"create the backup plan {name}", self._create_plan)
        elif not self._is_as_wanted(self._plan_id):
            yield Step(f"change the backup plan {name}", self._update_plan)
        if not self._selects():
            yield Step(f"back up {', '.join(self._plan.tables)} by the plan {name}", self._select)

    def _arn(self) -> str:
        """Return the ARN of the first table, which has the partition and the account."""
        return self._arns()[0]

    def _arns(self) -> Sequence[str]:
        control, found = get_control(self._using), []
        for table in self._plan.tables:
            description = control.describe(table)
            if description is None:
                raise StoreError(
                    f"The table {table} does not exist. 'manage.py dynamo_create_tables' creates "
                    "it."
                )
            found.append(str(description["TableArn"]))
        return found

    def _request(self) -> dict[str, Any]:
        of, copy = self._of, None
        if region := of.value("BackupCopyRegion"):
            _, partition, _, _, account, *_ = self._arn().split(":")
            vault = of.value("BackupCopyVault")
            copy = f"arn:{partition}:backup:{region}:{account}:backup-vault:{vault}"
        return self._plan.as_request(
            self._name, of.value("BackupSchedule"), of.value("BackupRetentionDays"), copy
        )

    def _is_as_wanted(self, plan_id: str) -> bool:
        has = self._client.get_backup_plan(BackupPlanId=plan_id)["BackupPlan"]
        (wanted,) = self._request()["Rules"]
        rules = has.get("Rules", ())
        return (
            len(rules) == 1
            and not _different(rules[0], wanted)
            and bool(rules[0].get("CopyActions")) == ("CopyActions" in wanted)
        )

    def _create_role(self) -> None:
        self._iam.create_role(RoleName=self._name, AssumeRolePolicyDocument=json.dumps(ASSUME_ROLE))
        self._attach()

    def _trust(self) -> None:
        self._iam.update_assume_role_policy(
            RoleName=self._name, PolicyDocument=json.dumps(ASSUME_ROLE)
        )

    def _lacking(self) -> list[str]:
        """Return the policies that the role does not have, as after a step that failed."""
        answers = _pages(
            self._iam, "list_attached_role_policies", "AttachedPolicies", RoleName=self._name
        )
        has = {each["PolicyArn"].partition(":policy/")[2] for each in answers}
        return [policy for policy in MANAGED_POLICIES if policy not in has]

    def _attach(self) -> None:
        partition = self._arn().split(":")[1]
        for policy in MANAGED_POLICIES:
            self._iam.attach_role_policy(
                RoleName=self._name, PolicyArn=f"arn:{partition}:iam::aws:policy/{policy}"
            )

    def _create_plan(self) -> None:
        answer = self._client.create_backup_plan(BackupPlan=self._request())
        self._plan_id = answer["BackupPlanId"]

    def _update_plan(self) -> None:
        self._client.update_backup_plan(BackupPlanId=self._plan_id, BackupPlan=self._request())

    def _selections(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the selections of our name, each with its id."""
        for each in _pages(
            self._client, "list_backup_selections", "BackupSelectionsList",
            BackupPlanId=self._plan_id,
        ):  # fmt: skip
            if each["SelectionName"] == self._name:
                answer = self._client.get_backup_selection(
                    BackupPlanId=self._plan_id, SelectionId=each["SelectionId"]
                )
                yield each["SelectionId"], answer["BackupSelection"]

    def _selects(self) -> bool:
        if self._plan_id is None:
            return False
        control = get_control(self._using)
        # A table that does not exist yet is not selected either.
        wanted = [(control.describe(table) or {}).get("TableArn") for table in self._plan.tables]
        found = [each.get("Resources", []) for _, each in self._selections()]
        return [sorted(map(str, wanted))] == [sorted(each) for each in found]

    def _select(self) -> None:
        old = [selection_id for selection_id, _ in self._selections()]
        selection = {
            "SelectionName": self._name,
            "IamRoleArn": self._iam.get_role(RoleName=self._name)["Role"]["Arn"],
            "Resources": self._arns(),
        }
        self._patiently(
            lambda: self._client.create_backup_selection(
                BackupPlanId=self._plan_id, BackupSelection=selection
            )
        )
        for selection_id in old:
            self._client.delete_backup_selection(
                BackupPlanId=self._plan_id, SelectionId=selection_id
            )

    @staticmethod
    def _patiently(request: Callable[[], object]) -> None:
        """AWS Backup refuses a new role for some seconds."""
        for attempt in range(_ROLE_ATTEMPTS):
            try:
                request()
                return
            except ClientError as exc:
                is_last = attempt == _ROLE_ATTEMPTS - 1
                if code_of(exc) != "InvalidParameterValueException" or is_last:
                    raise
            clock.sleep(2.0)
