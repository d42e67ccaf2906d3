"""The load that CloudWatch measured, at a CloudWatch of moto."""

from __future__ import annotations

import datetime
import io
import time

import boto3
import pytest
from django.core.management import CommandError, call_command

from dynamo_stores.conf import get_config
from dynamo_stores.cost.cloudwatch import cloudwatch_load, read_cloudwatch
from dynamo_stores.exceptions import StoreError
from dynamo_stores.testing import FakeClock, find_free_port

FAKE = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}


@pytest.fixture
def consumed(moto):
    """``consumed(table, hours_ago, read, write, index="")``: figures as DynamoDB's own."""
    client = boto3.client("cloudwatch", region_name="us-east-1", endpoint_url=moto, **FAKE)

    def put(table, hours_ago, read, write, index=""):
        at = (time.time() // 3600 - hours_ago) * 3600 + 60
        dimensions = [{"Name": "TableName", "Value": table}]
        if index:
            dimensions.append({"Name": "GlobalSecondaryIndexName", "Value": index})
        client.put_metric_data(
            Namespace="AWS/DynamoDB",
            MetricData=[
                {
                    "MetricName": f"Consumed{kind}CapacityUnits",
                    "Dimensions": dimensions,
                    "Timestamp": datetime.datetime.fromtimestamp(at, datetime.UTC),
                    "Value": value,
                }
                for kind, value in (("Read", read), ("Write", write))
            ],
        )

    return put


def test_units_of_tables_and_indexes(reporting, moto, consumed):
    """By hour, since the first one with figures; an hour without is one without use."""
    using = reporting(REPORTS={"ENABLED": False})
    table = get_config(using).store_table
    consumed(table, 4, 300.0, 30.0)
    consumed(table, 4, 60.0, 6.0)
    consumed(table, 2, 40.0, 4.0)
    consumed(table, 2, 8.0, 2.0, "GSI1")
    consumed(table, 0, 9999.0, 9999.0)
    load = cloudwatch_load(using, tables=[table], days=1, endpoint_url=moto)
    (found,) = load.tables
    assert (load.source, load.measured_hours) == ("cloudwatch", 4)
    assert (found.own.use.read, found.own.use.write) == (400 * 6, 40 * 6)
    assert [each.name for each in found.indexes] == ["GSI1"]
    assert (found.indexes[0].use.read, found.indexes[0].use.write) == (8 * 6, 2 * 6)
    assert float(found.own.use.peak_read) == pytest.approx(360 / 3600)
    assert any("$0.00004 for these 4 metrics" in note for note in load.notes)


def test_hours_without_figures_since_the_creation_of_the_table(reporting, moto, consumed):
    """Also those before the first figure: a month of this use is not one of its busiest hours."""
    using = reporting(REPORTS={"ENABLED": False})
    table = get_config(using).store_table
    with FakeClock(time.time() + 40 * 3600):
        consumed(table, -38, 1000.0, 0.0)
        load = cloudwatch_load(using, tables=[table], days=2, endpoint_url=moto)
        assert load.measured_hours == 40
        assert load.tables[0].own.use.read == 1000 * 24 / 40
        load = cloudwatch_load(using, tables=[table], days=1, endpoint_url=moto)
        assert load.measured_hours == 24


def test_the_command_uses_it(reporting, moto, consumed):
    using = reporting(REPORTS={"ENABLED": False})
    table = get_config(using).store_table
    consumed(table, 3, 1000.0, 0.0)
    out = io.StringIO()
    call_command(
        "dynamo_cost", "--cloudwatch", f"--cloudwatch-endpoint-url={moto}",
        f"--table={table}", "--days=2", stdout=out,
    )  # fmt: skip
    assert "Load: CloudWatch, " in out.getvalue()
    assert "3 hours are known, 0.4% of a month." in out.getvalue()


def test_a_table_without_figures(reporting, moto):
    """And one that does not exist."""
    using = reporting(REPORTS={"ENABLED": False})
    table = get_config(using).store_table
    measured, capacities = read_cloudwatch(using, tables=[table, "none"], endpoint_url=moto)
    assert measured.hours == {}
    assert list(capacities) == [table]
    assert "has no figures" in measured.notes[0]


def test_a_cloudwatch_that_does_not_answer(reporting):
    """One sentence, without a traceback."""
    using = reporting(REPORTS={"ENABLED": False})
    table, url = get_config(using).store_table, f"http://127.0.0.1:{find_free_port()}"
    with pytest.raises(StoreError, match="CloudWatch did not answer"):
        read_cloudwatch(using, tables=[table], endpoint_url=url)
    with pytest.raises(CommandError, match="CloudWatch did not answer"):
        call_command(
            "dynamo_cost", "--cloudwatch", f"--cloudwatch-endpoint-url={url}", f"--table={table}",
            stdout=io.StringIO(),
        )  # fmt: skip


def test_aws_is_not_asked_about_the_tables_of_an_engine_on_this_machine(reporting, dynamo_engine):
    """Tables of these names in an account are others. The engine is asked, and has none."""
    using = reporting(REPORTS={"ENABLED": False})
    table = get_config(using).store_table
    embedded = f"endpoint {dynamo_engine} .*does not answer as CloudW"
    with pytest.raises(StoreError, match=rf"{embedded}|GetMetricData .* \(InvalidAction\)"):
        read_cloudwatch(using, tables=[table])
