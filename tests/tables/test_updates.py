"""dynamo_update_tables: planned, confirmed, applied one change at a time, on live tables."""

from __future__ import annotations

import dataclasses
import io
import secrets
import signal
import sys
import threading
import time

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from dynamo_stores.calls.control import get_control
from dynamo_stores.exceptions import ConfigurationError, StoreUnavailable
from dynamo_stores.infrastructure.live import read_recovery, read_tags
from dynamo_stores.infrastructure.tables import (
    IndexSpec,
    KeySchema,
    create_table,
    table_of,
    wanted_tables,
)
from dynamo_stores.infrastructure.updates import TableUpdate
from dynamo_stores.models import StoreItem
from dynamo_stores.testing import EmbeddedEngine, test_tables
from tests.helpers.changing import ChangingTables
from tests.helpers.processes import interrupted_command


def run(command="dynamo_update_tables", **options):
    """Return what ``command`` printed; it asks nothing."""
    out = io.StringIO()
    if command == "dynamo_update_tables":
        options.setdefault("interactive", False)
    call_command(command, stdout=out, **options)
    return out.getvalue()


def delete(using, name):
    """Delete a table, protected or not, if it is there."""
    control = get_control(using)
    if found := control.describe(name):
        if found.get("DeletionProtectionEnabled"):
            control.call("UpdateTable", {"TableName": name, "DeletionProtectionEnabled": False})
        control.call("DeleteTable", {"TableName": name})


@pytest.fixture
def table(alias):
    """
    ``table(ENDPOINT_URL=…)`` makes an alias with a store table of its own, and returns both names;
    ``with_spec`` changes the specification by which the table is created.
    """
    made = []

    def make(with_spec=lambda spec: spec, **changes):
        using = alias(TABLE_PREFIX=f"fresh-{secrets.token_hex(4)}-", **changes)
        spec = table_of(StoreItem.bound_to(using))
        made.append((using, spec.name))
        create_table(with_spec(spec), lambda line: None)
        return using, spec.name

    yield make
    for using, name in made:
        delete(using, name)


def bare(spec):
    """Return the specification without index and TTL."""
    types = {name: spec.types[name] for name in ("PK", "SK")}
    return dataclasses.replace(spec, indexes=(), types=types, ttl=None)


def with_another_index(spec):
    """Return the specification with an index that the model does not have."""
    extra = IndexSpec("Extra", KeySchema("SK"), projection="KEYS_ONLY")
    return dataclasses.replace(spec, indexes=(*spec.indexes, extra))


@pytest.fixture
def changing(dynamo_engine):
    """A relay whose changes take a second."""
    with ChangingTables(dynamo_engine, 1.0) as relay:
        yield relay


def indexes(using, name):
    """Return the names of the indexes of a table."""
    description = get_control(using).describe(name)
    return {each["IndexName"] for each in description.get("GlobalSecondaryIndexes") or ()}


def test_a_table_is_changed_once_and_then_matches(table):
    """Index and TTL are planned, applied, and not planned again; dynamo_verify agrees."""
    using, name = table(bare)
    planned = run(table=[name], dry_run=True)
    assert "create the index GSI1 on (GSI1PK, GSI1SK), projecting ALL" in planned
    assert "enable TTL for the attribute TTL" in planned
    assert indexes(using, name) == set()
    assert f"{name}: 2 changes applied" in run(table=[name])
    assert indexes(using, name) == {"GSI1"}
    assert get_control(using).ttl_attribute(name) == "TTL"
    assert f"{name}: nothing to change" in run(table=[name])
    assert f"{name}: matches its model" in run("dynamo_verify", table=[name])


def test_a_table_under_load_gets_an_index_and_loses_no_item(table, changing):
    """Four threads write before, while and after it is built; the index has every item."""
    using, name = table(bare, ENDPOINT_URL=changing.url, CIRCUIT_BREAKER={"ENABLED": False})
    model = StoreItem.bound_to(using)
    stop, written, errors = threading.Event(), [], []

    def save(number):
        key = f"{number}-{secrets.token_hex(8)}"
        while True:
            try:
                model(key, "item", gsi1pk=f"shard-{number}", gsi1sk=key).save()
            except StoreUnavailable:
                # Some engines fail a write at the moment when they add the index.
                continue
            written.append(key)
            return

    def write(number):
        try:
            while not stop.is_set():
                save(number)
        except Exception as exc:
            errors.append(exc)

    for number in range(4):
        save(number)
    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        printed = run(table=[name])
        before = len(written)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert before > 100
    assert "the index GSI1 is CREATING, backfilling, " in printed
    assert " items in it of 1,000 in the table (" in printed
    assert {item.pk for item in model.scan()} == set(written)
    found = [item.pk for number in range(4) for item in model.expiry_index.query(f"shard-{number}")]
    assert sorted(found) == sorted(written)
    assert changing.refused == 0
    assert f"{name}: nothing to change" in run(table=[name])


def test_an_index_that_no_model_has_is_only_deleted_when_allowed(table):
    """Without --allow-removal it is named and left alone, and that is no failure."""
    using, name = table(with_another_index)
    printed = run(table=[name])
    assert "not without --allow-removal: delete the index Extra" in printed
    assert indexes(using, name) == {"GSI1", "Extra"}
    assert "removal: delete the index Extra" in run(table=[name], allow_removal=True)
    assert indexes(using, name) == {"GSI1"}
    assert f"{name}: nothing to change" in run(table=[name], allow_removal=True)


def test_what_cannot_be_changed_in_place_is_named_with_the_way_out(table):
    """An index with another key: nothing is touched, the exit status is 1."""

    def with_other_key(spec):
        index = dataclasses.replace(spec.indexes[0], keys=KeySchema("GSI1PK", "SK"))
        types = dict.fromkeys(("PK", "SK", "GSI1PK"), "S")
        return dataclasses.replace(spec, indexes=(index,), types=types)

    using, name = table(with_other_key)
    with pytest.raises(CommandError) as refused:
        run(table=[name], allow_removal=True)
    assert (
        f"{name}: the index GSI1 has the key (GSI1PK, SK), expected (GSI1PK, GSI1SK): needs a new "
        "index under another name, or a new table"
    ) in str(refused.value)
    assert indexes(using, name) == {"GSI1"}


def test_the_ttl_of_another_attribute_is_disabled_only_when_allowed(table):
    """And the right one is enabled in a later run, because DynamoDB takes up to an hour."""
    using, name = table(lambda spec: dataclasses.replace(spec, ttl="gone"))
    with pytest.raises(CommandError, match="not without --allow-removal: disable TTL for the"):
        run(table=[name])
    assert get_control(using).ttl_attribute(name) == "gone"
    # An engine on one machine disables it at once.
    run(table=[name], allow_removal=True)
    assert get_control(using).ttl_attribute(name) == "TTL"
    assert f"{name}: nothing to change" in run(table=[name])


def test_a_table_that_is_not_the_models_is_not_touched(table):
    """Another key: no TTL is enabled, which would delete items of somebody else."""
    using, name = table(
        lambda spec: dataclasses.replace(bare(spec), keys=KeySchema("id"), types={"id": "S"})
    )
    with pytest.raises(CommandError, match=r"its key is \(id\), expected \(PK, SK\): needs a new"):
        run(table=[name], allow_removal=True)
    assert get_control(using).ttl_attribute(name) is None


@pytest.mark.parametrize(("answer", "count"), [("y", 1), ("yes", 1), ("n", 0), ("", 0)])
def test_nothing_is_changed_unless_it_is_confirmed(table, monkeypatch, answer, count):
    """The default is no."""
    using, name = table(lambda spec: dataclasses.replace(bare(spec), ttl=spec.ttl))
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{answer}\n"))
    if count:
        run(table=[name], interactive=True)
    else:
        with pytest.raises(CommandError, match=r"^Cancelled; nothing was changed"):
            run(table=[name], interactive=True)
    assert len(indexes(using, name)) == count


def test_without_a_terminal_it_does_not_hang(table, monkeypatch):
    """The end of the input is an error that names the option."""
    _, name = table(bare)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    with pytest.raises(CommandError, match="Use --no-input"):
        run(table=[name], interactive=True)


def test_a_missing_table_is_named_and_the_others_are_changed(table, alias):
    """The other alias goes on; the exit status is 1."""
    using, name = table(bare)
    missing = alias(TABLE_PREFIX=f"missing-{secrets.token_hex(4)}-")
    dead = alias(ENDPOINT_URL="http://127.0.0.1:9", TABLE_PREFIX="nowhere-")
    names = [StoreItem.bound_to(each).Meta.table_name for each in (missing, dead, using)]
    with pytest.raises(CommandError) as failed:
        run(table=names)
    assert f"The table {names[0]} does not exist" in str(failed.value)
    assert f"{names[1]} of alias '{dead}': DescribeTable" in str(failed.value)
    assert indexes(using, name) == {"GSI1"}


def test_a_lost_answer_is_not_a_lost_change(table, dynamo_faults):
    """UpdateTable is carried out, its answer is lost, DescribeTable fails for a while."""
    using, name = table(bare, ENDPOINT_URL=dynamo_faults.url)
    dynamo_faults.clear()
    dynamo_faults.lose_answer("UpdateTable", times=1)
    assert "2 changes applied" in run(table=[name])
    assert indexes(using, name) == {"GSI1"}
    assert dynamo_faults.requests["UpdateTable"] == 1


def test_a_refused_change_does_not_stop_the_others(table, dynamo_faults):
    """DynamoDB's reason is in the error; the next run does the rest."""
    using, name = table(bare, ENDPOINT_URL=dynamo_faults.url)
    dynamo_faults.fail(
        "UpdateTimeToLive",
        times=1,
        status=400,
        code="ValidationException",
        body={"message": "Time to live has been modified multiple times within a fixed interval"},
    )
    with pytest.raises(CommandError) as failed:
        run(table=[name])
    assert "DynamoDB refused to enable TTL for the attribute TTL" in str(failed.value)
    assert "within a fixed interval. DynamoDB changes TTL at most once an hour" in str(failed.value)
    assert indexes(using, name) == {"GSI1"}
    assert f"{name}: 1 change applied" in run(table=[name])


def test_a_change_of_somebody_else_is_waited_for(table, changing):
    """Another process's UpdateTable is under way: no error, and no overlapping request."""
    using, name = table(bare, ENDPOINT_URL=changing.url)
    get_control(using).call(
        "UpdateTable",
        {
            "TableName": name,
            "StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
        },
    )
    assert "being changed: the table is UPDATING" in run(table=[name], dry_run=True)
    assert f"{name}: 2 changes applied" in run(table=[name])
    assert changing.refused == 0


def test_the_time_limit_ends_the_wait_and_not_the_change(table, changing):
    """The next run finds the index."""
    using, name = table(
        lambda spec: dataclasses.replace(bare(spec), ttl=spec.ttl), ENDPOINT_URL=changing.url
    )
    with pytest.raises(CommandError, match="That goes on in DynamoDB; run the command again"):
        run(table=[name], timeout=0.1)
    assert f"{name}: 0 changes applied" in run(table=[name])
    assert indexes(using, name) == {"GSI1"}


def test_what_became_necessary_meanwhile_is_named_and_not_done(table):
    """Only what was confirmed is applied; what somebody else has done is not done again."""
    using, name = table(lambda spec: dataclasses.replace(bare(spec), ttl=spec.ttl))
    spec = table_of(StoreItem.bound_to(using))
    update = TableUpdate(spec, lambda line: None)
    plan, _ = update.plan()
    assert [change.what for change in plan.changes] == ["index GSI1"]
    run(table=[name])
    control = get_control(using)
    specification = {"AttributeName": "TTL", "Enabled": False}
    control.call("UpdateTimeToLive", {"TableName": name, "TimeToLiveSpecification": specification})
    result = update.apply(plan)
    assert (result.done, result.refused) == ((), ())
    assert [change.what for change in result.new] == ["TTL"]
    assert control.ttl_attribute(name) is None


def test_an_outage_while_it_waits_is_waited_for(table, changing):
    """DescribeTable fails for some seconds while the index is built."""
    using, name = table(bare, ENDPOINT_URL=changing.url)

    def fail_once_it_is_requested():
        while not changing.requests["UpdateTable"]:
            time.sleep(0.01)
        changing.fail("DescribeTable", times=4)

    failing = threading.Thread(target=fail_once_it_is_requested)
    failing.start()
    try:
        printed = run(table=[name])
    finally:
        failing.join()
    assert "failed inside DynamoDB" in printed
    assert f"{name}: 2 changes applied" in printed
    assert indexes(using, name) == {"GSI1"}


@pytest.mark.parametrize("with_signal", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_update_goes_on_and_the_next_one_continues(
    table, changing, with_signal, interruptible
):
    """Ctrl-C says so; after either, the next run waits for the index and does the rest."""
    using, name = table(bare, ENDPOINT_URL=changing.url)
    changing.seconds = 600.0
    status, error = interrupted_command(
        changing.url,
        *("dynamo_update_tables", "--no-input", "--table", name),
        after="is CREATING",
        with_signal=with_signal,
        DYNAMODB_TABLE_PREFIX=name.removesuffix("dynamo-stores"),
    )
    if with_signal == signal.SIGINT:
        assert status == 130
        assert "goes on in DynamoDB; run the command again" in error
    assert "being changed: the table is UPDATING" in run(table=[name], dry_run=True)
    changing.seconds = 0.1
    assert f"{name}: 1 change applied" in run(table=[name])
    assert changing.requests["UpdateTable"] == 1
    assert indexes(using, name) == {"GSI1"}
    assert get_control(using).ttl_attribute(name) == "TTL"


def test_aliases_that_share_a_table_have_its_options_together(alias):
    """Those of either alias are required; two that contradict each other are refused."""
    prefix = f"shared-{secrets.token_hex(4)}-"
    first = alias(TABLE_PREFIX=prefix, STREAM="KEYS_ONLY")
    alias(TABLE_PREFIX=prefix, DELETION_PROTECTION=True)
    (spec,) = [each for each in wanted_tables() if each.name == f"{prefix}dynamo-stores"]
    assert (spec.using, spec.options.stream) == (first, "KEYS_ONLY")
    assert spec.options.deletion_protection is True
    third = alias(TABLE_PREFIX=prefix, STREAM="NEW_IMAGE")
    with pytest.raises(ConfigurationError, match=f"'{first}' and '{third}' share the table"):
        wanted_tables()


# The options: on the embedded engine, because others do not have them all.

OPTIONS = {
    "POINT_IN_TIME_RECOVERY": True,
    "STREAM": "NEW_IMAGE",
    "DELETION_PROTECTION": True,
    "TAGS": {"team": "a", "cost": ""},
    "ENCRYPTION_KEY": "aws/dynamodb",
    "TABLE_CLASS": "STANDARD_INFREQUENT_ACCESS",
}


@pytest.fixture(scope="module")
def embedded():
    """The URL of an engine that has every option."""
    with EmbeddedEngine() as engine:
        yield engine.url


def described(using, name):
    """Return the options of a table as DynamoDB describes them."""
    control = get_control(using)
    found = control.describe(name)
    return {
        "POINT_IN_TIME_RECOVERY": read_recovery(control, name),
        "STREAM": (found.get("StreamSpecification") or {}).get("StreamViewType"),
        "DELETION_PROTECTION": found["DeletionProtectionEnabled"],
        "TAGS": read_tags(control, found["TableArn"]),
        "ENCRYPTION_KEY": (found.get("SSEDescription") or {}).get("Status") == "ENABLED",
        "TABLE_CLASS": (found.get("TableClassSummary") or {}).get("TableClass"),
    }


def without_options(spec):
    """Return the specification without the options of the settings."""
    return dataclasses.replace(spec, options=type(spec.options)())


def test_every_option_is_switched_on_in_a_live_table(table, embedded):
    """One change each, and none the second time."""
    using, name = table(without_options, ENDPOINT_URL=embedded, **OPTIONS)
    with pytest.raises(CommandError) as different:
        run("dynamo_verify", table=[name])
    for part in (
        "its point-in-time recovery is off, expected on",
        "its stream is OFF, expected NEW_IMAGE",
        "its deletion protection is off, expected on",
        "its tag cost is missing",
        "its encryption key is AWS_OWNED, expected aws/dynamodb",
        "its table class is STANDARD, expected STANDARD_INFREQUENT_ACCESS",
    ):
        assert f"{name}: {part}" in str(different.value)
    assert f"{name}: 6 changes applied" in run(table=[name])
    assert described(using, name) == {**OPTIONS, "ENCRYPTION_KEY": True}
    assert f"{name}: nothing to change" in run(table=[name])
    assert f"{name}: matches its model" in run("dynamo_verify", table=[name])


def test_a_new_table_has_every_option(table, embedded):
    """dynamo_create_tables leaves nothing to change."""
    using, name = table(ENDPOINT_URL=embedded, **OPTIONS)
    assert described(using, name) == {**OPTIONS, "ENCRYPTION_KEY": True}
    assert f"{name}: nothing to change" in run(table=[name])


def test_protection_is_switched_off_only_when_allowed(table, embedded):
    """Deletion protection, recovery, stream and key; another view of a stream is off first."""
    off = {
        "POINT_IN_TIME_RECOVERY": False,
        "STREAM": "KEYS_ONLY",
        "DELETION_PROTECTION": False,
        "ENCRYPTION_KEY": "AWS_OWNED",
    }

    def with_all(spec):
        return dataclasses.replace(
            spec,
            options=dataclasses.replace(
                spec.options,
                point_in_time_recovery=True,
                stream="NEW_IMAGE",
                deletion_protection=True,
                encryption_key="aws/dynamodb",
            ),
        )

    using, name = table(with_all, ENDPOINT_URL=embedded, **off)
    before = described(using, name)
    with pytest.raises(CommandError) as refused:
        run(table=[name])
    for part in ("deletion protection off", "recovery off", "stream of NEW_IMAGE off", "AWS owns"):
        assert part in str(refused.value)
    assert described(using, name) == before
    printed = run(table=[name], allow_removal=True)
    assert printed.index("stream of NEW_IMAGE off") < printed.index("on a stream of KEYS_ONLY")
    after = described(using, name)
    assert (after["STREAM"], after["DELETION_PROTECTION"]) == ("KEYS_ONLY", False)
    assert (after["POINT_IN_TIME_RECOVERY"], after["ENCRYPTION_KEY"]) == (False, False)
    assert f"{name}: nothing to change" in run(table=[name], allow_removal=True)


def test_tables_of_tests_are_not_protected(embedded, default_alias):
    """They are deleted at the end, whatever the settings of the project are."""
    protected = {"DELETION_PROTECTION": True}
    own = {**default_alias, **protected, "TABLES": {"forum-users": protected}}
    with override_settings(DYNAMO_STORES={"default": own}):
        with test_tables(embedded, f"test-{secrets.token_hex(4)}-"):
            names = [spec.name for spec in wanted_tables()]
            protections = {
                get_control().describe(name)["DeletionProtectionEnabled"] for name in names
            }
        assert protections == {False}


def test_only_the_tags_of_the_settings_are_managed(table, embedded):
    """A tag of somebody else stays; an empty dict manages none."""
    using, name = table(ENDPOINT_URL=embedded, TAGS={"team": "a"})
    control = get_control(using)
    arn = control.describe(name)["TableArn"]
    others = [{"Key": "team", "Value": "b"}, {"Key": "own", "Value": "1"}]
    control.call("TagResource", {"ResourceArn": arn, "Tags": others})
    assert "set the tags team" in run(table=[name])
    assert read_tags(control, arn) == {"team": "a", "own": "1"}


def test_tags_that_are_shown_late_are_set_once(table, embedded):
    """ListTagsOfResource returns the tags of before for some seconds."""
    with ChangingTables(embedded, 1.0) as relay:
        using, name = table(ENDPOINT_URL=relay.url, TAGS={"team": "a"})
        arn = get_control(using).describe(name)["TableArn"]
        untagged = {"ResourceArn": arn, "TagKeys": ["team"]}
        get_control(using).call("UntagResource", untagged)
        assert f"{name}: 1 change applied" in run(table=[name])
        assert relay.requests["TagResource"] == 1
        assert f"{name}: nothing to change" in run(table=[name])


@pytest.mark.parametrize("wanted", ["PROVISIONED", "PAY_PER_REQUEST"])
def test_the_billing_mode_is_switched_with_its_indexes(table, embedded, wanted):
    """At the baselines; a new index after the switch has capacity, too."""
    other = {"PROVISIONED": "PAY_PER_REQUEST", "PAY_PER_REQUEST": "PROVISIONED"}[wanted]

    class Other(type(table_of(StoreItem))):
        billing_mode = other

    def with_other_mode(spec):
        spec = with_another_index(bare(spec))
        values = {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)}
        return Other(**values)

    units = {"BASE_READ_CAPACITY": 7, "BASE_WRITE_CAPACITY": 3}
    using, name = table(with_other_mode, ENDPOINT_URL=embedded, BILLING_MODE=wanted, SCALING=units)
    assert "3 changes applied" in run(table=[name])
    description = get_control(using).describe(name)
    assert description["BillingModeSummary"]["BillingMode"] == wanted
    resources = [description, *description["GlobalSecondaryIndexes"]]
    assert len(resources) == 3
    if wanted == "PROVISIONED":
        for each in resources:
            throughput = each["ProvisionedThroughput"]
            assert (throughput["ReadCapacityUnits"], throughput["WriteCapacityUnits"]) == (7, 3)
    assert "applied" not in run(table=[name])


@pytest.fixture
def kms(monkeypatch, moto):
    """A KMS with one key under an alias; returns the ARN of the key."""
    import boto3

    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", moto)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    client = boto3.client("kms", region_name="us-east-1")
    arn = client.create_key()["KeyMetadata"]["Arn"]
    client.create_alias(AliasName="alias/tables", TargetKeyId=arn)
    yield arn
    client.delete_alias(AliasName="alias/tables")


def test_the_alias_of_a_key_is_the_key(table, embedded, kms):
    """A table that is encrypted by the key of the alias is as required."""

    def by_arn(spec):
        return dataclasses.replace(
            spec, options=dataclasses.replace(spec.options, encryption_key=kms)
        )

    _, name = table(by_arn, ENDPOINT_URL=embedded, ENCRYPTION_KEY="alias/tables")
    assert f"{name}: nothing to change" in run(table=[name])
    _, name = table(by_arn, ENDPOINT_URL=embedded, ENCRYPTION_KEY=kms.rpartition("/")[2])
    assert f"{name}: nothing to change" in run(table=[name])
    _, name = table(by_arn, ENDPOINT_URL=embedded, ENCRYPTION_KEY="alias/none")
    with pytest.raises(CommandError, match=r"KMS did not say which key alias/none is \(NotFound"):
        run(table=[name])
