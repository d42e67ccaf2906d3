"""Describes async methods that have no docstring by the methods that they are the twins of."""

from __future__ import annotations

import inspect
from typing import Any

from sphinx.application import Sphinx


def describe_twin(
    app: Sphinx, what: str, name: str, each: object, options: object, lines: list[str]
) -> None:
    """Refer from ``aget`` to ``get``, for example."""
    own = name.rpartition(".")[2]
    is_async = inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each)
    if is_async and own.startswith("a") and not any(lines):
        lines[:] = [f"As :meth:`{own[1:]}`, for event loops."]


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", describe_twin)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
