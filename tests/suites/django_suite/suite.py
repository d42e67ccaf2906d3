"""Django's own tests of caches, sessions, cache middleware and the cache tag, on ours."""

import unittest

from asgiref.sync import async_to_sync
from cache import tests as caches
from django.test import TestCase, override_settings
from sessions_tests import tests as sessions
from template_tests.syntax_tests import test_cache as tags

from dynamo_stores.cache import DynamoDBCache

BACKEND = f"{__name__}.PatientCache"
DRIVEN = f"{__name__}.AsyncDrivenCache"
VERBS = [
    "get", "set", "add", "touch", "delete", "has_key", "get_many", "set_many", "delete_many",
    "incr", "decr", "incr_version", "decr_version", "get_or_set", "clear",
]  # fmt: skip


def _driven(verb):
    def method(self, *args, **kwargs):
        return async_to_sync(getattr(self, f"a{verb}"))(*args, **kwargs)

    return method


class PatientCache(DynamoDBCache):
    """The backend, with time for its answers on a busy machine."""

    def __init__(self, location, params):
        options = {"OPERATION_TIMEOUT": 30.0, **params.get("OPTIONS", {})}
        super().__init__(location, {**params, "OPTIONS": options})


class AsyncDrivenCache(PatientCache):
    """Each method is its async twin."""


class _Caches(caches.BaseCacheTests):
    def tearDown(self):
        super().tearDown()
        # Clearing one prefix leaves the others alone.
        caches.caches["prefix"].clear()

    @unittest.skip("There is no limit of entries, so nothing is culled.")
    def test_cull(self):
        pass

    @unittest.skip("There is no limit of entries, so nothing is culled.")
    def test_zero_cull(self):
        pass


@override_settings(CACHES=caches.caches_setting_for_tests(BACKEND=BACKEND))
class DynamoDBCacheTests(_Caches, TestCase):
    pass


@override_settings(CACHES=caches.caches_setting_for_tests(BACKEND=DRIVEN))
class AsyncDrivenCacheTests(_Caches, TestCase):
    def setUp(self):
        super().setUp()
        for verb in VERBS:
            setattr(AsyncDrivenCache, verb, _driven(verb))
            self.addCleanup(delattr, AsyncDrivenCache, verb)


def _on_ours(cls):
    """Return ``cls`` with every cache that it sets replaced by one of ours."""
    own = (cls._overridden_settings or {}).get("CACHES", {"default": {}})
    places = list(dict.fromkeys(params.get("LOCATION", "") for params in own.values()))
    converted = {
        name: {
            **params,
            "BACKEND": BACKEND,
            "LOCATION": ["default", "other"][places.index(params.get("LOCATION", ""))],
        }
        for name, params in own.items()
    }
    made = type(f"DynamoDB{cls.__name__}", (cls,), {"__module__": __name__})
    return override_settings(CACHES=converted)(made)


for _cls in (
    caches.CacheUtils,
    caches.PrefixedCacheUtils,
    caches.CacheHEADTest,
    caches.CacheI18nTest,
    caches.PrefixedCacheI18nTest,
    caches.CacheMiddlewareTest,
    caches.TestWithTemplateResponse,
    sessions.CacheSessionTests,
    sessions.CacheDBSessionTests,
    sessions.CacheDBSessionWithTimeZoneTests,
    tags.CacheTagTests,
):
    _made = _on_ours(_cls)
    globals()[_made.__name__] = _made
del _cls, _made


def load_tests(loader, standard_tests, pattern):
    """Only the classes made here, not those that they were made of."""
    own = [each for each in globals().values() if isinstance(each, type)]
    return unittest.TestSuite(
        loader.loadTestsFromTestCase(each)
        for each in own
        if issubclass(each, unittest.TestCase) and each.__module__ == __name__
    )
