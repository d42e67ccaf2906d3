"""Users of Django, by their names, for commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import CommandError
from django.db import OperationalError, ProgrammingError


@contextmanager
def sql_tables() -> Iterator[None]:
    """Raise CommandError in the block if the SQL database cannot be read or has no tables."""
    try:
        yield
    except (OperationalError, ProgrammingError) as exc:
        raise CommandError(
            f"The SQL database cannot be used: {exc}. If it is new, run manage.py migrate first."
        ) from exc


def named_user(username: str) -> Any:
    """Return the user with a name. Raises CommandError."""
    users: Any = get_user_model()
    user = users.objects.filter(**{users.USERNAME_FIELD: username}).first()
    if user is None:
        raise CommandError("There is no user with this name. Make one: createsuperuser.")
    return user
