from django.apps import AppConfig, apps
from django.core import checks


class DynamoStoresConfig(AppConfig):
    name = "dynamo_stores"
    verbose_name = "DynamoDB stores"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import receivers  # noqa: F401 - the import connects them
        from .capacity import scale_up as scaler
        from .checks import check_admin, check_caches, check_limits, check_scaling, check_settings
        from .monitoring import reporter as reports

        checks.register(check_settings)
        checks.register(check_caches, checks.Tags.caches)
        checks.register(check_limits)
        checks.register(check_scaling)
        checks.register(check_admin, checks.Tags.admin)
        scaler.watch()
        reports.watch()
        from .admin import permissions  # noqa: F401 - the model that carries the permissions

        if apps.is_installed("django.contrib.admin"):
            from .admin import index  # noqa: F401 - the import registers it
