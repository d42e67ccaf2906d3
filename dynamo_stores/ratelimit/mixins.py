"""The names of ``ratelimit.mixins``, which older versions of django-ratelimit have."""

from __future__ import annotations

import inspect
from typing import Any

from . import ALL, UNSAFE
from .decorators import ratelimit
from .problems import note_attributes

_PREFIX = "ratelimit_"
_NAMES = tuple(inspect.signature(ratelimit).parameters)


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

    @classmethod
    def as_view(cls, *args: Any, **kwargs: Any) -> Any:
        """Return the view. Its arguments are noted for the system check."""
        parent: Any = super()
        view = parent.as_view(*args, **kwargs)
        # As the decorator names the method that it is applied to.
        name = f"{cls.__module__}.{cls.__name__}.{parent.dispatch.__qualname__}"
        note_attributes(_arguments(cls), _NAMES, _PREFIX, f"@ratelimit on {name}")
        return view

    def dispatch(self, *args: Any, **kwargs: Any) -> Any:
        """Count the request, then call the view."""
        view: Any = super()
        return ratelimit(**_arguments(type(self)))(view.dispatch)(*args, **kwargs)


def _arguments(kind: type) -> dict[str, Any]:
    return {
        name.removeprefix(_PREFIX): getattr(kind, name)
        for name in dir(kind)
        if name.startswith(_PREFIX)
    }
