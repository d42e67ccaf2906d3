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
    return _limit(view, "log-in", by_address="10/m", by_account="20/h")


def limit_sign_ups(view: View) -> View:
    """Limit the sign-ups of a view: 20 an hour from an address, 10 an hour for a user name."""
    return _limit(view, "sign-up", by_address="20/h", by_account="10/h")


def _limit(view: View, group: str, *, by_address: str, by_account: str) -> View:
    for name, key, rate in (
        ("address", "ip", by_address),
        ("account", "post:username", by_account),
    ):
        view = ratelimit(f"{group}.{name}", key, rate, method="POST", on_unavailable="local")(view)
    return view
