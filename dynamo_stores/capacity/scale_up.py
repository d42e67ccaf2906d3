"""
Raise throttled tables at once, from one process, outside of the throttled request.

An observer of all calls counts the demand and records throttles. A thread then publishes the
demand to the other processes, and the process that gets the claim in the control table plans and
requests the change. The other processes do not wait, and no request waits until the table is
ACTIVE.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from botocore.exceptions import ClientError

from .. import clock
from ..calls.control import get_control
from ..calls.observer import Measurement
from ..concurrency.per_process import PerProcess
from ..conf import get_config
from ..conf.groups import ScalingConfig
from ..exceptions import ConfigurationError, StoreUnavailable, ThrottlingReason
from .auto_scaling import get_auto_scaling, plan_minimums_up, plan_no_change
from .demand import LocalDemand, SharedDemand
from .description import Quota, TableCapacity, read_limits
from .history import Decisions
from .planner import Plan, plan_up
from .records import CapacityRecords
from .update import apply, as_decision, describe, raise_until

logger = logging.getLogger(__name__)

# Seconds in which throttles are collected before they are handled, and in which the process with
# the claim waits for the demand of the others.
_GATHER, _AWAIT_DEMAND = 0.1, 0.3
# Seconds of a claim, in which no other process raises the table.
_CLAIM = 5.0
# Seconds without another attempt after a plan that will not change soon.
_LONG_PAUSE = 300.0
_LASTING = frozenset(
    [
        "account_limit",
        "at_maximum",
        "auto_scaled",
        "no_table",
        "not_allowed",
        "on_demand",
        "replicas",
    ]
)
# Plans without changes that are neither logged nor published: no action is needed.
_HARMLESS = frozenset(["in_progress", "nothing"])


_Pause = tuple[str, tuple[int, int] | None]


@dataclass
class _Throttled:
    reasons: set[ThrottlingReason] = field(default_factory=set)
    kinds: set[str] = field(default_factory=set)
    config: ScalingConfig | None = None
    partition: str = ""


class Scaler:
    """Raises the tables of one alias, in one process."""

    def __init__(self, using: str) -> None:
        self._using = using
        self._demand = LocalDemand()
        self._waiting: dict[str, _Throttled] = {}
        self._paused_until: dict[_Pause, float] = {}
        self._failures: Counter[str] = Counter()
        self._logged: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        self._has_work = threading.Event()
        self._thread: threading.Thread | None = None

    def record(self, measurement: Measurement) -> None:
        """Record one attempt; takes microseconds and sends nothing."""
        self.count(measurement)
        if measurement.throttled:
            self.on_throttle(
                measurement.table,
                measurement.reasons,
                {measurement.kind},
                partition=measurement.partition,
            )

    def count(self, measurement: Measurement) -> None:
        """Count one attempt as demand."""
        self._demand.record(measurement)

    def on_throttle(
        self,
        table: str,
        reasons: Iterable[ThrottlingReason],
        kinds: Iterable[str],
        config: ScalingConfig | None = None,
        partition: str = "",
    ) -> None:
        """
        Record that a call was throttled, and handle it soon in the scaler's thread.

        ``config`` replaces the settings of the table; ``partition`` is the key of a hot partition.
        """
        if clock.monotonic() < self._paused_until.get(self._pause_of(table, config), 0.0):
            return
        with self._lock:
            waiting = self._waiting.setdefault(table, _Throttled())
            waiting.reasons.update(reasons)
            waiting.kinds.update(kinds)
            waiting.config = config or waiting.config
            waiting.partition = partition or waiting.partition
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name=f"dynamo-stores-scaler-{self._using}", daemon=True
                )
                self._thread.start()
        self._has_work.set()

    def handle(
        self,
        table: str,
        reasons: Iterable[ThrottlingReason],
        kinds: Iterable[str] = (),
        overrides: ScalingConfig | None = None,
        partition: str = "",
    ) -> Plan | None:
        """
        Raise ``table`` if this process gets the claim; return the plan, or None without the claim
        or if scaling is off.
        """
        config = overrides or get_config(self._using).for_table(table).scaling
        if not config.enabled:
            return None
        shared = SharedDemand(self._using)
        shared.publish(table, self._demand.peak(table))
        records = CapacityRecords(self._using)
        if not records.claim(table, _CLAIM):
            self._pause(table, overrides, _CLAIM / 2)
            return None
        clock.sleep(_AWAIT_DEMAND)
        capacity = describe(self._using, table)
        if capacity is None:
            plan = Plan("no_table", f"the table {table} does not exist")
        else:
            plan = self._raise(capacity, set(reasons), set(kinds), config, shared, records)
        if plan.code == "hot_partition" and partition:
            plan = dataclasses.replace(plan, why=f"{plan.why}; {_describe_key(partition, config)}")
        if plan.code in ("refused", "unavailable"):
            self._failed(table, overrides)
        else:
            self._failures.pop(table, None)
            pause = min(_LONG_PAUSE, max(_CLAIM, config.scale_down_delay / 2))
            self._pause(table, overrides, pause if plan.code in _LASTING else _CLAIM)
        if self._log(table, plan):
            Decisions(self._using).publish(table, as_decision(plan, capacity))
        return plan

    def _raise(
        self,
        capacity: TableCapacity,
        reasons: set[ThrottlingReason],
        kinds: set[str],
        config: ScalingConfig,
        shared: SharedDemand,
        records: CapacityRecords,
    ) -> Plan:
        table = capacity.table
        targets = {} if capacity.is_on_demand else get_auto_scaling(self._using).targets(capacity)
        if targets and config.auto_scaling == "leave":
            return plan_no_change(table)
        demand = shared.total(table)
        plan = plan_up(capacity, reasons, demand, config, self._quota(), kinds=kinds)
        if targets:
            plan = plan_minimums_up(capacity, plan, targets)
        if plan.changes and config.dry_run:
            return apply(self._using, capacity, plan, dry_run=True)
        deadline = records.deadline_after(config.scale_down_delay)
        if plan.changes:
            plan = raise_until(self._using, capacity, plan, deadline, targets)
        if plan.code in ("at_maximum", "in_progress"):
            # Less capacity would throttle it even more.
            records.postpone(table, deadline)
        return plan

    def _quota(self) -> Quota:
        try:
            return read_limits(get_control(self._using).call("DescribeLimits", {}))
        except (ClientError, StoreUnavailable):
            # Not allowed, or an engine without this operation: the quota of a new account.
            return Quota()

    def _log(self, table: str, plan: Plan) -> bool:
        """Log a plan that changes nothing, once; return whether to add the plan to the history."""
        if plan.changes:
            self._logged = {each for each in self._logged if each[0] != table}
            return True
        if plan.code in _HARMLESS or (table, plan.code) in self._logged:
            return False
        self._logged.add((table, plan.code))
        logger.warning(
            "Table %s is throttled and was not raised: %s.", table, plan.why,
            extra={
                "dynamodb_table": table,
                "dynamodb_using": self._using,
                "dynamodb_decision": plan.code,
            },
        )  # fmt: skip
        return True

    def _failed(self, table: str, config: ScalingConfig | None) -> None:
        """Pause for twice as long after each further failure in a row."""
        self._failures[table] += 1
        self._pause(table, config, min(_LONG_PAUSE, _CLAIM * 2.0 ** self._failures[table]))

    def _pause(self, table: str, config: ScalingConfig | None, seconds: float) -> None:
        self._paused_until[self._pause_of(table, config)] = clock.monotonic() + seconds

    @staticmethod
    def _pause_of(table: str, overrides: ScalingConfig | None) -> _Pause:
        # Other maximums may allow what these do not.
        if overrides is None:
            return table, None
        return table, (overrides.max_read_capacity, overrides.max_write_capacity)

    def _goes_on(self) -> bool:
        """Wait for throttles; return False, and give up the thread, if none came in a minute."""
        if self._has_work.wait(60):
            return True
        with self._lock:
            if not self._waiting:
                # The next throttle starts another thread, also while this one is still alive.
                self._thread = None
            return bool(self._waiting)

    def _run(self) -> None:
        while self._goes_on():
            clock.sleep(_GATHER)
            self._has_work.clear()
            with self._lock:
                waiting, self._waiting = self._waiting, {}
            for table, throttled in waiting.items():
                try:
                    self.handle(
                        table,
                        throttled.reasons,
                        throttled.kinds,
                        throttled.config,
                        throttled.partition,
                    )
                except (ClientError, ConfigurationError, StoreUnavailable) as exc:
                    self._failed(table, throttled.config)
                    self._log(table, Plan("unavailable", str(exc)))
                except Exception:
                    self._pause(table, throttled.config, _LONG_PAUSE)
                    logger.exception("Table %s could not be raised.", table)


def _describe_key(partition: str, config: ScalingConfig) -> str:
    if config.name_hot_keys:
        return f"the partition key is {partition!r}"
    digest = hashlib.sha256(partition.encode(errors="surrogatepass")).hexdigest()[:16]
    return (
        f"the SHA-256 of the partition key begins with {digest} "
        "(NAME_HOT_KEYS = True logs the key itself)"
    )


_scalers = PerProcess(Scaler)


def get_scaler(using: str) -> Scaler:
    """Return this process's scaler of the alias ``using``."""
    return _scalers.get(using)
