"""
The parts of botocore's configuration that requests need: credentials, endpoint, region, CA bundle
and user agent, found as botocore finds them, without its client.
"""

from __future__ import annotations

import copy
import functools
import math
import os
import ssl
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from botocore.config import Config
from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.endpoint_provider import EndpointProvider
from botocore.exceptions import BotoCoreError, NoCredentialsError, NoRegionError
from botocore.httpsession import get_cert_path
from botocore.session import Session
from botocore.utils import get_environ_proxies, validate_region_name

from .. import __version__
from ..conf import StoreConfig
from ..conf.rules import is_loopback as is_loopback  # noqa: PLC0414 - others import it from here
from .account import Account
from .wire import Endpoint

USER_AGENT = f"dynamo-stores/{__version__}"


class Environment:
    """
    The credentials and the endpoint of an alias. Making one may take seconds, because botocore
    looks for credentials. Raises botocore's errors.

    ``obstacle`` says why the requests must go through botocore, ``""`` if they need not.
    """

    def __init__(self, config: StoreConfig, account: Account) -> None:
        self._session = session = account.session
        url = config.endpoint_url
        is_local = needs_no_account(config)
        self._frozen: ReadOnlyCredentials | None = None
        # Until when the frozen ones are used without asking, and when they end.
        self._ask_at = -math.inf
        self._ends: datetime | None = None
        self._region = config.region or (
            local_region(session)
            if url is not None and is_loopback(url)
            else session.get_config_variable("region")
        )
        if not self._region:
            raise NoRegionError
        validate_region_name(self._region)
        self._credentials: Any = _INVENTED if is_local else account.credentials()
        self._given_url: str | None = url or _configured_url(session)
        self._user_agent = _user_agent(session)
        self._account = self._find_account()
        self.endpoint = self._resolve(self._account)
        self.obstacle = self._find_obstacle()

    @property
    def has_credentials(self) -> bool:
        """Whether botocore found credentials."""
        return self._credentials is not None

    def known_credentials(self, now: float) -> ReadOnlyCredentials | None:
        """
        Return the credentials if botocore was asked in the last second, else None. ``now`` is in
        monotonic seconds.
        """
        return self._frozen if now < self._ask_at else None

    def credentials(self, now: float) -> ReadOnlyCredentials:
        """
        Return the credentials, the same object until they change. botocore is asked once a second,
        and may refresh them. Raises NoCredentialsError.
        """
        if now >= self._ask_at or self._frozen is None:
            if self._credentials is None:
                raise NoCredentialsError
            # Another thread may replace them meanwhile: then the earlier end is theirs.
            ends = getattr(self._credentials, "_expiry_time", None)
            frozen = self._credentials.get_frozen_credentials()
            if frozen != self._frozen:
                self._frozen = frozen
            self._ends = ends or getattr(self._credentials, "_expiry_time", None)
            self._ask_at = now + 1
        return self._frozen  # type: ignore[return-value]

    @property
    def is_refresh_due(self) -> bool:
        """Whether botocore wants to refresh the credentials, which may take seconds."""
        is_due = getattr(self._credentials, "refresh_needed", None)
        return is_due is not None and bool(is_due())

    def unexpired_credentials(self) -> ReadOnlyCredentials | None:
        """Return the last credentials if they are valid for some seconds more, else None."""
        if self._frozen is None or self._ends is None:
            return None
        left = (self._ends - datetime.now(self._ends.tzinfo)).total_seconds()
        return self._frozen if left > _SPARE else None

    def endpoint_for(self, credentials: ReadOnlyCredentials) -> Endpoint:
        """Return the endpoint: by default there is one for each AWS account."""
        account = credentials.account_id
        if account != self._account and self._given_url is None:
            self.endpoint = self._resolve(account)
            self._account = account
        return self.endpoint

    def ssl_context(self) -> ssl.SSLContext:
        """Return the TLS context with botocore's choice of CA bundle."""
        verify = self._session.get_config_variable("ca_bundle")
        bundle: Any = verify or os.environ.get("REQUESTS_CA_BUNDLE") or True
        return _ssl_context(get_cert_path(bundle))

    def _find_account(self) -> str | None:
        if self._credentials is None or self._given_url is not None:
            return None
        account: str | None = self._credentials.get_frozen_credentials().account_id
        return account

    def _resolve(self, account: str | None) -> Endpoint:
        ask = self._session.get_config_variable
        found = _rules(self._session).resolve_endpoint(
            Region=self._region,
            UseFIPS=self._given_url is None and bool(ask("use_fips_endpoint")),
            UseDualStack=self._given_url is None and bool(ask("use_dualstack_endpoint")),
            Endpoint=self._given_url,
            AccountId=account,
            AccountIdEndpointMode=ask("account_id_endpoint_mode"),
        )
        schemes = found.properties.get("authSchemes") or [{}]
        region = schemes[0].get("signingRegion", self._region)
        return Endpoint(found.url, region, self._user_agent)

    def _find_obstacle(self) -> str:
        scheme = "https" if self.endpoint.is_tls else "http"
        if get_environ_proxies(self.endpoint.url).get(scheme):
            return "the environment names a proxy"
        if "fips" in self._region:
            return f"the region {self._region!r} is a name of botocore's for an endpoint"
        return ""


_RULE_SET = "endpoint-rule-set-1"
# An endpoint on this machine needs no real credentials, and is sent none.
_INVENTED = Credentials("local", "local")
# The seconds before their end from which credentials are not used any more.
_SPARE = 30


def needs_no_account(config: StoreConfig) -> bool:
    """Return whether the endpoint is on this machine, and the settings name no account for it."""
    url = config.endpoint_url
    return not config.names_account and url is not None and is_loopback(url)


def has_region(config: StoreConfig) -> bool:
    """Return whether the requests of ``config`` have a region; reads botocore's configuration."""
    if config.region or config.session:
        return True
    if config.endpoint_url is not None and is_loopback(config.endpoint_url):
        return True
    try:
        session = Session(profile=config.profile)
        return bool(session.get_config_variable("region"))
    except BotoCoreError:
        # The profile cannot be read, which the first call reports.
        return True


def has_profile(name: str) -> bool:
    """Return whether AWS's configuration files of this machine have the profile ``name``."""
    try:
        return name in Session().available_profiles
    except BotoCoreError:
        # The files cannot be read, which the first call reports.
        return True


def local_region(session: Session) -> str:
    """Return the region of requests to an endpoint on this machine."""
    region: str | None = session.get_config_variable("region")
    return region or "us-east-1"


def place_of(url: str | None, region: str | None) -> str:
    """Return the endpoint and the region as text, for messages."""
    # A URL may have a name and a password.
    parts = (("endpoint", urlsplit(url or "").netloc.rpartition("@")[2]), ("region", region))
    return ", ".join(f"{name} {value}" for name, value in parts if value)


def _configured_url(session: Session) -> str | None:
    """Return the endpoint of the environment or of AWS's configuration file."""
    if session.get_config_variable("ignore_configured_endpoint_urls"):
        return None
    store = copy.copy(session.get_component("config_store"))
    session._add_configured_endpoint_provider(client_name="dynamodb", config_store=store)  # type: ignore[attr-defined]
    url: str | None = store.get_config_variable("endpoint_url")
    return url


def _user_agent(session: Session) -> str:
    creator = session.get_component("user_agent_creator")
    creator.set_session_config(
        session_user_agent_name=session.user_agent_name,
        session_user_agent_version=session.user_agent_version,
        session_user_agent_extra=session.user_agent_extra,
    )
    text: str = creator.with_client_config(Config(user_agent_extra=USER_AGENT)).to_string()
    return text


def _rules(session: Session) -> EndpointProvider:
    loader = session.get_component("data_loader")
    # Not load_service_model(), which first lists the folders of all services.
    version = loader.determine_latest_version("dynamodb", _RULE_SET)
    return EndpointProvider(
        loader.load_data(f"dynamodb/{version}/{_RULE_SET}"), loader.load_data("partitions")
    )


@functools.lru_cache(maxsize=8)
def _ssl_context(bundle: str) -> ssl.SSLContext:
    # Reading a CA bundle takes 17 ms, so all connections of the process share it.
    is_folder = os.path.isdir(bundle)
    context = ssl.create_default_context(
        cafile=None if is_folder else bundle, capath=bundle if is_folder else None
    )
    # As botocore: certificates of companies may lack what RFC 5280 requires beside the signature.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
