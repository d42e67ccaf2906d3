"""PutMetricData, to a CloudWatch of moto, and to servers that do not answer as they should."""

from __future__ import annotations

import datetime
import http.client
import subprocess
import sys
import time

import boto3
import botocore.session
import pytest
from botocore.exceptions import BotoCoreError, ClientError
from django.conf import settings
from django.core.signals import request_finished
from django.test import Client
from django.urls import reverse

from dynamo_stores.calls.counters import get_counters
from dynamo_stores.calls.observer import measuring
from dynamo_stores.conf import get_config
from dynamo_stores.exceptions import StoreUnavailable
from dynamo_stores.monitoring import CloudWatchMetricsPublisher, Monitor, exporter, flush_metrics
from dynamo_stores.monitoring.cloudwatch_metrics import of_library
from dynamo_stores.monitoring.exporter import get_exporters
from dynamo_stores.stores import CacheStore
from dynamo_stores.testing import find_free_port
from tests.helpers.forking import in_processes
from tests.helpers.peers import Peer, response

CLOUDWATCH = "dynamo_stores.monitoring.sinks.cloudwatch.CloudWatchSink"
FAKE = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}


@pytest.fixture
def published(alias, moto, request):
    """``published(**options)``: an alias with the sink; its namespace is the name of the test."""

    def make(changes=None, interval=3600.0, **options):
        found = {"ENDPOINT_URL": moto, "TIMEOUT": 30.0, **options}
        wanted = {
            "SINKS": [CLOUDWATCH], "INTERVAL": interval, "NAMESPACE": request.node.name,
            "OPTIONS": {CLOUDWATCH: found},
        }  # fmt: skip
        return alias(METRICS=wanted, **(changes or {}))

    return make


@pytest.fixture
def statistics(moto, request):
    """``statistics(name, **dimensions)``: count, sum and maximum that CloudWatch has."""
    client = boto3.client("cloudwatch", region_name="us-east-1", endpoint_url=moto, **FAKE)

    def read(name, at=None, **dimensions):
        at = datetime.datetime.fromtimestamp(at or time.time(), datetime.UTC)
        found = client.get_metric_statistics(
            Namespace=request.node.name,
            MetricName=name,
            Dimensions=[{"Name": name, "Value": value} for name, value in dimensions.items()],
            StartTime=at - datetime.timedelta(hours=1),
            EndTime=at + datetime.timedelta(hours=1),
            Period=60,
            Statistics=["SampleCount", "Sum", "Maximum"],
        )["Datapoints"]
        return (
            sum(each["SampleCount"] for each in found),
            sum(each["Sum"] for each in found),
            max((each["Maximum"] for each in found), default=None),
        )

    return read


class Relay(Peer):
    """
    A server before CloudWatch. ``faults`` has what it does instead for the next requests: a
    status, ``"hang"``, None for nothing. Requests that contain ``bad`` are refused as CloudWatch
    refuses wrong values.
    """

    def __init__(self, upstream, *faults, bad=None):
        super().__init__(self._relay)
        self._upstream = upstream.removeprefix("http://")
        self.faults = list(faults)
        self.bad = bad

    def _relay(self, peer, connection, number):
        body = peer.receive(connection)
        fault = self.faults.pop(0) if self.faults else None
        if fault == "hang":
            self.ended.wait(60)
        elif isinstance(fault, int):
            connection.sendall(closing(b"{}", fault))
        elif self.bad is not None and self.bad in body:
            error = b'{"__type": "InvalidParameterValueException"}'
            code = "InvalidParameterValue;Sender"
            connection.sendall(closing(error, 400, x_amzn_query_error=code))
        else:
            first, *lines = self.heads[-1].decode().split("\r\n")
            method, path, _ = first.split()
            upstream = http.client.HTTPConnection(self._upstream, timeout=60)
            upstream.request(method, path, body, dict(line.split(": ", 1) for line in lines))
            answer = upstream.getresponse()
            connection.sendall(closing(answer.read(), answer.status))
            upstream.close()


def closing(body, status, **headers):
    """An answer after which the connection ends."""
    return response(body, status, Connection="close", **headers)


def test_sums_agree_with_what_was_counted(published, statistics, dynamo_faults):
    using = published(
        {"ENDPOINT_URL": dynamo_faults.url, "RETRY": {"MAX_RETRIES": 0, "DELAY": 0.01},
         "CIRCUIT_BREAKER": {"FAILURE_THRESHOLD": 1}}
    )  # fmt: skip
    table, store = get_config(using).store_table, CacheStore(using)
    dynamo_faults.throttle("GetItem", times=1)
    with measuring() as attempts:
        store.set("k", 1)
        for _ in range(30):
            store.get("k")
        assert flush_metrics(using, seconds=60)
        store.get_many(["k", "absent"])
        dynamo_faults.fail("GetItem", times=1)
        with pytest.raises(StoreUnavailable):
            store.get("k")
    attempts = [each for each in attempts if each.using == using]
    assert flush_metrics(using, seconds=60)
    both = {"using": using, "table": table}
    # One throttled attempt was followed by another one.
    assert statistics("operations", **both)[1] == len(attempts) - 1
    assert statistics("operation_seconds", **both)[0] == len(attempts) - 1
    assert statistics("throttles", **both)[1] == statistics("errors", **both)[1] == 1
    for kind in ("Read", "Write"):
        units = sum(sum(each.units.values()) for each in attempts if each.kind == kind)
        assert statistics(f"{kind.lower()}_units", **both)[1] == pytest.approx(units)
    seconds = sum(each.waited + each.seconds for each in attempts if not each.throttled)
    # What a call does after its last attempt is in its seconds, too.
    assert seconds - 1e-6 < statistics("operation_seconds", **both)[1] < seconds + 1.0
    assert statistics("hits", using=using)[1] == 31
    assert statistics("misses", using=using)[1] == 1
    assert statistics("breaker_open", **both)[2] == 1


def test_values_of_the_application_are_added_up_by_minute(published, statistics):
    """Up to 150 different values are sent as they are, more of them as their statistics."""
    using = published()
    monitor, now = Monitor(using), time.time()
    for number in range(300):
        monitor.record_metric("basket", number % 3, "Bytes", dimensions={"Shop": "Köln"})
        monitor.record_metric("size", number, "Bytes")
    monitor.record_metric("basket", 7, "Bytes", timestamp=now - 600, dimensions={"Shop": "Köln"})
    assert flush_metrics(using, seconds=60)
    assert statistics("basket", Shop="K?ln") == (301, 307, 7)
    assert statistics("size") == (300, 300 * 299 / 2, 299)


def test_large_requests_are_compressed_and_all_are_signed_for_the_alias(moto, alias):
    """With its credentials and its region; METRICS has another one."""
    with Relay(moto) as relay:
        path = f"{__name__}.make_session"
        for region, metrics in (("eu-west-3", {}), ("eu-central-1", {"REGION": "eu-central-1"})):
            using = alias(SESSION=path, REGION="eu-west-3", METRICS={"SINKS": [], **metrics})
            publisher = CloudWatchMetricsPublisher(using, endpoint_url=relay.url, timeout=30)
            for number in range(100):
                publisher.record_metric(f"orders{number}", 1, dimensions={"Shop": "x" * 200})
            assert publisher.publish() == 100
            head = relay.heads[-1].decode()
            assert "Content-Encoding: gzip" in head
            assert "Credential=AKIDOFTHEALIAS/" in head
            assert f"/{region}/monitoring/" in head


def make_session():
    session = botocore.session.Session()
    session.set_credentials("AKIDOFTHEALIAS", "secret")
    return session


def test_checks_of_raised_tables_are_published_by_what_alarms_ask_for(published, statistics):
    """All of them, and those that found a stuck table."""
    using = published()
    for state in ("ok", "stuck", "ok"):
        get_counters(using).add("scale_down_checks", state)
    CacheStore(using).get("absent")
    assert flush_metrics(using, seconds=60)
    for name, count in (("scale_down_checks", 3), ("stuck_scale_downs", 1)):
        metric = of_library(using, name)
        assert statistics(metric.name, **dict(metric.dimensions))[1] == count


def test_a_batch_that_was_accepted_is_not_sent_again(moto, published, statistics, caplog):
    """The rest of what failed is in the next export; the failure is logged once."""
    with Relay(moto, None, 500, 500) as relay:
        using = published(ENDPOINT_URL=relay.url)
        for number in range(2500):
            Monitor(using).record_metric("orders", 1, dimensions={"Customer": str(number)})
        CacheStore(using).get("absent")
        for _ in range(2):
            assert not flush_metrics(using, seconds=60)
        assert caplog.text.count("The sink CloudWatchSink failed in export: ") == 1
        CacheStore(using).get("absent")
        assert flush_metrics(using, seconds=60)
        assert len(relay.requests) == 5
    for customer in (0, 999, 1000, 2499):
        assert statistics("orders", Customer=str(customer))[:2] == (1, 1)
    assert statistics("operations", using=using, table=get_config(using).store_table)[1] == 2


def test_a_server_that_hangs_or_refuses_delays_nothing(moto, published, statistics):
    """Neither calls nor requests to publish at once; afterwards nothing is missing."""
    with Relay(moto, "hang", 403) as relay:
        using = published(ENDPOINT_URL=relay.url, TIMEOUT=5.0)
        for expected in (False, False, True):
            CacheStore(using).get("absent")
            Monitor(using).record_metric("orders", 1)
            assert flush_metrics(using, seconds=60) is expected
    assert statistics("misses", using=using)[1] == 3
    assert statistics("orders")[1] == 3


def test_a_server_that_is_not_there(alias):
    """The publisher raises botocore's errors, and keeps what waits."""
    using = alias()
    url = f"http://127.0.0.1:{find_free_port()}"
    publisher = CloudWatchMetricsPublisher(using, endpoint_url=url, timeout=5)
    publisher.record_metric("orders", 1)
    for _ in range(2):
        with pytest.raises(BotoCoreError):
            publisher.publish()
    with Relay(url, 403) as peer:
        publisher = CloudWatchMetricsPublisher(using, endpoint_url=peer.url, timeout=30)
        assert publisher.publish() == 0
        assert peer.requests == []
        publisher.record_metric("orders", 1)
        with pytest.raises(ClientError):
            publisher.publish()


def test_a_wrong_argument_is_named(alias):
    publisher = CloudWatchMetricsPublisher(alias())
    with pytest.raises(ValueError, match="'Furlongs' is not a unit"):
        publisher.record_metric("orders", 1, "Furlongs")
    with pytest.raises(ValueError, match="must be a number"):
        publisher.record_metric("orders", float("nan"))


def test_what_cloudwatch_refuses_does_not_hold_up_the_rest(moto, published, statistics, caplog):
    """It is left out, and named."""
    with Relay(moto, bad=b"wrong") as relay:
        using = published(ENDPOINT_URL=relay.url)
        for name in ("a", "b", "wrong", "c"):
            Monitor(using).record_metric(name, 1)
        assert flush_metrics(using, seconds=60)
    assert "CloudWatch refuses the metric wrong (InvalidParameterValue)" in caplog.text
    assert [statistics(name)[1] for name in ("a", "b", "wrong", "c")] == [1, 1, 0, 1]


def test_a_flood_is_bounded_and_what_is_dropped_is_counted(moto, alias, caplog):
    using = alias()
    publisher = CloudWatchMetricsPublisher(using, endpoint_url=moto, timeout=60)
    for number in range(12_000):
        publisher.record_metric("orders", 1, dimensions={"Customer": str(number)})
    for number in range(5_000):
        publisher.record_metric("orders", number, dimensions={"Customer": "0"})
    assert publisher.dropped == 2000
    assert publisher.is_filling
    assert publisher.publish() == 10_000
    assert not publisher.is_filling
    assert "2000 values of the application were left out" in caplog.text
    assert publisher.publish() == 0
    assert caplog.text.count("were left out") == 1


def test_what_is_too_old_or_ahead_is_left_out(moto, alias, caplog):
    """CloudWatch would refuse the whole request."""
    publisher = CloudWatchMetricsPublisher(alias(), endpoint_url=moto, timeout=60)
    now = time.time()
    for at in (now - 15 * 86_400, now + 3 * 3600, now - 13 * 86_400):
        publisher.record_metric("orders", 1, timestamp=at)
    publisher.record_metric("orders", 1, dimensions={str(each): "x" for each in range(31)})
    publisher.record_metric("orders", 1e300)
    assert publisher.publish() == 1
    assert publisher.dropped == 4
    assert "4 values of the application were left out" in caplog.text


def test_values_that_come_while_others_are_sent_are_kept(moto, published, statistics):
    """An export that fails loses none of them, and counts none twice."""
    with Relay(moto, "hang") as relay:
        using = published(ENDPOINT_URL=relay.url, TIMEOUT=1.0)
        monitor, at = Monitor(using), time.time()
        monitor.record_metric("orders", 1, timestamp=at)
        assert not flush_metrics(using, seconds=0.1)
        monitor.record_metric("orders", 1, timestamp=at)
        while not flush_metrics(using, seconds=60):
            pass
    assert statistics("orders") == (2, 2, 1)


def test_a_child_publishes_what_is_its_own(published, statistics):
    """What its parent had recorded is published by the parent."""
    using = published()
    Monitor(using).record_metric("orders", 1)
    publisher = CloudWatchMetricsPublisher(using, endpoint_url=None)
    publisher.record_metric("orders", 100)

    def in_child(number):
        Monitor(using).record_metric("orders", 10)
        CacheStore(using).get("absent")
        return flush_metrics(using, seconds=60), publisher.publish()

    assert in_processes(2, in_child) == [(True, 0)] * 2
    assert flush_metrics(using, seconds=60)
    assert statistics("orders")[1] == 21
    assert statistics("misses", using=using)[1] == 2


def test_a_process_ends_although_cloudwatch_hangs(tmp_path, tables):
    with Peer(lambda peer, connection, number: peer.ended.wait(60)) as peer:
        default = {**settings.DYNAMO_STORES["default"], "REPORTS": {"ENABLED": False}}
        options = {CLOUDWATCH: {"ENDPOINT_URL": peer.url, "TIMEOUT": 60.0}}
        default["METRICS"] = {"SINKS": [CLOUDWATCH], "OPTIONS": options}
        code = (
            "import time, django\nfrom django.conf import settings\n"
            f"settings.configure(DYNAMO_STORES={{'default': {default!r}}},"
            " INSTALLED_APPS=['dynamo_stores'], SECRET_KEY='x')\n"
            "django.setup()\n"
            "from dynamo_stores.stores import CacheStore\n"
            "CacheStore().get('k')\n"
            "print('ends', time.time(), flush=True)\n"
        )
        ended = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True,
            cwd=tmp_path, env={"PYTHONPATH": str(settings.BASE_DIR)},
        )  # fmt: skip
        took = time.time() - float(ended.stdout.split("ends ")[1])
        assert peer.connections == 1
    # A second and a half, on a machine that does nothing else.
    assert took < 20


@pytest.fixture
def in_lambda(monkeypatch):
    """This process is a function of AWS Lambda."""
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "shop")
    exporter.watch_requests()
    yield
    request_finished.disconnect(dispatch_uid=f"{exporter.__name__}.flush_due_metrics")


def test_lambda_publishes_at_the_end_of_a_request(
    in_lambda, published, statistics, dynamo_clock, until
):
    """If the interval is over, because the thread stands still between requests."""
    using = published(interval=60.0)

    def misses():
        return statistics("misses", at=dynamo_clock.now(), using=using)[1]

    CacheStore(using).get("absent")
    path = reverse("dynamo_stores:live")
    Client().get(path)
    assert misses() == 0
    dynamo_clock.advance(61)
    Client().get(path)
    # A request waits a second and a half, which may be short on a busy machine.
    until(lambda: misses() == 1)
    CacheStore(using).get("absent")
    Client().get(path)
    assert misses() == 1


def test_lambda_publishes_earlier_when_much_waits(in_lambda, published, until):
    using = published()
    (sink,) = [each.sink for each in get_exporters(using).all]
    for number in range(5_000):
        Monitor(using).record_metric("orders", 1, dimensions={"Customer": str(number)})
    assert sink.is_due()
    Client().get(reverse("dynamo_stores:live"))
    until(lambda: not sink.is_due())


def test_elsewhere_the_end_of_a_request_publishes_nothing(published, statistics, dynamo_clock):
    exporter.watch_requests()
    using = published(interval=60.0)
    CacheStore(using).get("absent")
    dynamo_clock.advance(61)
    Client().get(reverse("dynamo_stores:live"))
    assert statistics("misses", at=dynamo_clock.now(), using=using)[1] == 0


def test_an_idle_process_sends_nothing(published, moto):
    with Relay(moto) as relay:
        using = published(ENDPOINT_URL=relay.url)
        CacheStore(using).get("absent")
        for _ in range(3):
            assert flush_metrics(using, seconds=60)
        assert len(relay.requests) == 1
