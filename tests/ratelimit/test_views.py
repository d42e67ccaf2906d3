"""Limited views: which requests are limited, the response to them, and its headers."""

from __future__ import annotations

import asyncio
import functools
import importlib
import json
import math
from types import SimpleNamespace

import pytest
from asgiref.sync import iscoroutinefunction
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.test import RequestFactory, override_settings
from django.utils.decorators import method_decorator
from django.views import View

from dynamo_stores.decorators import (
    adaptive_ratelimit,
    aget_usage,
    ais_ratelimited,
    get_usage,
    is_ratelimited,
    ratelimit,
)
from dynamo_stores.exceptions import ConfigurationError, Ratelimited
from dynamo_stores.ratelimit.middleware import RateLimitMiddleware
from dynamo_stores.ratelimit.mixins import RatelimitMixin
from dynamo_stores.stores import RateLimitStore
from tests.helpers.limits import get, ok

requests = RequestFactory()
pytestmark = pytest.mark.usefixtures("tables", "dynamo_clock")


def test_a_refused_request_gets_429(group):
    """With its headers; the view is not called; other addresses go on."""
    view = ratelimit(group, "ip", "2/m")(ok)
    assert [view(get()).status_code for _ in range(3)] == [200, 200, 429]
    assert view(get(address="4.3.2.1")).status_code == 200


def test_headers(group, dynamo_clock):
    """On allowed and on refused requests, in the form of the drafts."""
    view = ratelimit(group, "ip", "2/m,100/h")(ok)
    allowed = view(get())
    assert allowed["RateLimit-Policy"] == '"60s";q=2;w=60, "3600s";q=100;w=3600'
    reset = int(allowed["X-RateLimit-Reset"])
    assert allowed["RateLimit"] == f'"60s";r=1;t={reset - int(dynamo_clock.now())}'
    assert (allowed["X-RateLimit-Limit"], allowed["X-RateLimit-Remaining"]) == ("2", "1")
    assert "Retry-After" not in allowed
    view(get())
    refused = view(get())
    assert refused["RateLimit"].startswith('"60s";r=0;t=')
    wait = int(refused["Retry-After"])
    assert 60 <= wait <= 67
    assert refused.content.decode() == f"Too many requests. Try again in {wait} seconds."
    dynamo_clock.advance(wait)
    assert view(get()).status_code == 200


def test_json_for_clients_that_prefer_it(group):
    """And text for other clients."""
    view = ratelimit(group, "ip", "0/m")(ok)
    answer = view(get(HTTP_ACCEPT="application/json"))
    assert answer["Content-Type"] == "application/json"
    assert json.loads(answer.content)["error"] == "rate_limited"
    for accept in ("text/html", "*/*", "text/html, application/json;q=0.5"):
        assert view(get(HTTP_ACCEPT=accept))["Content-Type"].startswith("text/plain")


def test_the_status_is_on_the_request(group):
    """request.limited and request.ratelimit, with block=False; the tightest of several."""
    seen = []

    @ratelimit(group + "outer", "ip", "9/m", block=False)
    @ratelimit(group, "ip", "1/m", block=False)
    def view(request):
        seen.append((request.limited, request.ratelimit.limit, request.ratelimit.remaining))
        return HttpResponse()

    first, second = view(get()), view(get())
    assert seen == [(False, 1, 0), (True, 1, 0)]
    assert first["X-RateLimit-Limit"] == second["X-RateLimit-Limit"] == "1"


def test_shadow_counts_and_never_limits(group):
    """A request that would be refused shows in the status alone."""
    view = ratelimit(group, "ip", "1/m", shadow=True)(ok)
    for _ in range(3):
        request = get()
        assert view(request).status_code == 200
        assert request.limited is False
    assert request.ratelimit.allowed is False


def test_clients_are_not_told_of_a_shadow(group):
    """No headers of its own, and none of a limit beside it that are changed by it."""
    shadow = ratelimit(group, "ip", "1/m", shadow=True)
    alone, both = shadow(ok), ratelimit(group + "real", "ip", "9/m")(shadow(ok))
    for _ in range(2):
        answer = alone(get())
        for name in ("RateLimit", "RateLimit-Policy", "X-RateLimit-Remaining", "Retry-After"):
            assert name not in answer
    answer = both(get())
    assert (answer["X-RateLimit-Limit"], answer["X-RateLimit-Remaining"]) == ("9", "8")
    assert "Retry-After" not in answer


def staff_only(request):
    assert_no_loop()
    return request.user.is_staff


def rate_of_user(group, request):
    assert_no_loop()
    return "1/m"


def key_of_user(group, request):
    assert_no_loop()
    return str(request.user.pk)


def cost_of_user(group, request):
    assert_no_loop()
    return 1


def assert_no_loop():
    """Raise where Django would raise SynchronousOnlyOperation for a query."""
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


@pytest.mark.parametrize(
    "argument",
    [
        {"skip_if": f"{__name__}.staff_only"},
        {"rate": f"{__name__}.rate_of_user"},
        {"key": f"{__name__}.key_of_user"},
        {"cost": f"{__name__}.cost_of_user"},
        {"cost": cost_of_user},
    ],
)
def test_functions_of_async_views_do_not_run_on_the_event_loop(group, argument):
    """By their dotted path or themselves: they may query a database."""

    @ratelimit(**{"group": group, "key": "ip", "rate": "1/m", **argument})
    async def view(request):
        return HttpResponse("async")

    async def run():
        request = get()
        request.user = SimpleNamespace(pk=7, is_authenticated=True, is_staff=False)
        return [(await view(request)).status_code for _ in range(2)]

    assert asyncio.run(run()) == [200, 429]


def test_async_views(group):
    """They stay coroutine functions; keys that read the user do so in a thread."""

    @ratelimit(group, "ip", "1/m")
    async def view(request):
        return HttpResponse("async")

    @ratelimit(group + "user", "user", lambda group, request: "1/m")
    async def for_users(request):
        return HttpResponse("async")

    async def run():
        request = get()
        request.user = SimpleNamespace(pk=7, is_authenticated=True)
        return [(await each(request)).status_code for each in (view, view, for_users, for_users)]

    assert iscoroutinefunction(view)
    assert asyncio.run(run()) == [200, 429, 200, 429]


def test_class_based_views(group):
    """On the class, on a method, through method_decorator, sync and async."""

    @ratelimit(group + "1", "ip", "1/m")
    class OnClass(View):
        def get(self, request):
            return HttpResponse()

    class OnMethod(View):
        @ratelimit(group + "2", "ip", "1/m")
        def get(self, request):
            return HttpResponse()

    @method_decorator(ratelimit(group + "3", "ip", "1/m"), name="get")
    class Through(View):
        def get(self, request):
            return HttpResponse()

    class Async(View):
        @ratelimit(group + "4", "ip", "1/m")
        async def get(self, request):
            return HttpResponse()

    for case in (OnClass, OnMethod, Through):
        view = case.as_view()
        assert [view(get()).status_code for _ in range(2)] == [200, 429]
    view = Async.as_view()

    async def run():
        return [(await view(get())).status_code for _ in range(2)]

    assert asyncio.run(run()) == [200, 429]


def test_async_classes(group):
    """Headers, 429, and no decision on the event loop: their dispatch is a plain method."""

    def key(group, request):
        assert_no_loop()
        return "k"

    @ratelimit(group, key, "1/m")
    class Limited(View):
        async def get(self, request):
            return HttpResponse("async")

    class Mixed(RatelimitMixin, View):
        ratelimit_group = group + "mixin"
        ratelimit_key = staticmethod(key)
        ratelimit_rate = "1/m"
        ratelimit_block = True

        async def get(self, request):
            return HttpResponse("async")

    async def run(view):
        answers = [await view(get()) for _ in range(2)]
        assert all("RateLimit" in each for each in answers)
        return [each.status_code for each in answers]

    for view in (Limited.as_view(), Mixed.as_view()):
        assert asyncio.run(run(view)) == [200, 429]


def test_the_mixin_of_django_ratelimit(group):
    """Its attributes are the arguments; without ``ratelimit_block`` the view is called."""

    class Limited(RatelimitMixin, View):
        ratelimit_group = group
        ratelimit_key = "ip"
        ratelimit_rate = "1/m"

        def get(self, request):
            return HttpResponse(str(request.limited))

    class Blocked(Limited):
        ratelimit_group = group + "blocked"
        ratelimit_block = True
        ratelimit_rate = "3/m"
        ratelimit_cost = 2

    assert [Limited.as_view()(get()).content for _ in range(2)] == [b"False", b"True"]
    assert [Blocked.as_view()(get()).status_code for _ in range(2)] == [200, 429]


def test_the_modules_of_django_ratelimit():
    """A project moves over by changing the package's name in its imports."""
    names = {
        "": ["ALL", "UNSAFE"],
        ".core": ["get_usage", "is_ratelimited"],
        ".decorators": ["ratelimit"],
        ".exceptions": ["Ratelimited"],
        ".middleware": ["RatelimitMiddleware"],
        ".mixins": ["RatelimitMixin"],
    }
    for module, wanted in names.items():
        found = importlib.import_module(f"dynamo_stores.ratelimit{module}")
        for name in wanted:
            assert hasattr(found, name), (module, name)


def test_methods_and_groups(group):
    """Each set of methods is counted by itself, in any order; a group is shared."""
    one = ratelimit(group, "ip", "1/m", ["GET", "post"])(ok)
    same = ratelimit(group, "ip", "1/m", ("POST", "GET"))(ok)
    unsafe = ratelimit(group, "ip", "1/m", ratelimit.UNSAFE)(ok)
    assert one(get()).status_code == 200
    assert same(get()).status_code == 429
    assert unsafe(get()).status_code == 200
    assert unsafe(requests.put("/", REMOTE_ADDR="1.2.3.4")).status_code == 200
    assert unsafe(requests.put("/", REMOTE_ADDR="1.2.3.4")).status_code == 429
    assert (is_ratelimited.ALL, get_usage.UNSAFE) == (ratelimit.ALL, ratelimit.UNSAFE)


def test_cost_skip_and_allow(group):
    """Expensive requests count for more; some are not limited at all."""
    dear = ratelimit(group, "ip", "5/m", cost=lambda group, request: int(request.GET["n"]))(ok)
    assert dear(get("/?n=4")).status_code == 200
    assert dear(get("/?n=2")).status_code == 429
    assert dear(get("/?n=1")).status_code == 200
    spared = ratelimit(
        group + "s",
        "ip",
        "0/m",
        skip_if=lambda request: "skip" in request.GET,
        allow=["10.0.0.0/8", "2001:db8::/32"],
    )(ok)
    assert spared(get()).status_code == 429
    assert spared(get("/?skip")).status_code == 200
    assert spared(get(address="10.9.9.9")).status_code == 200
    assert spared(get(address="2001:db8::5")).status_code == 200


@pytest.mark.parametrize(
    ("allow", "message"),
    [
        ("10.0.0.0/8", r"'10\.0\.0\.0/8'; expected a list .* Expected a list, got str\."),
        (["10.0.0.0/40"], r"\['10\.0\.0\.0/40'\]; expected a list .* does not appear to be"),
        (5, r"5; expected a list of networks.* Expected a list, got int\."),
    ],
)
def test_wrong_networks_are_named(group, allow, message):
    """With the argument and its value."""
    with pytest.raises(ConfigurationError, match=f"^allow is {message}"):
        ratelimit(group, "ip", "1/m", allow=allow)(ok)(get())


@pytest.mark.parametrize("priority", [None, "user"])
def test_a_cost_of_the_request_is_never_an_error(group, priority):
    """More than the limit, or less than nothing, is refused; nothing is free."""
    view = ratelimit(
        group, "ip", "10/m", cost=lambda group, request: int(request.GET["n"]), priority=priority
    )(ok)
    for number, code in ((11, 429), (-1, 429), (0, 200), (10, 200), (0, 200), (1, 429)):
        answer = view(get(f"/?n={number}"))
        assert answer.status_code == code, number
        assert ("Retry-After" in answer) == (code == 429)


def test_a_limit_of_a_resource(group):
    """Set elsewhere, and looked up by its name."""
    store = RateLimitStore()
    view = ratelimit(key="ip", resource=group)(ok)
    store.set_resource_config(group, {"RATE": "1/m", "ALGORITHM": "log"})
    assert [view(get()).status_code for _ in range(2)] == [200, 429]
    store.set_resource_config(group, None)
    assert view(get()).status_code == 200
    store.unset_resource_config(group)
    assert ratelimit(group, "ip", None)(ok)(get()).status_code == 200


@pytest.mark.parametrize("algorithm", ["sliding", "fixed", "gcra", "log"])
def test_algorithms(group, algorithm):
    """Selectable per view."""
    view = ratelimit(group, "ip", "3/m", algorithm=algorithm, burst=3)(ok)
    assert [view(get()).status_code for _ in range(4)] == [200] * 3 + [429]


def test_adaptive_views(group):
    """Background work stops at its share, users go on."""
    background = adaptive_ratelimit(group, "ip", "20/m", priority="background")(ok)
    users = adaptive_ratelimit(group, "ip", "20/m")(ok)
    by_request = ratelimit(
        group,
        "ip",
        "20/m",
        priority=lambda request: "background" if "job" in request.GET else "user",
    )(ok)
    assert [background(get()).status_code for _ in range(15)].count(200) == 14
    assert by_request(get("/?job")).status_code == 429
    assert by_request(get()).status_code == 200
    assert [users(get()).status_code for _ in range(6)].count(200) == 5


def test_an_adaptive_view_of_a_resource(alias, group):
    """It is counted by buckets, whatever other limits are counted by."""
    resources = {group: "1/m"}
    using = alias(RATE_LIMIT={"ALGORITHM": "gcra", "RESOURCES": resources})

    @adaptive_ratelimit(key="ip", resource=group, using=using)
    async def async_view(request):
        return HttpResponse("async")

    view = adaptive_ratelimit(key="ip", resource=group, using=using)(ok)
    assert [view(get()).status_code for _ in range(2)] == [200, 429]
    assert asyncio.run(async_view(get(address="4.3.2.1"))).status_code == 200


def test_a_response_of_ones_own(group):
    """A function of request and status."""

    def answer(request, status):
        return HttpResponse(f"wait {math.ceil(status.retry_after)}", status=503)

    view = ratelimit(group, "ip", "0/m", response=answer)(ok)
    refused = view(get())
    assert (refused.status_code, refused.content) == (503, b"wait 60")
    assert refused["Retry-After"] == "60"


async def async_function(*args):
    return "1/m"


class AsyncCallable:
    async def __call__(self, *args):
        return "1/m"


def returns_a_coroutine(*args):
    return async_function(*args)


@pytest.mark.parametrize("name", ["key", "rate", "cost", "skip_if", "priority", "response"])
@pytest.mark.parametrize(
    "function", [async_function, AsyncCallable(), functools.partial(async_function, 1)]
)
def test_coroutine_functions_are_refused(group, name, function):
    """When the decorator is applied: what they return is no key, and always true."""
    arguments = {"group": group, "key": "ip", "rate": "1/m", name: function}
    with pytest.raises(ConfigurationError, match=f"^{name} of @ratelimit is a coroutine function"):
        ratelimit(**arguments)(ok)
    with pytest.raises(ConfigurationError, match=f"^{name} of @ratelimit is a coroutine function"):

        @ratelimit(**arguments)
        class Limited(View):
            pass


@pytest.mark.parametrize("name", ["key", "rate", "cost", "skip_if", "response"])
@pytest.mark.parametrize(
    "function",
    [f"{__name__}.async_function", f"{__name__}.returns_a_coroutine", returns_a_coroutine],
)
def test_functions_that_return_coroutines_are_refused(group, name, function):
    """At the request, of sync and async views: nothing else can be known before."""
    arguments = {"group": group, "key": "ip", "rate": "0/m", name: function}

    @ratelimit(**arguments)
    async def async_view(request):
        return HttpResponse("async")

    with pytest.raises(ConfigurationError, match=rf"^{name}.* is .*; expected a plain function\."):
        ratelimit(**arguments)(ok)(get())
    with pytest.raises(ConfigurationError, match=rf"^{name}.* is .*; expected a plain function\."):
        asyncio.run(async_view(get()))


def test_a_sync_method_of_a_store_refuses_an_async_rate(group):
    """Its async twin awaits the function."""
    with pytest.raises(ConfigurationError, match=r"^rate is a coroutine function, tests\."):
        RateLimitStore().acquire(group, key="k", rate=async_function)
    status = asyncio.run(RateLimitStore().aacquire(group, key="k", rate=async_function))
    assert status.limit == 1


def test_the_response_of_an_async_view_is_not_made_on_the_event_loop(group):
    """It may query a database."""

    def answer(request, status):
        assert_no_loop()
        return HttpResponse(status=503)

    @ratelimit(group, "ip", "0/m", response=answer)
    async def view(request):
        return HttpResponse("async")

    refused = asyncio.run(view(get()))
    assert (refused.status_code, refused["Retry-After"]) == (503, "60")


@pytest.mark.parametrize(
    ("answer", "kind"), [(None, "NoneType"), ("later", "str"), ({"error": 1}, "dict")]
)
def test_a_response_function_returns_a_response(group, answer, kind):
    """Anything else is an error with its name, of the setting for the middleware, too."""

    def page(request, status):
        return answer

    @ratelimit(group, "ip", "0/m", response=page)
    async def async_view(request):
        return HttpResponse("async")

    what = rf"<locals>\.page, which returned {kind}; expected an HttpResponse\."
    with pytest.raises(ConfigurationError, match=f"^response of @ratelimit is {__name__}.*{what}"):
        ratelimit(group, "ip", "0/m", response=page)(ok)(get())
    with pytest.raises(ConfigurationError, match=what):
        asyncio.run(async_view(get()))
    middleware = RateLimitMiddleware(ok)
    with (
        override_settings(RATELIMIT_VIEW=page),
        pytest.raises(ConfigurationError, match=f"^RATELIMIT_VIEW is .*{what}"),
    ):
        middleware.process_exception(get(), Ratelimited())


class CustomError(Exception):
    pass


def test_raising(group):
    """As django-ratelimit does, if the settings enable it."""
    view = ratelimit(group, "ip", "0/m")(ok)
    with override_settings(RATELIMIT_RAISE=True), pytest.raises(Ratelimited) as caught:
        view(get())
    assert isinstance(caught.value, PermissionDenied)
    assert caught.value.status.limit == 0
    with override_settings(RATELIMIT_EXCEPTION_CLASS=CustomError), pytest.raises(CustomError):
        view(get())
    with (
        override_settings(RATELIMIT_EXCEPTION_CLASS=f"{__name__}.CustomError"),
        pytest.raises(CustomError),
    ):
        view(get())
    assert view(get()).status_code == 429


def test_switched_off(group):
    """RATELIMIT_ENABLE is False: nothing is limited, nothing counted."""
    view = ratelimit(group, "ip", "0/m")(ok)
    with override_settings(RATELIMIT_ENABLE=False):
        assert view(get()).status_code == 200
        assert get_usage(get(), group, key="ip", rate="0/m") is None


def test_usage(group):
    """Reading counts nothing; a refused request is not counted."""
    ask = {"group": group, "key": "ip", "rate": "2/m"}
    assert get_usage(get(), **ask) == {
        "count": 0,
        "limit": 2,
        "should_limit": False,
        "time_left": 0,
    }
    assert [is_ratelimited(get(), increment=True, **ask) for _ in range(3)] == [False, False, True]
    usage = get_usage(get(), **ask)
    assert (usage["count"], usage["limit"], usage["should_limit"]) == (2, 2, True)
    assert 0 < usage["time_left"] <= 60

    async def run():
        return await aget_usage(get(), **ask), await ais_ratelimited(get(), **ask)

    assert asyncio.run(run()) == (usage, True)
    with pytest.raises(ConfigurationError, match="need a group or a fn"):
        get_usage(get(), key="ip", rate="1/m")
