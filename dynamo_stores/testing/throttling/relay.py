"""
A relay before a local DynamoDB that throttles as AWS does.

Local engines never throttle. The relay has buckets of units for each table and index, computes the
cost of requests from the sizes of their items, refuses them with DynamoDB's errors and reasons, and
delays UpdateTable. It changes requests, which breaks their signatures: it works only with engines
on loopback that do not check them.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
import zlib
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Self

from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

from ...calls.environment import is_loopback
from ..engine import HOST, EngineError
from .buckets import BURST, Partitions
from .ledger import Ledger
from .rules import CapacityRules

_TARGET = "DynamoDB_20120810"
# Engines take the region from the signature, so the relay's own requests carry the same one.
_signature: ContextVar[dict[str, str]] = ContextVar("dynamo_stores_signature")


class CapacityRelay:
    """
    A throttling relay: in ``with CapacityRelay(engine.url) as relay`` use ``relay.url``.

    ``updating`` is how many seconds an UpdateTable takes, ``burst`` how many seconds of unused
    capacity are kept, ``speed`` the speed of its clock (2.0: twice as fast); with ``partitions``
    each partition key has its own limit too (KeyRange). ``GET /`` returns the buckets.
    """

    def __init__(
        self,
        upstream: str,
        *,
        port: int = 0,
        updating: float = 30.0,
        burst: float = BURST,
        speed: float = 1.0,
        partitions: Partitions | None = None,
    ) -> None:
        if not is_loopback(upstream):
            raise EngineError(
                f"{upstream} is not on this machine. The relay changes requests and so breaks "
                "their signatures; use a local engine, which does not check them."
            )
        self.requests: dict[str, int] = {}
        self._upstream = upstream
        self._port = port
        self._speed = speed
        self._ledger = Ledger(
            self._send, self.now, updating=updating, burst=burst, partitions=partitions
        )
        self._rules = CapacityRules(self._send, self.now, self._ledger)
        self._started = time.time(), time.monotonic()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._session: ClientSession | None = None

    @property
    def url(self) -> str:
        """The endpoint of the relay."""
        return f"http://{HOST}:{self._port}"

    @property
    def units(self) -> dict[tuple[str, str, str], float]:
        """
        The units that were charged so far, by table, index (``""`` is the table) and kind
        (``"Read"`` or ``"Write"``).
        """
        return dict(self._ledger.units)

    def now(self) -> float:
        """Return the relay's time, in seconds since the epoch."""
        wall, monotonic = self._started
        return wall + (time.monotonic() - monotonic) * self._speed

    def start(self) -> Self:
        """Start to answer, in a new thread."""
        ready = threading.Event()
        failure: list[BaseException] = []

        def run() -> None:
            loop = self._loop = asyncio.new_event_loop()
            try:
                runner = loop.run_until_complete(self._serve())
            except BaseException as exc:  # noqa: BLE001 - raised by start()
                failure.append(exc)
                ready.set()
                loop.close()
                return
            ready.set()
            loop.run_forever()
            loop.run_until_complete(self._end(runner))
            loop.close()

        self._thread = threading.Thread(target=run, name="capacity-relay", daemon=True)
        self._thread.start()
        ready.wait()
        if failure:
            raise EngineError(f"The relay cannot listen: {failure[0]}") from failure[0]
        return self

    def stop(self) -> None:
        """Stop to answer."""
        if self._loop is not None and self._thread is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)

    def status(self) -> dict[str, Any]:
        """Return the buckets of the tables that were used so far, and the number of requests."""
        return {
            "now": self.now(),
            "requests": dict(self.requests),
            "tables": self._rules.status(),
        }

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    async def _serve(self) -> web.AppRunner:
        self._session = ClientSession(
            timeout=ClientTimeout(total=60), connector=TCPConnector(limit=0)
        )
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_post("/{tail:.*}", self._answer)
        app.router.add_get("/", self._show)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, HOST, self._port)
        await site.start()
        if not self._port:
            self._port = runner.addresses[0][1]
        return runner

    async def _end(self, runner: web.AppRunner) -> None:
        await runner.cleanup()
        if self._session is not None:
            await self._session.close()

    async def _show(self, request: web.Request) -> web.Response:
        return web.json_response(self.status(), dumps=lambda found: json.dumps(found, indent=2))

    async def _answer(self, request: web.Request) -> web.Response:
        operation = request.headers.get("X-Amz-Target", "").rpartition(".")[2]
        self.requests[operation] = self.requests.get(operation, 0) + 1
        body = json.loads(await request.read() or b"{}")
        signed = ("Authorization", "X-Amz-Date", "X-Amz-Security-Token")
        _signature.set({name: request.headers[name] for name in signed if name in request.headers})
        status, answer = await self._rules.answer(operation, body)
        content = json.dumps(answer).encode()
        return web.Response(
            status=status,
            body=content,
            headers={
                "Content-Type": "application/x-amz-json-1.0",
                "x-amz-crc32": str(zlib.crc32(content)),
            },
        )

    async def _send(self, operation: str, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        session = self._session
        if session is None:
            return 500, {"message": "The relay has stopped."}
        async with session.post(
            self._upstream,
            data=json.dumps(body),
            headers={
                "X-Amz-Target": f"{_TARGET}.{operation}",
                "Content-Type": "application/x-amz-json-1.0",
                **_signature.get(),
            },
        ) as response:
            return response.status, json.loads(await response.read() or b"{}")
