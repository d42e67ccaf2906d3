from django.apps import AppConfig
from django.db.models.signals import post_delete


class ForumConfig(AppConfig):
    name = "forum"

    def ready(self) -> None:
        from .accounts import release_deleted
        from .sql import Account

        post_delete.connect(release_deleted, sender=Account)
