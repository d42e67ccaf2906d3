"""The limits of the forum's own views."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dynamo_stores.decorators import ratelimit

View = Callable[..., Any]


def limit_log_ins(view: View) -> View:
    """
    Limit the log-ins of a view: 10 a minute from an address, 20 an hour for an account.

    Both views of this project, the forum's and the admin's, share the limits. While DynamoDB is
    away each process limits by itself.
    """
    for group, key, rate in (
        ("log-in.address", "ip", "10/m"),
        ("log-in.account", "post:username", "20/h"),
    ):
        view = ratelimit(group, key, rate, method="POST", on_unavailable="local")(view)
    return view
