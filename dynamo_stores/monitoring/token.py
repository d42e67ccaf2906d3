"""The random part of a process's name."""

from __future__ import annotations

import secrets
from functools import cache


@cache
def token_of(pid: int) -> str:
    """Return a random token of this process: containers may have equal hostnames and pids."""
    return secrets.token_hex(3)
