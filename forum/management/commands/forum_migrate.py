"""``manage.py forum_migrate``: import a forum from three JSON files."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError
from django.core.management.base import BaseCommand, CommandError
from pynamodb.exceptions import PynamoDBException

from dynamo_stores.calls.batches import BatchWriter
from dynamo_stores.exceptions import StoreError
from dynamo_stores.models import DynamoModel
from forum import services
from forum.importing import Forum, ImportRefused, read_forum


class Command(BaseCommand):
    help = (
        "Writes the users, threads and posts of three JSON files to DynamoDB. Everything is "
        "checked before the first write; a second run changes nothing."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        for name in ("users", "threads", "posts"):
            parser.add_argument(
                f"--{name}", type=Path, required=True, metavar="FILE", help=f"JSON file of {name}."
            )

    def handle(self, *args: Any, users: Path, threads: Path, posts: Path, **options: Any) -> None:
        try:
            forum = read_forum(users, threads, posts)
        except ImportRefused as exc:
            raise CommandError("The files were not imported:\n" + "\n".join(exc.problems)) from exc
        try:
            self._write(forum)
            services.invalidate(*(thread.thread_id for thread in forum.threads))
        except (StoreError, PynamoDBException, ClientError) as exc:
            raise CommandError(
                f"DynamoDB did not write all items. Run the command again to finish. {exc}"
            ) from exc

    def _write(self, forum: Forum) -> None:
        # In this order no item refers to one that is not written yet.
        for name, items in (
            ("users", forum.users),
            ("threads", forum.threads),
            ("posts", forum.posts),
        ):
            changed = _changed(items)
            if changed:
                with BatchWriter.for_model(type(changed[0])) as writer:
                    for item in changed:
                        writer.put(item)
                if missing := _changed(changed):
                    raise StoreError(f"{len(missing)} {name} differ from what was written.")
            self.stdout.write(
                f"{name}: {len(changed)} written, {len(items) - len(changed)} unchanged"
            )


def _changed(items: Sequence[DynamoModel]) -> list[Any]:
    """Return those of ``items`` that are missing in DynamoDB or differ there."""
    if not items:
        return []
    model = type(items[0])
    by_key = {_key(item): item for item in items}
    for found in model.batch_get(list(by_key), consistent_read=True):
        if by_key[_key(found)].serialize() == found.serialize():
            del by_key[_key(found)]
    return list(by_key.values())


def _key(item: DynamoModel) -> Any:
    attributes = item.get_attributes().items()
    partition = next(getattr(item, name) for name, each in attributes if each.is_hash_key)
    sort = [getattr(item, name) for name, each in attributes if each.is_range_key]
    return (partition, *sort) if sort else partition
