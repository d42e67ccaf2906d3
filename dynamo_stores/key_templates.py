"""Keys made from the arguments of a function, by a template or a function."""

from __future__ import annotations

import inspect
import string
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

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
    ``signature``. Raises ConfigurationError if the format string does not match them; the function
    that is returned, if it has no key.
    """
    if callable(template):
        return _key_function(template, signature)
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


def _key_function(function: Callable[..., str], signature: inspect.Signature) -> Callable[..., str]:
    call = with_defaults(function, signature)
    name = getattr(function, "__qualname__", repr(function))

    def make(*args: Any, **kwargs: Any) -> str:
        key = call(*args, **kwargs)
        if key is None or key == "":
            raise ConfigurationError(
                f"The key function {name} returned {key!r}; expected a key, because all such calls "
                "would share one value. Is a return missing?"
            )
        return key

    return make


class _Default(NamedTuple):
    """
    The default of the parameter ``name``, and the parameter of the key function that gets it, with
    its place among the positional ones.
    """

    name: str
    value: Any
    target: inspect.Parameter
    place: int


def with_defaults(function: Callable[..., R], signature: inspect.Signature) -> Callable[..., R]:
    """
    Return ``function``, called with the arguments of a call and the defaults of the parameters of
    ``signature`` that the call leaves out.

    Arguments stay positional or by name, as they were passed. A parameter of ``function`` gets the
    default of that with its name, or of that in its place if it has no default of its own.
    """
    try:
        own = inspect.signature(function)
    except ValueError:
        # Some functions that are written in C have no signature.
        return function
    defaults = list(_defaults_for(own, signature))
    if not defaults:
        return function

    def call(*args: Any, **kwargs: Any) -> R:
        try:
            passed = signature.bind(*args, **kwargs).arguments
        except TypeError:
            # The call of the decorated function raises it.
            return function(*args, **kwargs)
        positional, named = list(args), dict(kwargs)
        for name, value, target, place in defaults:
            if name in passed or target.name in named or place < len(args):
                continue
            if target.kind is not target.POSITIONAL_ONLY:
                named[target.name] = value
            elif place == len(positional):
                positional.append(value)
        return function(*positional, **named)

    return call


def _defaults_for(own: inspect.Signature, signature: inspect.Signature) -> Iterator[_Default]:
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    places = [each for each in own.parameters.values() if each.kind in positional]
    for place, (name, parameter) in enumerate(signature.parameters.items()):
        if parameter.default is parameter.empty:
            continue
        target = own.parameters.get(name)
        if target is None or target.kind not in by_name:
            if parameter.kind not in positional or place >= len(places):
                continue
            target = places[place]
            # By name it gets the default of the parameter with its name.
            has_own = target.kind in by_name and target.name in signature.parameters
            if target.default is not target.empty or has_own:
                continue
        # An argument by name alone has no place that one by position could take.
        at = places.index(target) if target in places else sys.maxsize
        yield _Default(name, parameter.default, target, at)
