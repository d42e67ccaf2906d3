"""The parts of a deployment, and its parameters: what may be chosen without new settings."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..conf.rules import suggestion
from ..exceptions import ConfigurationError


@dataclass(frozen=True)
class Parameter:
    """
    A parameter: its default, what it is, and the ``pattern`` of its values. ``low`` and ``high``
    are the bounds of a number, which has no pattern. ``part`` is what it belongs to.
    """

    name: str
    default: str | int
    text: str
    part: str
    pattern: str = ""
    low: int = 0
    high: int = 0
    is_list: bool = False

    @property
    def is_number(self) -> bool:
        """Whether its values are whole numbers."""
        return isinstance(self.default, int)

    def with_value(self, text: str) -> Parameter:
        """Return it with another default. Raises ConfigurationError for a wrong value."""
        if self.is_number:
            value = int(text) if re.fullmatch(r"\d{1,9}", text) else -1
            if not self.low <= value <= self.high:
                raise ConfigurationError(
                    f"The parameter {self.name} is {text!r}; expected a whole number from "
                    f"{self.low:,} to {self.high:,}."
                )
            return dataclasses.replace(self, default=value)
        if not re.fullmatch(self.pattern, text):
            raise ConfigurationError(f"The parameter {self.name} is {text!r}; expected {self.text}")
        return dataclasses.replace(self, default=text)


ALARMS, DASHBOARD, REPLICAS = "alarms", "dashboard", "replicas"
AUTO_SCALING, BACKUPS = "auto-scaling", "backups"
VPC_ENDPOINT, CLOUDTRAIL = "vpc-endpoint", "cloudtrail"
# The parts that are left out without an option, and those that are there without one.
OPTIONAL = (AUTO_SCALING, BACKUPS, VPC_ENDPOINT, CLOUDTRAIL)
USUAL = (ALARMS, DASHBOARD, REPLICAS)
_REGION = r"([a-z]{2,4}(-[a-z]+)+-\d)?"

PARAMETERS = (
    Parameter(
        "AlarmTopicArn", "", "the ARN of a topic of SNS that gets the alarms; empty creates one.",
        ALARMS, r"(arn:aws[a-z-]*:sns:[a-z0-9-]+:\d{12}:[A-Za-z0-9_-]+)?",
    ),
    Parameter(
        "AlarmEmail", "", "an address that the created topic sends mail to; empty for none.",
        ALARMS, r"([^@\s]+@[^@\s]+)?",
    ),
    Parameter(
        "ThrottleEvents", 10, "throttled reads or writes in a minute.", ALARMS, low=1, high=10**9
    ),
    Parameter(
        "SystemErrors", 5, "errors inside DynamoDB in a minute.", ALARMS, low=1, high=10**9
    ),
    Parameter(
        "LatencyMilliseconds", 100, "the average latency of an operation inside DynamoDB.",
        ALARMS, low=1, high=60_000,
    ),
    Parameter(
        "AccountUsePercent", 80, "the use of the account's quotas of provisioned capacity.",
        ALARMS, low=1, high=100,
    ),
    Parameter(
        "BackupSchedule", "cron(0 5 ? * * *)", "a schedule of AWS Backup, in UTC.",
        BACKUPS, r"(cron|rate)\([A-Za-z0-9 ,*?/#-]+\)",
    ),
    Parameter(
        "BackupRetentionDays", 35, "days for which backups are kept.", BACKUPS, low=1, high=36_500
    ),
    Parameter(
        "BackupCopyRegion", "", "another region that gets a copy of each backup; empty for none.",
        BACKUPS, _REGION,
    ),
    Parameter(
        "BackupCopyVault", "Default", "the vault in that region, which must exist.",
        BACKUPS, r"[A-Za-z0-9_-]{2,50}",
    ),
    Parameter(
        "VpcId", "", "the VPC of the gateway endpoint; empty for no endpoint.",
        VPC_ENDPOINT, r"(vpc-[0-9a-f]+)?",
    ),
    Parameter(
        "RouteTableIds", "", "route tables of the VPC that use the endpoint, with commas.",
        VPC_ENDPOINT, r"(rtb-[0-9a-f]+(,rtb-[0-9a-f]+)*)?", is_list=True,
    ),
    Parameter(
        "TrailRetentionDays", 90, "days for which the log files of the trail are kept.",
        CLOUDTRAIL, low=1, high=36_500,
    ),
)  # fmt: skip


def chosen_parameters(parts: Iterable[str], values: Mapping[str, str]) -> dict[str, Parameter]:
    """
    Return the parameters of ``parts`` by name, with ``values`` as their defaults.

    Raises ConfigurationError for an unknown name, one of another part, and a wrong value.
    """
    parts = set(parts)
    found = {each.name: each for each in PARAMETERS if each.part in parts}
    for name, value in values.items():
        if name not in found:
            known = {each.name: each for each in PARAMETERS}
            what = (
                f"belongs to {known[name].part!r}, which is left out."
                if name in known
                else f"is not known{suggestion(name, known)} Known: {', '.join(known)}."
            )
            raise ConfigurationError(f"The parameter {name!r} {what}")
        found[name] = found[name].with_value(value)
    return found
