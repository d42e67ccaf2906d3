"""Turns news into work: a table was raised, so somebody is to bring it down."""

from __future__ import annotations

import logging
from typing import Any

from celery.signals import task_postrun, task_prerun
from django.dispatch import receiver

from .calls.backpressure import set_background
from .conf import get_config
from .monitoring.snapshot import get_descriptions
from .signals import capacity_changed

logger = logging.getLogger(__name__)


@receiver(capacity_changed, dispatch_uid="dynamo_stores.receivers")
def schedule_scale_down(using: str, table: str, code: str, **kwargs: Any) -> None:
    """
    Send ``dynamo_stores.scale_down`` with a countdown where Celery has a broker.

    It is a hint: a queue loses it with its worker, delivers it late or twice. The record and the
    sweep decide.
    """
    if code not in ("raised", "by_hand"):
        return
    from celery import current_app

    if current_app.conf.broker_url is None:
        return
    delay = get_config(using).for_table(table).scaling.scale_down_delay
    try:
        current_app.send_task(
            "dynamo_stores.scale_down",
            args=[table, using],
            countdown=delay + 1,
            # Queues that cannot hold it so long deliver it early and again; later it is no use.
            expires=delay + 600,
            retry=False,
            ignore_result=True,
        )
        logger.info(
            "Table %s is to come down in %.0f s.", table, delay,
            extra={"dynamodb_table": table, "dynamodb_delay": delay},
        )  # fmt: skip
    except Exception as exc:  # noqa: BLE001 - whatever the broker's client raises
        logger.info("The hint to bring %s down was not sent: %s", table, type(exc).__name__)


@receiver(capacity_changed, dispatch_uid="dynamo_stores.receivers.status")
def forget_description(using: str, table: str, **kwargs: Any) -> None:
    """Let the status pages ask again what the table has."""
    get_descriptions(using).forget(table)


@task_prerun.connect  # type: ignore[untyped-decorator]
def begin_background(**kwargs: Any) -> None:
    """Let users' work go before a task's."""
    set_background(True)


@task_postrun.connect  # type: ignore[untyped-decorator]
def end_background(**kwargs: Any) -> None:
    """Let the thread serve users again, where a task was called in it."""
    set_background(False)
