"""
Checks of values that another process wrote: each returns the value, or raises ValueError. Pure.

A process of another version, or any software with access to the control table, may write anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The largest number, and the latest moment, that a page shows.
_LARGEST, _LATEST = 1e15, 1e11


def number_of(value: Any) -> float:
    """Return a finite number from 0 on."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"Expected a number, not {type(value).__name__}.")
    if not 0 <= value <= _LARGEST:
        raise ValueError("The number is out of range.")
    return value


def count_of(value: Any) -> int:
    """Return a whole number from 0 on."""
    if not isinstance(value, int):
        raise ValueError(f"Expected a whole number, not {type(value).__name__}.")
    return int(number_of(value))


def time_of(value: Any) -> float:
    """Return a moment in seconds since the epoch, before the year 5000."""
    if number_of(value) > _LATEST:
        raise ValueError("The time is out of range.")
    return float(value)


def text_of(value: Any) -> str:
    """Return a text that can be sent to a browser."""
    if not isinstance(value, str):
        raise ValueError(f"Expected a text, not {type(value).__name__}.")
    value.encode()  # UnicodeEncodeError, a ValueError, for half a surrogate pair
    return value


def list_of(value: Any) -> list[Any]:
    """Return a list."""
    if not isinstance(value, list):
        raise ValueError(f"Expected a list, not {type(value).__name__}.")
    return value


def mapping_of(value: Any) -> Mapping[Any, Any]:
    """Return a mapping."""
    if not isinstance(value, Mapping):
        raise ValueError(f"Expected an object, not {type(value).__name__}.")
    return value
