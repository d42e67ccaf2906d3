"""Limits by path, behind proxies and without the store, and their configuration errors."""

from __future__ import annotations

import asyncio
import functools
import threading

import pytest
from asgiref.sync import sync_to_async
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse
from django.test import RequestFactory, override_settings
from django.views import View

from dynamo_stores.decorators import adaptive_ratelimit, ratelimit
from dynamo_stores.exceptions import ConfigurationError, RateLimited
from dynamo_stores.ratelimit import problems
from dynamo_stores.ratelimit.middleware import RateLimitMiddleware
from dynamo_stores.ratelimit.mixins import RatelimitMixin
from dynamo_stores.ratelimit.requests import group_of
from dynamo_stores.stores import AdaptiveRateLimitStore, RateLimitStore
from tests.helpers.limits import get, ok

requests = RequestFactory()
pytestmark = pytest.mark.usefixtures("tables", "dynamo_clock")


def test_unavailable(alias, dynamo_faults, group):
    """ON_UNAVAILABLE, RATELIMIT_FAIL_OPEN, or the decorator's argument decides."""
    using = alias(ENDPOINT_URL=dynamo_faults.url, RETRY={"MAX_RETRIES": 0})
    dynamo_faults.fail()
    view = ratelimit(group, "ip", "1/m", using=using)(ok)
    assert view(get()).status_code == 200
    with override_settings(RATELIMIT_FAIL_OPEN=False):
        assert view(get()).status_code == 429
    deny = ratelimit(group, "ip", "1/m", using=using, on_unavailable="deny")(ok)
    assert deny(get()).status_code == 429


@pytest.mark.parametrize(
    ("decorator", "number"),
    [
        ({"rate": "1/m"}, "E120"),
        ({"key": "adress", "rate": "1/m"}, "E120"),
        ({"key": "cookie:x", "rate": "1/m"}, "E120"),
        ({"key": "ip", "rate": "many"}, "E121"),
        ({"key": "ip", "rate": "no.such.rate"}, "E121"),
        ({"key": "ip", "rate": "1/m", "cost": 0}, "E122"),
        ({"key": "ip", "rate": "1/m", "cost": "many"}, "E122"),
        ({"key": "ip", "rate": "9/s,4/m", "cost": 5}, "E122"),
        ({"key": "ip", "rate": "20/m", "cost": 3, "algorithm": "gcra"}, "E122"),
        ({"key": "ip", "rate": "1/m", "allow": "10.0.0.0/8"}, "E123"),
        ({"key": "ip", "rate": "1/m", "allow": ["10.0.0.0/40"]}, "E123"),
        ({"key": "ip", "rate": "1/m", "on_unavailable": "ignore"}, "E124"),
        ({"key": "ip", "rate": "1/m", "method": "PSOT"}, "E125"),
        ({"key": 5, "rate": "1/m"}, "E120"),
        ({"key": "ip", "rate": "1/m", "priority": "backgruond"}, "E128"),
        ({"key": "ip"}, "W014"),
        ({"key": "ip", "rate": "1/m", "using": "nope"}, "E133"),
    ],
)
def test_wrong_literals_are_found_by_a_check(decorator, number):
    """With the view's name; and at the call, if the check was not run."""
    view = ratelimit(**decorator)(ok)
    (found,) = [each for each in checks.run_checks() if each.id == f"dynamo_stores.{number}"]
    assert "@ratelimit on tests.helpers.limits.ok" in found.msg
    if number in ("E120", "E121") or "using" in decorator:
        with pytest.raises(ImproperlyConfigured):
            view(get())


class Skipping:
    def __call__(self, request, group):
        return True


def takes_one(request):
    return HttpResponse()


def passes_one(function):
    """A decorator whose function takes one argument less."""

    @functools.wraps(function)
    def wrapper(*args):
        return function(*args, None)

    return wrapper


HERE = __name__
RATE, COST = "1/m", 2


@pytest.mark.parametrize(
    ("decorator", "number", "message"),
    [
        ({"key": takes_one}, "E120", "takes_one; expected a function of group and request, and it "
         "cannot be called with them: too many positional arguments."),
        ({"key": f"{HERE}.takes_one"}, "E120", "key is tests.ratelimit.test_paths.takes_one;"),
        ({"key": f"{HERE}.RATE"}, "E120", "key is '1/m'; expected a function of group and"),
        ({"key": "no.such.key"}, "E120", "key is 'no.such.key', which cannot be imported: No"),
        ({"rate": takes_one}, "E121", "rate is tests.ratelimit.test_paths.takes_one; expected"),
        ({"rate": f"{HERE}.HERE"}, "E121", "'tests.ratelimit.test_paths' is not a rate"),
        ({"cost": takes_one}, "E122", "cost is tests.ratelimit.test_paths.takes_one; expected"),
        ({"cost": f"{HERE}.RATE"}, "E122", "cost is '1/m'; expected a function of group and"),
        ({"priority": lambda group, request: "user"}, "E128", "expected a function of the request"),
        ({"skip_if": True}, "E133", "skip_if is True; expected a function of the request, or its"),
        ({"skip_if": Skipping()}, "E133", "test_paths.Skipping; expected a function of the req"),
        ({"response": "page.html"}, "E133", "response is 'page.html', which cannot be imported"),
        ({"response": "page"}, "E133", "response is 'page', which cannot be imported"),
        ({"response": takes_one}, "E133", "expected a function of the request and the status"),
        ({"using": "defualt"}, "E133", "using is 'defualt'; expected an alias of DYNAMO_STORES; "
         "did you mean 'default'?"),
        ({"priority": "user", "rate": "1/s,5/m"}, "E121", "has 2 rates; expected one rate"),
        ({"priority": "user", "algorithm": "gcra"}, "E121", "algorithm is 'gcra'; expected 'slid"),
    ],
)  # fmt: skip
def test_the_check_of_arguments_says_what_is_expected(decorator, number, message):
    """Of functions, names and adaptive limits."""
    ratelimit(**{"key": "ip", "rate": "1/m", **decorator})(ok)
    (found,) = [each for each in checks.run_checks() if "@ratelimit on" in each.msg]
    assert found.id == f"dynamo_stores.{number}"
    assert message in found.msg


@pytest.mark.parametrize(
    ("attributes", "number", "message"),
    [
        ({}, "E120", "the key is missing"),
        ({"key": "adress"}, "E120", "adress"),
        ({"key": "ip", "rate": "many"}, "E121", "many"),
        ({"key": "ip", "cost": 6}, "E122", "admits at most 5"),
        ({"key": "ip", "method": "PSOT"}, "E125", "PSOT"),
        ({"key": "ip", "method": 5}, "E133", "int"),
        ({"key": "ip", "response": "page"}, "E133", "response is 'page', which cannot be imported"),
        ({"key": "ip", "using": "nope"}, "E133", "using is 'nope'"),
        ({"key": "ip", "rat": "1/m"}, "E133", "ratelimit_rat is no argument of @ratelimit; did "
         "you mean 'ratelimit_rate'?"),
        ({"key": "ip", "skip_if": asyncio.sleep}, "E133", "skip_if of @ratelimit is a coroutine"),
    ],
)  # fmt: skip
def test_wrong_attributes_of_the_mixin_are_found_by_a_check(attributes, number, message):
    """Of classes that are made a view; a class that lacks attributes may be a base of others."""
    named = {f"ratelimit_{name}": value for name, value in attributes.items()}
    kind = type("Page", (RatelimitMixin, View), {"__module__": __name__, **named})
    where = f"@ratelimit on {__name__}.Page."
    assert not [each for each in checks.run_checks() if where in each.msg]
    kind.as_view()
    (found,) = [each for each in checks.run_checks() if where in each.msg]
    assert found.id == f"dynamo_stores.{number}"
    assert message in found.msg


def test_valid_attributes_of_the_mixin(group):
    """Also those of a base, after requests, and those that the decorator alone uses."""

    class Page(RatelimitMixin, View):
        ratelimit_key = staticmethod(lambda group, request: "k")
        ratelimit_shadow = True

        def get(self, request):
            return ok(request)

    class Other(Page):
        ratelimit_group = group
        ratelimit_rate = "1/m"

    assert Other.as_view()(get()).status_code == 200
    assert not [each for each in checks.run_checks() if "@ratelimit on" in each.msg]


@pytest.mark.parametrize(
    "decorator",
    [
        {"key": passes_one(lambda group, request, none: "k")},
        {"key": functools.partial(lambda none, group, request: "k", None)},
        {"key": min},
        {"rate": f"{HERE}.RATE"},
        {"cost": f"{HERE}.COST"},
        {"skip_if": f"{HERE}.takes_one"},
        {"response": lambda *args: HttpResponse()},
        {"priority": "background", "algorithm": "sliding"},
    ],
)
def test_the_check_of_arguments_finds_nothing_in_valid_ones(decorator):
    """Wrappers are called with their own arguments; some functions of C have no signature."""
    ratelimit(**{"key": "ip", "rate": "1/m", **decorator})(ok)
    assert not [each for each in checks.run_checks() if "@ratelimit on" in each.msg]


def test_a_dotted_path_may_name_what_is_made_after_the_view(monkeypatch):
    """It is imported when the check runs."""
    ratelimit(key=f"{__name__}.later", rate="1/m")(ok)
    monkeypatch.setitem(globals(), "later", lambda group, request: "k")
    assert not [each for each in checks.run_checks() if "@ratelimit on" in each.msg]


@pytest.mark.parametrize(
    ("decorator", "found"),
    [
        ({"resource": "serach"}, ["dynamo_stores.W022"]),
        ({"resource": "search"}, []),
        ({"resource": "search", "priority": "user"}, ["dynamo_stores.E121"]),
        ({"resource": "shop", "priority": "user"}, []),
        ({"resource": "exports"}, []),
        ({"resource": "api-v2"}, []),
        ({"resource": "serach", "rate": "1/m"}, []),
        ({"resource": "serach", "using": "nope"}, ["dynamo_stores.E133"]),
    ],
)
def test_a_misspelt_resource_is_a_warning(default_alias, decorator, found):
    """If a name in RESOURCES is near; other resources need no entry."""
    known = {"search": "5/s,100/m", "shop": "10/m", "api-v1": "10/m"}
    default = {**default_alias, "RATE_LIMIT": {"RESOURCES": known}}
    ratelimit(**{"key": "ip", **decorator})(ok)
    with override_settings(DYNAMO_STORES={"default": default}):
        problems = [each for each in checks.run_checks() if "@ratelimit on" in each.msg]
    assert [each.id for each in problems] == found
    if found == ["dynamo_stores.W022"]:
        assert problems[0].msg.endswith("no resource 'serach'; did you mean 'search'?")


def test_an_adaptive_limit_has_no_other_algorithm(group):
    """The argument had no effect before."""
    view = adaptive_ratelimit(group, "ip", "5/m", algorithm="gcra")(ok)
    with pytest.raises(ConfigurationError, match=r"^algorithm is 'gcra'; expected 'sliding'"):
        view(get())


def test_a_method_is_counted_under_the_module_of_its_class():
    """Also an inherited one, and one of the class itself."""

    class Page(View):
        @classmethod
        def show(cls, request):
            return ok(request)

    assert group_of(Page().dispatch) == f"{__name__}.Page.View.dispatch"
    assert group_of(Page.show).startswith(f"{__name__}.Page.")
    assert group_of(Page.show).endswith("Page.show")


def test_a_decorator_without_arguments_says_so():
    """And not its first request."""
    with pytest.raises(TypeError, match=r"@ratelimit needs arguments, such as"):
        ratelimit(ok)


async def an_hour(*args):
    """A function that a decorator does not take."""
    return 3600


class Hour:
    """Returns what is to be awaited, which shows only when it is called."""

    def __call__(self, *args):
        return an_hour()


def test_an_adaptive_decorator_is_named_in_messages(group):
    """When it is applied, by the check, and in requests."""
    with pytest.raises(TypeError, match=r"^@adaptive_ratelimit needs arguments, such as @adapt"):
        adaptive_ratelimit(ok)
    with pytest.raises(TypeError, match=r"^@adaptive_ratelimit has no argument 'rates'"):
        adaptive_ratelimit(group, "ip", rates="1/m")
    for name in ("key", "response", "skip_if"):
        options = {"key": "ip", "rate": "5/m", name: an_hour}
        with pytest.raises(ConfigurationError, match=f"^{name} of @adaptive_ratelimit is a corou"):
            adaptive_ratelimit(**options)(ok)
    for name in ("key", "rate", "cost", "skip_if"):
        view = adaptive_ratelimit(group, **{"key": "ip", "rate": "5/m", name: Hour()})(ok)
        with pytest.raises(ConfigurationError, match=f"^{name} of @adaptive_ratelimit is "):
            view(get())
    adaptive_ratelimit(group, "ip", "many")(ok)
    (found,) = [each for each in checks.run_checks() if each.id == "dynamo_stores.E121"]
    assert "@adaptive_ratelimit on tests.helpers.limits.ok" in found.msg
    with pytest.raises(ConfigurationError, match=r"^@adaptive_ratelimit is for views"):
        adaptive_ratelimit(group, "ip", "5/m")(ok)("no request")
    view = adaptive_ratelimit(group, "ip", "1/m", response=Hour())(ok)
    assert view(get()).status_code == 200
    with pytest.raises(ConfigurationError, match=r"^response of @adaptive_ratelimit is"):
        view(get())


def test_settings_without_a_meaning_are_explained():
    """Those of django-ratelimit that are about Django's caches."""
    with override_settings(RATELIMIT_USE_CACHE="default"):
        (found,) = [each for each in checks.run_checks() if each.id == "dynamo_stores.W002"]
    assert "RATELIMIT_USE_CACHE has no effect" in found.msg


def test_an_empty_address_is_a_mistake(group):
    """All clients would share one limit."""
    view = ratelimit(group, "ip", "1/m")(ok)
    with pytest.raises(ImproperlyConfigured, match="REMOTE_ADDR"):
        view(get(address=""))


def test_trusted_proxies(alias, group):
    """The client is the one that connected to the outermost trusted proxy."""
    using = alias(RATE_LIMIT={"TRUSTED_PROXIES": 1})
    view = ratelimit(group, "ip", "1/m", using=using)(ok)

    def ask(forwarded):
        return view(get(address="10.0.0.1", HTTP_X_FORWARDED_FOR=forwarded)).status_code

    assert [ask("5.5.5.5"), ask("6.6.6.6, 5.5.5.5"), ask("5.5.5.6")] == [200, 429, 200]


def test_a_function_that_is_not_a_view_raises(group):
    """It is called without a request."""
    with pytest.raises(ConfigurationError, match="is for views"):
        ratelimit(group, "ip", "1/m")(lambda: None)()


def address_of(request):
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()
    return request.headers["X-Client"]


async def async_address_of(request):
    return "1.2.3.4"


@pytest.mark.parametrize("source", [address_of, f"{__name__}.address_of"])
def test_an_address_by_a_function(group, source):
    """RATELIMIT_IP_META_KEY is a function or its path, which async views call in a thread."""
    view, async_view = (ratelimit(group, "ip", "1/m")(each) for each in (ok, async_ok))
    with override_settings(RATELIMIT_IP_META_KEY=source):
        assert view(get(HTTP_X_CLIENT="5.5.5.5")).status_code == 200
        assert asyncio.run(async_view(get(HTTP_X_CLIENT="5.5.5.5"))).status_code == 429
        assert asyncio.run(async_view(get(HTTP_X_CLIENT="6.6.6.6"))).status_code == 200
    with (
        override_settings(RATELIMIT_IP_META_KEY=async_address_of),
        pytest.raises(ConfigurationError, match=r"^RATELIMIT_IP_META_KEY is a coroutine function"),
    ):
        view(get())


@pytest.fixture
def paths(alias, default_alias):
    """Site-wide limits in the default alias."""
    limited = {
        "/api/": {"RATE": "2/m", "ALLOW": ["10.0.0.0/8"]},
        "/api/free/": {"RATE": None},
        "/": {"RATE": "100/m", "METHOD": "POST", "KEY": "header:x-token"},
    }
    settings = {**default_alias, "RATE_LIMIT": {"PATHS": limited}}
    with override_settings(DYNAMO_STORES={"default": settings}):
        yield
        for resource in ("path:/api/", "path:/ POST"):
            for key in ("1.2.3.4", "t"):
                RateLimitStore().reset(resource, key=key)


def test_limits_by_path(paths):
    """The longest path applies; allowed networks and other methods are not limited."""
    middleware = RateLimitMiddleware(ok)
    answers = [middleware(get("/api/x")) for _ in range(3)]
    assert [each.status_code for each in answers] == [200, 200, 429]
    assert [each["X-RateLimit-Remaining"] for each in answers] == ["1", "0", "0"]
    assert answers[-1]["Retry-After"]
    assert middleware(get("/api/x", address="10.1.1.1")).status_code == 200
    assert middleware(get("/api/free/x")).status_code == 200
    assert "RateLimit" not in middleware(get("/page"))
    posted = middleware(requests.post("/page", headers={"X-Token": "t"}))
    assert posted["X-RateLimit-Limit"] == "100"

    assert asyncio.run(RateLimitMiddleware(async_ok)(get("/api/x"))).status_code == 429


def test_the_middleware_answers_for_views_that_raise(paths):
    """By RATELIMIT_VIEW, or with 429; other exceptions propagate."""
    middleware = RateLimitMiddleware(ok)
    status = RateLimitStore().acquire("x", rate="0/m")
    refusal = RateLimited(status=status)
    assert middleware.process_exception(get(), refusal).status_code == 429
    with override_settings(RATELIMIT_VIEW=f"{__name__}.limited_page"):
        assert middleware.process_exception(get(), refusal).status_code == 420
        answers = [middleware(get("/api/x")).status_code for _ in range(3)]
        assert answers == [200, 200, 420]
        assert asyncio.run(RateLimitMiddleware(async_ok)(get("/api/x"))).status_code == 420
    assert middleware.process_exception(get(), ValueError()) is None


def test_decorators_within_views_are_not_noted_for_ever(group):
    """The check has the arguments of the first ones."""
    for number in range(10_100):
        ratelimit(group, "ip", resource=f"{group}-{number}")(ok)
    assert len(problems.names) == 10_000


def test_a_refusal_under_asgi_needs_no_thread(paths):
    """Unless RATELIMIT_VIEW makes the response. One thread serves all sync views of a request."""
    middleware, go_on = RateLimitMiddleware(async_ok), threading.Event()

    async def ask():
        busy = asyncio.ensure_future(sync_to_async(go_on.wait)())
        try:
            async with asyncio.timeout(30):
                return [(await middleware(get("/api/x"))).status_code for _ in range(3)]
        finally:
            go_on.set()
            await busy

    assert asyncio.run(ask()) == [200, 200, 429]


@pytest.mark.parametrize(
    "wrong",
    [
        {"api/": {"RATE": "1/m"}},
        {"/api/": {"RATE": "often"}},
        {"/api/": {"RATE": "1/m", "KEYS": "ip"}},
        {"/api/": "1/m"},
    ],
)
def test_wrong_paths_are_found(default_alias, wrong):
    """By the check of the setting."""
    with override_settings(DYNAMO_STORES={"default": {"RATE_LIMIT": {"PATHS": wrong}}}):
        assert "dynamo_stores.E077" in {each.id for each in checks.run_checks()}


async def async_ok(request):
    return HttpResponse("ok")


def limited_page(request, refusal):
    # SQL from the thread of an event loop would be SynchronousOnlyOperation.
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()
    return HttpResponse(f"later, {refusal.status.limit}", status=420)


def test_the_longest_path_whose_method_matches_applies(alias, default_alias, group):
    """Another method has the limit of the shorter path; a limit of GET is one of HEAD, too."""
    limited = {
        f"/{group}/": {"RATE": "3/m"},
        f"/{group}/search/": {"RATE": "2/m", "METHOD": "GET"},
    }
    settings = {**default_alias, "RATE_LIMIT": {"PATHS": limited}}
    with override_settings(DYNAMO_STORES={"default": settings}):
        middleware = RateLimitMiddleware(ok)
        path = f"/{group}/search/"

        def ask(method):
            return middleware(requests.generic(method, path, REMOTE_ADDR="1.2.3.4")).status_code

        assert [ask("GET"), ask("HEAD"), ask("HEAD"), ask("GET")] == [200, 200, 429, 429]
        assert [ask("POST") for _ in range(4)] == [200, 200, 200, 429]


def test_a_limit_of_get_includes_head(group):
    """Django runs the view for both."""
    view = ratelimit(group, "ip", "1/m", method="GET")(ok)
    found = [view(requests.generic(each, "/")).status_code for each in ("GET", "HEAD", "POST")]
    assert found == [200, 429, 200]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"KEY": "usr"}, "'usr' is not a valid key"),
        ({"KEY": 5}, "5 is not a valid key"),
        ({"METHOD": "PSOT"}, "'PSOT' is not a method of HTTP; did you mean 'POST'"),
        ({"METHOD": 5}, "5 is not a list of methods"),
        ({"ALLOW": ["10.0.0.0/99"]}, "ALLOW is not a list of networks"),
        ({"ALLOW": 5}, "ALLOW is not a list of networks"),
    ],
)
def test_wrong_values_of_paths_are_found_by_a_check(default_alias, config, message):
    """Before a request meets them."""
    limited = {"/api/": {"RATE": "1/m", **config}}
    settings = {**default_alias, "RATE_LIMIT": {"PATHS": limited}}
    with override_settings(DYNAMO_STORES={"default": settings}):
        (found,) = [each for each in checks.run_checks() if each.id == "dynamo_stores.E077"]
    assert message in found.msg


def test_a_rate_of_zero_refuses_without_dynamodb(alias, dynamo_faults, group):
    """Whatever ON_UNAVAILABLE is; nothing is sent."""
    using = alias(ENDPOINT_URL=dynamo_faults.url)
    view = ratelimit(group, "ip", "0/m", using=using)(ok)
    refused = view(get())
    assert (refused.status_code, refused["Retry-After"]) == (429, "60")
    assert dynamo_faults.requests == {}
    assert not AdaptiveRateLimitStore(using).acquire(group, rate="0/m").allowed
    assert dynamo_faults.requests == {}


def test_a_throttled_table_does_not_switch_limits_off(alias, dynamo_faults, group):
    """ON_THROTTLED decides, and counts in the process by default; "deny" of a limit stays."""
    options = {"ENDPOINT_URL": dynamo_faults.url, "OPERATION_TIMEOUT": 0.2}
    using = alias(**options, RATE_LIMIT={"OPERATION_TIMEOUT": 0.2})
    dynamo_faults.throttle()
    view = ratelimit(group, "ip", "2/m", using=using)(ok)
    assert [view(get()).status_code for _ in range(3)] == [200, 200, 429]
    strict = ratelimit(group, "ip", "2/m", using=using, on_unavailable="deny")(ok)
    assert strict(get()).status_code == 429
    using = alias(**options, RATE_LIMIT={"OPERATION_TIMEOUT": 0.2, "ON_THROTTLED": "allow"})
    view = ratelimit(group, "ip", "1/m", using=using)(ok)
    assert [view(get()).status_code for _ in range(2)] == [200, 200]
