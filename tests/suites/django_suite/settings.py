"""What Django's own tests of its cache need, with the cache on DynamoDB."""

import os

ALIAS = {
    "ENDPOINT_URL": os.environ["DYNAMODB_ENDPOINT"],
    "TABLE_PREFIX": os.environ["DYNAMODB_TABLE_PREFIX"],
}
DYNAMO_STORES = {
    "default": ALIAS,
    "other": {**ALIAS, "TABLE_PREFIX": f"{ALIAS['TABLE_PREFIX']}other-"},
}
CACHES = {"default": {"BACKEND": "dynamo_stores.cache.DynamoDBCache"}}

SECRET_KEY = "djangos-own-tests"
USE_TZ = False
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
DATABASES = {
    name: {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    for name in ("default", "other")
}
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sites",
    "django.contrib.sessions",
    "django.contrib.messages",
    "dynamo_stores",
    "cache",
    "sessions_tests",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
ROOT_URLCONF = "urls"
SITE_ID = 1
LANGUAGE_CODE = "en"
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
