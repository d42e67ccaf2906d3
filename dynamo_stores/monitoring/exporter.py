"""
The sinks of this process: each has a thread of its own, which publishes what the meter counts.

A sink that hangs or raises delays no request and no other sink. It has no queue: what it did not
publish is in the difference to its last export, so memory is bounded and nothing is lost.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import random
import threading
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from django.core.signals import request_finished
from django.utils.module_loading import import_string

from .. import clock
from ..calls import observer
from ..calls.observer import Operation
from ..concurrency.per_process import PerProcess
from ..conf import aliases, get_config, when_changed
from ..exceptions import ConfigurationError
from .ending import time_left, when_ending
from .meter import Meter, get_meter, when_begun
from .metrics import Snapshot
from .sinks.base import Metric, Sink

logger = logging.getLogger(__name__)

# Seconds that a flush may take.
_FLUSHING = 1.5


class Exporter:
    """One sink of an alias in this process."""

    def __init__(self, sink: Sink, meter: Meter) -> None:
        self.sink = sink
        self.interval = sink.config.interval if sink.interval is None else sink.interval
        self._meter = meter
        self._last = Snapshot(meter.using, clock.now())
        self._tried_at = self._last.at
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._requests: list[Request] = []
        self._has_failed = False
        # The first request that ends it.
        self._ending: Request | None = None
        self._thread: threading.Thread | None = None

    @property
    def has_started(self) -> bool:
        """Whether there is a thread that publishes."""
        return self._thread is not None

    @property
    def is_due(self) -> bool:
        """Whether the last try to publish is older than the interval, or the sink wants one."""
        if clock.now() - self._tried_at >= self.interval:
            return True
        with self.guarded("is_due"):
            return self.sink.is_due()
        return False

    def start(self) -> None:
        """Start the thread. Raises RuntimeError if there can be none."""
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(
                    target=_run,
                    args=(weakref.ref(self), self._wake),
                    name=f"dynamo-stores-{type(self.sink).__name__}-{self._meter.using}",
                    daemon=True,
                )
                thread.start()
                self._thread = thread

    def request(self, *, ends: bool = False) -> Request:
        """
        Let the thread publish at once, and close the sink if the process ``ends``; return the
        request, which is done when it has. After a request that ends, that one is returned.
        """
        self.start()
        with self._lock:
            if self._ending is not None:
                return self._ending
            request = Request(ends)
            self._requests.append(request)
            if ends:
                self._ending = request
        self._wake.set()
        return request

    def export(self) -> bool:
        """Publish what was counted; return whether the thread goes on. Never raises."""
        self._wake.clear()
        with self._lock:
            requests, self._requests = self._requests, []
            ends = any(request.ends for request in requests)
        is_published = False
        self._tried_at = clock.now()
        # In this thread nobody else handles what a sink raises, whatever it is.
        with self.guarded("export", BaseException):
            snapshot = self._meter.snapshot()
            self.sink.export(snapshot, snapshot.since(self._last))
            self._last, self._has_failed = snapshot, False
            is_published = True
        if ends:
            with self.guarded("close", BaseException):
                self.sink.close()
        for request in requests:
            request.is_published = is_published
            request.done.set()
        return not ends

    def wants_operations(self) -> bool:
        """Return whether the sink wants operations at present; not if it raises."""
        try:
            return self.sink.wants_operations()
        except Exception as exc:  # noqa: BLE001 - whatever a sink raises is logged
            self._log_failure("wants_operations", exc)
            return False

    @contextlib.contextmanager
    def guarded(self, what: str, kind: type[BaseException] = Exception) -> Iterator[None]:
        """Log what the sink raises within the block: once, until an export succeeds."""
        try:
            yield
        except kind as exc:
            self._log_failure(what, exc)

    def _log_failure(self, what: str, exc: BaseException) -> None:
        level = logging.DEBUG if self._has_failed else logging.WARNING
        self._has_failed = True
        name = type(self.sink).__name__
        if isinstance(exc, OSError | BotoCoreError | ClientError):
            # What it publishes to does not answer, or refuses; no fault of the sink.
            logger.log(level, "The sink %s failed in %s: %s", name, what, exc)
        else:
            logger.log(level, "The sink %s failed in %s.", name, what, exc_info=exc)


class Request:
    """A request to publish at once; ``done`` is set at its end."""

    def __init__(self, ends: bool) -> None:
        self.ends = ends
        self.done = threading.Event()
        self.is_published = False


class _Guarded:
    """The context of a sink, which gets exceptions of the block and raises none of its own."""

    def __init__(self, exporter: Exporter, context: contextlib.AbstractContextManager[Any]) -> None:
        self._exporter = exporter
        self._context = context

    def __enter__(self) -> None:
        self._context.__enter__()

    def __exit__(self, *exc_info: Any) -> None:
        with self._exporter.guarded("block"):
            self._context.__exit__(*exc_info)


# Whether an operation of this thread is passed to sinks.
_passing = threading.local()


class Exporters:
    """All sinks of one alias in this process."""

    def __init__(self, using: str) -> None:
        self.config = get_config(using).metrics
        meter = get_meter(using)
        self.all = [Exporter(sink, meter) for sink in _make(using)]
        self.asked = [
            each
            for each in self.all
            if type(each.sink).wants_operations is not Sink.wants_operations
        ]

    @property
    def has_started(self) -> bool:
        """Whether there is anything to publish."""
        return any(each.has_started for each in self.all)

    def operation(self, operation: Operation) -> None:
        """
        Pass an operation to the sinks that want it, unless a sink makes it, or a handler of the
        log line of one.
        """
        if getattr(_passing, "is_on", False):
            return
        _passing.is_on = True
        try:
            self._pass(operation)
        finally:
            _passing.is_on = False

    def _pass(self, operation: Operation) -> None:
        rate = self.config.sampling_rate
        is_sampled = rate >= 1 or random.random() < rate
        for each in self.all:
            sink = each.sink
            if each.wants_operations():
                with each.guarded("operation"):
                    sink.count(operation)
                    if is_sampled:
                        sink.operation(operation)

    def metric(self, metric: Metric) -> None:
        """Pass a value of the application to the sinks."""
        for each in self.all:
            with each.guarded("metric"):
                each.sink.metric(metric)
                if not each.has_started:
                    each.start()

    @contextlib.contextmanager
    def block(self, name: str, attributes: Mapping[str, str]) -> Iterator[None]:
        """Enter the contexts of the sinks, such as spans, for the block."""
        with contextlib.ExitStack() as stack:
            for each in self.all:
                with each.guarded("block"):
                    if (context := each.sink.block(name, attributes)) is not None:
                        stack.enter_context(_Guarded(each, context))
            yield


def _make(using: str) -> Iterator[Sink]:
    config = get_config(using).metrics
    for path in config.sinks:
        try:
            yield import_string(path)(using, config.options.get(path, {}))
        except Exception:
            # The system checks report what can be seen without making it.
            logger.exception("The sink %s of METRICS cannot be made; it is left out.", path)


_exporters = PerProcess(Exporters)


def get_exporters(using: str) -> Exporters:
    """Return the sinks of the alias ``using`` in this process."""
    return _exporters.get(using)


def flush_metrics(using: str | None = None, *, seconds: float = _FLUSHING) -> bool:
    """
    Publish at once what the sinks have counted, of all aliases or of ``using``, for at most
    ``seconds``; return whether all have published it. For programs that are frozen or end.
    """
    found = [_exporters.get(using)] if using else _exporters.all()
    return _publish([each for exporters in found for each in exporters.all], seconds)


def flush_due_metrics(**kwargs: Any) -> None:
    """Publish at once what is due, for at most 1.5 seconds; a receiver of ``request_finished``."""
    due = [each for exporters in _exporters.all() for each in exporters.all if each.is_due]
    if due:
        _publish(due, _FLUSHING)


def _publish(found: list[Exporter], seconds: float, *, ends: bool = False) -> bool:
    requests = [each.request(ends=ends) for each in found]
    until = clock.monotonic() + seconds
    for request in requests:
        request.done.wait(max(0.0, until - clock.monotonic()))
    return all(request.is_published for request in requests)


def _run(found: weakref.ref[Exporter], wake: threading.Event) -> None:
    # The thread ends when the exporter is garbage collected, as after a change of settings.
    goes_on = True
    while goes_on and (exporter := found()) is not None:
        # Jitter, because processes that started together would publish together.
        wait = exporter.interval * random.uniform(0.9, 1.0)
        del exporter
        # Real time: this thread must not advance the fake clock of a test.
        wake.wait(wait)
        if (exporter := found()) is None:
            return
        goes_on = exporter.export()


@when_begun
def _start(using: str) -> None:
    for each in get_exporters(using).all:
        each.start()


# The exporters whose sinks may want operations, once the first call has made all sinks.
_asked: list[list[Exporter]] = []


def _ask_again() -> None:
    global _asked
    # Not cleared: another thread may add those that it has just found.
    _asked = []


os.register_at_fork(after_in_child=_ask_again)
when_changed(_ask_again)


def _ask(asked: list[list[Exporter]]) -> None:
    sinks = [using for using in aliases() if get_config(using).metrics.sinks]
    asked.append([each for using in sinks for each in get_exporters(using).asked])


def _wants_operations() -> bool:
    # For each call.
    asked = _asked
    if not asked:
        _ask(asked)
    for exporter in asked[0]:
        try:
            if exporter.sink.wants_operations():
                return True
        except Exception:  # noqa: BLE001 - it is logged there
            if exporter.wants_operations():
                return True
    return False


def _observe(operation: Operation) -> None:
    if get_config(operation.using).metrics.sinks:
        get_exporters(operation.using).operation(operation)


@when_changed
def watch() -> None:
    """Pass operations to the sinks if the settings of any alias have some."""
    try:
        wanted = any(get_config(using).metrics.sinks for using in aliases())
    except ConfigurationError:
        return  # the system checks report it
    if wanted:
        observer.subscribe_operations(_observe, every=_wants_operations)
    else:
        observer.unsubscribe_operations(_observe)


def watch_requests() -> None:
    """In AWS Lambda, where threads stand still between requests, publish at the end of each."""
    if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
        request_finished.connect(flush_due_metrics, dispatch_uid=f"{__name__}.flush_due_metrics")


@when_ending
def _request_ends() -> None:
    with contextlib.suppress(RuntimeError):
        for exporters in _exporters.all():
            for each in exporters.all:
                if each.has_started:
                    each.request(ends=True)


@atexit.register
def close_sinks(**kwargs: Any) -> None:
    """Publish what is left and close the sinks. Ctrl-C meanwhile leaves the rest out."""
    with contextlib.suppress(KeyboardInterrupt, RuntimeError):
        left = time_left()
        ending = [each for each in _exporters.all() if each.has_started]
        _publish([each for exporters in ending for each in exporters.all], left, ends=True)
