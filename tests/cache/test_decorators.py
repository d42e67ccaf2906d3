"""@cached: the results of a function, kept under a key made of its arguments."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.core.cache import caches
from django.test import override_settings

from dynamo_stores.decorators import cached
from dynamo_stores.exceptions import ConfigurationError


@pytest.fixture(params=["", "dynamo_stores.cache.DynamoDBCache", "locmem"])
def backend(request, tables):
    """Ours without and with a lease, and one of Django's."""
    name = "django.core.cache.backends.locmem.LocMemCache"
    params = {"BACKEND": "dynamo_stores.cache.DynamoDBCache", "KEY_PREFIX": "cached"}
    if request.param == "locmem":
        params = {"BACKEND": name}
    elif request.param:
        params["OPTIONS"] = {"STAMPEDE_LEASE": 10}
    with override_settings(CACHES={"default": params}):
        yield caches["default"]
        caches["default"].clear()


def test_a_result_is_computed_once_per_key(backend):
    """By attributes of arguments, by name or position, with defaults; None is a result."""
    calls = []

    @cached(60, key="profile:{user.pk}:{size}")
    def profile(user, size="s"):
        calls.append((user.pk, size))
        return None if size == "none" else f"{user.pk}{size}"

    ada, bob = SimpleNamespace(pk=1), SimpleNamespace(pk=2)
    assert [profile(ada), profile(user=ada), profile(ada, "s"), profile(bob)] == ["1s"] * 3 + ["2s"]
    assert profile(ada, "none") is None
    assert profile(ada, "none") is None
    assert calls == [(1, "s"), (2, "s"), (1, "none")]
    backend.delete(profile.cache_key(ada))
    assert profile(ada) == "1s"
    assert len(calls) == 4


def test_key_functions_get_the_defaults(backend):
    """A call with the default has the same key as one without."""
    calls = []

    @cached(60, key=lambda year, month, *, full: f"{year}-{month}-{full}")
    def report(year, month=1, *, full=False):
        calls.append((year, month, full))
        return f"{year}-{month}"

    assert [
        report(2024),
        report(2024, 1),
        report(year=2024),
        report(2024, month=1, full=False),
    ] == ["2024-1"] * 4
    assert calls == [(2024, 1, False)]
    assert report.cache_key(2024, month=2) == "2024-2-False"


@pytest.mark.parametrize(
    ("key", "args", "kwargs", "expected"),
    [
        (lambda *args, **kwargs: f"{args}{kwargs}", (1,), {"c": 4}, "(1,){'c': 4}"),
        (lambda *args, **kwargs: f"{args}{kwargs}", (1, 5, 6), {"d": 7}, "(1, 5, 6){'d': 7}"),
        (lambda x, y, **others: f"{x}{y}{others}", (1,), {}, "12{}"),
        (lambda x, y, **others: f"{x}{y}{others}", (1, 4), {"c": 5}, "14{'c': 5}"),
        (lambda x, y, /, c: f"{x}{y}{c}", (1,), {}, "123"),
        (lambda a, b, /: f"{a}{b}", (1,), {}, "12"),
        (lambda a, *, b, c: f"{a}{b}{c}", (1,), {}, "123"),
        (lambda a, c, b: f"{a}{b}{c}", (1,), {}, "123"),
        (lambda a, *more, c: f"{a}{more}{c}", (1, 4, 5), {}, "1(4, 5)3"),
        (lambda a, **others: f"{a}{others}", (1,), {}, "1{}"),
        (lambda a, name="own": f"{a}{name}", (1,), {}, "1own"),
        (lambda a, name="own", b="own": f"{a}{name}{b}", (1,), {}, "1own2"),
        (lambda a: f"only {a}", (1,), {}, "only 1"),
        (str, (1,), {}, "1"),
        (lambda a, b: f"{a}{b}", (), {}, None),
    ],
)
def test_what_key_functions_get(key, args, kwargs, expected):
    """Arguments as they were passed, and defaults in the parameters that are meant for them."""

    @cached(60, key=key)
    def function(a, b=2, *more, c=3, **others):
        return None

    if expected is None:
        with pytest.raises(TypeError, match="missing 2 required"):
            function.cache_key(*args, **kwargs)
    else:
        assert function.cache_key(*args, **kwargs) == expected


@pytest.mark.parametrize("timeout", [timedelta(days=1), "300", True])
def test_a_timeout_that_is_no_number_is_an_error(timeout):
    """When the decorator is applied."""
    with pytest.raises(ConfigurationError, match=r"^timeout of @cached is .*; expected seconds"):
        cached(timeout, key="k")


@pytest.mark.parametrize("key", [None, ""])
def test_a_key_function_without_a_key_is_an_error(backend, key):
    """All calls would share one value."""

    @cached(60, key=lambda user: key)
    def secret(user):
        return f"secret of {user}"

    with pytest.raises(ConfigurationError, match=rf"<lambda> returned {key!r}; expected a key"):
        secret("ann")


def test_a_key_function_keeps_its_own_defaults(backend):
    """Two functions do not share a value by the default of another parameter."""

    def by(kind):
        return lambda user, kind=kind: f"{kind}:{user}"

    @cached(60, key=by("profile"))
    def profile(user, full=False):
        return f"profile of {user}"

    @cached(60, key=by("photo"))
    def photo(user, full=False):
        return f"photo of {user}"

    assert [profile("ada"), photo("ada")] == ["profile of ada", "photo of ada"]


def test_coroutine_functions(backend):
    """They are awaited once, and stay coroutine functions."""
    calls = []

    @cached(60, key=lambda number: f"square:{number}")
    async def square(number):
        calls.append(number)
        return number * number

    async def run():
        return [await square(3), await square(3), await square(4)]

    assert asyncio.run(run()) == [9, 9, 16]
    assert calls == [3, 4]
    assert asyncio.iscoroutinefunction(square)


def test_tags(make_cache, tables):
    """Templates of the arguments, or a function of them and of the defaults."""
    params = {"BACKEND": "dynamo_stores.cache.DynamoDBCache", "KEY_PREFIX": "cached"}
    calls = []
    with override_settings(CACHES={"default": params}):

        @cached(60, key="a:{user}", tags=["user:{user}", "all"])
        def one(user):
            calls.append(user)

        @cached(60, key="b:{user}", tags=lambda user, kind: [f"{kind}:{user}"])
        def other(user, kind="user"):
            calls.append(user)

        for tags in ([], ["user:1"], ["all"]):
            caches["default"].invalidate_tags(tags)
            one(1)
            other(1)
        caches["default"].clear()
    assert len(calls) == 2 + 2 + 1


@pytest.mark.parametrize(
    ("key", "tags", "message"),
    [
        ("k:{unknown}", None, "names 'unknown'; the function's parameters are 'user', 'size'"),
        ("k", None, "has none of the parameters"),
        ("k:{0}", None, "names '0'"),
        ("k:{", None, "not a valid key template"),
        ("k:{user}", "user", "tags is the string 'user'"),
        ("k:{user}", ["{unknown}"], "names 'unknown'"),
    ],
)
def test_what_does_not_fit_is_refused_at_once(key, tags, message):
    """When the function is decorated, not when it is called."""
    with pytest.raises(ConfigurationError, match=message):
        cached(60, key=key, tags=tags)(lambda user, size=1: None)


def test_a_function_without_parameters(backend):
    """Has one key."""

    @cached(60, key="constant")
    def constant():
        return 42

    assert constant() == constant() == 42
