"""django-ratelimit's own tests, but for those of what a strict window in DynamoDB is not."""

import unittest

from django.core.cache.backends.locmem import LocMemCache
from django_ratelimit import tests

from dynamo_stores.calls.control import get_control
from dynamo_stores.infrastructure.tables import create_table, table_of
from dynamo_stores.models import StoreItem
from dynamo_stores.ratelimit.memory import _memories

# They are about Django's caches, in which nothing is counted here.
OTHERS = {"CacheFailTests"}
# Their count includes refused requests, which a strict window does not count.
COUNTS_REFUSED = {"test_get_usage_increment", "test_not_increment_after_increment"}


class Clearing(LocMemCache):
    """A cache whose ``clear`` forgets what was counted, as the tests expect."""

    def clear(self):
        spec = table_of(StoreItem)
        get_control().call("DeleteTable", {"TableName": spec.name})
        create_table(spec, lambda line: None)
        _memories.clear()


def load_tests(loader, standard_tests, pattern):
    suite = unittest.TestSuite()
    for name, case in vars(tests).items():
        if name.endswith("Tests") and name not in OTHERS:
            chosen = set(loader.getTestCaseNames(case)) - COUNTS_REFUSED
            suite.addTests(case(each) for each in sorted(chosen))
    return suite
