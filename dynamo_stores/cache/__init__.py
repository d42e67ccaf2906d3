"""Django's cache on DynamoDB: ``BACKEND = "dynamo_stores.cache.DynamoDBCache"``."""

from django.core.cache import DEFAULT_CACHE_ALIAS, caches

from ..exceptions import ConfigurationError
from .backend import DynamoDBCache

__all__ = ["DynamoDBCache", "cache_for"]


def cache_for(name: str = DEFAULT_CACHE_ALIAS) -> DynamoDBCache:
    """
    Return the cache ``name`` of ``CACHES``, typed: type checkers know its methods beyond Django's.

    Raises ConfigurationError if its backend is not DynamoDBCache or a subclass.
    """
    found = caches[name]
    if not isinstance(found, DynamoDBCache):
        raise ConfigurationError(
            f"CACHES[{name!r}]['BACKEND'] is {type(found).__name__}; expected "
            "'dynamo_stores.cache.DynamoDBCache' or a subclass."
        )
    return found
