"""Tokens: programs write with them for a user."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

from django.db import IntegrityError, transaction
from django.http import HttpRequest

from ..sql import Token


class TokenExists(Exception):
    """The user has a token with this name."""


def make_token(user: Any, name: str) -> str:
    """Make a token for a user; return its text, which is not stored. Raises TokenExists."""
    text = secrets.token_urlsafe(32)
    try:
        with transaction.atomic():
            Token.objects.create(user=user, name=name, digest=_digest(text))
    except IntegrityError as exc:
        raise TokenExists from exc
    return text


def identify(request: HttpRequest) -> None:
    """Make the user of a valid token in the header ``Authorization`` the user of the request."""
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return
    token = (
        Token.objects.select_related("user")
        .filter(digest=_digest(text.strip()), user__is_active=True)
        .first()
    )
    if token is not None:
        request.user = token.user
        request.forum_token = token  # type: ignore[attr-defined]


def _digest(text: str) -> str:
    # A token has 256 random bits, so that it needs no salt and no slow hash.
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
