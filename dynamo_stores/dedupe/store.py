"""The dedupe store: an expensive job runs once, and all callers get its result."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from .. import clock, keys
from ..calls.counters import get_counters
from ..concurrency.effects import Computation, Join, Verb, Wait, arun, run, twins
from ..concurrency.flights import AGAIN, Lead, get_flights
from ..conf import DEFAULT_ALIAS
from ..conf.rules import NOT_NEGATIVE, WHOLE_POSITIVE, check_number, check_seconds
from ..exceptions import DedupeError, DedupeTimeoutError, StoreUnavailable
from ..item_access import Store
from ..leases import Renewal, Waits
from ..models import RawItem
from ..serialization import load_json
from .inspection import JobDescription, JobList, describe, list_jobs
from .items import COMPLETED, FAILED, error_of, state_of
from .jobs import Jobs, check_ttls, encode, finish_later


class DedupeStore(Store):
    """
    Jobs by their ``key``, any string. Durations in seconds, as ``DEDUPE`` accepts them; for others
    the methods raise ConfigurationError before they do anything.

    A job has an owner for the time of a lease, which a thread renews while the job runs
    (:meth:`run`). Its fence only rises: an owner that lost the job can neither complete nor fail
    it. Results are JSON, of any size. Jobs run once per region.
    """

    def __init__(self, using: str = DEFAULT_ALIAS) -> None:
        self.jobs = Jobs(using)
        super().__init__(self.jobs.items)

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
        return run(self._run(key, function, ttl, failure_ttl, wait))

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
        return await arun(self._run(key, function, ttl, failure_ttl, wait))

    def wait_for(self, key: str, *, timeout: float | None = None, default: Any = None) -> Any:
        """
        Return the result, waiting at most ``timeout`` seconds (``MAX_WAIT``); ``default`` if
        the job does not exist, or its lease ended without a result.

        Raises DedupeFailedError, DedupeTimeoutError.
        """
        return run(_wait_for(self.jobs, key, timeout, default))

    async def await_for(
        self, key: str, *, timeout: float | None = None, default: Any = None
    ) -> Any:
        """See :meth:`wait_for`."""
        return await arun(_wait_for(self.jobs, key, timeout, default))

    def register(self, key: str, *, payload: str | None = None) -> int | None:
        """
        Take the job and return its fence; None if it is in progress or has an outcome.

        One conditional write. A job whose owner's lease ended is taken over.
        """
        return run(self.jobs.claim(key, payload)).fence

    async def aregister(self, key: str, *, payload: str | None = None) -> int | None:
        """See :meth:`register`. A task that is cancelled meanwhile does not keep the job."""
        return (await arun(self.jobs.claim(key, payload))).fence

    def extend(self, key: str, fence: int) -> bool:
        """Renew the lease; False if another fence has the job."""
        return run(self.jobs.extend(key, fence))

    def complete(self, key: str, result: Any, *, fence: int, ttl: float | None = None) -> bool:
        """Store the result for ``ttl`` seconds; False if another fence has the job."""
        return run(self.jobs.complete_encoded(key, encode(result), fence, ttl))

    async def acomplete(
        self, key: str, result: Any, *, fence: int, ttl: float | None = None
    ) -> bool:
        """See :meth:`complete`."""
        return await arun(self.jobs.complete_encoded(key, encode(result), fence, ttl))

    def fail(self, key: str, error: BaseException, *, fence: int, ttl: float | None = None) -> bool:
        """
        Store the error for ``ttl`` seconds (0: the next caller runs the job again). Return False if
        another fence has the job.
        """
        return run(self.jobs.fail(key, error, fence=fence, ttl=ttl))

    async def afail(
        self, key: str, error: BaseException, *, fence: int, ttl: float | None = None
    ) -> bool:
        """See :meth:`fail`."""
        return await arun(self.jobs.fail(key, error, fence=fence, ttl=ttl))

    def is_in_progress(self, key: str) -> bool:
        """Return whether the job is in progress now, read strongly."""
        return run(self.jobs.is_in_progress(key))

    async def ais_in_progress(self, key: str) -> bool:
        """See :meth:`is_in_progress`."""
        return await arun(self.jobs.is_in_progress(key))

    async def _describe(self, key: str) -> JobDescription | None:
        """Return the state, times and error of the job, read strongly; None without a job."""
        return await describe(self.jobs, key)

    async def _list_jobs(self, *, most_pages: int, page_size: int | None = None) -> JobList:
        """
        Return the jobs in progress, abandoned and failed that are in the first ``most_pages`` of
        the store's table, the oldest first.

        A Scan: each page is a megabyte of all kinds of items (128 read units) or has ``page_size``
        of them. It consumes 1,000 units a second at most.
        """
        check_number("most_pages", most_pages, WHOLE_POSITIVE)
        if page_size is not None:
            check_number("page_size", page_size, WHOLE_POSITIVE)
        return await list_jobs(self.jobs, most_pages, page_size)

    async def _release(
        self, key: str | None = None, *, digest: str | None = None, fence: int
    ) -> bool:
        """
        Let the next caller run a job that is in progress or failed. The job is named by its ``key``
        or by the ``digest`` of :meth:`describe`.

        Return False if another fence has the job now, or it is completed. An owner that still works
        loses the job, and runs it again if no other caller has begun it by then.
        """
        if (key is None) == (digest is None):
            raise TypeError("release() takes a key or a digest, and not both.")
        return await self.jobs.release(keys.dedupe_job(key, digest=digest), fence)

    describe, adescribe = twins(_describe)
    list_jobs, alist_jobs = twins(_list_jobs)
    release, arelease = twins(_release)

    def _run(
        self,
        key: str,
        function: Callable[[], Any],
        ttl: float | None,
        failure_ttl: float | None,
        wait: bool,
    ) -> Verb[Any]:
        check_ttls(ttl, failure_ttl)
        runner = _Runner(self.jobs, key, Computation(function), ttl, failure_ttl)
        return runner.run_once() if wait else runner.run_or_skip()


logger = logging.getLogger(__name__)

_NO_RESULT: Final = object()
# Waits between reads grow from POLL_INTERVAL to so many seconds.
_LONGEST_WAIT = 1.0


class _Runner:
    """One caller that runs a job or gets its result. Its coroutines are verbs."""

    def __init__(
        self,
        jobs: Jobs,
        key: str,
        computation: Computation,
        ttl: float | None,
        failure_ttl: float | None,
    ) -> None:
        self._jobs = jobs
        self._key = key
        self._computation = computation
        self._ttl = ttl
        self._failure_ttl = failure_ttl

    async def run_once(self) -> Any:
        """Return the job's result, running the job if it has none."""
        until = clock.monotonic() + self._jobs.settings.max_wait
        name = ("run", self._key)
        return load_json(await _shared(self._jobs, name, until, lambda: self._lead(until)))

    async def run_or_skip(self) -> Any:
        """Do the same, but return None while the job is in progress."""
        data = await self._lead(None)
        return None if data is None else load_json(data)

    async def _lead(self, until: float | None) -> Any:
        while True:
            claim = await self._jobs.claim(self._key)
            if claim.fence is None:
                data = await _outcome(self._jobs, self._key, claim.item, until)
            else:
                data = await self._work(claim.fence)
            if data is not _NO_RESULT:
                return data

    async def _work(self, fence: int) -> Any:
        jobs, key = self._jobs, self._key
        renewal = jobs.renewal(key, fence)
        kept: float | None = 0.0
        is_later = False
        try:
            try:
                renewal.start()
                kept = self._failure_ttl
                result = await self._computation
                # The work is done, and must not be done again.
                kept = jobs.settings.ttl if self._ttl is None else self._ttl
                data = _encode_once(result, kept)
            except BaseException as exc:
                if not isinstance(exc, Exception):
                    # A job that was cancelled did not fail: the next caller runs it.
                    kept = 0.0
                fail = partial(jobs.fail, key, exc, fence=fence, ttl=kept)
                if isinstance(exc, GeneratorExit):
                    # Nothing can be awaited any more.
                    is_later = _finish_later(fail, renewal)
                    raise
                try:
                    await fail()
                except StoreUnavailable as unavailable:
                    logger.warning(
                        "The failure of a job was not stored; tried again: %s", unavailable
                    )
                    is_later = _finish_later(fail, renewal)
                except BaseException:
                    is_later = _finish_later(fail, renewal)
                    raise
                raise
            complete = partial(jobs.complete_encoded, key, data, fence, self._ttl)
            try:
                is_ours = await complete()
            except BaseException:
                is_later = _finish_later(complete, renewal)
                raise
        finally:
            if not is_later:
                renewal.stop()
        # If another owner took the job over meanwhile, its result is returned instead.
        return data if is_ours else _NO_RESULT


async def _wait_for(jobs: Jobs, key: str, timeout: float | None, default: Any) -> Any:
    """Return the job's result without running the job. A verb."""
    if timeout is not None:
        check_seconds("timeout", timeout, NOT_NEGATIVE)
    until = clock.monotonic() + (jobs.settings.max_wait if timeout is None else timeout)

    async def lead() -> Any:
        return await _outcome(jobs, key, await jobs.get_job(key), until)

    data = await _shared(jobs, ("wait", key), until, lead)
    return default if data is _NO_RESULT else load_json(data)


async def _shared(
    jobs: Jobs, name: tuple[str, str], until: float, lead: Callable[[], Verb[Any]]
) -> Any:
    """Let one of this process's callers run ``lead``; the others wait for its outcome. A verb."""
    flights = get_flights(jobs.using)
    while True:
        joined = flights.join(name)
        if not isinstance(joined, Lead):
            try:
                outcome = await Join(joined, max(0.0, until - clock.monotonic()))
            except TimeoutError:
                raise _timed_out() from None
            if outcome is AGAIN:
                continue
            return outcome
        outcome, error = AGAIN, None
        try:
            outcome = await lead()
        except (DedupeError, StoreUnavailable) as exc:
            error = exc
            raise
        finally:
            flights.land(name, joined, outcome, error)
        return outcome


def _encode_once(result: Any, ttl: float) -> bytes:
    try:
        return encode(result)
    except DedupeError as exc:
        raise DedupeError(
            f"The job was done, and is not run again for {ttl:g} s, but it has no result: {exc}"
        ) from exc


def _finish_later(write: Callable[[], Verb[object]], renewal: Renewal) -> bool:
    finish_later(write, renewal)
    return True


async def _outcome(jobs: Jobs, key: str, item: RawItem | None, until: float | None) -> Any:
    """
    Return the encoded result, ``_NO_RESULT`` when the job has neither owner nor outcome. Without
    ``until`` return None at once if it is in progress. A verb.
    """
    waits = Waits(jobs.settings.poll_interval, _LONGEST_WAIT)
    has_waited = False
    while item is not None and (left := jobs.seconds_left(item)) > 0:
        if state_of(item) == FAILED:
            raise error_of(item)
        if state_of(item) == COMPLETED:
            data = await jobs.read_result(key, item)
            if data is not None:
                return data
        if until is None:
            return None
        remaining = until - clock.monotonic()
        if remaining <= 0:
            raise _timed_out()
        if not has_waited:
            has_waited = True
            get_counters(jobs.using).add("waits", "job")
        await Wait(min(waits.next(left), remaining))
        item = await jobs.get_job(key)
    return _NO_RESULT


def _timed_out() -> DedupeTimeoutError:
    return DedupeTimeoutError(
        "The job is still in progress after the time to wait for it. Call it again later, or raise "
        "MAX_WAIT."
    )
