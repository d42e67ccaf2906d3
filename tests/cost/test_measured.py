"""The load that the reports measured, and what a relay before DynamoDB charged for it."""

from __future__ import annotations

import io
import json
import secrets
import time
from decimal import Decimal

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import Client

from dynamo_stores.calls.control import get_control
from dynamo_stores.capacity.description import read_description
from dynamo_stores.capacity.usage import Usage, minute_of
from dynamo_stores.conf import get_config
from dynamo_stores.cost.measured import (
    NO_FIGURES,
    load_of,
    measured_load,
    of_hours,
    of_minutes,
    read_measured,
)
from dynamo_stores.infrastructure.tables import wanted_tables
from dynamo_stores.monitoring.periods import Period
from dynamo_stores.monitoring.reporter import get_reporter
from dynamo_stores.monitoring.roll_up import roll_up
from dynamo_stores.testing import FakeClock
from tests.helpers.data_pages import sum_up


@pytest.fixture
def now():
    """The begin of an hour."""
    with FakeClock((time.time() // 3600) * 3600) as clock:
        yield clock


@pytest.fixture
def forum(alias, settings, dynamo_capacity):
    """The forum on tables of its own behind a relay that counts units; the relay."""
    relay = dynamo_capacity()
    settings.DYNAMO_STORES = {
        "default": {
            **settings.DYNAMO_STORES["default"],
            "ENDPOINT_URL": relay.url,
            "TABLE_PREFIX": f"cost-{secrets.token_hex(4)}-",
            "REPORTS": {"ENABLED": True, "INTERVAL": 36_000.0},
        }
    }
    call_command("dynamo_create_tables", stdout=io.StringIO())
    specs = wanted_tables()
    yield relay
    for spec in specs:
        get_control().call("DeleteTable", {"TableName": spec.name})


def use_the_forum(minute):
    """What a user does in a minute: read, begin a thread, reply, read again."""
    user = get_user_model().objects.create_user(f"u{minute}-{secrets.token_hex(3)}")
    writer, reader = Client(), Client()
    writer.force_login(user)
    reader.get("/")
    thread = writer.post("/new/", {"title": f"Title {minute}", "text": "word " * 40 * minute})
    assert thread.status_code == 302
    for number in range(3):
        text = f"reply {number} " * 30 * number + "."
        assert writer.post(f"{thread['Location']}reply/", {"text": text}).status_code == 302
        assert reader.get(thread["Location"]).status_code == 200
    reader.get("/")


@pytest.mark.slow
@pytest.mark.django_db
def test_an_hour_of_the_forum_is_estimated_within_one_percent(forum, now, capsys):
    """Of each table and index, against what the relay charged; and the cost of it."""
    control = get_config().store_table + "-control"
    for round_ in range(15):
        use_the_forum(round_ % 5 + 1)
        get_reporter("default").publish()
        now.advance(240)
        roll_up("default")
    charged = {each: units for each, units in forum.units.items() if each[0] != control}
    now.advance(600)
    roll_up("default")
    load = measured_load("default")
    assert load.measured_hours == 1
    found = {
        (table.table, resource.name, kind.title()): float(resource.use.of(kind)) / 24
        for table in load.tables
        for resource in table.resources
        for kind in ("read", "write")
    }
    assert len([each for each in charged if each[1]]) >= 2
    assert sum(charged.values()) > 500
    for each, units in charged.items():
        assert found[each] == pytest.approx(units, rel=0.01), each
    assert sum(found.values()) == pytest.approx(sum(charged.values()), rel=0.01)
    call_command("dynamo_cost", "--prices=2024", "--json")
    (cost,) = json.loads(capsys.readouterr().out)["costs"]
    reads = sum(units for each, units in charged.items() if each[2] == "Read")
    writes = sum(units for each, units in charged.items() if each[2] == "Write")
    parts = {line["part"]: 0.0 for line in cost["lines"]}
    for line in cost["lines"]:
        parts[line["part"]] += float(line["amount"])
    assert parts["reads"] == pytest.approx(reads * 720 * 0.25 / 1e6, rel=0.02, abs=0.001)
    assert parts["writes"] == pytest.approx(writes * 720 * 1.25 / 1e6, rel=0.02, abs=0.001)


def period(**use):
    """An hour of units by resource, of which the busiest minute had a tenth."""
    return Period(
        use={name: Usage(*units) for name, units in use.items()},
        peak={name: tuple(each / 600 for each in units) for name, units in use.items()},
    )


def test_units_a_day_are_those_of_the_known_hours():
    """An hour without figures is left out; a known one without a resource is one without use."""
    measured = of_hours({10: period(t=(100.0, 10.0)), 12: period(u=(50.0, 5.0))})
    assert measured.measured_hours == 2
    assert (measured.first, measured.last) == (10 * 3600.0, 13 * 3600.0)
    assert "1 hour between the first and the last one" in measured.notes[0]
    use = measured.use(["t"])
    assert (use.read, use.write) == (Decimal(1200), Decimal(120))
    assert float(use.peak_read) == pytest.approx(100 / 600)
    assert [tuple(map(float, each)) for each in use.hours] == [
        pytest.approx((100 / 600, 10 / 600)),
        (0.0, 0.0),
    ]
    assert measured.use(["none"]).read == 0


def test_minutes_are_used_until_an_hour_is_over():
    """With the highest of them; without any, a note says what to do."""
    measured = of_minutes(
        {600: {"t": Usage(60.0, 6.0)}, 601: {"t": Usage(120.0, 6.0)}, 602: {}, 660: {"t": Usage()}}
    )
    assert measured.measured_hours == Decimal(3) / 60
    use = measured.use(["t"])
    assert use.read == Decimal(180) / 3 * 60 * 24
    assert use.peak_read == 2
    assert "these are 3 minutes" in measured.notes[0]
    assert measured.minutes == {10: 2, 11: 1}
    assert of_minutes({}).notes == of_hours({}).notes == (NO_FIGURES,)


def test_sizes_replicas_and_local_indexes(default_alias, tables):
    """Of a description; what a local index used is the capacity of the table."""
    capacity = read_description(
        {
            "TableName": "t",
            "TableArn": "arn:aws:dynamodb:us-east-1:1:table/t",
            "TableStatus": "ACTIVE",
            "BillingModeSummary": {"BillingMode": "PAY_PER_REQUEST"},
            "TableSizeBytes": 900_000, "ItemCount": 1000,
            "GlobalSecondaryIndexes": [
                {"IndexName": "G", "IndexSizeBytes": 400_000, "ItemCount": 500}
            ],
            "Replicas": [{"RegionName": "us-east-1"}, {"RegionName": "us-west-2"}],
            "StreamSpecification": {"StreamEnabled": True},
            "TableClassSummary": {"TableClass": "STANDARD_INFREQUENT_ACCESS"},
        }
    )  # fmt: skip
    measured = of_hours({10: period(**{"t": (10.0, 1.0), "t/G": (4.0, 2.0), "t/L": (5.0, 0.5)})})
    load = load_of("default", measured, {"t": capacity}.get, tables=["t", "gone"])
    (table,) = load.tables
    assert table.own.size == 900_000 + 1000 * 100
    assert [each.size for each in table.indexes] == [400_000 + 500 * 100]
    assert (table.own.use.read, table.own.use.write) == (Decimal(15) * 24, Decimal("1.5") * 24)
    assert table.indexes[0].use.read == 4 * 24
    assert (table.replicas, table.items, table.is_on_demand) == (1, 1000, True)
    assert table.table_class == "STANDARD_INFREQUENT_ACCESS"
    notes = " ".join(load.notes)
    assert "The table gone does not exist" in notes
    assert "Reads of streams are not counted (t)" in notes
    assert "Backups and point-in-time recovery are not known, and not counted: t." in notes


def test_the_hours_of_the_control_table_are_read(reporting, now):
    """Those of the chosen days, and only those of the alias."""
    using = reporting(REPORTS={"INTERVAL": 36_000.0})
    table = get_config(using).store_table
    hour = minute_of(now.now()) // 60
    sum_up(using, hours={hour - 2: period(**{table: (60.0, 6.0)}),
                         hour - 30: period(**{table: (600.0, 6.0)})})  # fmt: skip
    assert read_measured(using, days=1).use([table]).read == 60 * 24
    assert read_measured(using).use([table]).read == 330 * 24
    load = measured_load(using, tables=[table])
    assert [each.table for each in load.tables] == [table]
    # False, or None on DynamoDB Local, which has no DescribeContinuousBackups.
    assert not load.tables[0].point_in_time_recovery
    assert load.units("read") == 330 * 24
