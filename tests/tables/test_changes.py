"""The plan of changes, pure: what differs is planned, and nothing is removed unasked."""

from __future__ import annotations

import dataclasses

import pytest
from botocore.session import get_session
from botocore.validate import ParamValidator
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from dynamo_stores.infrastructure.changes import plan_changes
from dynamo_stores.infrastructure.live import LiveTable
from dynamo_stores.infrastructure.options import TableOptions
from dynamo_stores.infrastructure.restored import lost_in_restore, restored_spec
from dynamo_stores.infrastructure.tables import IndexSpec, KeySchema, TableSpec, differences

ARN = "arn:aws:dynamodb:eu-west-1:000000000000:table/orders"
KEY = "arn:aws:kms:eu-west-1:000000000000:key/3d2f8a1e-0000-4000-8000-000000000000"
MODEL = get_session().get_service_model("dynamodb")

KEYS = KeySchema("pk", "sk")
INDEXES = [
    IndexSpec("ByA", KeySchema("a")),
    IndexSpec("ByB", KeySchema("b", "a")),
    IndexSpec("ByB", KeySchema("b", "a"), projection="INCLUDE", attributes=frozenset(["x"])),
    IndexSpec("ByC", KeySchema("pk", "a"), projection="KEYS_ONLY", is_global=False),
]
TYPES = {"pk": "S", "sk": "S", "a": "S", "b": "N"}


def spec_with(*indexes, ttl=None, on_demand=True, keys=KEYS, **options):
    """Return a specification; the types are those of the keys that it names."""
    names = {name for each in (keys, *(index.keys for index in indexes)) for name in _names(each)}
    return TableSpec(
        name="orders",
        using="default",
        keys=keys,
        types={name: TYPES[name] for name in names},
        indexes=indexes,
        ttl=ttl,
        always_on_demand=on_demand,
        options=TableOptions(**options),
    )


def _names(keys):
    return [name for name in (keys.partition, keys.sort) if name is not None]


def live_with(*indexes, types=TYPES, keys=KEYS, description=(), **more):
    """Return a table; ``description`` has further fields of DescribeTable."""
    names = {name for each in (keys, *(index.keys for index in indexes)) for name in _names(each)}
    found = {
        "TableName": "orders",
        "TableArn": ARN,
        "TableStatus": "ACTIVE",
        "KeySchema": keys.as_request(),
        "AttributeDefinitions": [
            {"AttributeName": name, "AttributeType": types[name]} for name in sorted(names)
        ],
        "BillingModeSummary": {"BillingMode": "PAY_PER_REQUEST"},
        "GlobalSecondaryIndexes": [i.as_request() for i in indexes if i.is_global],
        "LocalSecondaryIndexes": [i.as_request() for i in indexes if not i.is_global],
        **dict(description),
    }
    return LiveTable(description=found, **more)


def sentences(plan):
    """Return the sentences of the changes of a plan."""
    return [change.sentence for change in plan.changes]


chosen = st.lists(st.sampled_from(INDEXES), unique_by=lambda index: index.name).map(tuple)
views = st.sampled_from(["NEW_IMAGE", "OLD_IMAGE", "KEYS_ONLY", "NEW_AND_OLD_IMAGES"])
wanted = st.builds(
    lambda indexes, **values: spec_with(*indexes, **values),
    chosen,
    ttl=st.sampled_from([None, "gone", "ttl"]),
    on_demand=st.booleans(),
    point_in_time_recovery=st.sampled_from([None, True, False]),
    stream=st.none() | st.just("OFF") | views,
    deletion_protection=st.sampled_from([None, True, False]),
    tags=st.none() | st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["1", "2"])),
    encryption_key=st.sampled_from([None, "AWS_OWNED", KEY]),
    table_class=st.sampled_from([None, "STANDARD", "STANDARD_INFREQUENT_ACCESS"]),
)


@st.composite
def tables(draw):
    """Return a specification, and a table that was asked for what the specification manages."""
    spec = draw(wanted)
    description = {
        "BillingModeSummary": {
            "BillingMode": draw(st.sampled_from(["PROVISIONED", "PAY_PER_REQUEST"]))
        },
        "DeletionProtectionEnabled": draw(st.booleans()),
    }
    if (view := draw(st.none() | views)) is not None:
        description["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": view}
    if draw(st.booleans()):
        description["SSEDescription"] = {
            "Status": "ENABLED",
            "SSEType": "KMS",
            "KMSMasterKeyArn": draw(st.sampled_from([KEY, KEY.replace("3", "4")])),
        }
    if draw(st.booleans()):
        description["TableClassSummary"] = {"TableClass": "STANDARD_INFREQUENT_ACCESS"}
    ttl = draw(st.sampled_from([None, "gone", "ttl"]))
    options = spec.options
    live = live_with(
        *draw(chosen),
        types=draw(st.sampled_from([TYPES, TYPES | {"a": "N"}])),
        description=description,
        ttl=ttl if spec.ttl else None,
        ttl_status=draw(
            st.sampled_from(["ENABLED", "ENABLING"] if ttl else ["DISABLED", "DISABLING"])
        ),
        point_in_time_recovery=(
            None if options.point_in_time_recovery is None else draw(st.booleans())
        ),
        tags=None if options.tags is None else {"a": "1", "other": "x"},
        wanted_key=None if options.encryption_key == "AWS_OWNED" else options.encryption_key,
    )
    return spec, live


@given(tables(), st.booleans())
def test_what_differs_is_planned_or_named(found, allow_removal):
    """A plan leaves a table alone exactly if dynamo_verify finds nothing different."""
    spec, live = found
    with override_settings(DYNAMO_STORES={"default": {"BILLING_MODE": "PROVISIONED"}}):
        plan = plan_changes(spec, live, allow_removal=allow_removal)
        required = [each for each in (*plan.changes, *plan.kept) if not each.is_extra]
        assert bool(required or plan.later or plan.impossible) == bool(differences(spec, live))


@given(tables())
def test_nothing_is_removed_without_permission(found):
    """What would be removed is kept, and with permission nothing is kept."""
    spec, live = found
    with override_settings(DYNAMO_STORES={"default": {"BILLING_MODE": "PROVISIONED"}}):
        careful = plan_changes(spec, live)
        allowed = plan_changes(spec, live, allow_removal=True)
    assert not any(each.is_removal for each in careful.changes)
    for change in careful.changes:
        request = str(change.request)
        assert "Delete" not in request.replace("DeletionProtectionEnabled': True", "")
        assert "Enabled': False" not in request
        assert change.operation != "UntagResource"
    assert allowed.kept == ()
    assert {each for each in allowed.changes if each.is_removal} == set(careful.kept)


@given(tables())
def test_each_request_is_one_operation_that_botocore_accepts(found):
    """UpdateTable carries out one change at a time."""
    spec, live = found
    with override_settings(DYNAMO_STORES={"default": {"BILLING_MODE": "PROVISIONED"}}):
        changes = plan_changes(spec, live, allow_removal=True).changes
    for change in changes:
        shape = MODEL.operation_model(change.operation).input_shape
        report = ParamValidator().validate(dict(change.request), shape)
        assert not report.has_errors(), report.generate_report()
        if change.operation == "UpdateTable":
            parts = set(change.request) - {"TableName", "AttributeDefinitions"}
            updates = change.request.get("GlobalSecondaryIndexUpdates", ())
            if "BillingMode" in parts:
                assert all("Update" in each for each in updates)
            else:
                assert len(parts) == 1
                assert len(updates) <= 1


def test_protection_comes_first_and_removal_last():
    """So that nothing is removed before the rest has succeeded."""
    spec = spec_with(INDEXES[0], deletion_protection=True, point_in_time_recovery=False, ttl="ttl")
    live = live_with(INDEXES[1], point_in_time_recovery=True)
    assert sentences(plan_changes(spec, live, allow_removal=True)) == [
        "switch deletion protection on",
        "create the index ByA on (a), projecting ALL",
        "enable TTL for the attribute ttl; DynamoDB deletes items whose time has passed",
        "switch point-in-time recovery off",
        "delete the index ByB, which is not in the model",
    ]


def test_what_is_lost_by_a_change_is_a_sentence_of_its_own():
    """For a stream of another view type, and for point-in-time recovery."""
    spec = spec_with(stream="NEW_IMAGE", point_in_time_recovery=False)
    specification = {"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"}
    live = live_with(
        point_in_time_recovery=True, description={"StreamSpecification": specification}
    )
    stream, recovery = plan_changes(spec, live).kept
    assert str(stream).startswith("switch the stream of KEYS_ONLY off. A later stream has another")
    assert str(recovery) == (
        "switch point-in-time recovery off. The times to which the table can be restored are lost."
    )


def test_a_new_index_names_the_attributes_of_all_indexes():
    """DynamoDB wants the types of the new key, and engines those that there are."""
    (change,) = plan_changes(spec_with(INDEXES[0], INDEXES[1]), live_with(INDEXES[0])).changes
    defined = {
        each["AttributeName"]: each["AttributeType"]
        for each in change.request["AttributeDefinitions"]
    }
    assert defined == TYPES


def test_an_index_on_an_attribute_of_another_type_is_impossible():
    """An attribute has one type in all keys of a table."""
    live = live_with(INDEXES[0], types=TYPES | {"a": "N"})
    plan = plan_changes(spec_with(INDEXES[0], INDEXES[1]), live)
    assert plan.changes == ()
    assert plan.impossible == (
        "the key attribute a is of type N, expected S: needs another attribute, or a new table",
        "the index ByB is missing: it cannot be created while an attribute of its key has another "
        "type",
    )


@pytest.mark.parametrize(
    ("has", "wants", "remedy"),
    [
        (INDEXES[1], INDEXES[2], "projects ALL, expected INCLUDE (x): needs a new index under"),
        (None, INDEXES[3], "the local index ByC is missing: needs a new table"),
        (
            dataclasses.replace(INDEXES[3], is_global=True),
            INDEXES[3],
            "the index ByC is global, expected local: needs a new table",
        ),
    ],
)
def test_what_dynamodb_cannot_change_has_a_way_out(has, wants, remedy):
    """Projections and local indexes."""
    plan = plan_changes(spec_with(wants), live_with(*([has] if has else [])), allow_removal=True)
    (found,) = plan.impossible
    assert remedy in found
    assert plan.changes == ()


def test_a_ttl_that_is_being_disabled_is_waited_for_in_a_later_run():
    """DynamoDB takes up to an hour; until then nothing about TTL can be requested."""
    live = live_with(ttl=None, ttl_status="DISABLING")
    plan = plan_changes(spec_with(ttl="ttl"), live, allow_removal=True)
    assert plan.changes == ()
    (later,) = plan.later
    assert "enable TTL for the attribute ttl, once it is disabled" in later


def test_an_index_that_is_being_deleted_is_not_deleted_again():
    """It is no longer there for the plan."""
    index = {**INDEXES[0].as_request(), "IndexStatus": "DELETING"}
    live = live_with(description={"GlobalSecondaryIndexes": [index]})
    assert plan_changes(spec_with(), live, allow_removal=True).changes == ()


def test_a_managed_tag_is_set_and_no_other_is_touched():
    """Only what differs is in the request."""
    live = live_with(tags={"team": "b", "own": "x", "cost": "1"})
    (change,) = plan_changes(spec_with(tags={"team": "a", "cost": "1"}), live).changes
    assert change.request == {"ResourceArn": ARN, "Tags": [{"Key": "team", "Value": "a"}]}


BACKUP = {
    "TimeToLiveDescription": {"TimeToLiveStatus": "ENABLED", "AttributeName": "of_backup"},
    "StreamDescription": {"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"},
}


def restored(spec=None, source=None, backup=BACKUP):
    """Return the specification of a restored table."""
    description = live_with(INDEXES[0]).description
    return restored_spec("default", description, spec=spec, source=source, backup=backup)


def test_a_restored_table_is_first_what_its_model_says():
    """Then what its source is, then what the backup knows."""
    view = {"StreamSpecification": {"StreamEnabled": True, "StreamViewType": "OLD_IMAGE"}}
    source = live_with(description=view, ttl="of_source")
    spec = spec_with(ttl="of_model", stream="NEW_IMAGE")
    assert (restored(spec, source).ttl, restored(spec, source).options.stream) == (
        "of_model",
        "NEW_IMAGE",
    )
    assert restored(spec_with(stream="OFF"), source).options.stream == "OFF"
    assert (restored(None, source).ttl, restored(None, source).options.stream) == (
        "of_source",
        "OLD_IMAGE",
    )
    assert (restored().ttl, restored().options.stream) == ("of_backup", "KEYS_ONLY")
    assert (restored(backup=None).ttl, restored(backup=None).options.stream) == (None, None)
    assert restored(None, live_with()).ttl is None


def test_a_restored_table_gets_the_tags_of_its_source_and_of_the_settings():
    """Without those that only AWS can set."""
    source = live_with(tags={"own": "1", "team": "b", "aws:cloudformation:stack-name": "s"})
    spec = spec_with(tags={"team": "a"})
    assert restored(spec, source).options.tags == {"own": "1", "team": "a"}
    assert restored(None, source).options.tags == {"own": "1", "team": "b"}
    assert restored(None, live_with(tags={})).options.tags is None


def test_the_protection_of_the_source_is_restored():
    """What is off in the source is not switched off by a request."""
    on = live_with(point_in_time_recovery=True, description={"DeletionProtectionEnabled": True})
    options = restored(None, on).options
    assert (options.point_in_time_recovery, options.deletion_protection) == (True, True)
    options = restored(None, live_with(point_in_time_recovery=False)).options
    assert (options.point_in_time_recovery, options.deletion_protection) == (None, None)
    options = restored(spec_with(deletion_protection=False), on).options
    assert options.deletion_protection is False


def test_a_restore_changes_neither_indexes_nor_billing_mode():
    """They are as they were restored."""
    live = live_with(INDEXES[1], point_in_time_recovery=False)
    spec = spec_with(INDEXES[0], ttl="ttl", point_in_time_recovery=True, on_demand=False)
    with override_settings(DYNAMO_STORES={"default": {"BILLING_MODE": "PROVISIONED"}}):
        plan = lost_in_restore(plan_changes(spec, live, allow_removal=True))
    assert [each.what for each in plan.changes] == ["point-in-time recovery", "TTL"]
