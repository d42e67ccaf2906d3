"""The dashboard of CloudWatch: its body, and what CloudWatch takes."""

from __future__ import annotations

import json

import pytest

from dynamo_stores.conf import get_config
from dynamo_stores.exceptions import ConfigurationError
from dynamo_stores.infrastructure.tables import wanted_tables
from dynamo_stores.monitoring import create_dashboard, dashboard_json
from dynamo_stores.monitoring.sinks.series import DIMENSIONS
from tests.monitoring.test_cloudwatch import CLOUDWATCH

SINK = {"SINKS": [CLOUDWATCH], "NAMESPACE": "Shop"}


def lines(body):
    """Return namespace, metric and dimensions of all lines of all graphs."""
    return [
        (space, name, dict(zip(pairs[::2], pairs[1::2], strict=True)))
        for widget in json.loads(body)["widgets"]
        for space, name, *pairs, _ in widget["properties"].get("metrics", ())
    ]


def test_a_dashboard_needs_no_argument(settings, default_alias, moto):
    """Its name is that of the stores' table; CloudWatch finds no mistake in it."""
    settings.DYNAMO_STORES = {"default": {**default_alias, "ENDPOINT_URL": moto}}
    answer = create_dashboard()
    assert answer["DashboardValidationMessages"] == []
    assert create_dashboard("again")["ResponseMetadata"]["HTTPStatusCode"] == 200
    with pytest.raises(ValueError, match="'a b' cannot be the name of a dashboard"):
        create_dashboard("a b")


def test_each_table_and_each_published_metric_is_shown(alias):
    """With the dimensions that the sinks give them, and those of DynamoDB."""
    using = alias(METRICS=SINK, TABLE_PREFIX="shown-", BILLING_MODE="PROVISIONED")
    found = lines(dashboard_json("Shop", using=using))
    specs = [spec for spec in wanted_tables() if spec.using == using]
    assert {spec.name for spec in specs} == {
        "shown-dynamo-stores", "shown-dynamo-stores-control"
    }  # fmt: skip
    own = [each for each in found if each[0] == "Shop"]
    assert {name for _, name, _ in own} <= set(DIMENSIONS)
    assert {"breaker_open", "operations", "stuck_scale_downs"} <= {name for _, name, _ in own}
    for _, name, dimensions in own:
        assert [*dimensions] == ["using", *DIMENSIONS[name][0]]
        assert dimensions["using"] == using
    of_index = {"TableName": "shown-dynamo-stores", "GlobalSecondaryIndexName": "GSI1"}
    for metric in ("ReadThrottleEvents", "ConsumedWriteCapacityUnits"):
        assert ("AWS/DynamoDB", metric, of_index) in found
    provisioned = {
        of["TableName"] for _, name, of in found if name == "ProvisionedReadCapacityUnits"
    }
    assert provisioned == {"shown-dynamo-stores"}


def test_widgets_lie_beside_each_other_and_none_on_another(alias):
    """Within 24 columns; texts say the title, the alias and the tables."""
    body = json.loads(dashboard_json("Shop", using=alias(METRICS=SINK)))
    taken = set()
    for each in body["widgets"]:
        assert each["x"] + each["width"] <= 24
        cells = {
            (x, y)
            for x in range(each["x"], each["x"] + each["width"])
            for y in range(each["y"], each["y"] + each["height"])
        }
        assert not cells & taken
        taken |= cells
    assert body["widgets"][0]["properties"]["markdown"] == "# Shop"
    regions = {each["properties"].get("region") for each in body["widgets"]}
    assert regions == {None, "us-east-1"}


def test_a_dashboard_needs_a_region(settings, default_alias, monkeypatch):
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    settings.DYNAMO_STORES = {
        "default": {**default_alias, "REGION": None, "ENDPOINT_URL": None, "TABLE_PREFIX": "a-"}
    }
    assert get_config().region is None
    with pytest.raises(ConfigurationError, match="has no region"):
        dashboard_json()
