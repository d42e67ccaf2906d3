"""Keys made from the arguments of a function, by a template or a function."""

from __future__ import annotations

import inspect
import string
from collections.abc import Callable
from typing import Any, TypeVar

from .exceptions import ConfigurationError

R = TypeVar("R")
_FORMATTER = string.Formatter()


def key_maker(
    template: str | Callable[..., str],
    signature: inspect.Signature,
    *,
    needs_parameters: bool = True,
) -> Callable[..., str]:
    """
    Return the function that makes a key from the arguments of a call.

    ``template`` is such a function (:func:`with_defaults`), or a format string of the parameters of
    ``signature``. Raises ConfigurationError if the format string does not match them.
    """
    if callable(template):
        return with_defaults(template, signature)
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


def with_defaults(function: Callable[..., R], signature: inspect.Signature) -> Callable[..., R]:
    """
    Return ``function``, called with the arguments of a call and the defaults of the parameters of
    ``signature`` that the call leaves out.

    Arguments stay positional or by name, as they were passed. A function that does not take the
    defaults gets what was passed.
    """
    try:
        own = inspect.signature(function)
    except ValueError:
        # Some functions that are written in C have no signature.
        return function

    def call(*args: Any, **kwargs: Any) -> R:
        for more, named in _completed(signature, args, kwargs):
            if _takes(own, more, named):
                return function(*more, **named)
        return function(*args, **kwargs)

    return call


def _completed(
    signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Return the arguments with the defaults: by position where that is possible, and by name."""
    try:
        passed = signature.bind(*args, **kwargs).arguments
    except TypeError:
        # The call of the decorated function raises it.
        return []
    positional, by_place, by_name = list(args), dict(kwargs), dict(kwargs)
    for place, (name, parameter) in enumerate(signature.parameters.items()):
        if name in passed or parameter.default is parameter.empty:
            continue
        by_name[name] = parameter.default
        if parameter.kind is parameter.KEYWORD_ONLY or place != len(positional):
            by_place[name] = parameter.default
        else:
            positional.append(parameter.default)
    return [(tuple(positional), by_place), (args, by_name)]


def _takes(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True
