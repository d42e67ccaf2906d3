"""Keys made of a function's arguments, as a template or a function says."""

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
    Return what makes a key of the arguments of a call, by a template of the parameters of
    ``signature`` or by a function. Raises ConfigurationError for a template that does not fit.
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
        raise ConfigurationError(f"{template!r} is no template of a key: {exc}.") from exc
    if unknown := named - set(known):
        raise ConfigurationError(
            f"The template {template!r} names {', '.join(map(repr, sorted(unknown)))}; the "
            f"function's parameters are {', '.join(map(repr, known)) or 'none'}."
        )
    if needs_parameters and known and not named:
        raise ConfigurationError(
            f"The key {template!r} names none of the parameters {', '.join(map(repr, known))}, so "
            "that all calls would share one value. Name those that decide about it, as in "
            f"'{template}:{{{known[0]}}}', or pass a function that returns the key."
        )

    def make(*args: Any, **kwargs: Any) -> str:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return _FORMATTER.vformat(template, (), bound.arguments)

    return make
