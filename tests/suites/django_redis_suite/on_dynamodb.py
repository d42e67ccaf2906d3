"""A pytest plugin: what django-redis's own tests of its cache need, with the cache on DynamoDB."""

import pytest
from django.core.cache import cache as default_cache

from dynamo_stores.cache import DynamoDBCache


class Cache(DynamoDBCache):
    # Some tests ask which of Redis's clients they run on.
    client = None


@pytest.fixture
def cache():
    yield default_cache
    default_cache.clear()
