"""Where notifications come from: signals, and the records of capacity."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from django.dispatch import receiver

from ... import clock
from ...calls.breaker import State
from ...calls.counters import get_counters
from ...conf import DEFAULT_ALIAS, get_config, provisioned_aliases
from ...exceptions import TABLE_MISSING, ConfigurationError, code_of
from ...signals import breaker_state_changed, capacity_changed, capacity_decided, failed_over
from ..formatting import span

if TYPE_CHECKING:
    from .messages import News

# The texts are imported when there is one to send: each process has these receivers from its start.
_UID = "dynamo_stores.monitoring.notifications"
# Decisions after which a table stays raised until somebody acts.
_LASTING = frozenset(["not_allowed", "refused"])


@receiver(breaker_state_changed, dispatch_uid=f"{_UID}.breakers")
def _on_breaker(using: str, table: str, old: State, new: State, error: str, **kwargs: Any) -> None:
    config = get_config(using)
    if not config.notify.is_on or new is State.HALF_OPEN:
        return
    from . import messages
    from .notifier import get_notifier

    notifier, now, about = get_notifier(using), clock.now(), f"breaker/{table}"
    if new is State.CLOSED:
        since = notifier.since.pop(about, None)
        make = partial(messages.breaker_closed, using, table, now, since)
        notifier.submit(make, messages.BREAKER_CLOSED)
        return
    is_repetition = old is not State.CLOSED
    if is_repetition and now - notifier.prolonged.get(about, 0.0) < messages.PROLONG_AFTER:
        return
    notifier.prolonged[about] = now
    notifier.since.setdefault(about, now)
    notifier.submit(
        partial(
            messages.breaker_opened, using, table, now, error,
            recovery=config.for_table(table).circuit_breaker.recovery_timeout,
            is_repetition=is_repetition,
        ),
        messages.BREAKER_OPENED,
    )  # fmt: skip


@receiver(capacity_changed, dispatch_uid=f"{_UID}.capacity")
def _on_capacity(
    using: str, table: str, changes: Mapping[str, Any], code: str, why: str, **kwargs: Any
) -> None:
    if get_config(using).notify.is_on:
        _tell_capacity(using, table, changes, code, why)


def _tell_capacity(using: str, table: str, changes: Mapping[str, Any], code: str, why: str) -> None:
    from . import messages
    from .notifier import get_notifier

    make = partial(
        messages.capacity_changed, using, table, clock.now(),
        changes={name: (int(read), int(write)) for name, (read, write) in changes.items()},
        code=code, why=why, then=_then(using, table, code),
    )  # fmt: skip
    get_notifier(using).submit(make, messages.CAPACITY_CHANGED)


def _then(using: str, table: str, code: str) -> str:
    config = get_config(using).for_table(table).scaling
    if code.endswith("lowered"):
        return "It is raised again when it throttles." if config.enabled else "Nothing follows."
    if code == "scheduled":
        return "It is lowered when its schedule wants less."
    delay = span(config.scale_down_delay)
    return f"What was raised is lowered {delay} after it was needed last (SCALE_DOWN_DELAY)."


@receiver(capacity_decided, dispatch_uid=f"{_UID}.decisions")
def _on_decision(using: str, table: str, decision: Mapping[str, Any], **kwargs: Any) -> None:
    if not get_config(using).notify.is_on:
        return
    code, why = str(decision["code"]), str(decision["why"])
    if code == "at_maximum":
        from . import messages
        from .notifier import get_notifier

        make = partial(messages.at_maximum, using, table, float(decision["at"]), why)
        get_notifier(using).submit(make, messages.AT_MAXIMUM)
    elif code.startswith("minimum_") and decision["to"]:
        # Application Auto Scaling changes the capacity itself, later.
        _tell_capacity(using, table, decision["to"], code, why)


@receiver(failed_over, dispatch_uid=f"{_UID}.failover")
def _on_failover(
    using: str, table: str, failover: str, is_active: bool, error: str, **kwargs: Any
) -> None:
    if not get_config(using).notify.is_on:
        return
    from . import messages
    from .notifier import get_notifier

    notifier, now, about = get_notifier(using), clock.now(), f"failover/{table}"
    if is_active:
        notifier.since[about] = now
        make = partial(messages.failover_begun, using, table, now, failover, error)
        notifier.submit(make, messages.FAILOVER_BEGUN)
    else:
        since = notifier.since.pop(about, None)
        make = partial(messages.failover_ended, using, table, now, failover, since)
        notifier.submit(make, messages.FAILOVER_ENDED)


def is_checked(using: str) -> bool:
    """Return whether :func:`check` has something to do: for ``NOTIFY``, or for a metric."""
    config = get_config(using)
    return config.notify.is_on or (bool(config.metrics.sinks) and using in provisioned_aliases())


def check(using: str = DEFAULT_ALIAS) -> int:
    """
    Look for tables of the alias that should have been lowered and were not; return their number.

    ``NOTIFY`` is told once for each raise, and of what was left out earlier. The check is counted
    for the metric ``scale_down_checks``. Nothing is read unless :func:`is_checked`. For a periodic
    task.

    Raises StoreUnavailable, and with ``NOTIFY`` ConfigurationError without a control table.
    """
    if not is_checked(using):
        return 0
    from .messages import STUCK

    notifies = get_config(using).notify.is_on
    if notifies:
        from .notifier import get_notifier

        get_notifier(using).submit_overdue()
    now = clock.now()
    try:
        stuck = _stuck(using, now)
    except ConfigurationError as exc:
        if notifies or code_of(exc) != TABLE_MISSING:
            raise
        return 0
    get_counters(using).add("scale_down_checks", "stuck" if stuck else "ok")
    if notifies:
        for submit in stuck:
            get_notifier(using).submit(submit, STUCK)
    return len(stuck)


def _stuck(using: str, now: float) -> list[partial[News]]:
    """Return the messages about tables that should have been lowered."""
    from ...capacity.records import CapacityRecords, DirectRecords
    from ..status import is_overdue
    from .messages import stuck

    found = []
    tables = CapacityRecords(using).tables()
    for table, record in DirectRecords(using).get_many(tables).items():
        if record.deadline is None:
            continue
        late = is_overdue(record.deadline, now)
        if not late and record.decision.get("code") not in _LASTING:
            continue
        why = "nothing runs dynamo_reconcile" if late else str(record.decision.get("why", ""))
        found.append(
            partial(
                stuck, using, table, now, deadline=record.deadline, why=why,
                generation=record.generation, is_overdue=late,
            )
        )  # fmt: skip
    return found
