"""The limits of the forum's own views."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib.auth.forms import UsernameField
from django.http import HttpRequest

from dynamo_stores.client_address import get_ip
from dynamo_stores.decorators import ratelimit

from . import accounts

View = Callable[..., Any]

# As the field of Django's form: different texts are one name. No user has a longer one.
_name = UsernameField(max_length=254)


def limit_log_ins(view: View) -> View:
    """
    Limit the log-ins of a view: 10 a minute from an address, 20 an hour from an address for an
    account, and 100 an hour for an account, so that others can hardly lock its owner out.

    Both views of this project, the forum's and the admin's, share the limits. While DynamoDB is
    away each process limits by itself.
    """
    return _limit(view, "log-in", address="10/m", both="20/h", account="100/h")


def limit_sign_ups(view: View) -> View:
    """Limit the sign-ups of a view: 20 an hour from an address, 10 an hour for a user name."""
    return _limit(view, "sign-up", address="20/h", account="10/h")


def limit_password_changes(view: View) -> View:
    """Limit the changes of passwords of a view: 20 an hour for a user."""
    return ratelimit("password", "user", "20/h", method="POST", on_unavailable="local")(view)


def limit_password_resets(view: View) -> View:
    """Limit the e-mails of a view: 20 an hour from an address, 5 an hour to an e-mail address."""
    return _limit(view, "password-reset", address="20/h", email="5/h")


def _limit(view: View, group: str, **rates: str) -> View:
    # The first rate is asked first: what it refuses does not count for the next ones.
    for name, rate in reversed(rates.items()):
        view = ratelimit(
            f"{group}.{name}", _KEYS[name], rate, method="POST", on_unavailable="local"
        )(view)
    return view


def _account(group: str, request: HttpRequest) -> str:
    """Return the user name of a form as the log-in reads it, and in one case."""
    return str(_name.to_python(request.POST.get("username", ""))).casefold()


def _both(group: str, request: HttpRequest) -> str:
    return f"{get_ip(request)} {_account(group, request)}"


def _email(group: str, request: HttpRequest) -> str:
    # As Django compares it with the addresses of accounts.
    return accounts.plain(request.POST.get("email", "").strip())


_KEYS: dict[str, Any] = {"address": "ip", "account": _account, "both": _both, "email": _email}
