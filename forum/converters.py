"""Ids in the paths of pages."""

from __future__ import annotations

import re

from .keys import MAX_ID_BYTES

_ESCAPES = {"~": "~0", "/": "~1", ".": "~2"}
_MEANT = {escape: character for character, escape in _ESCAPES.items()}


class IdConverter:
    """
    An id of any characters as one part of a path. ``~`` and ``/`` are written as in a JSON pointer,
    and an id of dots alone with ``~2``, because clients resolve ``.`` and ``..``.
    """

    regex = "[^/]+"

    def to_python(self, value: str) -> str:
        """Return the id. Raises ValueError, a 404, for what cannot be one."""
        try:
            found = re.sub("~.?", lambda escape: _MEANT[escape[0]], value, flags=re.DOTALL)
        except KeyError:
            raise ValueError("Expected ~0, ~1 or ~2 after a ~.") from None
        if len(found.encode("utf-8", "surrogatepass")) > MAX_ID_BYTES:
            raise ValueError(f"Expected an id of {MAX_ID_BYTES} bytes at most.")
        return found

    def to_url(self, value: str) -> str:
        """Return the part of the path."""
        escaped = value.replace("~", "~0").replace("/", "~1")
        return escaped if value.strip(".") else escaped.replace(".", "~2")
