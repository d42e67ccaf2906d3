"""The smoke suite itself: it passes, refuses without consent, and leaves no table behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from decimal import Decimal

import boto3
import pytest
from django.conf import settings
from moto.server import ThreadedMotoServer

from dynamo_stores.cost.prices import read_prices

from .place import FAMILY, Refused, local
from .price import MOST, MOST_METRICS, MOST_READS, MOST_WRITES, price

ACCOUNT = "123456789012"
# DynamoDB Local keeps the tables of each access key apart; this is the one of local engines.
FAKE = {"aws_access_key_id": "local", "aws_secret_access_key": "local", "region_name": "us-east-1"}


def start(*arguments, **environment):
    """Start the suite with the arguments."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tests.smoke", *arguments],
        cwd=settings.BASE_DIR,
        env={**os.environ, "AWS_EC2_METADATA_DISABLED": "true", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """Return the exit status, what was printed, and what was printed to stderr."""
    try:
        output, error = process.communicate(timeout=300)
    finally:
        process.kill()
    return process.returncode, output, error


def tables(url, prefix=FAMILY):
    """The tables of the suite at an endpoint."""
    client = boto3.client("dynamodb", endpoint_url=url, **FAKE)
    pages = client.get_paginator("list_tables").paginate()
    return [name for page in pages for name in page["TableNames"] if name.startswith(prefix)]


def prefix_in(output):
    """The prefix that the suite printed."""
    return re.search(r"named (\S+-)…", output).group(1)


@pytest.mark.slow
def test_it_passes_and_removes_its_tables(dynamo_engine):
    """Every step, with the price of what it consumed, which is below what was announced."""
    status, output, error = finish(start("--endpoint", dynamo_engine))
    assert status == 0, output + error
    assert "Passed in" in output
    reads, writes = re.search(r"Consumed: ([\d.,]+) read and ([\d.,]+) write", output).groups()
    assert 20 < float(reads.replace(",", "")) < MOST_READS
    assert 50 < float(writes.replace(",", "")) < MOST_WRITES
    assert tables(dynamo_engine, prefix_in(output)) == []


@pytest.mark.slow
def test_ctrl_c_removes_the_tables(dynamo_engine):
    """Interrupted in the middle, it removes them and exits with 130."""
    process = start("--endpoint", dynamo_engine)
    seen = ""
    while "  cache:" not in (line := process.stdout.readline()):
        assert line, process.stderr.read()
        seen += line
    assert tables(dynamo_engine, prefix_in(seen))
    process.send_signal(signal.SIGINT)
    status, output, _ = finish(process)
    assert status == 130
    assert "on-demand: removed" in output
    assert tables(dynamo_engine, prefix_in(seen)) == []


def test_an_endpoint_elsewhere_is_refused():
    """It might be AWS, without consent."""
    with pytest.raises(Refused, match="not on this machine"):
        local("https://dynamodb.us-east-1.amazonaws.com")


@pytest.mark.parametrize("region", ["us-east-1", "us-west-2", "sa-east-1"])
def test_a_run_costs_less_than_a_cent(region):
    """What is announced, also where prices are twice as high."""
    factor = 1 if region.startswith("us") else 2
    prices = read_prices(region=region, price_region="us-east-1", factor=Decimal(factor))
    assert Decimal("0.001") < price(MOST, prices) < Decimal("0.01")


@pytest.fixture(scope="module")
def account():
    """The environment of an account in moto, and its endpoint."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    yield {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    server.stop()


@pytest.mark.parametrize("given", [{}, {"SMOKE_CONSENT": ""}, {"SMOKE_CONSENT": "000000000000"}])
def test_it_does_nothing_in_an_account_without_its_number(account, given):
    """It says the account, the tables and the price, and that nothing was done."""
    status, output, error = finish(start("--aws", **account, **given))
    assert status == 1
    assert ACCOUNT in output
    assert "Price:    at most" in output
    assert "Nothing was done" in error
    assert tables(account["AWS_ENDPOINT_URL"]) == []


def test_it_needs_credentials(account):
    """Without them it says what to configure."""
    without = {**account, "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    status, _, error = finish(start("--aws", **without))
    assert status == 1
    assert "AWS_PROFILE" in error
    assert "Traceback" not in error


@pytest.mark.slow
def test_it_passes_in_an_account(account):
    """With the number of the account, and with CloudWatch."""
    status, output, error = finish(start("--aws", SMOKE_CONSENT=ACCOUNT, **account))
    assert status == 0, output + error
    metrics = int(re.search(r"CloudWatch answered for (\d+) metrics", output).group(1))
    assert 0 < metrics < MOST_METRICS
    assert tables(account["AWS_ENDPOINT_URL"], prefix_in(output)) == []


def test_tables_that_were_left_are_found_and_removed(account):
    """Only those of the suite, and only with the number of the account."""
    client = boto3.client("dynamodb", endpoint_url=account["AWS_ENDPOINT_URL"], **FAKE)
    names = [f"{FAMILY}20260101t000000-abc123-on-demand", "production"]
    for name in names:
        client.create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "PK", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "PK", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
    status, output, _ = finish(start("--aws", "--leftovers", "list", **account))
    assert (status, output.split()) == (0, names[:1])
    status, _, error = finish(start("--aws", "--leftovers", "remove", **account))
    assert status == 1
    assert ACCOUNT in error
    consent = {"SMOKE_CONSENT": ACCOUNT}
    status, output, _ = finish(start("--aws", "--leftovers", "remove", **consent, **account))
    assert status == 0
    # Other tests have tables there, too.
    left = client.list_tables()["TableNames"]
    client.delete_table(TableName="production")
    assert "production" in left
    assert names[0] not in left
