"""Whom to stand aside for: Application Auto Scaling, and hours in which nothing is lowered."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import get_session

from .. import clock
from ..calls.process import PerProcess
from ..calls.transport import is_loopback
from ..conf import get_config
from ..rules import parse_hours

logger = logging.getLogger(__name__)

# How long an answer about targets is gone by, in seconds.
_REMEMBERED = 300.0


class AutoScalingTargets:
    """Which tables of an alias Application Auto Scaling looks after; it overwrites anybody else."""

    def __init__(self, using: str) -> None:
        self._using = using
        self._known: dict[str, tuple[float, bool]] = {}
        self._client: Any = None

    def has(self, table: str) -> bool:
        """
        Return whether the table, or one of its indexes, has a target.

        Where that cannot be asked (no permission, no such service) it is taken to have none, and
        said once.
        """
        known = self._known.get(table)
        if known is not None and clock.monotonic() - known[0] < _REMEMBERED:
            return known[1]
        found = self._ask(table)
        self._known[table] = (clock.monotonic(), found)
        return found

    def _ask(self, table: str) -> bool:
        config = get_config(self._using)
        own = config.for_table(table).scaling.auto_scaling_endpoint_url
        if own is None and config.endpoint_url is not None and is_loopback(config.endpoint_url):
            return False  # an engine on this machine has no such service beside it
        try:
            if self._client is None:
                self._client = _make_client(config, own)
            pages = self._client.get_paginator("describe_scalable_targets").paginate(
                ServiceNamespace="dynamodb"
            )
            resources = {each["ResourceId"] for page in pages for each in page["ScalableTargets"]}
        except (BotoCoreError, ClientError) as exc:
            if table not in self._known:
                logger.warning(
                    "It could not be asked whether table %s has targets of Application Auto "
                    "Scaling (%s); it is taken to have none.",
                    table, type(exc).__name__,
                    extra={"dynamodb_table": table, "dynamodb_using": self._using},
                )  # fmt: skip
            return False
        name = f"table/{table}"
        return any(each == name or each.startswith(f"{name}/") for each in resources)


def _make_client(config: Any, endpoint: str | None) -> Any:
    credentials: dict[str, Any] = {}
    if endpoint is not None and is_loopback(endpoint):
        credentials = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
    return get_session().create_client(
        "application-autoscaling",
        region_name=config.region or ("us-east-1" if credentials else None),
        endpoint_url=endpoint,
        **credentials,
    )


_targets = PerProcess(AutoScalingTargets)


def is_auto_scaled(using: str, table: str) -> bool:
    """Return whether Application Auto Scaling looks after ``table``; remembered for 5 minutes."""
    return _targets.get(using).has(table)


def end_of_maintenance(windows: Sequence[str], now: float) -> float | None:
    """Return when the maintenance window ends in which ``now`` is, None outside of all; UTC."""
    moment = datetime.fromtimestamp(now, UTC)
    minute = moment.hour * 60 + moment.minute
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    ends = []
    for window in windows:
        begin, end = parse_hours(window)
        if begin <= end and begin <= minute < end:
            ends.append(midnight + timedelta(minutes=end))
        elif begin > end and minute >= begin:
            ends.append(midnight + timedelta(days=1, minutes=end))
        elif begin > end and minute < end:
            ends.append(midnight + timedelta(minutes=end))
    return max(ends).timestamp() if ends else None
