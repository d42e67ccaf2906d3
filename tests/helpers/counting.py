"""The operations that a function calls."""

from __future__ import annotations

from collections import Counter

from dynamo_stores.calls.observer import measuring


def operations(function, *args):
    """Return the operations that ``function`` made, counted."""
    with measuring() as measurements:
        function(*args)
    return Counter(each.operation for each in measurements)
