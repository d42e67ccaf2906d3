"""The model behind the entry on the admin's index and the permissions; it has no table."""

from django.db import models


class Status(models.Model):
    """A model without rows; the status itself is in DynamoDB."""

    class Meta:
        app_label = "dynamo_stores"
        managed = False
        default_permissions = ()
        permissions = (
            ("view_status", "Can view the status of DynamoDB"),
            ("manage_capacity", "Can reset circuit breakers and change capacity"),
        )
        verbose_name = "status"
        verbose_name_plural = "Status"

    def __str__(self) -> str:
        return "Status"
