"""Django's models of the forum: what belongs to an account, in SQL."""

from __future__ import annotations

from typing import Any, ClassVar

from django.conf import settings
from django.db import models


class Account(models.Model):
    """
    The profile of a user of Django, which may be made later. ``is_linked`` says that it was there
    before, and the staff gave it to the user.
    """

    user: models.OneToOneField[Any, Any] = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="forum_account"
    )
    profile_id: models.CharField[str, str] = models.CharField(max_length=255, unique=True)
    is_linked: models.BooleanField[bool, bool] = models.BooleanField(default=False)

    class Meta:
        app_label = "forum"

    def __str__(self) -> str:
        return self.profile_id


class Token(models.Model):
    """
    A token with which programs write for a user, who has one of each name. Its text is not stored,
    only a digest.
    """

    user: models.ForeignKey[Any, Any] = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="forum_tokens"
    )
    name: models.CharField[str, str] = models.CharField(max_length=100)
    digest: models.CharField[str, str] = models.CharField(max_length=64, unique=True)
    created_at: models.DateTimeField[Any, Any] = models.DateTimeField(auto_now_add=True)

    class Meta:
        app_label = "forum"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["user", "name"], name="forum_token_name")
        ]

    def __str__(self) -> str:
        return self.name
