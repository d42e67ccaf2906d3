"""The limits of resources: set in this process, in the table or in the settings."""

from __future__ import annotations

import functools
import json
from typing import Any, Protocol

from .. import clock, keys
from ..calls.policy import deadline
from ..concurrency.effects import Computation
from ..conf import get_config
from ..conf.functions import check_result
from ..conf.rates import (
    Rate,
    ResourceConfig,
    describe,
    is_dotted_path,
    parse_resource,
    resolve_rate,
)
from ..exceptions import ConfigurationError, StoreUnavailable
from ..item_access import Items
from .items import RateWindow, StoredRate, config_of, resource_of
from .memory import StoredConfig, get_rate_memory

# Seconds for which a limit that was read from the table is used.
_CONFIG_TIMEOUT = 5.0
# Seconds after which it is read again if DynamoDB was unavailable.
_FAILED_TIMEOUT = 1.0
# The limits that were set in this process, kept over a fork.
_set_here: dict[tuple[str, str], ResourceConfig] = {}
_MISSING = object()


class Resources:
    """
    The limits of resources of one alias. Its coroutines are verbs.

    ``algorithm`` counts for limits that name none, by default ``RATE_LIMIT["ALGORITHM"]``.
    """

    def __init__(self, items: Items[RateWindow], algorithm: str | None = None) -> None:
        self._items = items
        self._algorithm = algorithm

    @property
    def algorithm(self) -> str:
        """The algorithm of a limit that names none."""
        return self._algorithm or get_config(self._items.using).rate_limit.algorithm

    async def limit_of(self, resource: str, key: str, rate: Any) -> ResourceConfig:
        """Return the limit in ``rate``, which may be a function; that of ``resource`` if None."""
        if rate is None:
            return await self.config_of(resource)
        if callable(rate) or is_dotted_path(rate):
            # The function may read a database. On an event loop it may be a coroutine function.
            found = await Computation(functools.partial(resolve_rate, rate, resource, key))
            rate = check_result("rate", rate, found)
        return parse_resource(rate, algorithm=self.algorithm)

    async def config_of(self, resource: str) -> ResourceConfig:
        """Return the limit of ``resource``: of this process, the table or the settings."""
        found = _set_here.get((self._items.using, resource))
        if found is not None:
            return found
        if (text := await self._stored(resource)) is not None:
            return parse_resource(json.loads(text), algorithm=self.algorithm)
        settings = get_config(self._items.using).rate_limit
        own = settings.resources.get(resource, _MISSING)
        if own is not _MISSING:
            return parse_resource(own, algorithm=self.algorithm)
        rates = (Rate(settings.limit, settings.window),)
        return ResourceConfig(rates=rates, algorithm=self.algorithm)

    async def set(self, resource: str, config: Any, *, everywhere: bool) -> None:
        """Set the limit of ``resource`` in this process, or in the table for all processes."""
        found = parse_resource(config, algorithm=self.algorithm)
        if not everywhere:
            _set_here[self._items.using, resource] = found
            return
        key = keys.stored_rate(resource)
        text = json.dumps(describe(found))
        gsi1pk, gsi1sk = keys.stored_rates_index(resource)
        item = StoredRate(
            key.pk,
            key.sk,
            config=text,
            name=str(resource).encode(errors="surrogatepass"),
            gsi1pk=gsi1pk,
            gsi1sk=gsi1sk,
        )
        await self._items.put(item.serialize())
        self._remember(resource, text)

    async def unset(self, resource: str, *, everywhere: bool) -> None:
        """Remove the limit that :meth:`set` set."""
        if not everywhere:
            _set_here.pop((self._items.using, resource), None)
            return
        await self._items.delete(keys.stored_rate(resource))
        self._remember(resource, None)

    async def stored(self) -> dict[str, ResourceConfig | None]:
        """Return the limits that are stored in the table, None for one that cannot be read."""
        items = await self._items.query(
            {
                "IndexName": "GSI1",
                "KeyConditionExpression": "GSI1PK = :rates",
                "ExpressionAttributeValues": {":rates": {"S": keys.STORED_RATES}},
            }
        )
        return {resource_of(item): self._readable(config_of(item)) for item in items}

    def _readable(self, text: str) -> ResourceConfig | None:
        try:
            return parse_resource(json.loads(text), algorithm=self.algorithm)
        except (ConfigurationError, ValueError):
            return None

    async def _stored(self, resource: str) -> str | None:
        if get_config(self._items.using).rate_limit.in_process:
            return None
        configs = get_rate_memory(self._items.using).configs
        known = configs.get(resource)
        now = clock.monotonic()
        if known is not None and now - known.read_at < _CONFIG_TIMEOUT:
            return known.text
        if known is not None:
            # This one reads it; the others use the known limit in the meantime.
            configs.put(resource, known._replace(read_at=now))
        try:
            item = await self._items.get(keys.stored_rate(resource), consistent=False)
        except StoreUnavailable:
            # ON_UNAVAILABLE decides about requests, not about limits.
            text = known.text if known is not None else None
            read_at = clock.monotonic() - _CONFIG_TIMEOUT + _FAILED_TIMEOUT
            configs.put(resource, StoredConfig(text, read_at))
            return text
        text = config_of(item) or None if item is not None else None
        configs.put(resource, StoredConfig(text, now))
        return text

    def _remember(self, resource: str, text: str | None) -> None:
        known = StoredConfig(text, clock.monotonic())
        get_rate_memory(self._items.using).configs.put(resource, known)


def in_time(using: str) -> deadline:
    """Return the one deadline for all calls of an operation on limits."""
    return deadline(get_config(using).rate_limit.operation_timeout)


class HasResources(Protocol):
    """A store whose methods are made from the functions below, all of them verbs."""

    using: str
    _resources: Resources


async def get_resource_config(store: HasResources, resource: str) -> ResourceConfig:
    """Return the current limit of ``resource``: of this process, the table or the settings."""
    with in_time(store.using):
        return await store._resources.config_of(resource)


async def set_resource_config(
    store: HasResources, resource: str, config: Any, *, everywhere: bool = False
) -> None:
    """
    Set the limit of ``resource``: a rate, a dict as in ``RESOURCES``, or None for no limit.

    It applies in this process at once. With ``everywhere`` it is stored in the table and applies
    in all processes within five seconds. :meth:`unset_resource_config` removes it.
    """
    with in_time(store.using):
        await store._resources.set(resource, config, everywhere=everywhere)


async def unset_resource_config(
    store: HasResources, resource: str, *, everywhere: bool = False
) -> None:
    """Remove the limit that :meth:`set_resource_config` set."""
    with in_time(store.using):
        await store._resources.unset(resource, everywhere=everywhere)


async def get_stored_configs(store: HasResources) -> dict[str, ResourceConfig | None]:
    """
    Return the limits that ``set_resource_config(…, everywhere=True)`` stored, by resource; None for
    one that cannot be read.

    One Query of the index, which may miss the changes of the last moments.
    """
    with in_time(store.using):
        return await store._resources.stored()
