"""Handlers and records of tests."""

from __future__ import annotations

from dynamo_stores import clock

DAY = 86_401


class Handled(list):
    """A handler that keeps the records; with ``poison`` it fails on those values."""

    def __init__(self, poison=(), error=ValueError):
        super().__init__()
        self.poison, self.error, self.tries = set(poison), error, []

    def __call__(self, records):
        self.tries.append((clock.monotonic(), len(records)))
        if any(record.keys["id"] in self.poison for record in records):
            raise self.error("secret value")
        self.extend(records)

    @property
    def ids(self):
        return [record.keys["id"] for record in self]


def put(stream, shard, *ids, **options):
    return [stream.put(shard, {"id": {"N": str(each)}}, **options) for each in ids]
