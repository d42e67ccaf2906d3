"""
Raising: at once, by one of all processes, off the path of the request that was throttled.

An observer of all calls counts what is asked for and hears of throttling; a thread of its own then
says so to the other processes, and one of them, by a claim in the control table, plans and asks for
the change. Losers wait for nothing, and nobody waits for the table to be ACTIVE.
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
from ..calls import observer
from ..calls.control import get_control
from ..calls.observer import Measurement
from ..concurrency.per_process import PerProcess
from ..conf import aliases, get_config, when_changed
from ..conf.groups import ScalingConfig
from ..exceptions import ConfigurationError, StoreUnavailable, ThrottlingReason
from .auto_scaling import get_auto_scaling, left_alone, plan_minimums_up
from .demand import LocalDemand, SharedDemand
from .description import Quota, TableCapacity, read_limits
from .history import Decisions
from .planner import Plan, plan_up
from .records import CapacityRecords
from .update import apply, as_decision, describe

logger = logging.getLogger(__name__)

# Throttling is gathered so long before anything is done, and the winner hears the others so long.
_GATHER, _LISTEN = 0.1, 0.3
# A claim: nobody else raises the table meanwhile.
_CLAIM = 5.0
# After a refusal that will not change soon the table is left alone so long.
_LEAVE_ALONE = 300.0
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
# Somebody else is at it, or it was over before anybody looked.
_GOOD_NEWS = frozenset(["in_progress", "nothing"])


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
        self._rests_until: dict[str, float] = {}
        self._failures: Counter[str] = Counter()
        self._said: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._thread: threading.Thread | None = None

    def record(self, measurement: Measurement) -> None:
        """Hear of one attempt; costs microseconds, and sends nothing."""
        self._demand.record(measurement)
        if measurement.throttled:
            self.on_throttle(
                measurement.table,
                measurement.reasons,
                {measurement.kind},
                partition=measurement.partition,
            )

    def on_throttle(
        self,
        table: str,
        reasons: Iterable[ThrottlingReason],
        kinds: Iterable[str],
        config: ScalingConfig | None = None,
        partition: str = "",
    ) -> None:
        """
        Hear that a call was throttled, and have it looked after; ``config``: by these rules.
        ``partition`` is the key of a partition that is too hot.
        """
        if clock.monotonic() < self._rests_until.get(table, 0.0):
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
        self._news.set()

    def handle(
        self,
        table: str,
        reasons: Iterable[ThrottlingReason],
        kinds: Iterable[str] = (),
        config: ScalingConfig | None = None,
        partition: str = "",
    ) -> Plan | None:
        """Raise ``table`` if this process is the one to do it; None for who is not."""
        config = config or get_config(self._using).for_table(table).scaling
        if not config.enabled:
            return None
        shared = SharedDemand(self._using)
        shared.publish(table, self._demand.peak(table))
        records = CapacityRecords(self._using)
        if not records.claim(table, _CLAIM):
            self._rest(table, _CLAIM / 2)
            return None
        clock.sleep(_LISTEN)
        capacity = describe(self._using, table)
        if capacity is None:
            plan = Plan("no_table", f"there is no table {table}")
        else:
            plan = self._raise(capacity, set(reasons), set(kinds), config, shared, records)
        if plan.code == "hot_partition" and partition:
            plan = dataclasses.replace(plan, why=f"{plan.why}; {_named(partition, config)}")
        if plan.code == "refused":
            self._failed(table)
        else:
            self._failures.pop(table, None)
            rest = min(_LEAVE_ALONE, max(_CLAIM, config.scale_down_delay / 2))
            self._rest(table, rest if plan.code in _LASTING else _CLAIM)
        if self._say(table, plan):
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
        auto_scaling = get_auto_scaling(self._using)
        targets = {} if capacity.is_on_demand else auto_scaling.targets(table)
        if targets and config.auto_scaling == "leave":
            return left_alone(table)
        demand = shared.total(table)
        plan = plan_up(capacity, reasons, demand, config, self._quota(), kinds=kinds)
        if targets:
            plan = plan_minimums_up(capacity, plan, targets)
        deadline = clock.now() + config.scale_down_delay
        if plan.changes and not config.dry_run:
            # Before the change: whoever dies in between leaves no table up that nobody lowers.
            records.raised(table, deadline, as_decision(plan, capacity))
        if targets and plan.changes and not config.dry_run:
            return auto_scaling.set_minimums(capacity, plan)
        plan = apply(self._using, capacity, plan, dry_run=config.dry_run)
        if plan.code in ("at_maximum", "in_progress"):
            # It is throttled as it is: this is no time to come down.
            records.postpone(table, deadline)
        return plan

    def _quota(self) -> Quota:
        try:
            return read_limits(get_control(self._using).call("DescribeLimits", {}))
        except (ClientError, StoreUnavailable):
            # Not allowed, or an engine that does not know it: the quota of a new account.
            return Quota()

    def _say(self, table: str, plan: Plan) -> bool:
        """Return whether ``plan`` is news; one that changes nothing is logged once."""
        if plan.changes:
            self._said = {each for each in self._said if each[0] != table}
            return True
        if plan.code in _GOOD_NEWS or (table, plan.code) in self._said:
            return False
        self._said.add((table, plan.code))
        logger.warning(
            "Table %s is throttled and was not raised: %s.", table, plan.why,
            extra={
                "dynamodb_table": table,
                "dynamodb_using": self._using,
                "dynamodb_decision": plan.code,
            },
        )  # fmt: skip
        return True

    def _failed(self, table: str) -> None:
        """Leave the table alone for twice as long each time that UpdateTable fails in a row."""
        self._failures[table] += 1
        self._rest(table, min(_LEAVE_ALONE, _CLAIM * 2.0 ** self._failures[table]))

    def _rest(self, table: str, seconds: float) -> None:
        self._rests_until[table] = clock.monotonic() + seconds

    def _run(self) -> None:
        while self._news.wait(60):
            clock.sleep(_GATHER)
            self._news.clear()
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
                    self._failed(table)
                    self._say(table, Plan("unavailable", str(exc)))
                except Exception:
                    self._rest(table, _LEAVE_ALONE)
                    logger.exception("Table %s could not be raised.", table)


def _named(partition: str, config: ScalingConfig) -> str:
    if config.name_hot_keys:
        return f"its key is {partition!r}"
    digest = hashlib.sha256(partition.encode(errors="surrogatepass")).hexdigest()[:16]
    return f"the SHA-256 of its key begins with {digest} (NAME_HOT_KEYS says the key itself)"


_scalers = PerProcess(Scaler)


def get_scaler(using: str) -> Scaler:
    """Return this process's scaler of the alias ``using``."""
    return _scalers.get(using)


def _observe(measurement: Measurement) -> None:
    config = get_config(measurement.using)
    if config.for_table(measurement.table).scaling.enabled:
        get_scaler(measurement.using).record(measurement)


@when_changed
def watch() -> None:
    """Observe calls where the settings switch scaling on for any table, and not otherwise."""
    try:
        configs = [get_config(using) for using in aliases()]
    except ConfigurationError:
        return  # the system checks say what is wrong
    tables = [
        each for config in configs for each in (config, *map(config.for_table, config.tables))
    ]
    if any(each.scaling.enabled for each in tables):
        observer.subscribe(_observe)
    else:
        observer.unsubscribe(_observe)
