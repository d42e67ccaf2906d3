"""``manage.py forum_token``: make a token with which a program writes for a user."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from forum.api.tokens import TokenExists, make_token
from forum.management.users import named_user, sql_tables
from forum.sql import Token


class Command(BaseCommand):
    help = (
        "Makes a token for the API and prints it: it is shown only this once. With --revoke, "
        "deletes the user's token of that name."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username", help="Name of the user.")
        parser.add_argument("--name", default="default", help="Name of the token: %(default)s.")
        parser.add_argument("--revoke", action="store_true", help="Delete instead.")

    def handle(
        self, *args: Any, username: str, name: str, revoke: bool = False, **options: Any
    ) -> None:
        try:
            with sql_tables():
                user = named_user(username)
                if not revoke:
                    self.stdout.write(make_token(user, name))
                elif not Token.objects.filter(user=user, name=name).delete()[0]:
                    raise CommandError(f"The user has no token with the name {name!r}.")
                else:
                    self.stdout.write("The token is deleted. Programs that use it are refused.")
        except TokenExists as exc:
            raise CommandError(
                f"The user has a token with the name {name!r}. Choose another --name, or delete "
                "it with --revoke."
            ) from exc
