"""What the service does beside reads and writes: tables, capacity, CloudWatch, the pages."""

from __future__ import annotations

import io
from collections.abc import Callable

from botocore.exceptions import ClientError
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import Client

from dynamo_stores.calls.control import get_control
from dynamo_stores.capacity.manual import TO, change_manually
from dynamo_stores.capacity.records import CapacityRecords
from dynamo_stores.capacity.update import describe
from dynamo_stores.conf import get_config
from dynamo_stores.cost.cloudwatch import cloudwatch_load
from dynamo_stores.infrastructure.tables import await_active, wanted_tables
from dynamo_stores.monitoring.reporter import get_reporter

from .price import Consumed
from .project import BASE_UNITS, ON_DEMAND, PROVISIONED, RAISED_READS

Write = Callable[[str], None]


def create_tables(write: Write) -> None:
    """Create the tables, and compare them with the models."""
    output = io.StringIO()
    call_command("dynamo_create_tables", stdout=output)
    call_command("dynamo_verify", stdout=output)
    write(f"dynamo_create_tables, dynamo_verify: {len(wanted_tables())} tables are as they should.")


def read_options(write: Write, *, is_aws: bool) -> None:
    """Read TTL and point-in-time recovery of a table."""
    table = get_config(ON_DEMAND).store_table
    assert get_control().ttl_attribute(table) == "TTL"
    write("DescribeTimeToLive: TTL is on.")
    try:
        answer = get_control().call("DescribeContinuousBackups", {"TableName": table})
    except ClientError as exc:
        if is_aws or "UnknownOperation" not in str(exc):
            raise
        write("DescribeContinuousBackups: left out, this engine does not have it.")
    else:
        recovery = answer["ContinuousBackupsDescription"]["PointInTimeRecoveryDescription"]
        assert recovery["PointInTimeRecoveryStatus"] == "DISABLED"
        write("DescribeContinuousBackups: point-in-time recovery is off.")


def raise_capacity(write: Write) -> None:
    """Raise the provisioned table, and find the deadline at which it is lowered."""
    table = get_config(PROVISIONED).store_table
    plan = change_manually(PROVISIONED, table, TO, read=RAISED_READS, by="the smoke suite")
    assert plan.changes, plan.why
    await_active(get_control(PROVISIONED), table)
    raised = describe(PROVISIONED, table)
    assert raised is not None
    units = {name: tuple(each.units) for name, each in raised.resources.items()}
    assert set(units.values()) == {(RAISED_READS, BASE_UNITS)}, units
    assert (record := CapacityRecords(PROVISIONED).get(table)) is not None
    assert record.deadline
    write(f"UpdateTable: {len(units)} resources have {RAISED_READS} read units, with a deadline.")


def read_cloudwatch(write: Write, consumed: Consumed, *, is_aws: bool) -> None:
    """Ask CloudWatch for the units of the tables."""
    if not is_aws:
        write("GetMetricData: left out, CloudWatch is at AWS alone.")
        return
    tables = [spec.name for spec in wanted_tables() if spec.using == ON_DEMAND]
    load = cloudwatch_load(ON_DEMAND, tables=tables, days=1)
    assert load.source == "cloudwatch"
    capacities = [describe(ON_DEMAND, table) for table in tables]
    consumed.metrics += sum(2 * len(each.resources) for each in capacities if each is not None)
    write(f"GetMetricData: CloudWatch answered for {consumed.metrics} metrics.")


def open_pages(write: Write) -> None:
    """Open the status pages and the health check, with a report of this process."""
    get_reporter(ON_DEMAND).publish()
    call_command("migrate", verbosity=0)
    client = Client()
    assert client.get("/dynamo-stores/health/ready").status_code == 200
    user = get_user_model().objects.create_superuser("smoke")
    client.force_login(user)
    page = client.get("/admin/dynamo-stores/")
    assert page.status_code == 200
    for spec in wanted_tables():
        assert spec.name in page.content.decode(), f"The status page does not have {spec.name}."
    output = io.StringIO()
    call_command("dynamo_status", stdout=output)
    assert get_config(ON_DEMAND).store_table in output.getvalue()
    write("The status page, dynamo_status and the health check show the tables.")
