"""Functions in arguments of decorators: whether they are valid, and calling them."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from asgiref.sync import iscoroutinefunction

from ..exceptions import ConfigurationError

_EXPECTED = (
    "expected a plain function. Functions of async views run in a thread, where they may use the "
    "database."
)


def name_of(function: Any) -> str:
    """Return the module and the name of ``function`` or its path; of an object, of its class."""
    if isinstance(function, str):
        return function
    while isinstance(function, functools.partial):
        function = function.func
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def is_coroutine_function(function: Any) -> bool:
    """Return whether ``function`` is one, or a partial or an object that calls one."""
    while isinstance(function, functools.partial):
        function = function.func
    return iscoroutinefunction(function) or iscoroutinefunction(type(function).__call__)


def check_not_async(name: str, value: Any) -> None:
    """Raise ConfigurationError if ``value``, that of the argument ``name``, is async."""
    if callable(value) and is_coroutine_function(value):
        raise ConfigurationError(f"{name} is a coroutine function, {name_of(value)}; {_EXPECTED}")


def function_error(function: Any, *arguments: str) -> str:
    """Return what ``function`` is instead of a function of ``arguments``, ``""`` if it is one."""
    named = " and ".join(arguments)
    if not callable(function):
        return f"is {function!r}; expected a function of {named}, or its dotted path."
    if is_coroutine_function(function):
        return f"is a coroutine function, {name_of(function)}; {_EXPECTED}"
    try:
        # A function that wraps another is called with its own arguments.
        inspect.signature(function, follow_wrapped=False).bind(*arguments)
    except TypeError as exc:
        return (
            f"is {name_of(function)}; expected a function of {named}, and it cannot be called with "
            f"them: {exc}."
        )
    except ValueError:  # a function without a signature, such as some of C
        return ""
    return ""


def call(name: str, function: Any, *args: Any) -> Any:
    """
    Return what ``function``, the value of the argument ``name``, returns for ``args``.

    Raises ConfigurationError if it is async.
    """
    return check_result(name, function, function(*args))


def check_result(name: str, function: Any, result: Any) -> Any:
    """
    Return ``result``, what ``function``, the value of the argument ``name`` or its dotted path,
    returned. Raises ConfigurationError if it is to be awaited.
    """
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            # Python would warn that it is never awaited.
            result.close()
        check_not_async(name, function)
        raise ConfigurationError(
            f"{name} is {name_of(function)}, which returned {type(result).__name__}; {_EXPECTED}"
        )
    return result
