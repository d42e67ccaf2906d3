"""Jobs under wrong clocks, cancelled tasks, lost answers, and results that cannot be stored."""

from __future__ import annotations

import asyncio
import contextvars
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction
from django.http import HttpResponse
from django.test import RequestFactory

from dynamo_stores import clock
from dynamo_stores.calls.observer import measuring
from dynamo_stores.concurrency.effects import run
from dynamo_stores.decorators import deduplicated, idempotent
from dynamo_stores.dedupe.items import fence_of
from dynamo_stores.dedupe.jobs import Jobs
from dynamo_stores.exceptions import DedupeError, DedupeFailedError, StoreUnavailable
from dynamo_stores.leases import Renewal
from dynamo_stores.stores import DedupeStore
from tests.helpers.faults import Interrupted, cancelled_during, interrupting
from tests.helpers.forking import in_processes
from tests.ratelimit.test_contention import SkewedClock

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.usefixtures("tables"),
]
HOUR = 3600.0
# More than a busy machine needs, and less than a lease of an hour.
LONG = 40.0


@pytest.fixture
def key():
    return secrets.token_hex(8)


def with_clock(wrong, work):
    """Call ``work`` in a process whose clock is wrong by so many seconds; return its result."""

    def process(number):
        clock.use(SkewedClock(wrong))
        return work()

    return in_processes(1, process)[0]


@pytest.mark.parametrize("wrong", [HOUR, -HOUR])
def test_a_wrong_clock_takes_no_job(key, wrong):
    """Not while it is in progress, nor when it has a result; and its own jobs stay its own."""
    store = DedupeStore()
    fence = store.register(key)
    assert with_clock(wrong, lambda: DedupeStore().register(key)) is None
    assert store.complete(key, 1, fence=fence)
    assert with_clock(wrong, lambda: DedupeStore().run(key, lambda: 2)) == 1
    other = with_clock(wrong, lambda: DedupeStore().register(key + "o"))
    assert store.register(key + "o") is None
    assert with_clock(wrong, lambda: DedupeStore().complete(key + "o", 3, fence=other))
    assert store.run(key + "o", lambda: 4) == 3


@pytest.mark.parametrize("wrong", [HOUR, -HOUR])
def test_a_wrong_clock_keeps_no_job_after_its_owner(alias, key, wrong):
    """A job of an owner that died is taken over after its lease."""
    store = DedupeStore(alias(DEDUPE={"LEASE": 1, "MAX_WAIT": LONG}))
    assert with_clock(wrong, lambda: store.register(key)) is not None
    assert store.run(key, lambda: "taken over") == "taken over"
    assert store.register(key + "2") is not None
    assert with_clock(wrong, lambda: store.run(key + "2", lambda: "so is this")) == "so is this"


def test_a_claim_whose_answers_were_lost_is_undone(alias, key, dynamo_faults):
    """The next caller does not wait for the end of its lease."""
    store = DedupeStore(
        alias(
            ENDPOINT_URL=dynamo_faults.url,
            RETRY={"MAX_RETRIES": 0},
            DEDUPE={"LEASE": 600, "MAX_WAIT": LONG},
        )
    )
    store.is_in_progress(key)
    dynamo_faults.lose_answer("UpdateItem", times=1)
    with pytest.raises(StoreUnavailable):
        store.run(key, lambda: "unanswered")
    assert store.run(key, lambda: "next") == "next"


@pytest.fixture
def unsteady(alias, dynamo_faults):
    """An alias behind the relay of faults, without retries and breaker."""
    return alias(
        ENDPOINT_URL=dynamo_faults.url,
        RETRY={"MAX_RETRIES": 0},
        CIRCUIT_BREAKER={"ENABLED": False},
        DEDUPE={"LEASE": 2, "MAX_WAIT": LONG},
    )


def test_an_outcome_that_was_not_stored_is_stored_later(unsteady, key, dynamo_faults, until):
    """Renewed meanwhile, so that the job is not run again."""
    store, calls = DedupeStore(unsteady), []

    def work():
        calls.append(1)
        dynamo_faults.fail("UpdateItem", status=500)
        return "done"

    with pytest.raises(StoreUnavailable):
        store.run(key, work)
    dynamo_faults.clear()
    assert store.run(key, work) == "done"
    assert calls == [1]
    until(lambda: not any(isinstance(each, Renewal) for each in threading.enumerate()))


def test_an_error_of_other_software_is_not_tried_again(unsteady, key, until, monkeypatch, caplog):
    """It is raised and logged, and the next caller runs the job when its lease ends."""
    store, tries = DedupeStore(unsteady), []

    async def complete(*args):
        tries.append(1)
        raise TypeError("wrong")

    with monkeypatch.context() as patched:
        patched.setattr(Jobs, "complete_encoded", complete)
        with pytest.raises(TypeError, match="wrong"):
            store.run(key, lambda: "first")
        until(lambda: not any(isinstance(each, Renewal) for each in threading.enumerate()))
    assert len(tries) == 2
    logged = [each for each in caplog.records if each.name == "dynamo_stores.dedupe.jobs"]
    assert [each.levelname for each in logged] == ["ERROR"]
    assert "is not tried again" in logged[0].message
    assert store.run(key, lambda: "second") == "second"


def test_an_interrupted_end_of_a_request_is_stored_later(unsteady, key, dynamo_faults, until):
    """The exception from outside is raised; the request is not carried out again."""
    calls = []

    @idempotent(using=unsteady)
    def view(request):
        calls.append(1)
        dynamo_faults.delay(2.0, "UpdateItem", times=1)
        dynamo_faults.fail("UpdateItem", status=500, times=1)
        interrupt_in(0.5)
        return HttpResponse("done", status=201)

    def post():
        return view(RequestFactory().post("/", headers={"Idempotency-Key": key}))

    with interrupting() as interrupt_in:
        with pytest.raises(Interrupted):
            post()
        until(lambda: post().status_code == 201)
    assert calls == [1]
    until(lambda: not any(isinstance(each, Renewal) for each in threading.enumerate()))


@pytest.mark.parametrize("is_interrupted", [False, True])
def test_a_request_that_was_not_freed_is_freed_later(
    alias, key, dynamo_faults, until, is_interrupted
):
    """Long before its lease ends."""
    using = alias(
        ENDPOINT_URL=dynamo_faults.url,
        RETRY={"MAX_RETRIES": 0},
        CIRCUIT_BREAKER={"ENABLED": False},
        DEDUPE={"LEASE": 600},
    )
    outcomes = [503, 201]

    @idempotent(using=using)
    def view(request):
        status = outcomes.pop(0)
        if status == 503 and is_interrupted:
            dynamo_faults.delay(2.0, "UpdateItem", times=1)
            dynamo_faults.fail("UpdateItem", status=500, times=1)
            interrupt_in(0.5)
        elif status == 503:
            dynamo_faults.fail("UpdateItem", status=500, times=1)
        return HttpResponse(status=status)

    def post():
        return view(RequestFactory().post("/", headers={"Idempotency-Key": key}))

    with interrupting() as interrupt_in:
        if is_interrupted:
            with pytest.raises(Interrupted):
                post()
        else:
            assert post().status_code == 503
        until(lambda: post().status_code == 201)
    assert not outcomes
    until(lambda: not any(isinstance(each, Renewal) for each in threading.enumerate()))


def test_a_cancelled_end_of_a_request_is_stored_later(unsteady, key, dynamo_faults, until):
    """With its body: the client that went away asks again."""
    calls = []

    @idempotent(using=unsteady)
    async def view(request):
        calls.append(1)
        dynamo_faults.delay(1.0, "UpdateItem", times=1)
        return HttpResponse("done", status=201)

    def post():
        return view(RequestFactory().post("/", headers={"Idempotency-Key": key}))

    async def give_up():
        task = asyncio.ensure_future(post())
        while not calls:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(give_up())
    until(lambda: asyncio.run(post()).status_code == 201)
    assert asyncio.run(post()).content == b"done"
    assert calls == [1]
    until(lambda: not any(isinstance(each, Renewal) for each in threading.enumerate()))


@pytest.mark.django_db(transaction=True)
def test_a_committed_request_is_stored_although_a_callback_fails(key):
    """It must not be carried out again."""
    calls = []

    @idempotent
    def view(request):
        calls.append(1)
        transaction.on_commit(fail)
        return HttpResponse("done", status=201)

    def fail():
        raise StoreUnavailable("GetItem on t got no answer.")

    def post():
        with transaction.atomic():
            return view(RequestFactory().post("/", headers={"Idempotency-Key": key}))

    with pytest.raises(StoreUnavailable):
        post()
    assert post().status_code == 201
    assert calls == [1]


def test_many_unanswered_claims_leave_no_job(alias, key, dynamo_faults, until):
    """However many of them wait to be freed."""
    store = DedupeStore(
        alias(
            ENDPOINT_URL=dynamo_faults.url,
            RETRY={"MAX_RETRIES": 0},
            CIRCUIT_BREAKER={"ENABLED": False},
            DEDUPE={"LEASE": 600},
        )
    )
    store.is_in_progress(key)
    dynamo_faults.lose_answer("UpdateItem")
    for number in range(240):
        with pytest.raises(StoreUnavailable):
            store.register(f"{key}{number}")
    dynamo_faults.clear()
    held = [f"{key}{number}" for number in range(240)]

    def are_free():
        held[:] = [each for each in held if store.is_in_progress(each)]
        return not held

    until(are_free)


@pytest.mark.parametrize("verb", ["arun", "aregister"])
def test_a_cancelled_claim_is_undone(alias, key, dynamo_faults, verb):
    """What its request takes after that is freed."""
    store = DedupeStore(
        alias(ENDPOINT_URL=dynamo_faults.url, DEDUPE={"LEASE": 600, "MAX_WAIT": LONG})
    )
    store.is_in_progress(key)

    call = store.arun(key, lambda: "never") if verb == "arun" else store.aregister(key)
    asyncio.run(cancelled_during(dynamo_faults, "UpdateItem", call))
    assert store.run(key, lambda: "next") == "next"


def test_a_cancelled_register_leaves_the_job_free(alias, key, dynamo_faults, until):
    """Soon, in the background, although DynamoDB carried the request out."""
    store = DedupeStore(alias(ENDPOINT_URL=dynamo_faults.url, DEDUPE={"LEASE": 600}))
    store.is_in_progress(key)
    asyncio.run(cancelled_during(dynamo_faults, "UpdateItem", store.aregister(key)))
    until(lambda: (job := run(store.jobs.get_job(key))) is not None and fence_of(job))
    until(lambda: not store.is_in_progress(key))
    assert store.register(key) is not None


@pytest.mark.parametrize("is_working", [False, True])
def test_a_job_whose_loop_ends_is_freed(alias, key, dynamo_faults, until, is_working):
    """A coroutine that is closed can await nothing more, neither in its claim nor in its work."""
    store = DedupeStore(alias(ENDPOINT_URL=dynamo_faults.url, DEDUPE={"LEASE": 600}))
    store.is_in_progress(key)
    started = []

    async def work():
        started.append(1)
        await asyncio.sleep(60)

    async def begin():
        before = dynamo_faults.requests["UpdateItem"]
        task = asyncio.get_running_loop().create_task(closed, context=context)
        while not started if is_working else dynamo_faults.requests["UpdateItem"] == before:
            await asyncio.sleep(0.01)
        return task

    if not is_working:
        dynamo_faults.delay(1.0, "UpdateItem", times=1)
    closed, context = store.arun(key, work), contextvars.copy_context()
    loop = asyncio.new_event_loop()
    task = loop.run_until_complete(begin())
    context.run(closed.close)
    task._log_destroy_pending = False
    loop.close()
    until(lambda: (job := run(store.jobs.get_job(key))) is not None and fence_of(job))
    until(lambda: not store.is_in_progress(key))
    until(lambda: not any(isinstance(each, Renewal) for each in threading.enumerate()))
    assert bool(started) is is_working


def test_a_job_that_cannot_be_renewed_is_freed(key, monkeypatch):
    """If the thread cannot start, the error is raised, and the next caller runs the job."""
    store = DedupeStore()

    def fail(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(Renewal, "start", fail)
        with pytest.raises(RuntimeError, match="start new thread"):
            store.run(key, lambda: "never")
    assert store.run(key, lambda: "next") == "next"


def test_work_without_a_json_result_is_not_done_again(key, dynamo_clock):
    """For as long as a result would be kept; the error says what to do."""
    calls = []

    @deduplicated(key="{name}", ttl=600)
    def work(name):
        calls.append(name)
        return {1, 2}

    with pytest.raises(DedupeError, match=r"not run again for 600 s.*Return strings, numbers"):
        work(key)
    for _ in range(2):
        dynamo_clock.advance(290)
        with pytest.raises(DedupeFailedError, match=r"was done.*Return strings, numbers"):
            work(key)
    assert calls == [key]
    dynamo_clock.advance(30)
    with pytest.raises(DedupeError, match="must be JSON serializable"):
        work(key)
    assert len(calls) == 2


def test_racing_callers_without_waiting(key):
    """One runs, the others get None at once; each makes one claim."""
    barrier, go_on = threading.Barrier(6), threading.Event()

    @deduplicated(key="{name}", wait=False)
    def work(name):
        go_on.wait(LONG)
        return "done"

    def call(number):
        barrier.wait(LONG)
        found = work(key)
        if found is None:
            skipped.append(number)
            if len(skipped) == 5:
                go_on.set()
        return found

    skipped = []
    with measuring() as measurements, ThreadPoolExecutor(6) as threads:
        found = list(threads.map(call, range(6)))
    assert sorted(map(str, found)) == ["None"] * 5 + ["done"]
    # Other tests' aliases may still release leases in the background.
    own = [each.operation for each in measurements if each.using == "default"]
    assert own.count("UpdateItem") == 7
    assert work(key) == "done"


def test_errors_without_waiting(key):
    """An error of the function, and one that is kept, are raised; also by coroutine functions."""

    @deduplicated(key="{name}", wait=False)
    async def fail(name):
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        asyncio.run(fail(key))
    with pytest.raises(DedupeFailedError, match="no"):
        asyncio.run(fail(key))


@pytest.mark.parametrize("is_async", [False, True])
def test_a_request_that_cannot_be_renewed_is_freed(key, monkeypatch, is_async):
    """The error is raised, and the next request with the key is processed."""

    async def respond(request):
        return HttpResponse("done")

    view = idempotent(lambda request: HttpResponse("done"))
    if is_async:
        view = async_to_sync(idempotent(respond))

    def post():
        return RequestFactory().post("/", headers={"Idempotency-Key": key})

    def fail(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(Renewal, "start", fail)
        with pytest.raises(RuntimeError, match="start new thread"):
            view(post())
    assert view(post()).content == b"done"
