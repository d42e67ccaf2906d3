"""Names of resources: at AWS, and in documents."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping

# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html
_LONGEST_ALARM = 255
# A logical id of CloudFormation has 255 characters at most, with what is appended to it.
_LONGEST_ID = 200
# The hyphen and the digest at the end of a shortened name.
_DIGEST = 9


def plain(text: str, longest: int = 255) -> str:
    """Return a name of letters, digits, ``-`` and ``_``, as SNS, AWS Backup and others want it."""
    return _shortened(re.sub(r"[^A-Za-z0-9_-]", "-", text), longest)


def alarm_name(*parts: str) -> str:
    """Return the name of an alarm."""
    return _shortened("-".join(parts), _LONGEST_ALARM)


def begin_of_alarms(name: str) -> str:
    """Return what the names of all alarms of a table begin with."""
    return f"{name}-"[: _LONGEST_ALARM - _DIGEST]


def logical_ids(names: Iterable[str]) -> Mapping[str, str]:
    """Return ids of letters and digits, for CloudFormation, by name."""
    return _distinct(names, _logical_id)


def labels(names: Iterable[str]) -> Mapping[str, str]:
    """Return names of Terraform's resources, by name."""
    return _distinct(names, lambda name: "r_" + re.sub(r"[^A-Za-z0-9_]", "_", name))


def _logical_id(name: str) -> str:
    found = "".join(map(_capital, re.findall(r"[A-Za-z0-9]+", name)))
    return found if len(found) <= _LONGEST_ID else found[:_LONGEST_ID] + _digest(name)


def _capital(word: str) -> str:
    return word[0].upper() + word[1:]


def _distinct(names: Iterable[str], change: Callable[[str], str]) -> dict[str, str]:
    found = {name: change(name) for name in names}
    taken = [*found.values()]
    return {
        # A name keeps its id whatever their order is.
        name: each if taken.count(each) == 1 else each + _digest(name)
        for name, each in found.items()
    }


def _shortened(name: str, longest: int) -> str:
    return name if len(name) <= longest else name[: longest - _DIGEST] + "-" + _digest(name)


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:8]
