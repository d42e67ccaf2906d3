"""Keys made from the arguments of a function, by a template or a function."""

from __future__ import annotations

import inspect
import string
from collections.abc import Callable
from typing import Any

from .exceptions import ConfigurationError

_FORMATTER = string.Formatter()


def key_maker(
    template: str | Callable[..., str],
    signature: inspect.Signature,
    *,
    needs_parameters: bool = True,
) -> Callable[..., str]:
    """
    Return the function that makes a key from the arguments of a call.

    ``template`` is such a function, or a format string of the parameters of ``signature``. Raises
    ConfigurationError if the format string does not match them.
    """
    if callable(template):
        return template
    known = list(signature.parameters)
    try:
        named = {
            name.partition(".")[0].partition("[")[0]
            for _, name, _, _ in _FORMATTER.parse(template)
            if name is not None
        }
    except (TypeError, ValueError) as exc:
        raise ConfigurationError(f"{template!r} is not a valid key template: {exc}.") from exc
    if unknown := named - set(known):
        raise ConfigurationError(
            f"The key template {template!r} names {', '.join(map(repr, sorted(unknown)))}; the "
            f"function's parameters are {', '.join(map(repr, known)) or 'none'}."
        )
    if needs_parameters and known and not named:
        raise ConfigurationError(
            f"The key template {template!r} has none of the parameters "
            f"{', '.join(map(repr, known))}, so all calls would share one value. Add those that "
            f"determine the value, as in '{template}:{{{known[0]}}}', or pass a function that "
            "returns the key."
        )

    def make(*args: Any, **kwargs: Any) -> str:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return _FORMATTER.vformat(template, (), bound.arguments)

    return make
