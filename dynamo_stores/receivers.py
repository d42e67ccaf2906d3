"""What happens when a table throttles, or its capacity changes: it is raised, and lowered later."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from django.dispatch import receiver

from .calls import observer
from .calls.observer import Measurement
from .concurrency.background import get_background
from .conf import aliases, get_config, when_changed
from .exceptions import ConfigurationError
from .signals import capacity_changed

logger = logging.getLogger(__name__)


def _observe(measurement: Measurement) -> None:
    config = get_config(measurement.using)
    if config.for_table(measurement.table).scaling.enabled:
        from .capacity.scale_up import get_scaler

        get_scaler(measurement.using).record(measurement)


@when_changed
def watch() -> None:
    """Observe calls if the settings enable scaling for any table."""
    try:
        configs = [get_config(using) for using in aliases()]
    except ConfigurationError:
        return  # the system checks report it
    tables = [
        each for config in configs for each in (config, *map(config.for_table, config.tables))
    ]
    if any(each.scaling.enabled for each in tables):
        observer.subscribe(_observe)
    else:
        observer.unsubscribe(_observe)


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
    from .monitoring.snapshot import get_descriptions

    get_descriptions(using).forget(table)
