"""Lifespan events of ASGI servers, which Django's application does not handle."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .monitoring.exporter import close_sinks
from .monitoring.notifications.notifier import send_rest
from .monitoring.reporter import publish_last_reports

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


def with_last_report(application: Application) -> Application:
    """
    Return Django's ASGI ``application``, with the process reporting its end to the status pages,
    sending the notifications that are on their way, and publishing its last metrics.

    For servers that end a process by a signal after its lifespan, without Python's exit handlers,
    as uvicorn does.
    """

    async def serve(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await application(scope, receive, send)
            return
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await asyncio.to_thread(send_rest)
        await asyncio.to_thread(publish_last_reports)
        await asyncio.to_thread(close_sinks)
        await send({"type": "lifespan.shutdown.complete"})

    return serve
