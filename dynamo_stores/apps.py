from django.apps import AppConfig
from django.core import checks


class DynamoStoresConfig(AppConfig):
    name = "dynamo_stores"
    verbose_name = "DynamoDB stores"

    def ready(self) -> None:
        from . import receivers  # noqa: F401 - importing it connects them
        from .capacity.scaler import watch
        from .checks import check_caches, check_limits, check_scaling, check_settings

        checks.register(check_settings)
        checks.register(check_caches, checks.Tags.caches)
        checks.register(check_limits)
        checks.register(check_scaling)
        watch()
