"""Commands and what they print, items for backups, and damage to their files."""

from __future__ import annotations

import io

from django.core.management import call_command

from .items import put_all


def run(command, *args, **options):
    """Return what ``command`` printed."""
    out = io.StringIO()
    call_command(command, *args, stdout=out, **options)
    return out.getvalue()


def small(count, **more):
    """Items of some ten bytes in several partitions."""
    return [
        {"id": {"S": f"p{number % 40}"}, "n": {"N": str(number)}, **more} for number in range(count)
    ]


def flip(path):
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    """Truncate a file."""
    path.write_bytes(path.read_bytes()[:-20])


def backed_up(make_table, folder, items):
    """Back up a table with ``items`` to ``folder`` and return its name."""
    table = make_table()
    put_all("default", table, items)
    run("dynamo_backup", table, output=folder)
    return table
