"""``manage.py forum_token``: make a token with which a program writes for a user."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from forum.api.tokens import make_token
from forum.management.users import named_user
from forum.sql import Token


class Command(BaseCommand):
    help = (
        "Makes a token for the API and prints it: it is shown only this once. With --revoke, "
        "deletes the user's tokens of that name."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username", help="Name of the user.")
        parser.add_argument("--name", default="default", help="Name of the token: %(default)s.")
        parser.add_argument("--revoke", action="store_true", help="Delete instead.")

    def handle(
        self, *args: Any, username: str, name: str, revoke: bool = False, **options: Any
    ) -> None:
        user = named_user(username)
        if revoke:
            deleted, _ = Token.objects.filter(user=user, name=name).delete()
            self.stdout.write(f"Tokens deleted: {deleted}")
        else:
            self.stdout.write(make_token(user, name))
