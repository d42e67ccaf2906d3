"""The benchmark of calls and its canned server: what they say, never how fast anything was."""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
import secrets
import signal
import subprocess
import sys
import urllib.request
import xml.etree.ElementTree as ET
import zlib
from dataclasses import replace
from email.utils import parsedate_to_datetime
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from django.core.management import CommandError, call_command
from django.test import override_settings

from dynamo_stores.cache import DynamoDBCache
from dynamo_stores.calls.control import get_control
from dynamo_stores.infrastructure.tables import create_table, table_of
from dynamo_stores.management.benchmark.operations import names_of, operations_of
from dynamo_stores.management.benchmark.processes import best
from dynamo_stores.management.benchmark.rounds import Row, percentile
from dynamo_stores.models import StoreItem
from dynamo_stores.stores import DedupeStore, RateLimitStore
from dynamo_stores.testing import CannedServer, EngineError
from dynamo_stores.testing.canned.answers import updated

KEYS = [("PK", "HASH"), ("SK", "RANGE")]
ITEM = {"PK": {"S": "a"}, "SK": {"S": "b"}, "data": {"B": b"\x00\xff"}, "n": {"N": "1"}}
KEY = {"PK": ITEM["PK"], "SK": ITEM["SK"]}


@pytest.fixture(scope="module", params=["http", "https"])
def canned(request):
    """A canned server, plain and over TLS."""
    if request.param == "https":
        pytest.importorskip("cryptography")
    with CannedServer(tls=request.param == "https") as server:
        yield server


@pytest.fixture
def client(canned):
    """boto3 with a table ``items`` on the canned server."""
    client = boto3.client(
        "dynamodb",
        endpoint_url=canned.url,
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",
        verify=str(canned.certificate) if canned.certificate else None,
        config=Config(retries={"total_max_attempts": 1, "mode": "standard"}),
    )
    client.create_table(
        TableName="items",
        KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in KEYS],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name, _ in KEYS],
        BillingMode="PAY_PER_REQUEST",
    )
    yield client
    client.delete_table(TableName="items")
    client.close()


def test_canned_server_returns_what_was_put(client):
    """An item and its absence, by boto3, which checks the checksum."""
    assert "Item" not in client.get_item(TableName="items", Key=KEY)
    client.put_item(TableName="items", Item=ITEM)
    found = client.get_item(TableName="items", Key=KEY)
    assert found["Item"] == ITEM
    assert found["ResponseMetadata"]["RequestId"]
    old = client.delete_item(TableName="items", Key=KEY, ReturnValues="ALL_OLD")
    assert old["Attributes"] == ITEM
    assert "Item" not in client.get_item(TableName="items", Key=KEY)


def test_canned_server_answers_batches(client):
    """Puts, deletes, and reads of keys of which one is missing."""
    items = [{**ITEM, "SK": {"S": str(number)}} for number in range(3)]
    keys = [{"PK": each["PK"], "SK": each["SK"]} for each in items]
    client.batch_write_item(
        RequestItems={"items": [{"PutRequest": {"Item": item}} for item in items]}
    )
    client.batch_write_item(RequestItems={"items": [{"DeleteRequest": {"Key": keys[1]}}]})
    found = client.batch_get_item(RequestItems={"items": {"Keys": keys}})
    assert found["Responses"]["items"] == [items[0], items[2]]
    assert found["UnprocessedKeys"] == {}
    query = client.query(
        TableName="items",
        KeyConditionExpression="PK = :pk",
        ExpressionAttributeValues={":pk": ITEM["PK"]},
    )
    assert query["Items"] == [items[0], items[2]]


def test_canned_server_counts_units_if_asked(client):
    """By DynamoDB's rules: half a unit for a read, one for a consistent read, one for each KB."""
    large = {**ITEM, "data": {"B": b"x" * 1500}}
    assert "ConsumedCapacity" not in client.put_item(TableName="items", Item=ITEM)

    def units(call, **arguments):
        found = call(TableName="items", ReturnConsumedCapacity="TOTAL", **arguments)
        return found["ConsumedCapacity"]["CapacityUnits"]

    assert units(client.put_item, Item=large) == 2
    assert units(client.get_item, Key=KEY) == 0.5
    assert units(client.get_item, Key=KEY, ConsistentRead=True) == 1
    batch = client.batch_get_item(
        RequestItems={"items": {"Keys": [KEY]}}, ReturnConsumedCapacity="TOTAL"
    )
    assert batch["ConsumedCapacity"] == [{"TableName": "items", "CapacityUnits": 0.5}]


def test_canned_server_names_what_it_does_not_answer(client):
    """As DynamoDB does, by a code."""
    with pytest.raises(ClientError) as refused:
        client.get_item(TableName="other", Key=KEY)
    assert refused.value.response["Error"]["Code"] == "ResourceNotFoundException"
    with pytest.raises(ClientError, match="no answer to ListBackups"):
        client.list_backups()
    with pytest.raises(ClientError, match="ValidationException"):
        client.put_item(TableName="items", Item={"PK": {"S": "a"}})


def test_answers_have_the_headers_of_dynamodb():
    """A checksum, a date and the id of the request; two requests on one connection."""
    with CannedServer() as server:
        assert server.url.startswith("http://127.0.0.1:")
        request = urllib.request.Request(server.url, b"{}")
        request.add_header("X-Amz-Target", "DynamoDB_20120810.ListTables")
        with urllib.request.urlopen(request) as answer:
            body = answer.read()
        assert json.loads(body) == {"TableNames": []}
        assert answer.headers["x-amz-crc32"] == str(zlib.crc32(body))
        assert parsedate_to_datetime(answer.headers["Date"])
        assert len(answer.headers["x-amzn-RequestId"]) == 36


def test_updates_are_computed():
    """Sums, defaults, names in full, removed attributes; and what was set."""
    new, changed = updated(
        {**KEY, "n": {"N": "5"}, "gone": {"S": "x"}},
        {
            "UpdateExpression": "SET #a = :text, m = if_not_exists(m, :one) + :one, n = n - :one "
            "ADD total :one REMOVE gone",
            "ExpressionAttributeNames": {"#a": "set"},
            "ExpressionAttributeValues": {":text": {"S": "x"}, ":one": {"N": "1"}},
        },
    )
    expected = {"set": {"S": "x"}, "m": {"N": "2"}, "n": {"N": "4"}, "total": {"N": "1"}}
    assert changed == expected
    assert new == {**KEY, **expected}


@pytest.mark.parametrize("transport", ["lean", "botocore"])
def test_stores_accept_the_answers(canned, monkeypatch, transport):
    """Cache, limits and jobs, as far as no condition has to fail."""
    if canned.certificate:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(canned.certificate))
    alias = {"ENDPOINT_URL": canned.url, "REGION": "us-east-1", "TRANSPORT": transport}
    alias |= {"TABLE_PREFIX": secrets.token_hex(4), "REPORTS": {"ENABLED": False}}
    alias |= {"METRICS": {"SINKS": []}}
    with override_settings(DYNAMO_STORES={"default": alias}):
        create_table(table_of(StoreItem), lambda line: None)
        cache = DynamoDBCache("default", {"OPTIONS": {"OPERATION_TIMEOUT": 60.0}})
        cache.set_many({"a": {"b": 1}, "n": 1})
        assert cache.get_many(["a", "n", "missing"]) == {"a": {"b": 1}, "n": 1}
        assert cache.incr("n", 2) == 3
        assert cache.touch("n", 60)
        assert cache.add("new", 1)
        assert cache.delete("new")
        status = [RateLimitStore().acquire("r", key="k", rate="2/h").allowed for _ in range(3)]
        assert status == [True, True, False]
        assert DedupeStore().register("job")


def test_missing_package_for_certificates_is_named(monkeypatch):
    """Instead of an ImportError."""
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(EngineError, match="pip install cryptography"):
        CannedServer(tls=True)


def run(**options):
    """Return what a short benchmark wrote to standard output, and to standard error."""
    out, err = io.StringIO(), io.StringIO()
    given = {"engine": "canned", "rounds": 1, "calls": 2, "processes": 1, "stderr": err, **options}
    call_command("dynamo_benchmark", stdout=out, **given)
    return out.getvalue(), err.getvalue()


def is_figure(value, least=0.0):
    return isinstance(value, int | float) and math.isfinite(value) and value >= least


@pytest.mark.slow
def test_every_operation_has_figures(tmp_path):
    """As JSON, with what was skipped and why; the chart is XML with a bar for each ratio."""
    chart = tmp_path / "chart.svg"
    out, _ = run(json=True, svg=chart, subject=["lean", "botocore", "Redis", "Memcached"])
    found = json.loads(out)
    assert found["engine"] == "canned"
    assert set(found["skipped"]) == {"Redis", "Memcached"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", found["made"])
    rows = {(row["operation"], row["subject"]): row for row in found["rows"]}
    for operation in operations_of("calls", 1000):
        for subject in ("lean", "botocore") if operation.in_memory else ("boto3", "lean"):
            row = rows[operation.name, subject]
            assert is_figure(row["cpu"])
            assert is_figure(row["wall"], 0.1)
            if operation.in_memory:
                assert row["ratio"] is None
                continue
            assert is_figure(row["ratio"])
            assert 0 < row["p50"] <= row["p95"] <= row["p99"]
            assert row["requests"] >= 1
            assert row["units"] >= 0.5
        assert rows[operation.name, "botocore"]["subject"] == "botocore"
    assert rows["get", "lean"]["units"] == 0.5
    assert rows["set_many(50)", "lean"]["requests"] == 2
    bars = ET.parse(chart).getroot().findall(".//{*}rect/{*}title")
    ratios = [row for row in rows.values() if row["ratio"] and row["subject"] != "boto3"]
    assert len(bars) == len(ratios)


@pytest.mark.parametrize("tls", [False, True])
def test_table_has_a_line_for_each_operation_and_client(tls):
    """Plain and over TLS; what was skipped is said on standard error."""
    if tls:
        pytest.importorskip("cryptography")
    names = ["get", "near hit"]
    out, err = run(operation=names, subject=["lean", "PynamoDB", "Redis"], tls=tls)
    lines = [line.split() for line in out.splitlines()[2:]]
    assert [line[:2] for line in lines] == [
        ["get", "boto3"],
        ["lean", lines[1][1]],
        ["near", "hit"],
    ]
    assert lines[0][3] == "1.00"
    assert "Redis is skipped: no server is given; add --redis URL." in err


def test_markdown_has_a_line_for_each_operation():
    """The CPU time of boto3, and the ratios to it."""
    out, _ = run(operation=["get", "near hit"], subject=["lean"], markdown=True)
    heading, rule, get, near = out.splitlines()
    assert heading == "| Operation | boto3, CPU | lean |"
    assert rule == "| --- | ---: | ---: |"
    assert re.fullmatch(r"\| get \| [\d,.]+ (µs|ms) \| \d+\.\d\d \|", get)
    assert re.fullmatch(r"\| near hit \|  \| [\d,.]+ µs \|", near)


def test_growth_is_measured():
    """With values, batches, threads, tasks, processes and items; only what was chosen."""
    chosen = ["get, 100 bytes", "set_many(10)", "get, threads: 2", "aget, tasks: 10"]
    chosen += ["get, processes: 2", "set, items: 1,000", "get, items: 10,000"]
    out, _ = run(scenario="growth", items=1000, subject=["lean"], operation=chosen, json=True)
    rows = json.loads(out)["rows"]
    # The table is not filled beyond --items.
    assert list(dict.fromkeys(row["operation"] for row in rows)) == chosen[:-1]
    assert all(is_figure(row["cpu"]) and is_figure(row["wall"], 1) for row in rows)
    assert set(chosen) < set(names_of("growth"))


def test_cold_start_is_measured():
    """Of fresh processes: bare boto3, Django alone, and each transport."""
    out, _ = run(scenario="cold-start", json=True)
    rows = {(row["operation"], row["subject"]): row for row in json.loads(out)["rows"]}
    assert {subject for _, subject in rows} == {"boto3", "Django", "lean", "botocore"}
    for subject in ("boto3", "lean", "botocore"):
        setup = rows["start: import and setup", subject]["cpu"]
        assert 0 < setup < rows["start: total", subject]["cpu"]
        assert is_figure(rows["start: first get", subject]["wall"], 1)
    assert ("start: first get", "Django") not in rows


def test_what_measuring_costs_is_measured():
    """A get without it, with reports, and with the default sink."""
    found = json.loads(run(scenario="metrics", json=True)[0])
    assert list(found) == [
        "nothing",
        "reports",
        "the defaults: reports and a summary in the log",
    ]
    assert all(seconds > 0 for seconds in found.values())
    assert "  reports: " in run(scenario="metrics")[0]


def test_other_engines_lose_the_tables_at_the_end(dynamo_engine):
    """Those of the alias's endpoint, also after an error."""

    def table_of(progress):
        prefix = progress.splitlines()[0].removeprefix("the tables ").removesuffix("*")
        return f"{prefix}dynamo-stores"

    chosen = {"engine": "alias", "operation": ["get"], "verbosity": 2}
    out, err = run(**chosen, subject=["lean"])
    assert "lean" in out
    assert get_control().describe(table_of(err)) is None
    err = io.StringIO()
    with pytest.raises(CommandError, match=r"^A measuring process ended .*ConnectionError"):
        run(**chosen, subject=["Redis"], redis="redis://127.0.0.1:9", stderr=err)
    assert get_control().describe(table_of(err.getvalue())) is None


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="It reads /proc.")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_benchmark_leaves_no_process(sent, until, interruptible):
    """Neither its server nor what measures."""
    command = [sys.executable, "manage.py", "dynamo_benchmark", "--engine", "canned", "-v2"]
    process = subprocess.Popen(
        [*command, "--rounds", "100000", "--subject", "lean"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert "the tables benchmark-" in process.stderr.readline()
        assert "process 1 of 3" in process.stderr.readline()
        children = until(lambda: len(found := [*_children(process.pid)]) == 2 and found)
        process.send_signal(sent)
        process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    until(lambda: not any(_is_running(pid) for pid in children))


def _is_running(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def _children(parent):
    """Yield the living processes of ``parent``."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, ppid = stat.read_text().rpartition(")")[2].split()[:2]
            if int(ppid) == parent and state != "Z":
                yield int(stat.parent.name)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"tls": True, "engine": "embedded"}, "^--tls is given without --engine canned"),
        ({"operation": ["gets"]}, "^--operation is gets; expected one of: get; "),
        ({"operation": ["get"], "scenario": "cold-start"}, "^--operation is given for a scenario"),
        ({"subject": ["leen"]}, "^--subject is leen; expected one of: lean, botocore, "),
        (
            {"svg": Path("chart.svg"), "scenario": "metrics"},
            "^--svg is given for the scenario metr",
        ),
        (
            {"markdown": True, "scenario": "scaling"},
            "^--markdown is given for the scenario scaling",
        ),
        (
            {"json": True, "scenario": "status"},
            "^--json is given for the scenario status; expected",
        ),
        ({"svg": Path("/nowhere/at/all.svg")}, "^--svg is /nowhere/at/all.svg; expected a file in"),
        ({"redis": "nonsense", "subject": ["Redis"]}, "^A measuring process ended .*ValueError"),
    ],
)
def test_wrong_options_are_sentences(options, error):
    """Each names what was expected."""
    with pytest.raises(CommandError, match=error):
        run(**options)


def test_processes_that_cannot_start_are_sentences(monkeypatch):
    """The last line of their error."""
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "nowhere.settings")
    with pytest.raises(CommandError, match=r"^A measuring process ended .*ModuleNotFound"):
        run(operation=["get"])


def test_remote_endpoints_are_refused(alias):
    """Calls there cost money."""
    using = alias(ENDPOINT_URL="http://192.0.2.1:8000")
    with pytest.raises(CommandError, match="is not on this machine"):
        run(engine="alias", using=using)


def test_best_process_is_that_with_the_lowest_ratio():
    """All figures of a line are of one process."""
    rows = [Row("get", "lean", cpu, 1.0, ratio) for cpu, ratio in ((9, 0.5), (5, 0.7), (7, 0.4))]
    assert best(rows) == [replace(rows[2], ratios=[0.5, 0.7, 0.4])]
    memory = [Row("near hit", "lean", cpu, 1.0) for cpu in (3, 2, 4)]
    assert best(memory) == [replace(memory[1], ratios=[None] * 3)]


def test_percentiles_are_by_the_nearest_rank():
    """Of one value, and of a hundred."""
    assert percentile([7.0], 0.99) == 7.0
    hundred = [*range(1, 101)]
    assert [percentile(hundred, share) for share in (0.5, 0.95, 0.99)] == [50, 95, 99]
