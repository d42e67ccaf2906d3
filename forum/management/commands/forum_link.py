"""``manage.py forum_link``: give an imported profile to an account."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from dynamo_stores.exceptions import StoreError
from forum import accounts
from forum.adapters import ItemMissing, WriteRefused
from forum.management.users import named_user, sql_tables


class Command(BaseCommand):
    help = (
        "Gives a profile that was imported to a user of Django, who writes under it from then on."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username", help="Name of the user.")
        parser.add_argument("profile", help="Id of the imported profile.")
        parser.add_argument(
            "--replace",
            action="store_true",
            help="Also if the user has another imported profile, which loses its account.",
        )

    def handle(
        self, *args: Any, username: str, profile: str, replace: bool = False, **options: Any
    ) -> None:
        try:
            with sql_tables():
                accounts.link(profile, named_user(username), replace=replace)
        except accounts.Taken as exc:
            raise CommandError("This profile has another account. Nothing was changed.") from exc
        except accounts.Linked as exc:
            raise CommandError(
                f"The user writes under the profile {exc.profile_id!r}. Nothing was changed. "
                "--replace gives the user the other one."
            ) from exc
        except ItemMissing as exc:
            raise CommandError("There is no profile with this id. Nothing was changed.") from exc
        except WriteRefused as exc:
            raise CommandError("It was changed meanwhile. Run the command again.") from exc
        except StoreError as exc:
            raise CommandError(f"{exc} Run the command again.") from exc
        self.stdout.write("The user writes under this profile now.")
