"""What is wrong with the arguments of decorated views, for the system check."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from django.utils.module_loading import import_string

from .. import conf
from ..conf.functions import function_error
from ..conf.rates import (
    ResourceConfig,
    is_dotted_path,
    key_error,
    methods_error,
    parse_rates,
    parse_resource,
)
from ..conf.rules import WHOLE_POSITIVE, Problem, networks_error, suggestion
from ..exceptions import ConfigurationError
from . import ALL
from .adaptive import PRIORITIES, check_adaptive
from .algorithms import algorithm_of
from .requests import FUNCTIONS, Limit, check_algorithm, parsed

_HINT = "See docs/limits.md."
# A resource needs no entry in RESOURCES: less similar names are those of other resources.
_SIMILAR = 0.8
_DIGITS = re.compile(r"\d+")
# The check of each argument that may be a function, and the arguments of that function.
_CHECKS = {
    "key": ("dynamo_stores.E120", ("group", "request")),
    "rate": ("dynamo_stores.E121", ("group", "request")),
    "cost": ("dynamo_stores.E122", ("group", "request")),
    "priority": ("dynamo_stores.E128", ("the request",)),
    "skip_if": ("dynamo_stores.E133", ("the request",)),
    "response": ("dynamo_stores.E133", ("the request", "the status")),
}


class Names(NamedTuple):
    """Names in the arguments of a decorator. What they name may be made after the view."""

    where: str
    using: str
    paths: tuple[tuple[str, str], ...]
    # The resource whose limit applies.
    resource: str | None
    is_adaptive: bool


problems: dict[Problem, None] = {}
names: dict[Names, None] = {}
# A decorator that is applied within a view is noted with each request.
_MOST_NOTED = 10_000


def note(limit: Limit, response: Any, where: str) -> None:
    """Note the arguments of a decorator for the check, those of the first ones of a process."""
    if len(names) >= _MOST_NOTED:
        return
    functions = {name: getattr(limit, name) for name in FUNCTIONS} | {"response": response}
    paths = []
    problems.update(dict.fromkeys(_of_literals(limit, where)))
    for name, value in functions.items():
        if _is_path(name, value):
            paths.append((name, value))
        elif callable(value) or (name in ("skip_if", "response") and value is not None):
            problems.update(dict.fromkeys(_of_function(name, value, where)))
    resource = str(limit.resource) if limit.resource and limit.rate is None else None
    is_adaptive = limit.priority is not None
    names[Names(where, str(limit.using), tuple(paths), resource, is_adaptive)] = None


def note_attributes(
    arguments: Mapping[str, Any], known: Sequence[str], prefix: str, where: str
) -> None:
    """Note arguments that attributes with ``prefix`` of a class have, for the check."""
    attributes = [prefix + name for name in known]
    for name in sorted(arguments.keys() - set(known)):
        message = f"{where}: {prefix}{name} is no argument of @ratelimit"
        message += suggestion(prefix + name, attributes)
        _add_problem("dynamo_stores.E133", message)
    own = {name: value for name, value in arguments.items() if name in known}
    for name in ("block", "shadow"):
        own.pop(name, None)
    response = own.pop("response", None)
    try:
        note(Limit(**{**own, "group": own.get("group") or where}), response, where)
    except (ConfigurationError, TypeError, ValueError) as exc:
        _add_problem("dynamo_stores.E133", f"{where}: {str(exc).removesuffix('.')}.")


def _add_problem(number: str, message: str) -> None:
    problems[Problem(number, message, _HINT)] = None


def find_problems() -> list[Problem]:
    """Return the problems of all decorators. Imports what their dotted paths name."""
    return [*problems, *dict.fromkeys(each for noted in list(names) for each in _of_names(noted))]


def _is_path(name: str, value: Any) -> bool:
    match name:
        case "skip_if" | "response":
            return isinstance(value, str)
        case "key":
            return isinstance(value, str) and "." in value and ":" not in value
        case "rate" | "cost":
            return is_dotted_path(value)
    return False


def _of_names(noted: Names) -> Iterator[Problem]:
    yield from _of_alias(noted)
    if noted.resource is not None:
        yield from _of_resource(noted, noted.resource)
    for name, path in noted.paths:
        number = _CHECKS[name][0]
        try:
            found = import_string(path)
        except Exception as exc:  # noqa: BLE001 - a module of the project may raise anything
            message = f"{noted.where}: {name} is {path!r}, which cannot be imported: {exc}."
            yield Problem(number, message, _HINT)
            continue
        if name == "rate" and not callable(found):
            try:
                parse_rates(found)
            except ConfigurationError as exc:
                yield Problem(number, f"{noted.where}: {path}: {exc}", _HINT)
        elif not (name == "cost" and WHOLE_POSITIVE.accepts(found)):
            yield from _of_function(name, found, noted.where)


def _of_alias(noted: Names) -> Iterator[Problem]:
    try:
        known = conf.aliases()
    except ConfigurationError:
        return  # check_settings reports it
    if noted.using not in known:
        message = f"{noted.where}: using is {noted.using!r}; expected an alias of DYNAMO_STORES"
        hint = f"Known: {', '.join(map(repr, known))}."
        yield Problem("dynamo_stores.E133", message + suggestion(noted.using, known), hint)


def _of_resource(noted: Names, resource: str) -> Iterator[Problem]:
    try:
        known = conf.get_config(noted.using).rate_limit.resources
    except ConfigurationError:
        return  # check_settings or the check of the alias reports it
    if resource in known:
        if noted.is_adaptive:
            try:
                check_adaptive(resource, parse_resource(known[resource]))
            except ConfigurationError as exc:
                yield Problem("dynamo_stores.E121", f"{noted.where}: {exc}", _HINT)
    elif similar := _similar(resource, known):
        message = (
            f"{noted.where}: RATE_LIMIT['RESOURCES'] has no resource {resource!r}; did you mean "
            f"{similar!r}?"
        )
        hint = "Correct the name. If it is that of another resource, silence this check."
        yield Problem("dynamo_stores.W022", message, hint)


def _similar(resource: str, known: Iterable[str]) -> str | None:
    # Names with other digits are those of other resources.
    own = _DIGITS.sub("", resource)
    candidates = [name for name in known if _DIGITS.sub("", name) != own]
    return next(iter(difflib.get_close_matches(resource, candidates, 1, _SIMILAR)), None)


def _of_function(name: str, function: Any, where: str) -> Iterator[Problem]:
    number, arguments = _CHECKS[name]
    if error := function_error(function, *arguments):
        yield Problem(number, f"{where}: {name} {error}", _HINT)


def _of_literals(limit: Limit, where: str) -> Iterable[Problem]:
    if not limit.key:
        yield Problem("dynamo_stores.E120", f"{where}: the key is missing.", _HINT)
    elif error := key_error(limit.key):
        yield Problem("dynamo_stores.E120", f"{where}: {error}", _HINT)
    methods = () if limit.method is None or tuple(limit.method) == ALL else limit.method
    if error := methods_error(methods):
        yield Problem("dynamo_stores.E125", f"{where}: {error}", _HINT)
    if limit.rate is None and limit.resource is None:
        message = f"{where} has neither a rate nor a resource, so it limits nothing."
        yield Problem("dynamo_stores.W014", message, "Name one of them. See docs/limits.md.")
    try:
        check_algorithm(limit)
        if not (limit.rate is None or callable(limit.rate) or is_dotted_path(limit.rate)):
            # With a fixed algorithm, because DYNAMO_STORES has checks of its own.
            config = parsed(replace(limit, algorithm=limit.algorithm or "sliding"), limit.rate)
            if limit.priority is not None:
                check_adaptive(limit.resource or limit.group, config)
            yield from _cost_problems(limit, config, where)
    except ConfigurationError as exc:
        yield Problem("dynamo_stores.E121", f"{where}: {exc}", _HINT)
    if not (
        callable(limit.cost) or is_dotted_path(limit.cost) or WHOLE_POSITIVE.accepts(limit.cost)
    ):
        message = (
            f"{where}: cost is {limit.cost!r}; expected a whole number, 1 or more, a function of "
            "group and request, or its dotted path."
        )
        yield Problem("dynamo_stores.E122", message, _HINT)
    if error := networks_error(limit.allow):
        message = f"{where}: allow is not a list of networks.{error}"
        yield Problem("dynamo_stores.E123", message, _HINT)
    if limit.on_unavailable not in (None, "allow", "deny", "local"):
        message = f"{where}: on_unavailable is {limit.on_unavailable!r}; expected 'allow', 'deny' "
        yield Problem("dynamo_stores.E124", message + "or 'local'.", _HINT)
    if not (limit.priority in (None, *PRIORITIES) or callable(limit.priority)):
        message = f"{where}: priority is {limit.priority!r}; expected 'user', 'background' or a "
        yield Problem("dynamo_stores.E128", message + "function of the request.", _HINT)


def _cost_problems(limit: Limit, config: ResourceConfig, where: str) -> Iterable[Problem]:
    algorithm = algorithm_of(config)
    for rate in config.rates or ():
        most = algorithm.capacity(rate)
        if WHOLE_POSITIVE.accepts(limit.cost) and 0 < most < limit.cost:
            message = (
                f"{where}: cost is {limit.cost}, and the limit {rate} admits at most {most} at "
                "once, so it refuses every request."
            )
            hint = "Raise the limit, for 'gcra' the burst, or lower the cost. See docs/limits.md."
            yield Problem("dynamo_stores.E122", message, hint)
