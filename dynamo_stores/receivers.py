"""Receivers of signals: schedule lowering of raised tables, and mark background work."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from celery.signals import task_postrun, task_prerun
from django.dispatch import receiver

from .calls.backpressure import is_background, set_background
from .concurrency.background import get_background
from .conf import get_config
from .monitoring.snapshot import get_descriptions
from .signals import capacity_changed

logger = logging.getLogger(__name__)


@receiver(capacity_changed, dispatch_uid="dynamo_stores.receivers")
def schedule_scale_down(using: str, table: str, code: str, **kwargs: Any) -> None:
    """
    Send ``dynamo_stores.scale_down`` with a countdown if Celery has a broker.

    A queue may lose the task or deliver it late or twice, so the record in the control table
    decides, and ``reconcile_capacity`` lowers tables that were missed.
    """
    if code not in ("raised", "by_hand"):
        return
    from celery import current_app

    if current_app.conf.broker_url is None:
        return
    delay = get_config(using).for_table(table).scaling.scale_down_delay
    # The application of this thread: another thread may have another one.
    application = current_app._get_current_object()
    # A broker that accepts a connection and never answers must not delay the next raise.
    if not get_background(using).submit(
        partial(_send_scale_down, application, using, table, delay)
    ):
        logger.warning("The task to lower %s was not sent: the broker does not answer.", table)


def _send_scale_down(application: Any, using: str, table: str, delay: float) -> None:
    try:
        application.send_task(
            "dynamo_stores.scale_down",
            args=[table, using],
            countdown=delay + 1,
            # A queue with a short visibility timeout delivers it early and again.
            expires=delay + 600,
            retry=False,
            ignore_result=True,
        )
        logger.info(
            "The capacity of table %s will be lowered in %.0f s.", table, delay,
            extra={"dynamodb_table": table, "dynamodb_delay": delay},
        )  # fmt: skip
    except Exception as exc:  # noqa: BLE001 - whatever the broker's client raises
        logger.info("The task to lower %s was not sent: %s", table, type(exc).__name__)


@receiver(capacity_changed, dispatch_uid="dynamo_stores.receivers.status")
def forget_description(using: str, table: str, **kwargs: Any) -> None:
    """Discard the cached description of the table on the status pages."""
    get_descriptions(using).forget(table)


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
