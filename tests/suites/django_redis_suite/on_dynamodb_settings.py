"""Settings for django-redis's own tests."""

import os

DYNAMO_STORES = {
    "default": {
        "ENDPOINT_URL": os.environ["DYNAMODB_ENDPOINT"],
        "TABLE_PREFIX": os.environ["DYNAMODB_TABLE_PREFIX"],
    }
}
CACHES = {"default": {"BACKEND": "on_dynamodb.Cache", "KEY_PREFIX": "redis"}}
INSTALLED_APPS = ["dynamo_stores"]
SECRET_KEY = "django-redis-own-tests"
USE_TZ = False
