"""Django's cache on DynamoDB: ``BACKEND = "dynamo_stores.cache.DynamoDBCache"``."""

from .backend import DynamoDBCache

__all__ = ["DynamoDBCache"]
