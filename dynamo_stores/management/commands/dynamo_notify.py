"""``manage.py dynamo_notify``: test the receivers of notifications."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ... import clock
from ...conf import get_config
from ..tables import add_choice_of_aliases, chosen_aliases, command_errors


class Command(BaseCommand):
    help = (
        "Sends a notification of the event 'test' to each receiver in NOTIFY, and shows which of "
        "them took it. It does not count for MAX_PER_HOUR, and DynamoDB is not asked."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_choice_of_aliases(parser, default="all with receivers")

    def handle(self, *args: Any, **options: Any) -> None:
        with command_errors():
            chosen = chosen_aliases(options["using"])
            found = [using for using in chosen if get_config(using).notify.is_on]
            silent = [using for using in chosen if using not in found]
            if not found or (options["using"] and silent):
                names = ", ".join(map(repr, silent))
                raise CommandError(
                    f"NOTIFY has no receiver, in {names}. Set its TOPIC, WEBHOOK or FUNCTION."
                )
            failed = sum(self._test(using) for using in found)
        if failed:
            raise CommandError(f"{failed} of the receivers did not take it.")

    def _test(self, using: str) -> int:
        from ...monitoring.notifications.delivery import Delivery
        from ...monitoring.notifications.messages import trial

        delivery = Delivery(using)
        errors = delivery.send(trial(using, clock.now()))
        for receiver in delivery.receivers:
            error = errors.get(receiver.name)
            became = f"did not take it: {error}." if error else "took it."
            self.stdout.write(f"{using}: {receiver.name} {became}")
        return len(errors)
