from django.apps import AppConfig
from django.core import checks


class DynamoStoresConfig(AppConfig):
    name = "dynamo_stores"
    verbose_name = "DynamoDB stores"

    def ready(self) -> None:
        from .checks import check_caches, check_limits, check_settings

        checks.register(check_settings)
        checks.register(check_caches, checks.Tags.caches)
        checks.register(check_limits)
