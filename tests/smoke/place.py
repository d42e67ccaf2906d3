"""Where the suite runs, and the consent to run it in an account at AWS."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import Session

from dynamo_stores.conf.rules import is_loopback

# Every table of every run begins with it, and no other one.
FAMILY = "dynamo-stores-smoke-"
CONSENT = "SMOKE_CONSENT"
_STS_SECONDS = 10


class Refused(Exception):
    """The suite does not run; the message says why, and what to do."""


@dataclass(frozen=True)
class Place:
    """An endpoint (None: that of AWS), its region, and the account, None on a local engine."""

    endpoint: str | None
    region: str
    account: str | None = None

    @property
    def is_aws(self) -> bool:
        """Whether it is an account at AWS, where calls cost money."""
        return self.account is not None


def new_prefix() -> str:
    """Return a prefix for the tables of one run, with its time."""
    return f"{FAMILY}{datetime.now(UTC):%Y%m%dt%H%M%S}-{secrets.token_hex(3)}-"


def local(url: str) -> Place:
    """Return the engine at ``url``. Raises Refused if it is not on this machine."""
    if not is_loopback(url):
        raise Refused(
            f"ENDPOINT is {url}, which is not on this machine. Use AWS=1 for an account at AWS, "
            "or an engine at 127.0.0.1."
        )
    return Place(url, "us-east-1")


def aws() -> Place:
    """
    Return the account that botocore finds, and its region.

    Raises Refused without credentials or a region.
    """
    session = Session()
    region = os.environ.get("AWS_REGION") or session.get_config_variable("region")
    if not region:
        raise Refused("No region is configured. Set AWS_REGION, such as AWS_REGION=us-east-1.")
    config = Config(
        connect_timeout=_STS_SECONDS,
        read_timeout=_STS_SECONDS,
        retries={"total_max_attempts": 2, "mode": "standard"},
    )
    try:
        client = session.create_client("sts", region_name=region, config=config)
        account = client.get_caller_identity()["Account"]
    except (BotoCoreError, ClientError) as exc:
        raise Refused(
            f"AWS did not tell the account ({type(exc).__name__}: {exc}). Configure credentials, "
            "for example with AWS_PROFILE."
        ) from exc
    return Place(None, region, account)


def require_consent(account: str) -> None:
    """
    Return if the number of the account was given, by ``SMOKE_CONSENT`` or on the terminal. Raises
    Refused otherwise.
    """
    given = os.environ.get(CONSENT)
    if given is None:
        try:
            given = input("Type the number of the account to go on: ")
        except EOFError:
            given = ""
    if given.strip() != account:
        raise Refused(
            f"Nothing was done: the account is {account}, and the answer was {given.strip()!r}. "
            f"Type its number, or set {CONSENT} to it."
        )
