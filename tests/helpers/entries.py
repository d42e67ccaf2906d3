"""The functions of the package that a call enters, to see how much code it goes through."""

from __future__ import annotations

import dis
import functools
import sys
from collections import Counter
from pathlib import Path

import dynamo_stores

_PACKAGE = str(Path(dynamo_stores.__file__).parent)
# The wire, without which no request can be sent, and where it gets credentials.
_WIRE = ("wire", "pool", "transport", "environment", "hooks")


def entries_of(function):
    """
    Return how often each function of the package is entered while ``function`` runs, by file and
    name, without those of the wire. Resumptions of coroutines are not counted.
    """
    found = Counter()

    def record(frame, event, argument):
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(_PACKAGE):
            return
        if frame.f_lasti > _start_of(code):
            return
        file = code.co_filename.removeprefix(f"{_PACKAGE}/")
        if file not in {f"calls/{name}.py" for name in _WIRE}:
            found[f"{file}:{code.co_qualname}"] += 1

    before = sys.getprofile()
    sys.setprofile(record)
    try:
        function()
    finally:
        sys.setprofile(before)
    return found


@functools.cache
def _start_of(code):
    """Return where the function begins after its cells were made."""
    return next(each.offset for each in dis.get_instructions(code) if each.opname == "RESUME")


def as_text(found):
    """Return the entries as lines, and their sum."""
    lines = [f"{count:3} {name}" for name, count in sorted(found.items())]
    return "\n".join([*lines, f"{found.total()} entries"])
