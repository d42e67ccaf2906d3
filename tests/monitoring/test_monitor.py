"""What applications measure, and the ids that follow their work."""

from __future__ import annotations

import asyncio
import json
import logging
import threading

import pytest
from celery import shared_task
from django.http import HttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path

from dynamo_stores.monitoring import Monitor, correlation, monitor_operation
from dynamo_stores.monitoring.correlation import CorrelationFilter, correlated
from dynamo_stores.monitoring.exporter import get_exporters
from dynamo_stores.monitoring.meter import get_meter
from tests.monitoring.test_metrics import metrics  # noqa: F401 - a fixture


def view(request):
    return HttpResponse(correlation.current())


async def async_view(request):
    await asyncio.sleep(0)
    return HttpResponse(correlation.current())


def refuse(request):
    return HttpResponse(status=429)


urlpatterns = [path("sync", view), path("async", async_view), path("refused", refuse)]


def blocks(using):
    """The names, errors and counts of the measured blocks."""
    found = get_meter(using).snapshot().histograms.get("monitored_seconds", {})
    return {labels: each.count for labels, each in found.items()}


def test_a_block_in_every_form(metrics):  # noqa: F811
    using, _ = metrics()

    @monitor_operation("decorated", using=using)
    def decorated(value):
        return value, correlation.current()

    @monitor_operation("async", using=using)
    async def asynchronous(value):
        await asyncio.sleep(0)
        return value, correlation.current()

    async def entered():
        async with monitor_operation("entered", using=using):
            return correlation.current()

    assert monitor_operation("called", lambda: 7, {"user": "1"}, using=using) == 7
    assert decorated(1)[0] == 1
    assert decorated(1)[1] != decorated(1)[1]
    assert asyncio.run(asynchronous(2))[0] == 2
    assert asyncio.run(entered())
    assert asyncio.run(monitor_operation("awaited", lambda: asynchronous(3), using=using))[0] == 3
    with monitor_operation("block", using=using):
        outer = correlation.current()
        assert decorated(1)[1] == outer
    assert correlation.current() == ""
    with pytest.raises(KeyError), monitor_operation("block", using=using):
        raise KeyError
    assert blocks(using) == {
        ("called", ""): 1, ("decorated", ""): 4, ("async", ""): 2, ("entered", ""): 1,
        ("awaited", ""): 1, ("block", ""): 1, ("block", "KeyError"): 1,
    }  # fmt: skip


def test_the_time_of_a_coroutine_is_that_until_its_end(metrics):  # noqa: F811
    """Also where the function that is called is no coroutine function itself."""
    using, _ = metrics()

    async def slow():
        await asyncio.sleep(0.05)

    asyncio.run(monitor_operation("awaited", lambda: slow(), using=using))
    (found,) = get_meter(using).snapshot().histograms["monitored_seconds"].values()
    assert found.total >= 0.05


def test_threads_may_share_a_measured_block(metrics):  # noqa: F811
    """Each ends its own, in whatever order."""
    using, _ = metrics()
    shared = monitor_operation("shared", using=using)
    both, seen = threading.Barrier(2), []

    def work(wait):
        with shared:
            both.wait(60)
            before = correlation.current()
            if wait:
                ended.wait(60)
            seen.append(correlation.current() == before)
        seen.append(correlation.current() == "")
        ended.set()

    ended = threading.Event()
    threads = [threading.Thread(target=work, args=[wait]) for wait in (False, True)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert seen == [True] * 4
    assert blocks(using) == {("shared", ""): 2}


def test_concurrent_tasks_have_ids_of_their_own(metrics):  # noqa: F811
    using, _ = metrics()

    async def task():
        async with monitor_operation("task", using=using):
            before = correlation.current()
            await asyncio.sleep(0.01)
            assert correlation.current() == before
            return before

    async def all_tasks():
        return await asyncio.gather(*(task() for _ in range(20)))

    assert len(set(asyncio.run(all_tasks()))) == 20


def test_a_correlation_has_one_id_until_its_end(metrics, dynamo_clock):  # noqa: F811
    using, _ = metrics()
    monitor = Monitor(using)
    found = monitor.start_correlation("api_call", {"endpoint": "/users/1"})
    assert correlation.current() == found
    inner = monitor.start_correlation("inner")
    assert correlation.current() == found
    dynamo_clock.advance(2.0)
    assert monitor.end_correlation(inner, False) == 2.0
    assert monitor.end_correlation(found, True) == 2.0
    assert correlation.current() == ""
    with pytest.raises(ValueError, match="was not begun, or it has ended"):
        monitor.end_correlation(found)
    assert blocks(using) == {("api_call", ""): 1, ("inner", "failed"): 1}


def test_correlations_of_one_name_in_another(metrics):  # noqa: F811
    """Each has its time, whichever ends first, and no id stays behind."""
    using, _ = metrics()
    monitor = Monitor(using)
    outer = monitor.start_correlation("request")
    first, second = monitor.start_correlation("fetch"), monitor.start_correlation("fetch")
    monitor.end_correlation(outer)
    monitor.end_correlation(first)
    monitor.end_correlation(second)
    assert correlation.current() == ""
    assert blocks(using) == {("request", ""): 1, ("fetch", ""): 2}


def test_a_task_that_is_called_at_once_has_the_id_of_its_caller():
    @shared_task
    def task():
        return correlation.current()

    with correlated("caller"):
        assert task.apply().get() == "caller"
        assert correlation.current() == "caller"
    assert task.apply().get() != "caller"
    assert correlation.current() == ""


@pytest.mark.parametrize("sent", [None, "", 7, "a b", "line\n"])
def test_what_cannot_be_an_id_gets_a_new_one(sent):
    assert len(correlation.id_or_new(sent)) == 32


def test_values_of_the_application_reach_the_sinks(metrics, caplog, dynamo_clock):  # noqa: F811
    using, _ = metrics(sinks=["dynamo_stores.monitoring.sinks.LoggingSink"])
    get_exporters(using).all[0].sink.options = {"JSON": True}
    with caplog.at_level(logging.INFO, "dynamo_stores.operations"):
        Monitor(using).record_metric(
            "cache_hit_rate", 0.85, "percent", dimensions={"page": "start"}
        )
    (line,) = [json.loads(each.getMessage()) for each in caplog.records]
    assert (line["metric"], line["value"], line["unit"]) == ("cache_hit_rate", 0.85, "Percent")
    assert line["page"] == "start"


@pytest.mark.parametrize(
    ("name", "value", "unit"),
    [("n", 1, "Furlongs"), ("", 1, "Count"), ("n", float("nan"), "Count"), ("n", True, "Count")],
)
def test_values_that_no_sink_could_take_are_refused(metrics, name, value, unit):  # noqa: F811
    using, _ = metrics()
    with pytest.raises(ValueError, match=r"unit|needs a name|must be a number"):
        Monitor(using).record_metric(name, value, unit)


def test_the_health_check_of_a_monitor(metrics):  # noqa: F811
    using, _ = metrics()
    found = Monitor(using).perform_health_check()
    assert (found.success, found.using, found.error) == (True, using, "")


@pytest.mark.parametrize("sent", ["abc-123", "Root=1-5759e988-bd862e3fe1be46a994272793"])
@override_settings(
    ROOT_URLCONF=__name__, MIDDLEWARE=["dynamo_stores.middleware.CorrelationMiddleware"]
)
def test_a_request_has_the_id_of_its_header(sent):
    """In the view, and in the response; sync and async."""
    for address in ("/sync", "/async"):
        response = Client().get(address, headers={"X-Request-ID": sent})
        assert (response.text, response["X-Request-ID"]) == (sent, sent)
        response = asyncio.run(AsyncClient().get(address, headers={"X-Request-ID": sent}))
        assert (response.text, response["X-Request-ID"]) == (sent, sent)
    assert correlation.current() == ""


@pytest.mark.parametrize(
    ("value", "unit", "message"),
    [
        ("7", "Count", "must be a number, not '7'"),
        (None, "Count", "must be a number, not None"),
        (True, "Count", "must be a number, not True"),
        (10**400, "Count", "must be a number"),
        (float("nan"), "Count", "must be a number, not nan"),
        (1, "Furlongs", "'Furlongs' is not a unit"),
        (1, {"Shop": "Berlin"}, "is not a unit"),
    ],
)
def test_a_value_must_be_a_number_with_a_unit(metrics, value, unit, message):  # noqa: F811
    using, _ = metrics()
    with pytest.raises(ValueError, match=message):
        Monitor(using).record_metric("basket", value, unit)


def test_a_decorator_needs_a_name():
    """Without parentheses the function would never be called."""
    with pytest.raises(TypeError, match="needs a name first"):

        @monitor_operation
        def work():
            """Do nothing."""


@pytest.mark.parametrize("sent", ["", "x" * 129, "a b", "é", "a\x00b", '"><script>'])
@override_settings(
    ROOT_URLCONF=__name__, MIDDLEWARE=["dynamo_stores.middleware.CorrelationMiddleware"]
)
def test_another_header_gets_a_new_id(sent):
    """It would be in logs."""
    response = Client().get("/sync", headers={"X-Request-ID": sent} if sent else {})
    assert len(response.text) == 32
    assert response["X-Request-ID"] == response.text


@override_settings(
    ROOT_URLCONF=__name__, MIDDLEWARE=["dynamo_stores.middleware.CorrelationMiddleware"]
)
def test_a_line_about_a_response_has_the_id(caplog):
    """Django logs it after the first middleware has returned; sync and async."""
    with caplog.filtering(CorrelationFilter()):
        Client().get("/refused", headers={"X-Request-ID": "abc"})
        asyncio.run(AsyncClient().get("/refused", headers={"X-Request-ID": "def"}))
    lines = [each for each in caplog.records if each.name == "django.request"]
    assert [each.correlation_id for each in lines] == ["abc", "def"]


def test_log_records_have_the_id():
    record = logging.LogRecord("n", logging.INFO, "p", 1, "m", (), None)
    with correlated("abc"):
        assert CorrelationFilter().filter(record)
    assert record.correlation_id == "abc"
    CorrelationFilter().filter(record)
    assert record.correlation_id == ""
