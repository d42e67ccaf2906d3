"""
The AWS account of an alias: botocore's session with its credentials and configuration.

It is botocore's own account, or that of ``PROFILE``, ``ROLE_ARN`` or ``SESSION``.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import botocore
from botocore.config import Config
from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from botocore.session import Session

from ..concurrency.per_process import PerProcess
from ..conf import StoreConfig, get_config, imported
from ..exceptions import (
    THROTTLING_CODES,
    ConfigurationError,
    StoreRefused,
    StoreUnavailable,
    client_error,
    code_of,
)

_STS_ATTEMPTS = 2
# The region of STS's global endpoint.
_STS_REGION = "us-east-1"
# Of the methods client() and create_client().
_MODULES = ("boto3.session", "botocore.session")
# Options of clients that are the library's own, whatever a session has.
_OWN_OPTIONS = frozenset(
    [
        "connect_timeout", "max_pool_connections", "parameter_validation", "read_timeout",
        "retries", "tcp_keepalive", "user_agent_extra",
    ]
)  # fmt: skip


class Account:
    """
    Where the clients of an alias get credentials from. Making one reads AWS's configuration files
    and calls the function of ``SESSION``; credentials are looked for when they are first needed.

    Raises botocore's errors, and ConfigurationError or StoreRefused for the function of
    ``SESSION``. A session is used by one thread at a time, the one that has the ``lock``.
    """

    def __init__(self, using: str, config: StoreConfig) -> None:
        self.lock = threading.RLock()
        # The function that makes clients, if SESSION is about one instead of a session.
        self.client_factory: Callable[..., Any] | None = None
        self._using = using
        self._config = config
        self.session: Session
        if config.session is None:
            self.session = _OwnSession(profile=config.profile)
        else:
            self.session = self._session_of_function(config.session)
        if config.role_arn is not None:
            # The function's session may be in use elsewhere.
            source, self.session = self.session, copy.copy(self.session)
            self.session._credentials = self._role(source, config.role_arn)  # type: ignore[attr-defined]

    @property
    def obstacle(self) -> str:
        """Why its requests must go through botocore's client, ``""`` if they need not."""
        if self.client_factory is not None:
            return "SESSION makes clients"
        # Proxies, a client certificate, a region and so on, for all clients of the session.
        config, plain = self.session.get_default_client_config() or Config(), Config()
        given = [
            name
            for name in Config.OPTION_DEFAULTS
            if name not in _OWN_OPTIONS and getattr(config, name) != getattr(plain, name)
        ]
        if not given:
            return ""
        return f"the session of SESSION has a configuration of its clients ({', '.join(given)})"

    def credentials(self) -> Any:
        """Return botocore's credentials, None if it finds none; this may take seconds."""
        return self.session.get_credentials()

    def create_client(self, service: str, **arguments: Any) -> Any:
        """Return a botocore client of the account."""
        with self.lock:
            if self.client_factory is not None:
                return self._call(self.client_factory, service, **arguments)
            return self.session.create_client(service, **arguments)

    def _session_of_function(self, path: str) -> Session:
        found = self._call(imported(path))
        if (session := _session_in(found)) is not None:
            return session
        if not callable(found):
            raise ConfigurationError(
                f"DYNAMO_STORES[{self._using!r}]['SESSION'] returned {type(found).__name__}; "
                "expected a session of botocore or boto3, or a function that makes clients, such "
                "as the method client() of a boto3 session."
            )
        if self._config.role_arn is not None:
            raise ConfigurationError(
                f"DYNAMO_STORES[{self._using!r}]['SESSION'] returned a function that makes "
                "clients, which cannot be used with ROLE_ARN; expected a session."
            )
        self.client_factory = found
        return _OwnSession()

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (BotoCoreError, ClientError, StoreUnavailable):
            raise
        except Exception as exc:
            raise StoreRefused(
                f"DYNAMO_STORES[{self._using!r}]['SESSION'] raised {type(exc).__name__}, so that "
                "no request can be sent. Its error is in the __cause__."
            ) from exc

    def _role(self, source: Session, role: str) -> DeferredRefreshableCredentials:
        def assume() -> Any:
            credentials = source.get_credentials()
            if credentials is None:
                raise NoCredentialsError
            config = self._config
            arguments = {"ExternalId": config.external_id, "RoleSessionName": config.session_name}
            fetcher = AssumeRoleCredentialFetcher(
                self._create_sts, credentials, role,
                extra_args={name: value for name, value in arguments.items() if value is not None},
            )  # fmt: skip
            try:
                return fetcher.fetch_credentials()
            except (BotoCoreError, ClientError) as exc:
                known = client_error(exc, self._using) if isinstance(exc, BotoCoreError) else None
                raise known or self._refused(exc) from exc

        return DeferredRefreshableCredentials(refresh_using=assume, method="assume-role")

    def _create_sts(self, service: str, **credentials: Any) -> Any:
        config = self._config
        return self.session.create_client(
            service,
            region_name=config.region or self.session.get_config_variable("region") or _STS_REGION,
            config=Config(
                connect_timeout=config.connect_timeout,
                read_timeout=config.read_timeout,
                retries={"total_max_attempts": _STS_ATTEMPTS, "mode": "standard"},
            ),
            **credentials,
        )

    def _refused(self, exc: BotoCoreError | ClientError) -> StoreUnavailable:
        where = f"The role of DYNAMO_STORES[{self._using!r}]['ROLE_ARN'] could not be assumed"
        if isinstance(exc, ClientError):
            code, status = code_of(exc), exc.response.get("ResponseMetadata", {})
            if code not in THROTTLING_CODES and status.get("HTTPStatusCode", 0) < 500:
                return StoreRefused(
                    f"{where}: AWS STS refused it ({code}). Check ROLE_ARN, EXTERNAL_ID and the "
                    "role's trust policy; AWS's message is in the __cause__."
                )
            return StoreUnavailable(f"{where}: AWS STS failed ({code}).")
        return StoreUnavailable(f"{where}: AWS STS did not answer ({type(exc).__name__}).")


class _OwnSession(Session):
    """
    A session that registers botocore's own handlers when its first client is made. That takes as
    long as a hundred requests of the library's own transport, which needs none of them.

    Functions that initialize each session may make clients, and may add handlers after botocore's
    or remove some of them: if there are any, botocore's are registered at once.
    """

    def __init__(self, profile: str | None = None) -> None:
        at_once = bool(getattr(botocore, "_INITIALIZERS", None))
        # Copies of a session have the same handlers, so they share the list, which is then empty.
        self._unregistered = [] if at_once else [True]
        self._registering = threading.Lock()
        super().__init__(profile=profile, include_builtin_handlers=at_once)

    def create_client(self, *args: Any, **kwargs: Any) -> Any:
        with self._registering:
            if self._unregistered:
                self._register_builtin_handlers(self._events)  # type: ignore[attr-defined]
                self._unregistered.clear()
        return super().create_client(*args, **kwargs)


def _session_in(found: Any) -> Session | None:
    """
    Return botocore's session of a session, or of a session's own method that makes clients; None
    for a function of the application.
    """
    owner = found
    if getattr(found, "__module__", "") in _MODULES and callable(found):
        owner = getattr(found, "__self__", found)
    if isinstance(owner, Session):
        return owner
    # boto3 is not imported for this.
    if any(each.__module__ == "boto3.session" for each in type(owner).__mro__):
        session: Session = owner._session
        return session
    return None


def _make(using: str) -> Account:
    return Account(using, get_config(using))


_accounts = PerProcess(_make)


def get_account(using: str) -> Account:
    """Return this process's account of the alias ``using``; raises as :class:`Account`."""
    return _accounts.get(using)
