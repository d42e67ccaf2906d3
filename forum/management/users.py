"""Users of Django, by their names, for commands."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import CommandError


def named_user(username: str) -> Any:
    """Return the user with a name. Raises CommandError."""
    users: Any = get_user_model()
    user = users.objects.filter(**{users.USERNAME_FIELD: username}).first()
    if user is None:
        raise CommandError("There is no user with this name. Make one: createsuperuser.")
    return user
