"""Where a page begins, as text in links: signed, so that it cannot be made up."""

from __future__ import annotations

from typing import Any

from django.core import signing


class BadCursor(ValueError):
    """The text is not a cursor that this site has made for this list."""


def dump(listing: str, after: Any) -> str:
    """Return the text for a position in ``listing``, ``""`` for None."""
    return "" if after is None else signing.dumps(after, salt=f"forum.{listing}", compress=True)


def load(listing: str, text: str) -> Any:
    """Return the position, None for ``""``. Raises BadCursor."""
    if not text:
        return None
    try:
        return signing.loads(text, salt=f"forum.{listing}")
    except signing.BadSignature as exc:
        raise BadCursor("This link to a page is damaged, or of another list.") from exc
