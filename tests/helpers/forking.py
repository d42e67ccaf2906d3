"""Work in forked processes."""

from __future__ import annotations

import multiprocessing

fork = multiprocessing.get_context("fork")


def in_processes(count, work):
    """Run ``work(number)`` in ``count`` forked processes and return the results."""
    results = fork.SimpleQueue()
    children = [
        fork.Process(target=lambda number=number: results.put((number, work(number))))
        for number in range(count)
    ]
    for child in children:
        child.start()
    found = [results.get() for _ in children]
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    return [result for _, result in sorted(found)]
