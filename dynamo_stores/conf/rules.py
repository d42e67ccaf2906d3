"""
Rules for the values of settings, and the check of a dict of settings against them.

A field made by :func:`setting` has its rule and the id of its system check.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import ipaddress
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ..exceptions import ConfigurationError


def proxies_error(value: Any) -> str:
    """Return the error of a value of ``TRUSTED_PROXIES``, ``""`` without one."""
    if isinstance(value, bool):
        return " Expected a number or a list, got bool."
    if isinstance(value, int):
        return "" if value >= 0 else " Expected 0 or more."
    return networks_error(value)


def networks_error(value: Any) -> str:
    """Return the first error in a list of networks, ``""`` without one."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return f" Expected a list, got {type(value).__name__}."
    for each in value:
        try:
            ipaddress.ip_network(each, strict=False)
        except (TypeError, ValueError) as exc:
            return f" {exc}."
    return ""


class Problem(NamedTuple):
    """An error in the settings: the id of its check, the message, and a hint how to correct it."""

    id: str
    message: str
    hint: str


def _no_details(value: Any) -> str:
    return ""


class Rule(NamedTuple):
    """What values are expected (as text), the test for it, and details about a wrong value."""

    expected: str
    accepts: Callable[[Any], bool]
    details: Callable[[Any], str] = _no_details


def is_number(value: object) -> bool:
    """Return whether ``value`` is a number that a finite float can have, and not a bool."""
    # math.isfinite() raises OverflowError for an int that no float can have.
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) <= sys.float_info.max
    )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def or_none(rule: Rule) -> Rule:
    """Return ``rule``, with None allowed."""
    return Rule(f"{rule.expected}, or None", lambda value: value is None or rule.accepts(value))


# 100 years; Python's own waits are at most 292 years long.
MOST_SECONDS = 100 * 365 * 24 * 60 * 60
_AT_MOST = f"at most {MOST_SECONDS} (100 years)"
POSITIVE = Rule("a number above 0", lambda value: is_number(value) and value > 0)
NOT_NEGATIVE = Rule("a number, 0 or more", lambda value: is_number(value) and value >= 0)
SECONDS = Rule(
    f"a number above 0, {_AT_MOST}", lambda value: is_number(value) and 0 < value <= MOST_SECONDS
)
SECONDS_OR_0 = Rule(
    f"a number, 0 or more, {_AT_MOST}",
    lambda value: is_number(value) and 0 <= value <= MOST_SECONDS,
)
WHOLE = Rule("a whole number, 0 or more", lambda value: _is_whole(value) and value >= 0)
WHOLE_POSITIVE = Rule("a whole number, 1 or more", lambda value: _is_whole(value) and value >= 1)
SHARE = Rule("a number above 0, at most 1", lambda value: is_number(value) and 0 < value <= 1)
FACTOR = Rule("a number above 1", lambda value: is_number(value) and value > 1)
NETWORKS = Rule(
    "a list of networks such as '10.0.0.0/8'",
    lambda value: not networks_error(value),
    networks_error,
)
SCALING = Rule("a number, 1 or more", lambda value: is_number(value) and value >= 1)
BOOLEAN = Rule("True or False", lambda value: isinstance(value, bool))
FILLED_TEXT = Rule(
    "a string that is not empty", lambda value: isinstance(value, str) and value != ""
)
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html
NAMESPACE = Rule(
    "a string of 1 to 255 printable ASCII characters that does not begin with 'AWS/' or ':'",
    lambda value: (
        isinstance(value, str)
        and 0 < len(value) <= 255
        and value.isascii()
        and value.isprintable()
        and value.strip() != ""
        and not value.startswith(("AWS/", ":"))
    ),
)
# "Naming rules" of the DynamoDB Developer Guide; the length is that of prefix and name.
_NAME = re.compile(r"[A-Za-z0-9_.-]*")
PREFIX_NAME = Rule(
    "a string of A-Z, a-z, 0-9, '_', '-' and '.'",
    lambda value: isinstance(value, str) and _NAME.fullmatch(value) is not None,
)
NAME = Rule(
    f"{PREFIX_NAME.expected} that is not empty",
    lambda value: value != "" and PREFIX_NAME.accepts(value),
)
_TABLE_NAME = re.compile(r"[A-Za-z0-9_.-]{3,255}")
TABLE_NAME = Rule(
    "3 to 255 of A-Z, a-z, 0-9, '_', '-' and '.'",
    lambda value: isinstance(value, str) and _TABLE_NAME.fullmatch(value) is not None,
)
# As botocore has it, which refuses any other host, such as one with '_'.
_HOST = re.compile(r"(?!-)[A-Z\d-]{1,63}(?<!-)(\.(?!-)[A-Z\d-]{1,63}(?<!-))*\.?", re.I | re.ASCII)


def _is_url(value: Any) -> bool:
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        return False
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    if parts.scheme not in ("http", "https"):
        return False
    if ":" in host:
        return not networks_error([host])
    return _HOST.fullmatch(host) is not None and len(host) <= 255


URL = Rule(
    "a URL such as 'http://127.0.0.1:8400', with a host of letters, digits, '-' and '.'",
    _is_url,
)


def check_number(name: str, value: Any, rule: Rule) -> None:
    """Raise ConfigurationError if the argument ``name`` is not a number as ``rule`` expects."""
    if not rule.accepts(value):
        raise ConfigurationError(f"{name} is {value!r}; expected {rule.expected}.")


def check_seconds(name: str, value: Any, rule: Rule = POSITIVE) -> None:
    """
    Raise ConfigurationError if the argument ``name`` is no duration as ``rule`` expects, or over
    ``MOST_SECONDS``.
    """
    # An int that no float can have is not shown, and infinity is no number for any rule.
    if isinstance(value, int | float) and MOST_SECONDS < value < math.inf:
        raise ConfigurationError(f"{name} is too long; expected {_AT_MOST}, in seconds.")
    if not rule.accepts(value):
        raise ConfigurationError(f"{name} is {value!r}; expected {rule.expected}, in seconds.")


def is_loopback(url: str) -> bool:
    """Return whether ``url`` is on this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def _is_webhook(value: Any) -> bool:
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        return False
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        return False
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(value))
    return is_safe and bool(parts.hostname) and "@" not in parts.netloc and " " not in value


WEBHOOK = Rule("an https URL without a user name; http only for this machine", _is_webhook)
_TOPIC_ARN = re.compile(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:\d{12}:[A-Za-z0-9_-]{1,256}", re.ASCII)
TOPIC_ARN = Rule(
    "the ARN of a standard topic of SNS, such as 'arn:aws:sns:eu-west-1:123456789012:NAME'",
    lambda value: isinstance(value, str) and _TOPIC_ARN.fullmatch(value) is not None,
)
_ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+")
ROLE_ARN = Rule(
    "the ARN of a role, such as 'arn:aws:iam::123456789012:role/NAME'",
    lambda value: isinstance(value, str) and _ROLE_ARN.fullmatch(value) is not None,
)
# "AssumeRole" of the AWS STS API Reference, as the next one.
_EXTERNAL_ID = re.compile(r"[\w+=,.@:/-]{2,1224}")
EXTERNAL_ID = Rule(
    "a string of 2 to 1,224 letters, digits and '_+=,.@:/-'",
    lambda value: isinstance(value, str) and _EXTERNAL_ID.fullmatch(value) is not None,
)
_SESSION_NAME = re.compile(r"[\w+=,.@-]{2,64}")
SESSION_NAME = Rule(
    "a string of 2 to 64 letters, digits and '_+=,.@-'",
    lambda value: isinstance(value, str) and _SESSION_NAME.fullmatch(value) is not None,
)
DOTTED_PATH = Rule(
    "the dotted path of a function",
    lambda value: isinstance(value, str) and "." in value.strip("."),
)
MAPPING = Rule("a dict", lambda value: isinstance(value, Mapping))


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _are_tags(value: Any) -> bool:
    # "Tagging restrictions" of the DynamoDB Developer Guide.
    return (
        isinstance(value, Mapping)
        and len(value) <= 50
        and all(
            isinstance(key, str)
            and isinstance(text, str)
            and 1 <= len(key) <= 128
            and len(text) <= 256
            and not key.lower().startswith("aws:")
            and _CONTROL.search(key + text) is None
            for key, text in value.items()
        )
    )


_KEY = re.compile(
    r"AWS_OWNED|aws/dynamodb|alias/[\w/-]+|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|mrk-[0-9a-f]{32}"
    r"|arn:[\w-]+:kms:[\w-]+:\d+:(key/[\w-]+|alias/[\w/-]+)",
    re.ASCII,
)
ENCRYPTION_KEY = Rule(
    "'AWS_OWNED', 'aws/dynamodb', or the id, the alias ('alias/…') or the ARN of a key of KMS",
    lambda value: isinstance(value, str) and _KEY.fullmatch(value) is not None,
)
TAGS = Rule(
    "a dict of at most 50 tags, keys (1 to 128 characters, not beginning with 'aws:') and values "
    "(0 to 256 characters), without control characters",
    _are_tags,
)
PATHS = Rule(
    "a list of dotted paths",
    lambda value: isinstance(value, list | tuple) and all(isinstance(v, str) for v in value),
)
_HEADER = re.compile(r"[A-Za-z0-9-]+")
HEADERS = Rule(
    "a list of header names",
    lambda value: (
        isinstance(value, list | tuple)
        and all(isinstance(v, str) and _HEADER.fullmatch(v) for v in value)
    ),
)
HEADER = Rule(
    "the name of a header",
    lambda value: isinstance(value, str) and _HEADER.fullmatch(value) is not None,
)
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


def parse_hours(text: str) -> tuple[int, int]:
    """Return begin and end of ``"22:00-06:30"`` in minutes of the day. Raises ValueError."""
    found = _HOURS.fullmatch(text)
    if found is None or found[1] + found[2] == found[3] + found[4]:
        raise ValueError(text)
    first, second, third, fourth = map(int, found.groups())
    return first * 60 + second, third * 60 + fourth


def _are_hours(value: Any) -> bool:
    try:
        return isinstance(value, list | tuple) and all(parse_hours(each) for each in value)
    except (TypeError, ValueError):
        return False


HOURS = Rule("a list of hours of the day in UTC, such as '22:00-06:30'", _are_hours)

HOURS_OF_WEEK = 7 * 24
DAYS_OF_WEEK = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SPAN = re.compile(r"([a-z,-]+) ([01]\d|2[0-3]):00-([01]\d|2[0-4]):00")


def parse_hours_of_week(text: str) -> frozenset[int]:
    """
    Return the hours of ``"mon-fri 08:00-18:00"``, from 0 (Monday 00:00) to 167. Days are also
    ``"sat,sun"`` and ``"daily"``; a span over midnight begins on these days. Raises ValueError.
    """
    found = _SPAN.fullmatch(text)
    if found is None:
        raise ValueError(text)
    begin, end = int(found[2]), int(found[3])
    length = (end - begin) % 24 or (24 if begin == 0 else 0)
    if not length:
        raise ValueError(text)
    return frozenset(
        (day * 24 + begin + hour) % HOURS_OF_WEEK
        for day in _days_of(found[1])
        for hour in range(length)
    )


def _days_of(text: str) -> list[int]:
    if text == "daily":
        return list(range(7))
    found = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        begin = DAYS_OF_WEEK.index(first)
        end = DAYS_OF_WEEK.index(last) if dash else begin
        found += [(begin + each) % 7 for each in range((end - begin) % 7 + 1)]
    return found


LEARNT = "learnt"


def schedule_error(value: Any) -> str:
    """Return the first error in a schedule, ``""`` without one."""
    if value is None or value == LEARNT:
        return ""
    if not isinstance(value, Mapping):
        return f" Expected a dict, got {type(value).__name__}."
    for span, units in value.items():
        try:
            parse_hours_of_week(span)
        except (TypeError, ValueError):
            return f" {span!r} is no span of hours of the week."
        if not isinstance(units, Mapping) or not units:
            return f" {span!r} has no dict with READ or WRITE."
        for kind, least in units.items():
            if kind not in ("READ", "WRITE"):
                return f" {span!r} has {kind!r}{suggestion(kind, ('READ', 'WRITE'))}"
            if not WHOLE_POSITIVE.accepts(least):
                return f" {kind} of {span!r} is {least!r}; expected {WHOLE_POSITIVE.expected}."
    return ""


SCHEDULE = Rule(
    "None, 'learnt', or a dict such as {'mon-fri 08:00-18:00': {'READ': 50, 'WRITE': 20}}",
    lambda value: not schedule_error(value),
    schedule_error,
)


def _is_time_zone(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(ZoneInfo(value))
    except (ValueError, OSError, ZoneInfoNotFoundError):
        return False


TIME_ZONE = Rule("the name of a time zone, such as 'UTC' or 'Europe/Vienna'", _is_time_zone)


def one_of(*choices: str) -> Rule:
    """Return the rule that a value is one of ``choices``."""
    return Rule(" or ".join(map(repr, choices)), lambda value: value in choices)


def setting(default: Any, rule: Rule, number: int, *, is_secret: bool = False) -> Any:
    """
    Return the field of a setting, checked under ``dynamo_stores.E<number>``. A message or a
    ``repr`` never shows the value of a secret.
    """
    metadata = {"rule": rule, "id": f"dynamo_stores.E{number:03}", "is_secret": is_secret}
    if isinstance(default, dict | list):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata, repr=not is_secret)


UNKNOWN_NAME, NOT_A_DICT = "dynamo_stores.E001", "dynamo_stores.E002"


def groups_of(cls: type) -> dict[str, type]:
    """Return the groups of ``cls`` (settings that are dicts of settings) by their names."""
    made_by: dict[str, Any] = {
        each.name.upper(): each.default_factory for each in dataclasses.fields(cls)
    }
    return {
        name: make
        for name, make in made_by.items()
        if isinstance(make, type) and dataclasses.is_dataclass(make)
    }


def settings_of(cls: type) -> dict[str, dataclasses.Field[Any]]:
    """Return the single settings of ``cls`` by their names."""
    return {each.name.upper(): each for each in dataclasses.fields(cls) if each.metadata}


def setting_problems(
    cls: type, values: Any, where: str, *, only: frozenset[str] | None = None
) -> list[Problem]:
    """Return the errors in ``values``, a dict of settings found at ``where``."""
    if not isinstance(values, Mapping):
        return [
            Problem(
                NOT_A_DICT,
                f"{where} is {type(values).__name__}; expected a dict of settings.",
                "See docs/settings.md for the names.",
            )
        ]
    own, groups = settings_of(cls), groups_of(cls)
    known = [name for name in (*own, *groups) if only is None or name in only]
    problems = []
    for name, value in values.items():
        if name not in known:
            within = [
                each for each in groups if each in known and name in settings_of(groups[each])
            ]
            problems.append(_unknown(name, known, within, where))
        elif name in groups:
            problems += setting_problems(groups[name], value, f"{where}[{name!r}]")
        elif not (rule := own[name].metadata["rule"]).accepts(value):
            problems.append(
                Problem(
                    own[name].metadata["id"],
                    f"{where}[{name!r}] is {_shown(own[name], value)}; "
                    f"expected {rule.expected}.{rule.details(value)}",
                    f"{_unit_of(name)}docs/settings.md lists every setting.",
                )
            )
    return problems


def _shown(field: dataclasses.Field[Any], value: Any) -> str:
    if field.metadata["is_secret"]:
        return f"a secret of type {type(value).__name__}, which is not shown"
    return repr(value)


_DURATION = re.compile(r".*(TIMEOUT|DELAY|TTL|LEASE|WAIT|INTERVAL|WINDOW|DURATION|INACTIVITY)")


def _unit_of(name: str) -> str:
    return "Durations are in seconds. " if _DURATION.fullmatch(name) else ""


def _unknown(name: object, known: list[str], groups: list[str], where: str) -> Problem:
    """Return the error of an unknown name, which each of ``groups`` has."""
    found = suggestion(name, known)
    if groups:
        several = f"the groups {', '.join(groups)}" if groups[1:] else f"the group {groups[0]}"
        paths = " or ".join(f"{where}[{group!r}][{name!r}]" for group in groups)
        found = f"; it is a setting of {several}: {paths}."
    return Problem(
        UNKNOWN_NAME,
        f"{where} has no setting {name!r}{found}",
        f"Known: {', '.join(known)}.",
    )


# Names of so many equal letters at the beginning are nearer than others.
_SAME_BEGINNING = 4


def suggestion(name: object, known: Iterable[str]) -> str:
    """Return ``; did you mean 'NEAREST'?``, or a full stop if no name is similar."""
    by_upper = {str(each).upper(): each for each in known}
    wanted = str(name).upper()
    similar = difflib.get_close_matches(wanted, list(by_upper), 3, 0.5)
    if not similar:
        return "."
    beginning = wanted[:_SAME_BEGINNING]
    nearest = next((each for each in similar if each.startswith(beginning)), similar[0])
    return f"; did you mean {by_upper[nearest]!r}?"
