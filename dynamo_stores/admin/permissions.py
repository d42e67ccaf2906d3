"""The model behind the entry on the admin's index and the permissions; it has no table."""

from typing import Any

from django.db import models


class _NoRows(models.Manager):  # type: ignore[type-arg]
    """Asks no database: ``dumpdata`` and the admin's links find nothing."""

    use_in_migrations = False

    def get_queryset(self) -> models.QuerySet[Any]:
        return super().get_queryset().none()


class Status(models.Model):
    """A model without rows; the status itself is in DynamoDB."""

    objects = _NoRows()

    class Meta:
        app_label = "dynamo_stores"
        managed = False
        base_manager_name = "objects"
        default_permissions = ()
        permissions = (
            ("view_status", "Can view the status of DynamoDB"),
            ("manage_capacity", "Can reset circuit breakers and change capacity"),
            ("manage_data", "Can delete cache entries, reset limits and release jobs"),
        )
        verbose_name = "status"
        verbose_name_plural = "Status"

    def __str__(self) -> str:
        return "Status"
