"""Prometheus' page: its formats, its readers, and the counts of several processes."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.test import Client, RequestFactory, override_settings
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from dynamo_stores import views
from dynamo_stores.conf import get_config
from dynamo_stores.monitoring import Monitor, flush_metrics
from dynamo_stores.monitoring.exporter import get_exporters
from dynamo_stores.monitoring.meter import get_meter
from dynamo_stores.monitoring.sinks.prometheus import Counts, Folder, page
from dynamo_stores.stores import CacheStore
from dynamo_stores.testing import find_free_port
from tests.helpers.forking import fork, in_processes
from tests.processes.test_servers import ask

PATH = views.PROMETHEUS


@pytest.fixture
def scraped(alias, tmp_path):
    """``scraped()``: an alias whose counts are on the page, and its sink."""

    def make(**changes):
        options = {PATH: {"FOLDER": str(tmp_path / "metrics"), "INTERVAL": 3600.0}}
        using = alias(METRICS={"SINKS": [PATH], "OPTIONS": options, **changes})
        with_one = {"default": settings.DYNAMO_STORES[using]}
        stack.enter_context(override_settings(DYNAMO_STORES=with_one))
        return "default", get_exporters("default").all[0].sink

    with contextlib.ExitStack() as stack:
        yield make


def samples(text, parse=prometheus):
    """The values of a page by name and labels; the parser raises for what is not valid."""
    return {
        (each.name, *sorted(each.labels.items())): each.value
        for family in parse(text)
        for each in family.samples
    }


def total(text, name, **labels):
    """The sum of all samples with these labels."""
    wanted = set(labels.items())
    return sum(
        value for (found, *pairs), value in samples(text).items()
        if found == name and wanted <= set(pairs)
    )  # fmt: skip


@pytest.mark.parametrize("parse", [prometheus, openmetrics])
def test_the_page_is_what_was_counted(scraped, parse):
    """By Prometheus' own parsers."""
    using, sink = scraped()
    store = CacheStore(using)
    store.set('quoted "key"\n', 1)
    for _ in range(3):
        store.get('quoted "key"\n')
    Monitor(using).record_metric("queue.length", 7, dimensions={"queue-name": 'a"b\\c'})
    found = samples(page([sink], openmetrics=parse is openmetrics), parse)
    table, counted = get_config(using).store_table, get_meter(using).snapshot()
    labels = [("operation", "GetItem"), ("table", table), ("using", using)]
    assert found["dynamo_stores_operations_total", ("error", ""), *labels] == 3
    assert found["dynamo_stores_operation_seconds_count", *labels] == 3
    seconds = counted.histograms["operation_seconds"][table, "GetItem"].total
    assert found["dynamo_stores_operation_seconds_sum", *labels] == seconds
    infinite = [("le", "+Inf"), *labels]
    assert found["dynamo_stores_operation_seconds_bucket", *infinite] == 3
    buckets = [
        value for (name, *pairs), value in found.items()
        if name == "dynamo_stores_operation_seconds_bucket" and set(labels) <= set(pairs)
    ]  # fmt: skip
    assert buckets == sorted(buckets)
    assert found["dynamo_stores_breaker_open", ("table", table), ("using", using)] == 0
    application = [("queue_name", 'a"b\\c'), ("using", using)]
    assert found["dynamo_stores_app_queue_length", *application] == 7


def test_buckets_have_the_values_up_to_their_bounds(scraped):
    using, sink = scraped()
    for seconds in (0.0001, 0.001, 0.0015, 0.5, 100.0):
        get_meter(using).record_block("block", "", seconds)
    found = page([sink], openmetrics=False)
    for bound, count in (("0.000256", 1), ("0.001024", 2), ("0.002048", 3), ("0.524288", 4)):
        name = "dynamo_stores_monitored_seconds_bucket"
        assert total(found, name, le=str(float(bound))) == count
    assert total(found, "dynamo_stores_monitored_seconds_bucket", le="+Inf") == 5


def test_the_counts_of_other_processes_are_added_and_kept(scraped):
    """Of those that run, those that ended, and those that were killed."""
    using, sink = scraped()
    name = "dynamo_stores_operations_total"
    CacheStore(using).get("k")

    def in_child(number):
        CacheStore(using).get("k")
        CacheStore(using).get("k")
        flush_metrics(using, seconds=60)

    in_processes(3, in_child)
    for _ in range(3):
        assert total(page([sink], openmetrics=False), name) == 7
    files = {path.name for path in sink.folder.path.iterdir()}
    assert files == {"ended.json", "lock", f"{sink.name}.json", f"{sink.name}.lock"}
    has_written = fork.Event()

    def wait():
        in_child(0)
        has_written.set()
        time.sleep(60)

    child = fork.Process(target=wait)
    child.start()
    assert has_written.wait(60)
    assert total(page([sink], openmetrics=False), name) == 9
    assert total(page([sink], openmetrics=False), "dynamo_stores_breaker_open") == 0
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    for _ in range(2):
        assert total(page([sink], openmetrics=False), name) == 9


def test_a_file_of_another_version_is_left_out(scraped):
    using, sink = scraped()
    CacheStore(using).get("k")
    flush_metrics(using, seconds=60)
    (sink.folder.path / "other-1-ab.json").write_text('{"counters": 1}')
    assert total(page([sink], openmetrics=False), "dynamo_stores_operations_total") == 1


def test_counts_are_read_as_they_were_written(scraped):
    using, sink = scraped()
    CacheStore(using).get("k")
    Monitor(using).record_metric("n", 1.5)
    counts = sink.counts()
    again = Counts.read(counts.as_text())
    assert vars(again) == vars(counts)


def test_a_folder_of_somebody_else_is_refused(tmp_path):
    """A link could lead to it, too."""
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ImproperlyConfigured, match="must be a folder that belongs to the user"):
        Folder(tmp_path / "link").begin("x")


def test_a_page_whose_folder_cannot_be_used_says_so(scraped, caplog):
    """Prometheus then shows that the scrape failed."""
    _, sink = scraped(TOKEN="abc")
    folder = sink.folder.path
    folder.symlink_to(folder.parent)
    request = RequestFactory().get("/metrics/", headers={"Authorization": "Bearer abc"})
    answer = views.metrics(request)
    assert answer.status_code == 503
    assert str(folder) in answer.text
    assert "cannot be read" in caplog.text


@pytest.mark.parametrize(
    ("changes", "headers", "address", "status"),
    [
        ({}, {}, "127.0.0.1", 403),
        ({"TOKEN": "abc"}, {}, "127.0.0.1", 403),
        ({"TOKEN": "abc"}, {"Authorization": "Bearer abd"}, "127.0.0.1", 403),
        ({"TOKEN": "abc"}, {"Authorization": "Bearer abc"}, "127.0.0.1", 200),
        ({}, {"Authorization": "Bearer "}, "127.0.0.1", 403),
        ({"ALLOW": ["10.0.0.0/8"]}, {}, "10.1.2.3", 200),
        ({"ALLOW": ["10.0.0.0/8"]}, {}, "11.1.2.3", 403),
        (
            {"TOKEN": "abc", "ALLOW": ["10.0.0.0/8"]},
            {"Authorization": "Bearer other"},
            "10.1.2.3",
            200,
        ),
        (
            {"TOKEN": "abc", "ALLOW": ["10.0.0.0/8"]},
            {"Authorization": "Bearer other"},
            "11.1.2.3",
            403,
        ),
        ({"ALLOW": ["10.0.0.0/8"]}, {"X-Forwarded-For": "10.1.2.3"}, "11.1.2.3", 403),
        ({"ALLOW": ["10.0.0.0/8"]}, {}, "", 403),
    ],
)
def test_who_may_read_the_page(scraped, changes, headers, address, status):
    scraped(**changes)
    request = RequestFactory().get("/metrics/", headers=headers, REMOTE_ADDR=address)
    response = views.metrics(request)
    assert response.status_code == status
    # The refusal names no encoding.
    assert response.content.isascii()


@pytest.mark.django_db
def test_staff_may_read_the_page(scraped, django_user_model):
    scraped()
    client = Client()
    client.force_login(django_user_model.objects.create_superuser("root"))
    response = client.get("/dynamo-stores/metrics/", headers={"Accept": "text/plain"})
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/plain; version=0.0.4")
    accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
    response = client.get("/dynamo-stores/metrics/", headers={"Accept": accept})
    assert response["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert response.text.endswith("# EOF\n")
    assert client.post("/dynamo-stores/metrics/").status_code == 405


def test_without_the_sink_there_is_no_page():
    assert Client().get("/dynamo-stores/metrics/").status_code == 404


@pytest.mark.slow
def test_four_workers_of_gunicorn(start_process, tmp_path, until):
    """The page of any of them has the counts of all, also after they were restarted."""
    port = find_free_port()
    site = ("gunicorn", "tests.processes.measured_site:wsgi", "-w", "4", "-b", f"127.0.0.1:{port}")
    environment = {"METRICS_FOLDER": str(tmp_path / "metrics")}
    server = start_process(*site, **environment)

    def answers():
        try:
            return ask(port, "/page", "x")[0] == 200
        except OSError:
            return False

    until(answers)
    sent, workers = 1, set()
    while len(workers) < 2 or sent < 100:
        workers.add(ask(port, "/page", "x")[2])
        sent += 1

    def reads():
        request = {"Authorization": "Bearer token"}
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/metrics/", headers=request)
        text = connection.getresponse().read().decode()
        connection.close()
        return total(text, "dynamo_stores_operations_total", operation="GetItem")

    until(lambda: reads() == sent)
    os.kill(int(min(workers)), signal.SIGKILL)
    server.send_signal(signal.SIGHUP)
    until(lambda: ask(port, "/page", "x")[2] not in workers)
    assert reads() > sent
