"""Models of a project, over the connection of the stores."""

from __future__ import annotations

import pickle
import secrets

import pytest
from django.test import override_settings
from pynamodb.attributes import NumberAttribute, TTLAttribute, UnicodeAttribute
from pynamodb.connection import TableConnection
from pynamodb.exceptions import PutError, PynamoDBException, TransactWriteError
from pynamodb.indexes import AllProjection, GlobalSecondaryIndex, LocalSecondaryIndex
from pynamodb.models import Model
from pynamodb.transactions import TransactGet, TransactWrite

from dynamo_stores import keys, models
from dynamo_stores.admin.actions import ActionItem
from dynamo_stores.cache.store.items import CacheEntry, CachePart, InvalidationNumber, LockItem
from dynamo_stores.calls.account import get_account
from dynamo_stores.calls.client import ClientTransport
from dynamo_stores.calls.connection import Connection, get_connection
from dynamo_stores.calls.observer import measuring
from dynamo_stores.calls.server_time import ServerClock
from dynamo_stores.capacity.demand import DemandItem
from dynamo_stores.capacity.history import DecisionItem
from dynamo_stores.capacity.records import CapacityClaim, CapacityRecord, CapacityTables
from dynamo_stores.capacity.scheduled import ScheduleItem
from dynamo_stores.capacity.usage import UsageItem
from dynamo_stores.conf import get_config
from dynamo_stores.dedupe.items import DedupeJob, ResultPart
from dynamo_stores.exceptions import DedupeFailedError, StoreUnavailable, code_of
from dynamo_stores.infrastructure.replicas import Heartbeat
from dynamo_stores.infrastructure.tables import create_table, inspect_table, table_of
from dynamo_stores.models import ControlItem, DynamoModel, StoreItem, concrete_models
from dynamo_stores.monitoring.history import PeriodItem
from dynamo_stores.monitoring.notifications.store import LedgerItem
from dynamo_stores.monitoring.report_store import StatusItem
from dynamo_stores.ratelimit.items import RateWindow, StoredRate
from dynamo_stores.streams.checkpoints import ShardItem, StartItem, WorkerItem
from dynamo_stores.streams.failures import FailedItem

JOB = keys.dedupe_job("k")

# Each kind of item: the function of keys.py that builds its key, such a key, and the model.
KINDS = [
    (keys.cache_entry, keys.cache_entry("p", "k"), CacheEntry),
    (keys.cache_part, keys.cache_part("CACHE#p#k", "0000000000001w", 0), CachePart),
    (keys.generation, keys.generation("p"), InvalidationNumber),
    (keys.tag, keys.tag("p", "t"), InvalidationNumber),
    (keys.lock, keys.lock("p", "k"), LockItem),
    (keys.lease, keys.lease("p", "k"), LockItem),
    (keys.rate_window, keys.rate_window("s", "k", "SW"), RateWindow),
    (keys.rate_window, keys.rate_window("s", "k", "SW", kind=keys.ADAPTIVE_WINDOW), RateWindow),
    (keys.stored_rate, keys.stored_rate("r"), StoredRate),
    (keys.dedupe_job, keys.dedupe_job("k"), DedupeJob),
    (keys.dedupe_part, keys.dedupe_part(JOB, 1, 0), ResultPart),
    (keys.heartbeat, keys.heartbeat("0a"), Heartbeat),
    (keys.capacity, keys.capacity("t", keys.RECORD), CapacityRecord),
    (keys.capacity, keys.capacity("t", keys.CLAIM), CapacityClaim),
    (keys.capacity, keys.capacity("t", keys.SCHEDULE), ScheduleItem),
    (keys.capacity_tables, keys.capacity_tables(), CapacityTables),
    (keys.demand, keys.demand("t", "host#1"), DemandItem),
    (keys.decision, keys.decision(1, "t"), DecisionItem),
    (keys.process_status, keys.process_status("host#1"), StatusItem),
    (keys.usage, keys.usage(1, "t"), UsageItem),
    (keys.metrics_minute, keys.metrics_minute(1), PeriodItem),
    (keys.metrics_hour, keys.metrics_hour(1), PeriodItem),
    (keys.notifications, keys.notifications("default"), LedgerItem),
    (keys.action, keys.action("token"), ActionItem),
    (keys.stream_start, keys.stream_start("r", "t", "c"), StartItem),
    (keys.stream_shard, keys.stream_shard("r", "t", "c", "label", "shardId-1"), ShardItem),
    (keys.stream_worker, keys.stream_worker("r", "t", "c", "w"), WorkerItem),
    (keys.stream_failed, keys.stream_failed("r", "t", "c", "label", "shardId-1", "1"), FailedItem),
]


class ByColour(GlobalSecondaryIndex["Car"]):
    class Meta:
        index_name = "ByColour"
        projection = AllProjection()

    colour = UnicodeAttribute(hash_key=True)
    price = NumberAttribute(range_key=True)


class ByPrice(LocalSecondaryIndex["Car"]):
    class Meta:
        index_name = "ByPrice"
        projection = AllProjection()

    maker = UnicodeAttribute(hash_key=True)
    price = NumberAttribute(range_key=True)


class Car(DynamoModel):
    class Meta:
        table_name = "cars"

    maker = UnicodeAttribute(hash_key=True)
    name = UnicodeAttribute(range_key=True)
    colour = UnicodeAttribute(null=True)
    price = NumberAttribute(null=True)
    gone = TTLAttribute(null=True)
    by_colour = ByColour()
    by_price = ByPrice()


def item_models():
    """Return the models of the package that are an item of one of its two tables."""
    return {
        model
        for model in concrete_models()
        if issubclass(model, StoreItem | ControlItem)
        and model not in (StoreItem, ControlItem)
        and model.__module__.startswith("dynamo_stores.")
    }


def test_each_kind_of_key_has_one_model():
    """Every function that builds a key is listed, every model is, and no two kinds are alike."""
    builders = {
        function
        for name, function in vars(keys).items()
        if not name.startswith("_")
        and getattr(function, "__annotations__", {}).get("return") == "ItemKey"
    }
    assert builders == {build for build, _, _ in KINDS}
    assert {model for _, _, model in KINDS} == item_models()
    assert len({(key.pk, key.sk) for _, key, _ in KINDS}) == len(KINDS)
    segments = {part for _, key, _ in KINDS for part in (*key.pk.split("#"), *key.sk.split("#"))}
    kinds = {
        value
        for name, value in vars(keys).items()
        if name.isupper() and not name.startswith("_") and type(value) is str
    }
    # Entries of the index are no items of their own.
    assert kinds - segments == {keys.EXPIRY, keys.STORED_RATES}


def test_each_model_is_in_the_table_of_models():
    """The docstring of models.py names every model beside its module."""
    lines = (models.__doc__ or "").splitlines()
    for model in item_models():
        module = model.__module__.removeprefix("dynamo_stores.")
        assert [
            line
            for line in lines
            if line.startswith(f"{model.__name__} ") and line.endswith(module)
        ]


@pytest.fixture(scope="module")
def cars(_stores):
    """A table for Car."""
    spec = table_of(Car)
    create_table(spec, lambda line: None)
    yield Car
    from dynamo_stores.calls.control import get_control

    get_control().call("DeleteTable", {"TableName": spec.name})


def test_a_table_name_is_enough(cars, dynamo_prefix):
    """Everything else comes from the alias; the table matches its model."""
    assert Car.Meta.table_name == f"{dynamo_prefix}cars"
    assert inspect_table(table_of(Car)).differences == ()
    assert Car.exists()


def test_ordinary_pynamodb_works_on_it(cars):
    """save, get, update, query, indexes, batches, transactions, refresh, delete."""
    maker = secrets.token_hex(4)
    Car(maker, "a", colour="red", price=3).save()
    with Car.batch_write() as batch:
        for number in range(30):
            batch.save(Car(maker, f"n{number:02}", colour=f"{maker}-blue", price=number))
    assert Car.get(maker, "a").price == 3
    car = Car(maker, "a")
    car.update(actions=[Car.price.add(4)])
    assert car.price == 7
    assert [each.name for each in Car.query(maker, Car.name.startswith("n0"))][:2] == ["n00", "n01"]
    blue = Car.by_colour.query(f"{maker}-blue", Car.price > 27)
    assert [each.price for each in blue] == [28, 29]
    assert next(iter(Car.by_price.query(maker, scan_index_forward=False))).price == 29
    found = {each.name for each in Car.batch_get([(maker, f"n{n:02}") for n in range(30)])}
    assert len(found) == 30
    assert Car.count(maker) == 31

    with TransactWrite(connection=get_connection()) as transaction:
        transaction.save(Car(maker, "t", price=1))
        transaction.delete(Car(maker, "a"))
    with TransactGet(connection=get_connection()) as transaction:
        future = transaction.get(Car, maker, "t")
    assert future.get().price == 1
    with pytest.raises(Car.DoesNotExist):
        Car.get(maker, "a")
    with pytest.raises(PutError) as refused:
        Car(maker, "t").save(Car.maker.does_not_exist())
    assert refused.value.cause_response_code == "ConditionalCheckFailedException"


def test_a_refused_transaction_keeps_its_reasons(cars):
    """PynamoDB's own errors stay as they are."""
    maker = secrets.token_hex(4)
    with (
        pytest.raises(TransactWriteError) as refused,
        TransactWrite(connection=get_connection()) as transaction,
    ):
        transaction.save(Car(maker, "x"), condition=Car.maker.exists())
    assert refused.value.cancellation_reasons[0].code == "ConditionalCheckFailed"


def test_its_calls_use_the_connection(cars):
    """Each request is measured under the table's name."""
    with measuring() as measurements:
        Car("m", "n", colour="red", price=1).save()
    (measurement,) = measurements
    assert (measurement.operation, measurement.table) == ("PutItem", Car.Meta.table_name)


def test_an_outage_reaches_models_as_store_unavailable(alias):
    """Not as one of PynamoDB's errors for refusals."""
    using = alias(ENDPOINT_URL="http://127.0.0.1:9", RETRY={"MAX_RETRIES": 0})
    with pytest.raises(StoreUnavailable):
        Car.bound_to(using).get("m", "n")


def test_bound_models_are_classes_of_their_own():
    """The same class each time, with its own alias and its own name."""
    with override_settings(
        DYNAMO_STORES={"default": {"TABLE_PREFIX": "one-"}, "other": {"TABLE_PREFIX": "two-"}}
    ):
        other = Car.bound_to("other")
        assert other is Car.bound_to("other")
        assert Car.bound_to("default") is Car
        assert (Car.Meta.table_name, other.Meta.table_name) == ("one-cars", "two-cars")
        assert CacheEntry.bound_to("other").Meta.table_name == "two-dynamo-stores"
        assert Car._get_connection() is not other._get_connection()
        assert other not in concrete_models()


def test_an_alias_on_the_class():
    """``using`` on a model, and on a subclass that changes only that."""

    class There(DynamoModel):
        using = "other"

        class Meta:
            table_name = "there"

        key = UnicodeAttribute(hash_key=True)

    class Here(There):
        using = "default"

    with override_settings(
        DYNAMO_STORES={
            "default": {"TABLE_PREFIX": "one-", "TABLES": {"there": {"TABLE_NAME": "renamed"}}},
            "other": {"TABLE_PREFIX": "two-"},
        }
    ):
        assert (There.Meta.table_name, Here.Meta.table_name) == ("two-there", "renamed")


def test_the_private_name_of_pynamodb_that_the_models_use():
    """
    DynamoModel overrides Model._get_connection, PynamoDB's only way from a class to its table.

    If this fails after an upgrade of PynamoDB, models bypass the connection: find the new hook
    before raising the pin in pyproject.toml.
    """
    assert isinstance(Model.__dict__["_get_connection"], classmethod)
    table = StoreItem._get_connection()
    assert isinstance(table, TableConnection)
    assert isinstance(table.connection, Connection)
    plain = super(DynamoModel, StoreItem)._get_connection()
    assert plain.get_meta_table().hash_keyname == "PK"


def test_the_private_names_of_botocore_that_the_transport_uses():
    """
    The HTTP session reads both timeouts from its Timeout object at each request.

    If this fails after an upgrade of botocore, connecting is no longer limited to the deadline.
    """
    transport = ClientTransport("default", get_config(), ServerClock(), get_account("default"))
    session = transport._client._endpoint.http_session
    assert type(session._timeout).__name__ == "_AttemptTimeout"
    request = type("Request", (), {"context": {"read_timeout": 0.25}})()
    timeout = session._get_request_timeout(request)
    assert timeout.read_timeout == 0.25
    assert transport.has_credentials


def test_the_code_of_an_error_is_found_in_pynamodbs_exceptions(tables):
    """Of every verb; errors of other kinds have none."""
    item = StoreItem("code", "of")
    item.save()
    missing = StoreItem.pk.does_not_exist()
    for verb in (item.save, item.delete):
        with pytest.raises(PynamoDBException) as caught:
            verb(condition=missing)
        assert code_of(caught.value) == "ConditionalCheckFailedException"
    assert code_of(ValueError("x")) == ""


def test_errors_can_be_pickled():
    """As results of Celery tasks and of process pools."""
    error = pickle.loads(pickle.dumps(DedupeFailedError("ValueError", "no")))
    assert (error.original_type, error.original_message) == ("ValueError", "no")
    assert str(error) == "The job failed with ValueError: no"
