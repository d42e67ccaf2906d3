"""JSON as the stores write it: compact, in UTF-8, with lone surrogates kept."""

from __future__ import annotations

import json
from typing import Any


def dump_json(value: Any) -> bytes:
    """Return ``value`` as JSON. Raises TypeError, ValueError or RecursionError if it cannot."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode(errors="surrogatepass")


def load_json(data: bytes) -> Any:
    """Return the value of the JSON that :func:`dump_json` wrote; tuples come back as lists."""
    return json.loads(data.decode(errors="surrogatepass"))
