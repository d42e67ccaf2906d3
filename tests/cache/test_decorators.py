"""@cached: the results of a function, kept under a key made of its arguments."""

from __future__ import annotations

import asyncio
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
    """Templates of the arguments, or a function of them."""
    params = {"BACKEND": "dynamo_stores.cache.DynamoDBCache", "KEY_PREFIX": "cached"}
    calls = []
    with override_settings(CACHES={"default": params}):

        @cached(60, key="a:{user}", tags=["user:{user}", "all"])
        def one(user):
            calls.append(user)

        @cached(60, key="b:{user}", tags=lambda user: [f"user:{user}"])
        def other(user):
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
