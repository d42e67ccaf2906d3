"""The project with django-debug-toolbar."""

from project.settings import *  # noqa: F403
from project.settings import INSTALLED_APPS, MIDDLEWARE

INSTALLED_APPS = [*INSTALLED_APPS, "debug_toolbar"]
MIDDLEWARE = ["debug_toolbar.middleware.DebugToolbarMiddleware", *MIDDLEWARE]
DEBUG_TOOLBAR_PANELS = [
    "debug_toolbar.panels.timer.TimerPanel",
    "dynamo_stores.monitoring.panel.DynamoDBPanel",
    "debug_toolbar.panels.cache.CachePanel",
]
INTERNAL_IPS = ["127.0.0.1"]
ROOT_URLCONF = "tests.browser.toolbar_site"
