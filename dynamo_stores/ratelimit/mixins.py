"""The names of ``ratelimit.mixins``, which older versions of django-ratelimit have."""

from __future__ import annotations

from typing import Any

from . import ALL, UNSAFE
from .decorators import ratelimit


class RatelimitMixin:
    """
    Limits a class-based view. Its attributes ``ratelimit_…`` are the arguments of
    :func:`~dynamo_stores.decorators.ratelimit`; those of other names may be added.
    """

    ALL, UNSAFE = ALL, UNSAFE
    ratelimit_group: str | None = None
    ratelimit_key: Any = None
    ratelimit_rate: Any = "5/m"
    ratelimit_block = False
    ratelimit_method: Any = ALL

    def dispatch(self, *args: Any, **kwargs: Any) -> Any:
        """Count the request, then call the view."""
        prefix = "ratelimit_"
        arguments = {
            name.removeprefix(prefix): getattr(type(self), name)
            for name in dir(type(self))
            if name.startswith(prefix)
        }
        view: Any = super()
        return ratelimit(**arguments)(view.dispatch)(*args, **kwargs)
