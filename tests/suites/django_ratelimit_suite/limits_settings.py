"""Settings for django-ratelimit's own tests."""

import os

DYNAMO_STORES = {
    "default": {
        "ENDPOINT_URL": os.environ["DYNAMODB_ENDPOINT"],
        "TABLE_PREFIX": os.environ["DYNAMODB_TABLE_PREFIX"],
    }
}
CACHES = {"default": {"BACKEND": "limits_suite.Clearing"}}
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
INSTALLED_APPS = ["dynamo_stores"]
RATELIMIT_RAISE = True
SECRET_KEY = "django-ratelimit-own-tests"
USE_TZ = False
