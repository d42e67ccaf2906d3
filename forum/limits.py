"""The limits of the forum's own views."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest

from dynamo_stores.decorators import ratelimit

from . import accounts

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


def limit_password_changes(view: View) -> View:
    """Limit the changes of passwords of a view: 20 an hour for a user."""
    return ratelimit("password", "user", "20/h", method="POST", on_unavailable="local")(view)


def limit_password_resets(view: View) -> View:
    """Limit the e-mails of a view: 20 an hour from an address, 5 an hour to an e-mail address."""
    return _limit(view, "password-reset", by_address="20/h", by_account="5/h", account=_email)


def _email(group: str, request: HttpRequest) -> str:
    # As Django compares it with the addresses of accounts.
    return accounts.plain(request.POST.get("email", "").strip())


def _limit(
    view: View, group: str, *, by_address: str, by_account: str, account: Any = "post:username"
) -> View:
    for name, key, rate in (("address", "ip", by_address), ("account", account, by_account)):
        view = ratelimit(f"{group}.{name}", key, rate, method="POST", on_unavailable="local")(view)
    return view
