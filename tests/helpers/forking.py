"""Work in forked processes."""

from __future__ import annotations

import multiprocessing
import traceback

fork = multiprocessing.get_context("fork")
# Seconds within which each process must return.
_LONGEST = 240


def in_processes(count, work):
    """Run ``work(number)`` in ``count`` forked processes and return the results."""
    results = fork.Queue()

    def process(number):
        try:
            result, error = work(number), ""
        except BaseException:
            result, error = None, traceback.format_exc()
        results.put((number, result, error))

    children = [fork.Process(target=process, args=(number,)) for number in range(count)]
    for child in children:
        child.start()
    found = [results.get(timeout=_LONGEST) for _ in children]
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    errors = [error for _, _, error in found if error]
    assert not errors, errors[0]
    return [result for _, result, _ in sorted(found, key=lambda each: each[0])]
