"""The dedupe store: an expensive job runs once, and all callers get its result."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, Final

from .. import clock
from ..concurrency.flights import AGAIN, Lead, get_flights
from ..concurrency.steps import Call, Computation, Compute, Join, Steps, Wait, arun, run
from ..exceptions import DedupeError, DedupeTimeoutError, StoreUnavailable
from ..leases import Renewal, Waits, new_owner
from ..models import RawItem
from ..serialization import load_json
from .items import COMPLETED, FAILED, error_of, state_of
from .jobs import Claim, JobStore, encode, finish_later


class DedupeStore(JobStore):
    """
    Jobs by their ``key``, any string. Durations in seconds.

    A job has an owner for the time of a lease, which a thread renews while the job runs
    (:meth:`run`). Its fence only rises: an owner that lost the job can neither complete nor fail
    it. Results are JSON, of any size. Jobs run once per region.
    """

    def run(
        self,
        key: str,
        function: Callable[[], Any],
        *,
        ttl: float | None = None,
        failure_ttl: float | None = None,
        wait: bool = True,
    ) -> Any:
        """
        Return the result of ``function`` as JSON returns it. Call the function unless it has a
        result of the last ``ttl`` seconds; if it is running elsewhere, wait at most ``MAX_WAIT``,
        or without ``wait`` return None at once.

        The error of the function is raised for its caller. Callers that wait, and later ones for
        ``failure_ttl`` seconds (0: the next one runs the job again), get DedupeFailedError.
        Raises DedupeTimeoutError, StoreUnavailable, or DedupeError if the result is not JSON
        serializable: the function is not called again for ``ttl`` seconds then, either.
        """
        steps = run_once if wait else run_or_skip
        return run(steps(self, key, ttl, failure_ttl), Computation(function))

    async def arun(
        self,
        key: str,
        function: Callable[[], Any],
        *,
        ttl: float | None = None,
        failure_ttl: float | None = None,
        wait: bool = True,
    ) -> Any:
        """See :meth:`run`; ``function`` may be a coroutine function."""
        steps = run_once if wait else run_or_skip
        return await arun(steps(self, key, ttl, failure_ttl), Computation(function), self.using)

    def wait_for(self, key: str, *, timeout: float | None = None, default: Any = None) -> Any:
        """
        Return the result, waiting at most ``timeout`` seconds (``MAX_WAIT``); ``default`` if
        the job does not exist, or its lease ended without a result.

        Raises DedupeFailedError, DedupeTimeoutError.
        """
        return run(wait_for(self, key, timeout, default), Computation(None))

    async def await_for(
        self, key: str, *, timeout: float | None = None, default: Any = None
    ) -> Any:
        """See :meth:`wait_for`."""
        return await arun(wait_for(self, key, timeout, default), Computation(None), self.using)


logger = logging.getLogger(__name__)

_NO_RESULT: Final = object()
# Waits between reads grow from POLL_INTERVAL to so many seconds.
_LONGEST_WAIT = 1.0


def run_once(store: JobStore, key: str, ttl: float | None, failure_ttl: float | None) -> Steps:
    """Return the steps that return the job's result, running the job if it has none."""
    until = clock.monotonic() + store.settings.max_wait
    data = yield from _shared(
        store, ("run", key), until, lambda: _lead(store, key, ttl, failure_ttl, until)
    )
    return load_json(data)


def run_or_skip(store: JobStore, key: str, ttl: float | None, failure_ttl: float | None) -> Steps:
    """Return the steps that do the same, but return None while the job is in progress."""
    data = yield from _lead(store, key, ttl, failure_ttl, None)
    return None if data is None else load_json(data)


def wait_for(store: JobStore, key: str, timeout: float | None, default: Any) -> Steps:
    """Return the steps that return the job's result without running the job."""
    until = clock.monotonic() + (store.settings.max_wait if timeout is None else timeout)

    def lead() -> Steps:
        item = yield Call(lambda: store.get_job(key))
        if item is None:
            return _NO_RESULT
        return (yield from _outcome(store, key, item, until))

    data = yield from _shared(store, ("wait", key), until, lead)
    return default if data is _NO_RESULT else load_json(data)


def _shared(
    store: JobStore, name: tuple[str, str], until: float, lead: Callable[[], Steps]
) -> Steps:
    """Let one of this process's callers run ``lead``, and the others wait for its outcome."""
    flights = get_flights(store.using)
    while True:
        joined = flights.join(name)
        if not isinstance(joined, Lead):
            try:
                outcome = yield Join(joined, max(0.0, until - clock.monotonic()))
            except TimeoutError:
                raise _timed_out() from None
            if outcome is AGAIN:
                continue
            return outcome
        outcome, error = AGAIN, None
        try:
            outcome = yield from lead()
        except (DedupeError, StoreUnavailable) as exc:
            error = exc
            raise
        finally:
            flights.land(name, joined, outcome, error)
        return outcome


def _lead(
    store: JobStore, key: str, ttl: float | None, failure_ttl: float | None, until: float | None
) -> Generator[Any, Any, bytes | None]:
    while True:
        claim: Claim = yield from _claim(store, key)
        if claim.fence is None:
            data = yield from _outcome(store, key, claim.item or {}, until)
        else:
            data = yield from _work(store, key, claim.fence, ttl, failure_ttl)
        if data is not _NO_RESULT:
            return data  # type: ignore[no-any-return]


def _claim(store: JobStore, key: str) -> Steps:
    owner = new_owner()
    try:
        return (yield Call(lambda: store.claim(key, owner=owner)))
    except asyncio.CancelledError:
        # The thread that claims the job goes on.
        store.free_later(key, owner)
        raise


def _work(
    store: JobStore, key: str, fence: int, ttl: float | None, failure_ttl: float | None
) -> Steps:
    renewal = store.renewal(key, fence)
    kept: float | None = 0.0
    is_later = False
    try:
        try:
            renewal.start()
            kept = failure_ttl
            result = yield Compute()
            # The work is done, and must not be done again.
            kept = store.settings.ttl if ttl is None else ttl
            data = _encode_once(result, kept)
        except BaseException as exc:
            if not isinstance(exc, Exception):
                # A job that was cancelled did not fail: the next caller runs it.
                kept = 0.0
            fail = partial(store.fail, key, exc, fence=fence, ttl=kept)
            try:
                yield Call(fail)
            except StoreUnavailable as unavailable:
                logger.warning("The failure of a job was not stored; tried again: %s", unavailable)
                is_later = _finish_later(fail, renewal)
            except BaseException:
                is_later = _finish_later(fail, renewal)
                raise
            raise
        complete = partial(store.complete_encoded, key, data, fence, ttl)
        try:
            is_ours = yield Call(complete)
        except BaseException:
            is_later = _finish_later(complete, renewal)
            raise
    finally:
        if not is_later:
            renewal.stop()
    # If another owner took the job over meanwhile, its result is returned instead.
    return data if is_ours else _NO_RESULT


def _encode_once(result: Any, ttl: float) -> bytes:
    try:
        return encode(result)
    except DedupeError as exc:
        raise DedupeError(
            f"The job was done, and is not run again for {ttl:g} s, but it has no result: {exc}"
        ) from exc


def _finish_later(write: Callable[[], object], renewal: Renewal) -> bool:
    finish_later(write, renewal)
    return True


def _outcome(store: JobStore, key: str, item: RawItem | None, until: float | None) -> Steps:
    """
    Return the encoded result, ``_NO_RESULT`` when the job has neither owner nor outcome. Without
    ``until`` return None at once if it is in progress.
    """
    waits = Waits(store.settings.poll_interval, _LONGEST_WAIT)
    while item is not None and (left := store.seconds_left(item)) > 0:
        if state_of(item) == FAILED:
            raise error_of(item)
        if state_of(item) == COMPLETED:
            data = yield Call(partial(store.read_result, key, item))
            if data is not None:
                return data
        if until is None:
            return None
        remaining = until - clock.monotonic()
        if remaining <= 0:
            raise _timed_out()
        yield Wait(min(waits.next(left), remaining))
        item = yield Call(lambda: store.get_job(key))
    return _NO_RESULT


def _timed_out() -> DedupeTimeoutError:
    return DedupeTimeoutError(
        "The job is still in progress after the time to wait for it. Call it again later, or raise "
        "MAX_WAIT."
    )
