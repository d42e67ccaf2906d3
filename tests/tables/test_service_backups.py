"""dynamo_backups: the service's own backups, on engines that have them."""

from __future__ import annotations

import datetime
import io
import re
import secrets
import signal
import sys

import boto3
import pytest
from django.core.management import CommandError, call_command

from dynamo_stores.calls.control import get_control
from dynamo_stores.infrastructure.live import read_recovery, read_tags
from dynamo_stores.infrastructure.service_backups import Source, is_restored_from
from dynamo_stores.infrastructure.tables import create_table, table_of
from dynamo_stores.models import StoreItem
from dynamo_stores.testing import EmbeddedEngine
from tests.helpers.changing import ChangingTables
from tests.helpers.processes import interrupted_command

FAKE = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}


def run(*args, **options):
    """Return what dynamo_backups printed."""
    out = io.StringIO()
    call_command("dynamo_backups", *args, stdout=out, **options)
    return out.getvalue()


@pytest.fixture(scope="module")
def embedded():
    """The URL of an engine that has backups."""
    with EmbeddedEngine() as engine:
        yield engine.url


@pytest.fixture
def table(alias):
    """``table(url, …)`` makes an alias with ten items in its store table; returns both names."""

    def make(url, **changes):
        using = alias(ENDPOINT_URL=url, TABLE_PREFIX=f"backups-{secrets.token_hex(4)}-", **changes)
        model = StoreItem.bound_to(using)
        create_table(table_of(model), lambda line: None)
        for number in range(10):
            model(f"k{number}", "item").save()
        return using, model.Meta.table_name

    return make


def items(using, name):
    """Return the partition keys of the items of a table."""
    client = boto3.client("dynamodb", region_name="us-east-1", endpoint_url=_url_of(using), **FAKE)
    return sorted(item["PK"]["S"] for item in client.scan(TableName=name)["Items"])


def _url_of(using):
    from dynamo_stores.conf import get_config

    return get_config(using).endpoint_url


def backup_of(name, *more):
    """Make a backup of a table, and return its ARN."""
    return re.search(r"arn:\S+", run("create", name, *more))[0]


def test_a_restored_table_has_what_dynamodb_does_not_restore(table, embedded):
    """TTL by the model, options by the settings, and the tags that others set."""
    using, name = table(
        embedded,
        STREAM="KEYS_ONLY",
        TAGS={"team": "a"},
        POINT_IN_TIME_RECOVERY=True,
        DELETION_PROTECTION=True,
    )
    control = get_control(using)
    others = [{"Key": "own", "Value": "1"}, {"Key": "team", "Value": "b"}]
    arn = control.describe(name)["TableArn"]
    control.call("TagResource", {"ResourceArn": arn, "Tags": others})
    backup = backup_of(name, "--name", "before")
    target = f"{name}-restored"
    printed = run("restore", "--backup", backup, "--target", target, "--using", using)
    assert f"{target}: restored" in printed
    assert "set these yourself" in printed
    assert items(using, target) == [f"k{number}" for number in range(10)]
    found = control.describe(target)
    assert control.ttl_attribute(target) == "TTL"
    assert found["StreamSpecification"]["StreamViewType"] == "KEYS_ONLY"
    assert found["DeletionProtectionEnabled"]
    assert read_recovery(control, target)
    assert read_tags(control, found["TableArn"]) == {"team": "a", "own": "1"}
    assert [each["IndexName"] for each in found["GlobalSecondaryIndexes"]] == ["GSI1"]


def test_a_table_of_no_model_gets_what_its_source_has(table, embedded):
    """TTL, stream and tags as they are; when it is gone, what the backup knows."""
    using, _ = table(embedded)
    control, name = get_control(using), f"foreign-{secrets.token_hex(4)}"
    control.call(
        "CreateTable",
        {
            "TableName": name,
            "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
            "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "N"}],
            "BillingMode": "PAY_PER_REQUEST",
            "StreamSpecification": {"StreamEnabled": True, "StreamViewType": "OLD_IMAGE"},
            "Tags": [{"Key": "own", "Value": "1"}],
        },
    )
    ttl = {"AttributeName": "gone", "Enabled": True}
    control.call("UpdateTimeToLive", {"TableName": name, "TimeToLiveSpecification": ttl})
    backup = backup_of(name, "--using", using)
    run("restore", "--backup", backup, "--target", f"{name}-a", "--using", using)
    found = control.describe(f"{name}-a")
    assert control.ttl_attribute(f"{name}-a") == "gone"
    assert found["StreamSpecification"]["StreamViewType"] == "OLD_IMAGE"
    assert read_tags(control, found["TableArn"]) == {"own": "1"}
    # The engine takes the attributes of its keys from the table itself.
    run("restore", "--backup", backup, "--target", f"{name}-b", "--using", using)
    assert control.ttl_attribute(f"{name}-b") == "gone"


def test_backups_are_listed_and_deleted(table, embedded, monkeypatch):
    """With the times of point-in-time recovery; a deletion is confirmed."""
    using, name = table(embedded)
    backup = backup_of(name, "--name", "first")
    assert f"{name}: point-in-time recovery off" in run("list", "--using", using)
    run("pitr", "on", name)
    listed = run("list", "--table", name, "--using", using)
    assert re.search(rf"{name}: point-in-time recovery from \d+.* UTC to \d+.* UTC\n", listed)
    assert re.search(rf"{name}: backup first of .* UTC, AVAILABLE, [\d,]+ bytes, {backup}", listed)
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    with pytest.raises(CommandError, match="Cancelled"):
        run("delete", backup, "--using", using)
    assert backup in run("list", "--using", using)
    run("delete", backup, "--using", using, "--no-input")
    assert backup not in run("list", "--using", using)


def test_the_default_name_has_table_and_time(table, embedded):
    """So that several backups of a table are told apart."""
    _, name = table(embedded)
    printed = run("create", name)
    assert re.search(rf"{name}: backup {name}-\d{{8}}-\d{{6}} is AVAILABLE", printed)


def test_a_backup_is_waited_for_unless_no_wait(table, embedded):
    """Its progress is printed."""
    with ChangingTables(embedded, 0.6) as relay:
        _, name = table(relay.url)
        assert "is CREATING, arn:" in run("create", name, "--no-wait")
        printed = run("create", name, "--name", "waited")
        assert f"{name}: the backup waited is CREATING, for 0 s" in printed
        assert "backup waited is AVAILABLE" in printed
        with pytest.raises(CommandError, match="That goes on in DynamoDB"):
            run("create", name, "--timeout", "0.1")


def test_a_table_is_restored_to_a_time(table, moto):
    """Only with point-in-time recovery, and only to a time that it has."""
    using, name = table(moto)
    restore = ["restore", "--table", name, "--target", f"{name}-old"]
    with pytest.raises(CommandError, match=f"'dynamo_backups pitr on {name}' switches it on"):
        run(*restore)
    assert "recovery is on" in run("pitr", "on", name)
    for at in ("1999-01-01", "yesterday", "2027-13-01T00:00:00"):
        with pytest.raises(CommandError, match=r"--at is .*; expected "):
            run(*restore, "--at", at)
    future = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    with pytest.raises(CommandError, match="expected a time from"):
        run(*restore, "--at", future.isoformat())
    assert get_control(using).describe(f"{name}-old") is None
    now = datetime.datetime.now(datetime.UTC)
    run(*restore, "--at", now.isoformat())
    assert items(using, f"{name}-old") == [f"k{number}" for number in range(10)]
    # As the table that it was restored from has it.
    assert read_recovery(get_control(using), f"{name}-old")
    assert get_control(using).ttl_attribute(f"{name}-old") == "TTL"


def test_recovery_is_switched_off_only_when_allowed(table, embedded):
    """The times to which the table can be restored are lost."""
    using, name = table(embedded, POINT_IN_TIME_RECOVERY=True)
    with pytest.raises(CommandError, match="'off' needs --allow-removal"):
        run("pitr", "off", name)
    assert read_recovery(get_control(using), name)
    run("pitr", "off", name, "--allow-removal")
    assert not read_recovery(get_control(using), name)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["create", "t", "--name", "a b"], "--name is 'a b'; expected 3 to 255 of"),
        (["restore", "--backup", "arn", "--at", "2027-01-01", "--target", "t"], "--at is for"),
        (["watch", "arn", "--timeout", "0"], "--timeout is 0.0; expected a number above 0"),
        (["list", "--using", "defualt"], "did you mean 'default'"),
    ],
)
def test_wrong_options_are_named_before_any_work(tables, args, message):
    """What was wrong, and what was expected."""
    with pytest.raises(CommandError, match=message):
        run(*args)


def test_an_existing_target_is_left_alone(table, embedded):
    """DynamoDB restores into new tables only."""
    using, name = table(embedded)
    backup = backup_of(name)
    with pytest.raises(CommandError, match=f"The table {name} exists"):
        run("restore", "--backup", backup, "--target", name, "--using", using)
    assert len(items(using, name)) == 10


def test_other_tables_and_aliases_go_on(table, embedded, alias):
    """The missing table and the dead alias are named at the end."""
    using, name = table(embedded)
    dead = alias(ENDPOINT_URL="http://127.0.0.1:9")
    out = io.StringIO()
    with pytest.raises(CommandError) as failed:
        call_command(
            "dynamo_backups", "create", "none", name, "--using", dead, "--using", using, stdout=out
        )
    assert f"Alias '{dead}': none: CreateBackup on none got no answer" in str(failed.value)
    assert f"Alias '{using}': none: DynamoDB refused CreateBackup: " in str(failed.value)
    assert f"{name}: backup " in out.getvalue()


def test_an_export_is_watched_until_it_is_completed(table, moto):
    """The objects are in the bucket."""
    using, name = table(moto)
    s3 = boto3.client("s3", region_name="us-east-1", endpoint_url=moto, **FAKE)
    s3.create_bucket(Bucket="exports")
    export = ["export", name, "--bucket", "exports", "--prefix", "tables"]
    with pytest.raises(CommandError, match="Point-in-time recovery"):
        run(*export)
    run("pitr", "on", name)
    printed = run(*export)
    assert "The export is COMPLETED, 10 items" in printed
    (found,) = s3.list_objects_v2(Bucket="exports")["Contents"]
    assert found["Key"].startswith("tables/AWSDynamoDB/")
    arn = re.search(r"arn:\S+", run(*export, "--no-wait"))[0]
    assert "COMPLETED" in run("watch", arn, "--using", using)


def test_a_failed_export_is_an_error_with_its_reason(table, moto):
    """Such as a bucket that does not exist."""
    _, name = table(moto, POINT_IN_TIME_RECOVERY=True)
    with pytest.raises(CommandError, match="S3NoSuchBucket: The specified bucket does not exist"):
        run("export", name, "--bucket", "none", "--prefix", "tables")


def test_auto_scaling_is_set_again(table, moto):
    """Targets and policies of the table and of its index."""
    units = {"AUTO_SCALING_ENDPOINT_URL": moto}
    using, name = table(moto, BILLING_MODE="PROVISIONED", SCALING=units)
    client = boto3.client(
        "application-autoscaling", region_name="us-east-1", endpoint_url=moto, **FAKE
    )
    tracking = {
        "TargetValue": 60.0,
        "PredefinedMetricSpecification": {
            "PredefinedMetricType": "DynamoDBWriteCapacityUtilization"
        },
    }
    for resource, kind in ((f"table/{name}", "table"), (f"table/{name}/index/GSI1", "index")):
        of = {
            "ServiceNamespace": "dynamodb",
            "ResourceId": resource,
            "ScalableDimension": f"dynamodb:{kind}:WriteCapacityUnits",
        }
        client.register_scalable_target(**of, MinCapacity=7, MaxCapacity=70)
        client.put_scaling_policy(
            **of,
            PolicyName="track",
            PolicyType="TargetTrackingScaling",
            TargetTrackingScalingPolicyConfiguration=tracking,
        )
    target = f"{name}-new"
    printed = run("restore", "--backup", backup_of(name), "--target", target, "--using", using)
    resources = [f"table/{target}", f"table/{target}/index/GSI1"]
    for resource in resources:
        assert f"Application Auto Scaling is set again for {resource}" in printed
    targets = client.describe_scalable_targets(ServiceNamespace="dynamodb", ResourceIds=resources)
    limits = [(each["MinCapacity"], each["MaxCapacity"]) for each in targets["ScalableTargets"]]
    assert limits == [(7, 70), (7, 70)]
    for resource in resources:
        found = client.describe_scaling_policies(ServiceNamespace="dynamodb", ResourceId=resource)[
            "ScalingPolicies"
        ]
        (policy,) = [each for each in found if each["ResourceId"] == resource]
        assert policy["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] == 60.0


TABLE_ARN = "arn:aws:dynamodb:eu-west-1:000000000000:table/t"


@pytest.mark.parametrize(
    ("summary", "status", "source", "is_same"),
    [
        ({"SourceBackupArn": "b", "SourceTableArn": TABLE_ARN}, "ACTIVE", {"arn": "b"}, True),
        ({"SourceBackupArn": "c", "SourceTableArn": TABLE_ARN}, "ACTIVE", {"arn": "b"}, False),
        ({"SourceBackupArn": "b", "SourceTableArn": TABLE_ARN}, "CREATING", {"table": "t"}, False),
        ({"SourceTableArn": TABLE_ARN}, "CREATING", {"table": "t"}, True),
        ({"SourceTableArn": TABLE_ARN}, "ACTIVE", {"table": "t"}, False),
        ({"SourceTableArn": TABLE_ARN}, "CREATING", {"table": "u"}, False),
        (
            {"SourceTableArn": TABLE_ARN, "RestoreDateTime": 99.6},
            "ACTIVE",
            {"table": "t", "at": 100.0},
            True,
        ),
        (
            {"SourceTableArn": TABLE_ARN, "RestoreDateTime": 160.0},
            "CREATING",
            {"table": "t", "at": 100.0},
            False,
        ),
        (None, "ACTIVE", {"arn": "b"}, False),
    ],
)
def test_only_the_same_restore_is_continued(summary, status, source, is_same):
    """A table that was restored from something else, or to another time, is another table."""
    description = {"TableStatus": status, "RestoreSummary": summary}
    assert is_restored_from(description, Source(**source)) is is_same


@pytest.mark.parametrize("with_signal", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_restore_is_continued(table, moto, with_signal, interruptible):
    """The same command again waits for it, and sets again what is missing."""
    with ChangingTables(moto, 600.0) as relay:
        using, name = table(relay.url)
        target = f"{name}-new"
        backup = backup_of(name, "--no-wait")
        command = ["restore", "--backup", backup, "--target", target]
        status, error = interrupted_command(
            relay.url,
            *("dynamo_backups", *command),
            after="is CREATING",
            with_signal=with_signal,
        )
        if with_signal == signal.SIGINT:
            assert status == 130
            assert "The same 'restore' again continues it" in error
        assert get_control(using).ttl_attribute(target) is None
        relay.seconds = 0.1
        # It may be ACTIVE by now.
        assert re.search("it is continued|restored from", run(*command, "--using", using))
        assert "was restored from this before, and its items may have changed" in run(
            *command, "--using", using
        )
        assert relay.requests["RestoreTableFromBackup"] == 1
        assert get_control(using).ttl_attribute(target) == "TTL"
        assert items(using, target) == [f"k{number}" for number in range(10)]
