"""``dynamo_cost``: what it prints, and what it refuses."""

from __future__ import annotations

import io
import json
import re
import time
from decimal import Decimal
from pathlib import Path

import pytest
from django.conf import settings as project
from django.core.management import CommandError, call_command

from dynamo_stores.capacity.usage import Usage, UsageHistory, minute_of
from dynamo_stores.conf import get_config
from dynamo_stores.monitoring.periods import Period
from dynamo_stores.stores import CacheStore
from dynamo_stores.testing import FakeClock, find_free_port
from tests.helpers.commands import run
from tests.helpers.data_pages import sum_up

DOCUMENT = ("--reads-per-day=10000", "--writes-per-day=1000", "--storage-mb=100", "--replicas=1",
            "--backups", "--prices=2024")  # fmt: skip
PAGE = Path(project.BASE_DIR) / "docs" / "cost.md"
EXAMPLES = re.findall(
    r"^```sh\npython manage\.py dynamo_cost ?([^\n]*)\n```\n\n```text\n(.*?)^```$",
    PAGE.read_text(),
    re.MULTILINE | re.DOTALL,
)


@pytest.fixture
def now():
    """Noon of a day, by a clock that only tests move."""
    with FakeClock((time.time() // 86_400) * 86_400 + 43_200) as clock:
        yield clock


@pytest.fixture
def measured(reporting, settings, now):
    """The only alias, with 30 hours of figures of its table and index."""
    using = reporting(REPORTS={"INTERVAL": 36_000.0})
    settings.DYNAMO_STORES = {"default": settings.DYNAMO_STORES[using]}
    table, hour = get_config().store_table, minute_of(now.now()) // 60
    units = {table: Usage(3600.0, 7200.0), f"{table}/GSI1": Usage(0.0, 60.0)}
    peak = {table: (2.0, 4.0), f"{table}/GSI1": (0.0, 1.0)}
    sum_up("default", hours={hour - back: Period(use=units, peak=peak) for back in range(1, 31)})
    return table


def test_the_document_is_printed_to_the_cent():
    """With the arithmetic of each line, and the prices' date and source."""
    lines = run("dynamo_cost", *DOCUMENT).splitlines()
    assert lines[0].startswith("Prices: Prices of the forum database document, us-east-1, 2024")
    assert [" ".join(line.split()) for line in lines[3:9]] == [
        "Reads: (10,000 × 30) / 1,000,000 × $0.25 = $0.075",  # noqa: RUF001
        "Writes: (1,000 × 30) / 1,000,000 × $1.25 = $0.0375",  # noqa: RUF001
        "Storage: 0.1 GB × $0.25 = $0.025",  # noqa: RUF001
        "Writes in replicas: (1,000 × 30) / 1,000,000 × $1.25 = $0.0375",  # noqa: RUF001
        "Backups: 0.1 GB × $0.10 = $0.01",  # noqa: RUF001
        "Total: $0.19 a month ($0.185 before rounding).",
    ]
    found = json.loads(run("dynamo_cost", *DOCUMENT, "--json"))["costs"]
    assert [each["total"] for each in found] == ["0.1850"]
    assert found[0]["using"] is None


@pytest.mark.parametrize(("arguments", "text"), EXAMPLES)
def test_the_docs_show_what_is_printed(arguments, text):
    """As it is printed, or the first lines of it."""
    assert run("dynamo_cost", *arguments.split()).startswith(text)


def test_measured_figures(measured):
    """Their time, how much of a month they are, and each table and index."""
    text = run("dynamo_cost")
    assert "Load: the reports of the processes, " in text
    assert "30 hours are known, 4.1% of a month." in text
    assert "Sizes and item counts are those of DescribeTable" in text
    assert f"{measured}:\n  Reads: " in text
    assert "(86,400 × 30.42) / 1,000,000 × $0.125 = $0.3285" in text  # noqa: RUF001
    assert f"{measured}/GSI1:\n" in text
    assert f"{measured}/GSI1: The index was never queried in 30 measured hours" in text
    (cost,) = json.loads(run("dynamo_cost", "--json"))["costs"]
    assert cost["load"]["measured_hours"] == "30.0000"
    assert {mode["mode"] for mode in cost["modes"]} == {
        "on_demand", "provisioned", "following", "reserved_1", "reserved_3",
    }  # fmt: skip
    assert {"unused-index", "billing-mode"} >= {each["code"] for each in cost["waste"]} != set()


def test_cost_per_table_per_day(measured, now):
    """The days of the measured hours, in UTC; a part of a day says so."""
    text = run("dynamo_cost", "--by-day")
    assert text.count("(12 hours measured)") == 1
    assert text.count("(18 hours measured)") == 1
    (cost,) = json.loads(run("dynamo_cost", "--by-day", "--json"))["costs"]
    hourly = 3600 * 0.125e-6 + 7260 * 0.625e-6
    assert [day["hours"] for day in cost["days"]] == [18, 12]
    for day in cost["days"]:
        assert float(day["tables"][measured]) == pytest.approx(day["hours"] * hourly, rel=0.02)


def test_a_day_of_minutes_says_how_many(reporting, settings, now):
    """Before the first hour is summed up; its cost is that of these minutes."""
    using = reporting(REPORTS={"INTERVAL": 36_000.0})
    settings.DYNAMO_STORES = {"default": settings.DYNAMO_STORES[using]}
    table, minute = get_config().store_table, minute_of(now.now())
    use = {table: Usage(3600.0, 7200.0)}
    UsageHistory("default").roll_up({minute - 1: use, minute - 2: use})
    text = run("dynamo_cost", "--by-day")
    assert re.findall(r"\d{4}-\d\d-\d\d \((.*)\)", text) == ["2 minutes measured"]
    (day,) = json.loads(run("dynamo_cost", "--by-day", "--json"))["costs"][0]["days"]
    assert day["hours"] == pytest.approx(2 / 60)
    expected = 2 * (3600 * 0.125e-6 + 7200 * 0.625e-6)
    assert float(day["tables"][table]) == pytest.approx(expected, rel=0.02)


def test_what_would_be(measured):
    """Replicas, backups and recovery that the tables do not have; another region."""
    text = run("dynamo_cost", "--replicas=2", "--backups", "--point-in-time-recovery",
               "--price-region=us-east-1", "--factor=1.5")  # fmt: skip
    assert "Writes in replicas:     2 × (174,240 × 30.42) / 1,000,000 × $0.9375" in text  # noqa: RUF001
    assert ", us-east-1, 2026-10-02, multiplied by 1.5. Source:" in text
    assert "What could be saved" in text


def test_a_sample_tells_what_it_cost(measured, capsys):
    """On the other stream, so that JSON stays JSON."""
    CacheStore().set("k", "v", timeout=None)
    (cost,) = json.loads(run("dynamo_cost", "--sample=10", "--sample-rate=1000", "--json"))["costs"]
    err = capsys.readouterr().err
    assert f"Read 1 item of {measured} for 0.5 read units (under $0.0001)" in err
    assert "no-ttl" in {each["code"] for each in cost["waste"]}


def test_an_alias_that_does_not_answer_stops_no_other(reporting, settings, now):
    """The others are printed, and it is named."""
    using = reporting(REPORTS={"INTERVAL": 36_000.0})
    here = settings.DYNAMO_STORES[using]
    gone = {**here, "ENDPOINT_URL": f"http://127.0.0.1:{find_free_port()}"}
    settings.DYNAMO_STORES = {"default": here, "gone": gone}
    out = io.StringIO()
    with pytest.raises(CommandError, match="Alias 'gone': "):
        call_command("dynamo_cost", using=["default", "gone"], json=True, stdout=out)
    assert [each["using"] for each in json.loads(out.getvalue())["costs"]] == ["default"]


def test_nothing_measured_says_what_to_do(reporting, settings, now):
    using = reporting(REPORTS={"INTERVAL": 36_000.0})
    settings.DYNAMO_STORES = {"default": settings.DYNAMO_STORES[using]}
    text = run("dynamo_cost")
    assert "Nothing is measured yet: the task dynamo_stores.roll_up_status (Celery" in text
    assert "Other modes and a managed Redis are compared once" in text
    assert "Reserved" not in text
    assert "What could be saved is found from 24 measured hours on." in text
    assert "No day was measured." in run("dynamo_cost", "--by-day")


@pytest.mark.parametrize("many", ["1E15", "1E-90000"])
def test_absurd_loads_and_factors(many):
    """Sums of more digits than decimals usually have, and of less than anything."""
    arguments = [f"--{name}={many}" for name in ("writes-per-day", "storage-mb", "factor")]
    (found,) = json.loads(run("dynamo_cost", *arguments, "--json"))["costs"]
    total = sum(Decimal(line["amount"]) for line in found["lines"])
    assert (total > 10**20) == (many == "1E15")
    assert "Total: " in run("dynamo_cost", *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--reads-per-day=-1"], "--reads-per-day is -1; expected a number from 0"),
        (["--reads-per-day=many"], "invalid decimal value: 'many'"),
        (["--reads-per-day=NaN"], "invalid"),
        (["--reads-per-day=1", "--peak=0.5"], "--peak is 0.5; expected a number from 1"),
        (["--reads-per-day=1", "--by-day"], "--by-day cannot be used with assumptions"),
        (["--reads-per-day=1", "--sample=5"], "--sample cannot be used with assumptions"),
        (["--reads-per-day=1", "--table=t"], "--table cannot be used with assumptions"),
        (["--cloudwatch", "--cloudwatch-endpoint-url=x"], "-url is x; expected a URL such as"),
        (["--peak=2"], "--peak cannot be used with what was measured"),
        (["--days=0"], "--days is 0; expected a whole number from 1 to 35"),
        (["--sample=0"], "--sample is 0"),
        (["--sample-rate=0"], "--sample-rate is 0"),
        (["--factor=0"], "--factor is 0; expected a number above 0"),
        (["--using=none"], "none"),
        (["--table=none"], "none"),
        (["--prices=/none/at/all.json"], "could not be read"),
        (["--region=mars-north-1"], "no prices of the region mars-north-1"),
    ],
)
def test_wrong_options(arguments, message):
    """Named, with what was expected, before any work."""
    with pytest.raises(CommandError, match=message):
        call_command("dynamo_cost", *arguments, stdout=io.StringIO())
