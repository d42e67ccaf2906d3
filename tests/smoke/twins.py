"""The async twin of a store, called as the store is: one step checks both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

# All others have the name of the method after an "a".
_NAMES = {"wait_for": "await_for"}


class Async:
    """Calls the async twin of each method, in one event loop."""

    def __init__(self, store: Any, runner: asyncio.Runner) -> None:
        self._store = store
        self._runner = runner

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._store, _NAMES.get(name, f"a{name}"))

        def call(*args: Any, **kwargs: Any) -> Any:
            async def wait() -> Any:
                return await method(*args, **kwargs)

            return self._runner.run(wait())

        return call
