"""Receivers of Celery's signals: tasks make background calls, and workers report their end."""

from __future__ import annotations

from typing import Any

from celery.signals import (
    task_postrun,
    task_prerun,
    worker_process_shutdown,
    worker_shutdown,
)

from .calls.backpressure import is_background, set_background
from .monitoring.notifications.notifier import send_rest
from .monitoring.reporter import publish_last_reports

# The pool of a worker ends its processes without Python's exit handlers.
for shutdown in (worker_process_shutdown, worker_shutdown):
    shutdown.connect(send_rest)
    shutdown.connect(publish_last_reports)


@task_prerun.connect  # type: ignore[untyped-decorator]
def begin_background(task: Any, **kwargs: Any) -> None:
    """Mark the calls of a task as background work."""
    # Each run of a task has a request of its own, also within another task.
    task.request.dynamo_stores_was_background = is_background()
    set_background(True)


@task_postrun.connect  # type: ignore[untyped-decorator]
def end_background(task: Any, **kwargs: Any) -> None:
    """Go on as before the task: as background work, or for users if a view called the task."""
    set_background(getattr(task.request, "dynamo_stores_was_background", False))
