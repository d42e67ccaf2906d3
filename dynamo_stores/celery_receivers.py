"""Receivers of Celery's signals: tasks make background calls, and workers publish their end."""

from __future__ import annotations

from typing import Any

from celery.signals import (
    before_task_publish,
    task_postrun,
    task_prerun,
    worker_process_shutdown,
    worker_shutdown,
)

from .calls.backpressure import is_background, set_background
from .monitoring import correlation
from .monitoring.exporter import close_sinks
from .monitoring.notifications.notifier import send_rest
from .monitoring.reporter import publish_last_reports

# The pool of a worker ends its processes without Python's exit handlers.
for shutdown in (worker_process_shutdown, worker_shutdown):
    shutdown.connect(send_rest)
    shutdown.connect(publish_last_reports)
    shutdown.connect(close_sinks)

# The header of a task with the correlation id of the code that sent it.
_HEADER = "dynamo_stores_correlation"


@before_task_publish.connect  # type: ignore[untyped-decorator]
def send_correlation(headers: dict[str, Any] | None = None, **kwargs: Any) -> None:
    """Give a task the correlation id of the code that sends it."""
    if headers is not None and (found := correlation.current()):
        headers.setdefault(_HEADER, found)


@task_prerun.connect  # type: ignore[untyped-decorator]
def begin_background(task: Any, **kwargs: Any) -> None:
    """Mark the calls of a task as background work."""
    # Each run of a task has a request of its own, also within another task.
    task.request.dynamo_stores_was_background = is_background()
    set_background(True)
    sent = getattr(task.request, _HEADER, None)
    if sent is None and getattr(task.request, "is_eager", False):
        # Nothing was sent: the code that calls the task waits for it.
        sent = correlation.current()
    found = correlation.id_or_new(sent)
    task.request.dynamo_stores_correlation_token = correlation.begin(found)


@task_postrun.connect  # type: ignore[untyped-decorator]
def end_background(task: Any, **kwargs: Any) -> None:
    """Go on as before the task: as background work, or for users if a view called the task."""
    set_background(getattr(task.request, "dynamo_stores_was_background", False))
    if (token := getattr(task.request, "dynamo_stores_correlation_token", None)) is not None:
        correlation.end(token)
