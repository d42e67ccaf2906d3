"""An idempotent request while it is processed: its lease, and what becomes of its response."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import weakref
from typing import Any

from django.core.signals import got_request_exception
from django.db import connections, transaction
from django.dispatch import receiver
from django.http import HttpRequest

from ..concurrency.effects import run, twins
from ..leases import release_later
from .jobs import Jobs, encode, finish_later
from .responses import is_final, pack, without_body

logger = logging.getLogger(__name__)

# The lease of a request is renewed for so many seconds at most.
_LONGEST = 3_600.0

# The attribute of a request with its jobs: with ATOMIC_REQUESTS a commit may fail after the view.
_RUNNING = "_dynamo_stores_idempotent"


class Running:
    """
    The job of one request. It ends once: its response is stored, or the job is freed for the next
    request. It is freed, too, when the request is dropped without either.
    """

    def __init__(
        self,
        jobs: Jobs,
        request: HttpRequest,
        job: str,
        fence: int,
        *,
        ttl: float,
        max_bytes: int,
    ) -> None:
        self._jobs = jobs
        self._job = job
        self._fence = fence
        self._ttl = ttl
        self._max_bytes = max_bytes
        # The first one ends the job.
        self._ends: list[object] = []
        self._renewal = jobs.renewal(job, fence, longest=_LONGEST)
        # REST framework's request is a wrapper, made anew for each view.
        origin = getattr(request, "_request", request)
        self._request = weakref.ref(origin)
        weakref.finalize(origin, self.free_in_background).atexit = False
        origin.__dict__.setdefault(_RUNNING, []).append(self)

    async def start(self) -> None:
        """Begin to renew the lease; if that fails, free the job. A verb."""
        try:
            self._renewal.start()
        except BaseException as exc:
            await self._free(exc)
            raise

    async def _end(self, response: Any) -> None:
        """Store ``response``, at once or when open transactions are committed, or free the job."""
        if not is_final(response):
            await self._free()
        elif not getattr(response, "is_rendered", True):
            self._end_after_rendering(response)
        elif databases := _open_transactions():
            self._end_on_commit(response, databases)
        else:
            await self._complete(pack(response, self._max_bytes))

    async def _free(self, error: BaseException | None = None) -> None:
        """Let the next request run; does nothing after the end."""
        end = object()
        fail = functools.partial(
            self._jobs.fail,
            self._job,
            error or ValueError("not stored"),
            fence=self._fence,
            ttl=0,
        )
        try:
            if not self._begins(end):
                return
            self._renewal.stop()
            await fail()
        except BaseException as exc:
            if self._ends and self._ends[0] is end:
                self._renewal.stop()
                release_later(self._jobs.using, lambda: run(fail()), self._jobs.settings.lease)
            if not isinstance(exc, Exception):
                raise
            # The view's own outcome is the answer.
            logger.warning("An idempotent request was not freed; tried again: %s", exc)

    end, aend = twins(_end)
    free, afree = twins(_free)

    def free_in_background(self) -> None:
        """Do the same in a thread of its own, for callers that must not wait or are cancelled."""
        if not self._ends:
            self._renewal.stop()
            with contextlib.suppress(RuntimeError):  # the interpreter ends: the lease will, too
                threading.Thread(target=self.free, daemon=True).start()

    def _end_after_rendering(self, response: Any) -> None:
        render = response.render

        @functools.wraps(render)
        def rendered() -> Any:
            try:
                result = render()
            except BaseException as exc:
                self.free(exc)
                raise
            self.end(response)
            return result

        response.render = rendered
        # A middleware may replace the response and never render it.
        response._resource_closers.append(self.free)

    def _end_on_commit(self, response: Any, databases: list[str]) -> None:
        packed, waiting = pack(response, self._max_bytes), set(databases)
        # The callbacks keep the request: a rollback drops them, and so frees the job.
        request = self._request()

        def committed(database: str, request: HttpRequest | None = request) -> None:
            waiting.discard(database)
            if not waiting:
                run(self._complete(packed))

        for database in databases:
            transaction.on_commit(functools.partial(committed, database), using=database)
            # First, because Django drops the callbacks after one that fails.
            callbacks = connections[database].run_on_commit
            callbacks.insert(0, callbacks.pop())
        # Without a commit the request ends without an outcome.
        response._resource_closers.append(self.free)

    async def _complete(self, packed: dict[str, Any]) -> None:
        end = object()
        try:
            if not self._begins(end):
                return
            await self._store(packed)
        except BaseException as exc:
            # The work is done, and must not be done again.
            if self._ends and self._ends[0] is end:
                todo = [without_body(packed)]
                if not isinstance(exc, Exception):
                    # An interrupted or cancelled request says nothing about the body.
                    todo.append(packed)
                finish_later(
                    lambda: self._store(todo.pop() if len(todo) > 1 else todo[0]), self._renewal
                )
            if not isinstance(exc, Exception):
                raise
            logger.warning("The response of an idempotent request was not stored: %s", exc)
        else:
            self._renewal.stop()

    async def _store(self, packed: dict[str, Any]) -> None:
        await self._jobs.complete_encoded(self._job, encode(packed), self._fence, self._ttl)

    def _begins(self, end: object) -> bool:
        # One step of Python's, so that an interrupted end is either begun or not.
        self._ends.append(end)
        return self._ends[0] is end


@receiver(got_request_exception, dispatch_uid="dynamo_stores.dedupe.running")
def _free_after_error(request: HttpRequest | None = None, **kwargs: Any) -> None:
    for running in getattr(request, _RUNNING, ()):
        running.free()


def _open_transactions() -> list[str]:
    # Those of TestCase are rolled back at its end, whatever the test does.
    return [
        connection.alias
        for connection in connections.all(initialized_only=True)
        if connection.in_atomic_block
        and not all(getattr(block, "_from_testcase", False) for block in connection.atomic_blocks)
    ]
