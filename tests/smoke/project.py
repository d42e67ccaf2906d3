"""The Django project of the suite: an admin on SQLite in memory, and two aliases."""

from __future__ import annotations

import django
from django.conf import settings

from .place import Place

# What the provisioned table begins with, and what its reads are raised to.
BASE_UNITS, RAISED_READS = 1, 2
ON_DEMAND, PROVISIONED = "default", "provisioned"
# The table of the stores of the first one, without the prefix.
TABLE = "on-demand"


def set_up(place: Place, prefix: str) -> None:
    """Configure Django for one run; tables begin with ``prefix``."""
    alias = {
        "ENDPOINT_URL": place.endpoint,
        "REGION": place.region,
        "TABLE_PREFIX": prefix,
        "METRICS": {"SINKS": []},
    }
    settings.configure(
        SECRET_KEY="for one run of the smoke suite",
        ALLOWED_HOSTS=["testserver"],
        USE_TZ=True,
        ROOT_URLCONF="tests.smoke.urls",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=[
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.messages",
            "django.contrib.sessions",
            "dynamo_stores",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        STATIC_URL="static/",
        CACHES={
            "default": {
                "BACKEND": "dynamo_stores.cache.DynamoDBCache",
                "LOCATION": ON_DEMAND,
                "KEY_PREFIX": "smoke",
                # Far from the region each call takes long.
                "OPTIONS": {"OPERATION_TIMEOUT": 30.0},
            }
        },
        DYNAMO_STORES={
            ON_DEMAND: {**alias, "TABLE_NAME": TABLE},
            PROVISIONED: {
                **alias,
                "TABLE_NAME": "provisioned",
                "BILLING_MODE": "PROVISIONED",
                "REPORTS": {"ENABLED": False},
                "SCALING": {
                    "BASE_READ_CAPACITY": BASE_UNITS,
                    "BASE_WRITE_CAPACITY": BASE_UNITS,
                },
            },
        },
    )
    django.setup()
