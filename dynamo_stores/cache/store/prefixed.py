"""The base of stores whose items belong to a key prefix."""

from __future__ import annotations

from ...calls.policy import deadline
from ...conf import DEFAULT_ALIAS
from ...exceptions import ConfigurationError
from ...item_access import K, Store
from ..options import CacheOptions, wrong_prefix

_DEFAULT_OPTIONS = CacheOptions()


class PrefixedStore(Store[K]):
    """A store whose items belong to a prefix, under the options of a cache."""

    def __init__(
        self,
        using: str = DEFAULT_ALIAS,
        *,
        prefix: str = "",
        options: CacheOptions = _DEFAULT_OPTIONS,
    ) -> None:
        super().__init__(using)
        if wrong := wrong_prefix(prefix):
            raise ConfigurationError(f"The cache's KEY_PREFIX {wrong}.")
        self.prefix = prefix
        self.options = options

    def _in_time(self) -> deadline:
        return deadline(self.options.operation_timeout)
