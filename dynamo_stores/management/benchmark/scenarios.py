"""The scenarios that measure clients: calls, growth and cold start."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from ... import __version__
from .clients import local_keys
from .cold_start import measure_cold_start
from .endpoint import fill, serving, tables
from .operations import (
    DYNAMODB_CACHE,
    TABLE_SIZES,
    TOGETHER,
    Plan,
    name_in_table,
    name_together,
)
from .peers import has_dynamodb_cache
from .processes import measure_in_processes, measure_together
from .rounds import Row

Progress = Callable[[str], object]
Found = tuple[list[Row], dict[str, str]]


@contextmanager
def planned(options: dict[str, Any]) -> Iterator[tuple[Plan, dict[str, str]]]:
    """
    Run the engine and create the tables that the options choose within the block; give the plan
    of the measuring processes, and what their environment must have.
    """
    subjects = options["subject"] or []
    with_peer = has_dynamodb_cache() and (not subjects or DYNAMODB_CACHE in subjects)
    with (
        serving(
            options["engine"],
            options["using"],
            tls=options["tls"],
            allow_remote=options["allow_remote"],
        ) as server,
        tables(server, options["using"], with_peer=with_peer) as made,
    ):
        environment = dict(server.environment)
        if server.url is not None:
            # django-dynamodb-cache has no setting for its endpoint.
            environment["AWS_ENDPOINT_URL_DYNAMODB"] = server.url
        plan = Plan(
            url=server.url,
            region=made.region,
            prefix=made.prefix,
            table=made.table,
            rounds=options["rounds"],
            calls=options["calls"],
            size=options["bytes"],
            scenario=options["scenario"],
            names=options["operation"] or [],
            subjects=subjects,
            redis=options["redis"],
            memcached=options["memcached"],
        )
        yield plan, environment


def about(options: dict[str, Any]) -> dict[str, Any]:
    """Return what a reader of the figures must know about the run."""
    return {
        "made": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "engine": options["engine"] + (" over TLS" if options["tls"] else ""),
        "scenario": options["scenario"],
        "rounds": options["rounds"],
        "calls": options["calls"],
        "bytes": options["bytes"],
        "processes": options["processes"],
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {"dynamo-stores": __version__, "boto3": version("boto3")},
    }


def measure(options: dict[str, Any], progress: Progress) -> Found:
    """Return the rows of the chosen scenario, and why clients were skipped, by name."""
    with planned(options) as (plan, environment):
        progress(f"the tables {plan.prefix}*")
        if options["scenario"] == "cold-start":
            return measure_cold_start(plan, environment, local_keys(plan)), {}
        rows: list[Row] = []
        skipped: dict[str, str] = {}
        if plan.operations():
            rows, skipped = measure_in_processes(plan, environment, options["processes"], progress)
        if options["scenario"] == "growth":
            rows += _growth_of_processes(plan, environment, progress)
            rows += _growth_of_table(plan, environment, options, progress)
        return rows, skipped


def _growth_of_processes(
    plan: Plan, environment: dict[str, str], progress: Progress
) -> Iterator[Row]:
    for count in TOGETHER:
        name = name_together(count)
        if plan.names and name not in plan.names:
            continue
        progress(f"{count} at the same time")
        one = replace(plan, scenario="calls", names=["get"])
        for row in measure_together(one, environment, count):
            yield replace(row, operation=name)


def _growth_of_table(
    plan: Plan, environment: dict[str, str], options: dict[str, Any], progress: Progress
) -> Iterator[Row]:
    filled = 0
    for size in TABLE_SIZES:
        verbs = [
            verb
            for verb in ("get", "set")
            if not plan.names or name_in_table(verb, size) in plan.names
        ]
        if size > options["items"] or not verbs:
            continue
        progress(f"a table of {size:,} items")
        fill(plan.table, filled, size)
        filled = size
        of_size = replace(plan, scenario="calls", names=verbs)
        rows, _ = measure_in_processes(of_size, environment, options["processes"], progress)
        for row in rows:
            yield replace(row, operation=name_in_table(row.operation, size))
