"""The limits of resources: set in this process, in the table or in the settings."""

from __future__ import annotations

import json
from typing import Any

from .. import clock, keys
from ..calls.policy import deadline
from ..conf import get_config
from ..conf.groups import RateLimitConfig
from ..conf.rates import Rate, ResourceConfig, describe, parse_resource, resolve_rate
from ..exceptions import StoreUnavailable
from ..item_access import Store
from .items import RateWindow, StoredRate, config_of
from .memory import RateMemory, StoredConfig, get_rate_memory

# Seconds for which a limit that was read from the table is used.
_CONFIG_TIMEOUT = 5.0
# Seconds after which it is read again if DynamoDB was unavailable.
_FAILED_TIMEOUT = 1.0
# The limits that were set in this process, kept over a fork.
_set_here: dict[tuple[str, str], ResourceConfig] = {}
_MISSING = object()


class LimitsStore(Store[RateWindow]):
    """The limits of resources of one alias."""

    kind = RateWindow

    def get_resource_config(self, resource: str) -> ResourceConfig:
        """Return the current limit of ``resource``: of this process, the table or the settings."""
        with self._in_time():
            return self._config(resource)

    def set_resource_config(self, resource: str, config: Any, *, everywhere: bool = False) -> None:
        """
        Set the limit of ``resource``: a rate, a dict as in ``RESOURCES``, or None for no limit.

        It applies in this process at once. With ``everywhere`` it is stored in the table and
        applies in all processes within five seconds. :meth:`unset_resource_config` removes it.
        """
        found = parse_resource(config, algorithm=self._algorithm)
        if not everywhere:
            _set_here[self.using, resource] = found
            return
        key = keys.stored_rate(resource)
        text = json.dumps(describe(found))
        with self._in_time():
            self._put(StoredRate(key.pk, key.sk, config=text).serialize())
        self._memory.configs.put(resource, StoredConfig(text, clock.monotonic()))

    def unset_resource_config(self, resource: str, *, everywhere: bool = False) -> None:
        """Remove the limit that :meth:`set_resource_config` set."""
        if not everywhere:
            _set_here.pop((self.using, resource), None)
            return
        with self._in_time():
            self._delete(keys.stored_rate(resource))
        self._memory.configs.put(resource, StoredConfig(None, clock.monotonic()))

    def _ad_hoc(self, resource: str, key: str, rate: Any) -> ResourceConfig:
        found = resolve_rate(rate, resource, key)
        return parse_resource(found, algorithm=self._algorithm)

    def _config(self, resource: str) -> ResourceConfig:
        found = _set_here.get((self.using, resource))
        if found is not None:
            return found
        settings = self._settings
        if (text := self._stored(resource)) is not None:
            return parse_resource(json.loads(text), algorithm=self._algorithm)
        own = settings.resources.get(resource, _MISSING)
        if own is not _MISSING:
            return parse_resource(own, algorithm=self._algorithm)
        rates = (Rate(settings.limit, settings.window),)
        return ResourceConfig(rates=rates, algorithm=self._algorithm)

    def _stored(self, resource: str) -> str | None:
        configs = self._memory.configs
        known = configs.get(resource)
        now = clock.monotonic()
        if known is not None and now - known.read_at < _CONFIG_TIMEOUT:
            return known.text
        if known is not None:
            # This thread reads it; the others use the known limit in the meantime.
            configs.put(resource, known._replace(read_at=now))
        try:
            item = self._get(keys.stored_rate(resource), consistent=False)
        except StoreUnavailable:
            # ON_UNAVAILABLE decides about requests, not about limits.
            text = known.text if known is not None else None
            read_at = clock.monotonic() - _CONFIG_TIMEOUT + _FAILED_TIMEOUT
            configs.put(resource, StoredConfig(text, read_at))
            return text
        text = config_of(item) or None if item is not None else None
        configs.put(resource, StoredConfig(text, now))
        return text

    @property
    def _memory(self) -> RateMemory:
        return get_rate_memory(self.using)

    @property
    def _settings(self) -> RateLimitConfig:
        return get_config(self.using).rate_limit

    @property
    def _algorithm(self) -> str:
        """The algorithm of a limit that names none."""
        return self._settings.algorithm

    def _in_time(self) -> deadline:
        return deadline(self._settings.operation_timeout)
