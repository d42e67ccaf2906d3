import sys
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from django.apps import AppConfig, apps
from django.core import checks


class DynamoStoresConfig(AppConfig):
    name = "dynamo_stores"
    verbose_name = "DynamoDB stores"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # A web process imports what it uses, because its start takes time.
        from . import receivers
        from .monitoring import exporter, meter, reporter  # noqa: F401 - its threads begin later
        from .monitoring.notifications import sources  # noqa: F401 - the import connects them

        receivers.watch()
        meter.watch()
        exporter.watch()
        exporter.watch_requests()
        if "celery" in sys.modules:
            from . import celery_receivers  # noqa: F401 - the import connects them
        for name, *tags in (
            ("check_settings",),
            ("check_models",),
            ("check_tables",),
            ("check_references",),
            ("check_caches", checks.Tags.caches),
            ("check_limits",),
            ("check_advice",),
            ("check_scaling",),
            ("check_admin", checks.Tags.admin),
        ):
            checks.register(_check(name), *tags)
        from .admin import permissions  # noqa: F401 - the model that carries the permissions

        if apps.is_installed("django.contrib.admin"):
            from .admin import index  # noqa: F401 - the import registers it


# The same function each time, because Django registers each function once.
@cache
def _check(name: str) -> Callable[..., Iterable[checks.CheckMessage]]:
    def check(app_configs: Any, **kwargs: Any) -> Iterable[checks.CheckMessage]:
        from . import checks as own

        found: Iterable[checks.CheckMessage] = getattr(own, name)(app_configs, **kwargs)
        return found

    return check
