"""The actions of the status pages: confirmed, carried out once, and reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from unicodedata import category

from .. import clock, keys
from ..capacity.manual import DOWN, UP, change_manually
from ..capacity.planner import Plan
from ..capacity.scale_down import reconcile
from ..capacity.update import describe_changes
from ..concurrency.bounded import BoundedDict
from ..concurrency.effects import run
from ..conf import DEFAULT_ALIAS, aliases, get_config
from ..exceptions import CALL_ERRORS
from ..expressions import missing
from ..infrastructure.tables import wanted_tables
from ..item_access import ConditionFailed, Items
from ..models import ControlItem
from ..monitoring import reporter as reports
from ..monitoring.formatting import exact, span
from ..monitoring.report_store import ReportStore
from ..monitoring.snapshot import get_descriptions


class ActionItem(ControlItem):
    """The record that a form was carried out, so that it is not carried out twice."""


# Seconds for which a sent form is recorded; a browser does not send it again later.
_TTL = 86_400
ALL_PROCESSES = "*"
# A form's text may have so many characters.
MOST_TYPED = 4096
# So many characters of a key are shown in sentences and in the admin's log.
_SHORT = 80


class BadAction(Exception):
    """The form names an action, alias or table that does not exist."""


@dataclass(frozen=True)
class Target:
    """
    What an action changes; ``process`` is for breakers, ``ALL_PROCESSES`` means each of them.
    ``user`` is the name of the user who acts. The other fields are for entries of caches, limits
    and jobs, as they were typed: ``job`` is a digest.
    """

    using: str
    table: str = ""
    process: str = ""
    user: str = ""
    cache: str = ""
    key: str = ""
    version: str = ""
    pattern: str = ""
    resource: str = ""
    rate: str = ""
    job: str = ""
    fence: str = ""

    @classmethod
    def of(cls, form: Mapping[str, str], user: str) -> Target:
        """Return the target that a form names."""
        named = {each.name: form.get(each.name, "") for each in fields(cls)}
        return cls(**{**named, "user": user})

    @property
    def fields(self) -> dict[str, str]:
        """What the form that confirms the action sends again."""
        named = {each.name: str(getattr(self, each.name)) for each in fields(self)}
        return {name: value for name, value in named.items() if value and name != "user"}

    @property
    def subject(self) -> str:
        """What the admin's log names as the object: a table, a cache, a resource or an alias."""
        return self.table or self.cache or self.resource or self.job[:12] or self.using


@dataclass(frozen=True)
class Outcome:
    """The result of an action, as a sentence, and whether the action succeeded."""

    message: str
    is_good: bool = True


@dataclass(frozen=True)
class Effect:
    """What an action would do, in sentences, and whether it would change anything."""

    text: str
    is_change: bool = True


@dataclass(frozen=True)
class Action:
    """
    An action; ``question`` and ``effect`` are shown for confirmation, ``do`` carries it out.
    ``check`` raises BadAction for a target that does not exist; users need the ``permission``.
    """

    name: str
    label: str
    question: Callable[[Target], str]
    effect: Callable[[Target], Effect]
    do: Callable[[Target], Outcome]
    check: Callable[[Target], None] = lambda target: None
    permission: str = "manage_capacity"


def check_alias(using: str) -> None:
    """Raise BadAction if ``DYNAMO_STORES`` has no such alias."""
    if using not in aliases():
        raise BadAction(f"DYNAMO_STORES has no alias {short(using)}.")


def problem_of(what: str, text: str) -> str:
    """
    Return why a text that somebody typed is not looked up, ``""`` if it can be. A control character
    would not survive the form that confirms an action.
    """
    if len(text) > MOST_TYPED:
        return f"The {what} has {len(text):,} characters; expected {MOST_TYPED:,} at most."
    if any(category(letter) in ("Cc", "Cs") for letter in text):
        return f"The {what} {short(text)} contains a control character; expected printable text."
    return ""


def check_typed(what: str, text: str) -> None:
    """Raise BadAction for a text that :func:`problem_of` refuses, or that is empty."""
    if not text:
        raise BadAction(f"The {what} is empty.")
    if problem := problem_of(what, text):
        raise BadAction(problem)


def short(text: str) -> str:
    """Return the ``repr`` of a text that somebody typed, of its beginning if it is long."""
    return repr(text) if len(text) <= _SHORT else f"{text[:_SHORT]!r}…"


def perform(action: Action, target: Target) -> Outcome:
    """Carry out ``action`` and return its outcome; an error of DynamoDB is a failed outcome."""
    try:
        return action.do(target)
    except CALL_ERRORS as exc:
        return Outcome(f"{action.label} failed: {exc}", is_good=False)


def _reset(target: Target) -> Outcome:
    here = reports.get_reporter(target.using).report()
    breaker = f"The circuit breaker of {target.table}"
    is_here = target.process in (ALL_PROCESSES, here.process)
    if is_here:
        reports.reset_breaker(target.using, target.table)
    if target.process == here.process:
        return Outcome(f"{breaker} is reset in this process.")
    store = ReportStore(target.using)
    try:
        wanted = (
            [each.process for each in store.latest() if each.process != here.process]
            if target.process == ALL_PROCESSES
            else [target.process]
        )
        requested = [each for each in wanted if store.request_reset(each, [target.table])]
    except CALL_ERRORS as exc:
        done = f"{breaker} is reset in this process only. " if is_here else ""
        return Outcome(f"{done}The request to other processes failed: {exc}", is_good=False)
    if not requested and not is_here:
        return Outcome(
            f"The process {target.process} has no report, so its circuit breaker was not reset.",
            is_good=False,
        )
    if not requested:
        return Outcome(f"{breaker} is reset in this process.")
    done = "is reset in this process. It " if is_here else ""
    return Outcome(
        f"{breaker} {done}will be reset in {len(requested)} other "
        f"process{'' if len(requested) == 1 else 'es'} at the next report, within "
        f"{here.interval:g} s."
    )


def _check_table(target: Target) -> None:
    if target.table not in {spec.name for spec in wanted_tables() if spec.using == target.using}:
        raise BadAction(f"Alias {target.using!r} has no table {short(target.table)}.")


def _check_breaker(target: Target) -> None:
    if not (target.table and target.process):
        raise BadAction("The action 'reset' requires a table and a process.")


def _raise(target: Target) -> Outcome:
    return _of(target, change_manually(target.using, target.table, UP, by=target.user))


def _lower(target: Target) -> Outcome:
    return _of(target, change_manually(target.using, target.table, DOWN, by=target.user))


def _of(target: Target, plan: Plan) -> Outcome:
    if not plan.changes:
        return Outcome(f"Table {target.table} was not changed: {plan.why}.", is_good=False)
    return Outcome(f"The capacity of {target.table} changes to {describe_changes(plan.changes)}.")


def _effect_of_raising(target: Target) -> Effect:
    delay = get_config(target.using).for_table(target.table).scaling.scale_down_delay
    then = f"It is lowered {span(delay)} later (SCALE_DOWN_DELAY), and billed until then."
    return _effect(target, UP, then)


def _effect_of_lowering(target: Target) -> Effect:
    return _effect(target, DOWN, "DynamoDB allows only a few decreases a day; this uses one.")


def _effect(target: Target, direction: str, then: str) -> Effect:
    """Return the units before and after a change, by a dry run of it."""
    try:
        capacity = get_descriptions(target.using).get(target.table)[1]
        plan = change_manually(target.using, target.table, direction, dry_run=True)
    except CALL_ERRORS as exc:
        return Effect(f"What would change is not known: {exc}", is_change=False)
    if plan.code != "dry_run" or capacity is None:
        return Effect(f"Nothing would change: {plan.why}.", is_change=False)
    units = {name: resource.units for name, resource in capacity.resources.items()}
    change = plan.why.partition(": ")[0]
    return Effect(f"Table {target.table} has {describe_changes(units)}. Table {change}. {then}")


def _reconcile(target: Target) -> Outcome:
    outcomes = reconcile(target.using)
    if not outcomes:
        return Outcome("No table is due to be lowered.")
    sentences = []
    for outcome in outcomes:
        later = f"; next check at {exact(outcome.next_deadline)}" if outcome.next_deadline else ""
        sentences.append(f"Table {outcome.table}: {outcome.plan.why}{later}.")
    return Outcome(" ".join(sentences))


RESET, RAISE, LOWER, RECONCILE = "reset", "raise", "lower", "reconcile"


def _process_text(target: Target) -> str:
    return "every process" if target.process == ALL_PROCESSES else target.process


ACTIONS = {
    RESET: Action(
        RESET,
        "Reset the breaker",
        lambda target: f"Reset the circuit breaker of {target.table} in {_process_text(target)}?",
        lambda target: Effect(
            "Requests are sent again at once, even if DynamoDB still does not answer. Other "
            "processes reset their breaker at their next report."
        ),
        _reset,
        _check_breaker,
    ),
    RAISE: Action(
        RAISE,
        "Raise",
        lambda target: f"Raise the capacity of {target.table} and its indexes?",
        _effect_of_raising,
        _raise,
        _check_table,
    ),
    LOWER: Action(
        LOWER,
        "Lower",
        lambda target: f"Lower {target.table} and its indexes to their baseline?",
        _effect_of_lowering,
        _lower,
        _check_table,
    ),
    RECONCILE: Action(
        RECONCILE,
        "Reconcile now",
        lambda target: f"Lower the tables of alias {target.using} that are due now?",
        lambda target: Effect(
            "The same task that Celery beat runs: each table that is due is lowered once."
        ),
        _reconcile,
    ),
}


class Receipts:
    """The forms that were carried out, so that a double click acts once, in any process."""

    def __init__(self, using: str = DEFAULT_ALIAS) -> None:
        self.using = using
        self._items = Items(ActionItem, using, direct=True)

    def take(self, token: str) -> bool:
        """
        Return whether the form with ``token`` is sent for the first time, and record it.

        If the control table is unavailable, only the memory of this process decides.
        """
        key = keys.action(token)
        try:
            run(
                self._items.put(
                    ActionItem(key.pk, key.sk, ttl=int(clock.now()) + _TTL).serialize(),
                    missing(ActionItem.pk),
                )
            )
        except ConditionFailed:
            return False
        except CALL_ERRORS:
            return _take_in_process(token)
        return _take_in_process(token)


_taken: BoundedDict[str, object] = BoundedDict(1000)


def _take_in_process(token: str) -> bool:
    own = object()
    return _taken.get_or_put(token, lambda: own) is own
