"""The page of rate limits: resources, the use of a limit, and changes of both."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import replace

import pytest
from django.contrib.admin.models import LogEntry

from dynamo_stores.conf.rates import Rate
from dynamo_stores.monitoring import snapshot
from dynamo_stores.monitoring.report_store import ReportStore
from dynamo_stores.monitoring.reporter import get_reporter
from dynamo_stores.stores import AdaptiveRateLimitStore, RateLimitStore
from tests.helpers.data_pages import look, sent
from tests.helpers.status import act, ask, page

pytestmark = pytest.mark.django_db
RESOURCES = {"exports": {"RATE": "5/h", "ALGORITHM": "gcra", "BURST": 3}, "search": "100/m"}
EVIL = '"><script>alert(1)</script>'


@pytest.fixture
def limited(reporting):
    """``limited(…)``: a store on tables of its own, with the resources above."""

    def make(RATE_LIMIT=None, **changes):
        given = {"LIMIT": 10, "WINDOW": 600, "RESOURCES": RESOURCES, **(RATE_LIMIT or {})}
        return RateLimitStore(
            reporting(RATE_LIMIT=given, **{"REPORTS": {"INTERVAL": 3600.0}, **changes})
        )

    return make


def use(client, store, resource, **fields):
    return look(client, "limits", using=store.using, resource=resource, **fields)["use"]


def listed(client, store):
    found = json.loads(client.get(page("limits", format="json")).content)["limits"]
    (mine,) = [each for each in found if each["using"] == store.using]
    return mine


def test_resources_of_the_settings_and_the_table_are_listed(limited, log_in):
    """With where their limits are set; those of paths, too."""
    store = limited({"PATHS": {"/api/": {"RATE": "9/m", "METHOD": ["POST"]}}})
    store.set_resource_config("search", "50/m", everywhere=True)
    store.set_resource_config("other", "7/s", everywhere=True)
    watcher = log_in("view_status")
    found = listed(watcher, store)
    rows = {each["resource"]: each for each in found["resources"]}
    assert {name: (row["rate"], row["origin"]) for name, row in rows.items()} == {
        "exports": ("5 in 3600 s", "RESOURCES"),
        "search": ("50 in 60 s", "stored for all processes"),
        "other": ("7 in 1 s", "stored for all processes"),
        "path:/api/ POST": ("9 in 60 s", "PATHS"),
    }
    assert rows["search"]["otherwise"] == "100 in 60 s"
    assert rows["other"]["otherwise"] == "LIMIT and WINDOW"
    assert rows["exports"]["algorithm"] == "gcra, burst 3"
    assert (found["default"], found["knows_stored"]) == ("10 in 600 s", True)
    html = watcher.get(page("limits")).text
    assert "instead of 100 in 60 s" in html
    assert "act/" not in html.split('id="content"')[1].split("</main>")[0]


def test_refused_requests_are_counted(limited, log_in):
    """Those of all processes that report."""
    store = limited()
    own = get_reporter(store.using).report()
    for number in range(3):
        ReportStore(store.using).publish(replace(own, host=f"host{number}", limits_refused=1000))
    assert listed(log_in("view_status"), store)["refused"] == 3000


def test_the_use_of_a_limit(limited, log_in):
    """Used, remaining, the window, when it resets, and by which limit."""
    store = limited()
    for _ in range(4):
        store.acquire("reports", key="user-1")
    watcher = log_in("view_status")
    found = use(watcher, store, "reports", key="user-1")
    (row,) = found["use"]
    assert (row["used"], row["limit"], row["remaining"], row["window"]) == (4, 10, 6, 600)
    assert row["allowed"]
    assert time.time() < row["reset_at"] < time.time() + 700
    assert (found["origin"], found["algorithm"]) == ("LIMIT and WINDOW", "sliding")
    assert (found["limit"], found["is_counted"]) == ("10 in 600 s", True)
    fields = {"using": store.using, "resource": "reports", "key": "user-1"}
    html = watcher.post(page("limits"), fields).text
    assert "<b>4</b> of 10" in html
    assert "admitted" in html
    assert "Reset…" not in html
    found = use(watcher, store, "reports", key="user-2")
    assert (found["use"][0]["used"], found["is_counted"]) == (0, False)


def test_a_limit_that_refuses(limited, keeper):
    """Until when."""
    store = limited()
    for _ in range(11):
        store.acquire("reports", key="1")
    (row,) = use(keeper, store, "reports", key="1")["use"]
    assert (row["used"], row["allowed"]) == (10, False)
    assert 0 < row["retry_after"] <= 660


@pytest.mark.parametrize(
    ("resource", "rate", "origin", "algorithm"),
    [
        ("exports", "", "RESOURCES", "gcra, burst 3"),
        ("search", "", "stored for all processes", "sliding"),
        ("mine", "", "set in this process", "sliding"),
        ("path:/api/", "", "PATHS", "fixed"),
        ("mysite.views.home", "3/s", "the rate of the form", "sliding"),
    ],
)
def test_where_a_limit_is_set(resource, rate, origin, algorithm, limited, keeper):
    """Settings, the table, this process, a path, a decorator."""
    store = limited({"PATHS": {"/api/": {"RATE": "9/m", "ALGORITHM": "fixed"}}})
    store.set_resource_config("search", "50/m", everywhere=True)
    store.set_resource_config("mine", "1/m")
    found = use(keeper, store, resource, rate=rate)
    store.unset_resource_config("mine")
    assert (found["origin"], found["algorithm"]) == (origin, algorithm)


def test_a_rate_of_a_decorator_is_found_by_what_is_counted(limited, keeper):
    """The page names the windows; with the rate it has the use."""
    store = limited()
    store.acquire("mysite.views.home", key="1.2.3.4", rate="3/m")
    found = use(keeper, store, "mysite.views.home", key="1.2.3.4")
    assert not found["is_counted"]
    assert found["others"] == ["sliding in 60 s"]
    found = use(keeper, store, "mysite.views.home", key="1.2.3.4", rate="3/m")
    assert (found["use"][0]["used"], found["is_counted"], found["others"]) == (1, True, [])


def test_both_priorities_of_an_adaptive_limit(limited, keeper):
    """With the allocation and its reason."""
    store = limited()
    adaptive = AdaptiveRateLimitStore(store.using)
    for _ in range(3):
        adaptive.acquire("search", key="1")
    adaptive.acquire("search", key="1", priority="background")
    found = use(keeper, store, "search", key="1")
    user, background = found["use"]
    assert (user["priority"], user["used"], user["limit"]) == ("user", 4, 100)
    assert background["priority"] == "background"
    share = background["allocation"]
    assert share["user_reserved"] + share["background_max"] == 100
    assert share["reason"]
    assert found["algorithm"] == "adaptive"
    fields = {"using": store.using, "resource": "search", "key": "1"}
    html = keeper.post(page("limits"), fields).text
    assert share["reason"] in html
    (message,), _ = act(keeper, action="reset_limit", **fields)
    assert message == "The limit 'search' of key '1' is reset."
    assert not adaptive.is_counted("search", key="1")


def test_a_limit_is_reset_once(limited, keeper):
    """Of one key, of every rate; the log names it."""
    store = limited()
    for key in ("1", "2"):
        store.acquire("reports", key=key)
        store.acquire("reports", key=key, rate="3/m")
    fields = {"action": "reset_limit", "using": store.using, "resource": "reports", "key": "1"}
    assert "Reset the limit &#x27;reports&#x27; of key &#x27;1&#x27;?" in ask(keeper, **fields)
    _, token = act(keeper, **fields)
    assert store.get_counted("reports", key="1") == []
    assert len(store.get_counted("reports", key="2")) == 2
    store.acquire("reports", key="1")
    keeper.post(page("act"), {**fields, "token": token})
    assert len(store.get_counted("reports", key="1")) == 1
    logged = LogEntry.objects.get()
    assert (logged.object_id, logged.change_message) == (
        "reports",
        "Reset the limit: The limit 'reports' of key '1' is reset.",
    )


def test_a_limit_is_changed_for_all_processes_and_back(limited, keeper):
    """Algorithm and burst stay; the confirmation has both rates."""
    store = limited()
    fields = {"using": store.using, "resource": "exports", "back": "limits"}
    html = ask(keeper, action="set_limit", rate="2/h", **fields)
    assert "is 5 in 3600 s, and will be 2 in 3600 s, counted by gcra, burst 3" in html
    assert "counting begins at 0" not in html
    assert "counting begins at 0" in ask(keeper, action="set_limit", rate="2/m", **fields)
    (message,), _ = act(keeper, action="set_limit", rate="2/h", **fields)
    assert message.startswith("The limit of 'exports' is 2 in 3600 s in all processes")
    stored = store.get_stored_configs()["exports"]
    assert (stored.rates, stored.algorithm, stored.burst) == ((Rate(2, 3600),), "gcra", 3)
    assert store.get_resource_config("exports") == stored
    html = ask(keeper, action="unset_limit", **fields)
    assert "is 5 in 3600 s (RESOURCES) then" in html
    (message,), _ = act(keeper, action="unset_limit", **fields)
    assert message == "The limit of 'exports' is that of the settings again."
    assert store.get_stored_configs() == {}
    assert store.get_resource_config("exports").rates == (Rate(5, 3600),)


@pytest.mark.parametrize("rate", ["many", "5", "0/0s", EVIL, "100/m,"])
def test_a_wrong_rate_changes_nothing(rate, limited, keeper):
    """And says what a rate is."""
    store = limited()
    fields = {"action": "set_limit", "using": store.using, "resource": "search", "rate": rate}
    html = ask(keeper, **fields)
    assert "Nothing would change" in html
    assert "ds-yes" not in html
    assert "<script>alert" not in html
    forged = {**fields, "token": secrets.token_urlsafe(24)}
    answer = keeper.post(page("act"), forged, follow=True)
    assert "The limit was not changed" in answer.text
    assert store.get_stored_configs() == {}
    found = use(keeper, store, "search", rate=rate)
    assert "rate" in found["problem"]


def test_what_the_page_costs(limited, keeper, dynamo_faults, monkeypatch):
    """Two Queries beside a status page's; a look-up two more, and a read for each priority."""
    monkeypatch.setattr(snapshot, "_CACHE_SECONDS", 600.0)
    store = limited(ENDPOINT_URL=dynamo_faults.url)
    store.acquire("reports", key="1")
    AdaptiveRateLimitStore(store.using).acquire("shared", key="1")
    keeper.get(page("limits"))
    dynamo_faults.requests.clear()
    keeper.get(page("limits"))
    assert sent(dynamo_faults) == {"Query": 5, "BatchGetItem": 1}
    for resource, reads in (("reports", 1), ("shared", 2)):
        store.get_resource_config(resource)
        dynamo_faults.requests.clear()
        use(keeper, store, resource, key="1")
        assert sent(dynamo_faults) == {"Query": 7, "BatchGetItem": 1, "GetItem": reads}


@pytest.mark.parametrize("fault", ["fail", "throttle", "hang"])
def test_a_page_without_an_answer_says_so(fault, limited, keeper, dynamo_faults):
    """No use is claimed that ON_UNAVAILABLE decided; settings are shown."""
    store = limited(ENDPOINT_URL=dynamo_faults.url, CIRCUIT_BREAKER={"FAILURE_THRESHOLD": 1000})
    getattr(dynamo_faults, fault)("*")
    found = use(keeper, store, "search")
    assert found["problem"].startswith("The limit was not read: ")
    assert found["use"] == []
    mine = listed(keeper, store)
    assert mine["problem"].startswith("The stored limits are not known: ")
    assert not mine["knows_stored"]
    assert [each["resource"] for each in mine["resources"]] == ["exports", "search"]


@pytest.mark.parametrize("fault", ["fail", "throttle"])
def test_only_the_counts_are_not_read(fault, limited, keeper, dynamo_faults):
    """The rest of the page is shown."""
    store = limited(
        {"ON_UNAVAILABLE": "allow", "ON_THROTTLED": "allow"},
        ENDPOINT_URL=dynamo_faults.url,
        CIRCUIT_BREAKER={"FAILURE_THRESHOLD": 1000},
    )
    getattr(dynamo_faults, fault)("GetItem")
    found = look(keeper, "limits", using=store.using, resource="search")
    assert found["use"]["problem"].startswith("The limit was not read: ")
    assert found["problems"] == []


def test_limits_that_are_counted_in_each_process(limited, keeper):
    """The page says whose counts these are, and offers no reset."""
    store = limited({"IN_PROCESS": True})
    store.acquire("search", key="1")
    fields = {"using": store.using, "resource": "search", "key": "1"}
    assert use(keeper, store, "search", key="1")["use"][0]["used"] == 1
    html = keeper.post(page("limits"), fields).text
    assert "the process that serves this page" in html
    assert "Reset…" not in html


def test_a_limit_that_cannot_be_adaptive(limited, keeper):
    """Is said, not raised."""
    store = limited()
    AdaptiveRateLimitStore(store.using).acquire("search", key="1")
    found = use(keeper, store, "search", key="1", rate="1/s,5/m")
    assert "adaptive" in found["problem"]


def test_who_may_look_and_who_may_act(limited, log_in, client):
    """A stranger nothing, a viewer no action."""
    store = limited()
    asked = {"using": store.using, "resource": "search"}
    forms = {**asked, "rate": "1/m", "token": secrets.token_urlsafe(24)}
    assert client.post(page("limits"), asked).status_code == 302
    assert log_in().post(page("limits"), asked).status_code == 403
    viewer = log_in("view_status", "manage_capacity")
    for action in ("set_limit", "unset_limit", "reset_limit"):
        assert viewer.post(page("act"), {**forms, "action": action}).status_code == 403
        assert client.post(page("act"), {**forms, "action": action}).status_code == 302
    assert store.get_stored_configs() == {}
    assert LogEntry.objects.count() == 0


@pytest.mark.parametrize("text", ["a\0b", "a\r\nb", "x" * 5000, ""])
def test_names_that_cannot_be_looked_up(text, limited, keeper):
    """Are refused with a sentence, and no action takes them."""
    store = limited()
    found = use(keeper, store, text)
    assert found["problem"].startswith("The resource ")
    assert len(found["problem"]) < 300
    if text:
        assert use(keeper, store, "search", key=text)["problem"].startswith("The key ")
    for fields in ({"resource": text, "rate": "1/m"}, {"resource": "search", "rate": text}):
        forms = {"action": "set_limit", "using": store.using, **fields}
        answer = keeper.post(page("act"), forms)
        assert answer.status_code == 400
        assert len(answer.text) < 300


def test_markup_in_names_is_text(limited, keeper):
    """Of stored limits, and of what is looked up."""
    store = limited()
    store.set_resource_config(EVIL, "1/m", everywhere=True)
    fields = {"using": store.using, "resource": EVIL, "key": EVIL}
    html = keeper.post(page("limits"), fields).text + ask(keeper, action="reset_limit", **fields)
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert" in html


@pytest.mark.parametrize("using", ["unknown", "", "x" * 10_000])
def test_unknown_aliases_are_refused(using, limited, keeper):
    """For looking and acting."""
    limited()
    assert keeper.post(page("limits"), {"using": using, "resource": "r"}).status_code == 400
    fields = {"action": "reset_limit", "using": using, "resource": "r"}
    answer = keeper.post(page("act"), fields)
    assert answer.status_code == 400
    assert len(answer.text) < 300
