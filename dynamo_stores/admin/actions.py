"""What somebody who may act can do: asked, done once, and said."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from botocore.exceptions import BotoCoreError, ClientError

from .. import clock, keys
from ..capacity.manual import DOWN, UP, change_by_hand
from ..capacity.planner import Plan
from ..capacity.scale_down import reconcile
from ..capacity.update import in_words
from ..conf import aliases
from ..exceptions import StoreError
from ..infrastructure.tables import wanted_tables
from ..item_access import ConditionFailed, DirectStore
from ..models import ControlItem
from ..monitoring import reporter as reports
from ..monitoring.formatting import exact
from ..monitoring.report_store import ReportStore


class ActionItem(ControlItem):
    """That somebody's action was done: a second click finds it."""


# A form that was sent is known for a day; it is not sent again later than that.
_KEPT = 86_400
EVERYWHERE = "*"


class BadAction(Exception):
    """The form names something that is not there; says what."""


@dataclass(frozen=True)
class Target:
    """What an action is about; ``process`` for breakers, ``EVERYWHERE`` for all of a table."""

    using: str
    table: str = ""
    process: str = ""


@dataclass(frozen=True)
class Outcome:
    """What came of it, in a sentence, and whether it is what was asked for."""

    message: str
    is_good: bool = True


@dataclass(frozen=True)
class Action:
    """``question`` and ``effect`` stand on the page that asks; ``do`` does it."""

    name: str
    label: str
    question: Callable[[Target], str]
    effect: str
    do: Callable[[Target], Outcome]


def checked(name: str, target: Target) -> Action:
    """Return the action; raises BadAction where there is no such action, alias or table."""
    action = ACTIONS.get(name)
    if action is None:
        raise BadAction(f"There is no action {name!r}.")
    if target.using not in aliases():
        raise BadAction(f"There is no alias {target.using!r}.")
    if name in (RAISE, LOWER) and target.table not in {
        spec.name for spec in wanted_tables() if spec.using == target.using
    }:
        raise BadAction(f"Alias {target.using!r} has no table {target.table!r}.")
    if name == RESET and not (target.table and target.process):
        raise BadAction("A reset names a table and a process.")
    return action


def perform(action: Action, target: Target) -> Outcome:
    """Do it and say what came of it; what DynamoDB does not answer is said too."""
    try:
        return action.do(target)
    except (BotoCoreError, ClientError, StoreError) as exc:
        return Outcome(f"{action.label} failed: {exc}", is_good=False)


def _reset(target: Target) -> Outcome:
    here = reports.get_reporter(target.using).report()
    what = f"The circuit breaker of {target.table}"
    is_here = target.process in (EVERYWHERE, here.process)
    if is_here:
        reports.reset_breaker(target.using, target.table)
    if target.process == here.process:
        return Outcome(f"{what} is reset in this process.")
    others = ReportStore(target.using)
    try:
        wanted = (
            [each.process for each in others.latest() if each.process != here.process]
            if target.process == EVERYWHERE
            else [target.process]
        )
        asked = [process for process in wanted if others.ask_to_reset(process, [target.table])]
    except (BotoCoreError, ClientError, StoreError) as exc:
        this = f"{what} is reset in this process; others" if is_here else target.process
        return Outcome(f"{this} could not be asked: {exc}", is_good=False)
    if not asked and not is_here:
        return Outcome(f"{target.process} has not reported for an hour: it is gone.", is_good=False)
    this = "is reset in this process, and " if is_here else ""
    return Outcome(
        f"{what} {this}is reset in {len(asked)} other{'' if len(asked) == 1 else 's'} at the next "
        f"report, within {here.interval:g} s."
    )


def _raise(target: Target) -> Outcome:
    return _of(target, change_by_hand(target.using, target.table, UP))


def _lower(target: Target) -> Outcome:
    return _of(target, change_by_hand(target.using, target.table, DOWN))


def _of(target: Target, plan: Plan) -> Outcome:
    if not plan.changes:
        return Outcome(f"{target.table} was not changed: {plan.why}.", is_good=False)
    return Outcome(f"{target.table} goes to {in_words(plan.changes)}.")


def _reconcile(target: Target) -> Outcome:
    outcomes = reconcile(target.using)
    if not outcomes:
        return Outcome("Nothing was due: no table's time to come down has come.")
    sentences = []
    for outcome in outcomes:
        later = f"; again {exact(outcome.next_deadline)}" if outcome.next_deadline else ""
        sentences.append(f"{outcome.table}: {outcome.plan.why}{later}.")
    return Outcome(" ".join(sentences))


RESET, RAISE, LOWER, RECONCILE = "reset", "raise", "lower", "reconcile"


def _whose(target: Target) -> str:
    return "every process" if target.process == EVERYWHERE else target.process


ACTIONS = {
    RESET: Action(
        RESET,
        "Reset the breaker",
        lambda target: f"Reset the circuit breaker of {target.table} in {_whose(target)}?",
        "Calls are made again at once, whether DynamoDB answers or not. Other processes than the "
        "one that serves this page do it when they next report.",
        _reset,
    ),
    RAISE: Action(
        RAISE,
        "Raise",
        lambda target: f"Raise the capacity of {target.table} and its indexes?",
        "By SCALE_UP_FACTOR, up to the maximum. It costs money until it comes down, after "
        "SCALE_DOWN_DELAY.",
        _raise,
    ),
    LOWER: Action(
        LOWER,
        "Lower",
        lambda target: f"Lower {target.table} and its indexes to their baseline?",
        "It uses one of the few decreases that DynamoDB allows a day.",
        _lower,
    ),
    RECONCILE: Action(
        RECONCILE,
        "Reconcile now",
        lambda target: f"Look now for tables of alias {target.using} that are due to come down?",
        "The same that beat does every minute: what is due is lowered, once.",
        _reconcile,
    ),
}


class Receipts(DirectStore[ActionItem]):
    """Which forms were carried out; a double click, or two processes, find the first one's."""

    kind = ActionItem

    def take(self, token: str) -> bool:
        """
        Return whether this is the first time that the form with ``token`` is sent.

        Where the control table cannot be asked, this process decides by itself.
        """
        key = keys.action(token)
        try:
            self._put(
                {
                    "PK": {"S": key.pk},
                    "SK": {"S": key.sk},
                    "TTL": {"N": str(int(clock.now()) + _KEPT)},
                },
                ActionItem.pk.does_not_exist(),
            )
        except ConditionFailed:
            return False
        except (BotoCoreError, ClientError, StoreError):
            return _take_here(token)
        return _take_here(token)


_taken: OrderedDict[str, None] = OrderedDict()
_lock = threading.Lock()


def _take_here(token: str) -> bool:
    with _lock:
        if token in _taken:
            return False
        _taken[token] = None
        if len(_taken) > 1000:
            _taken.popitem(last=False)
        return True
