"""The settings: ``DYNAMO_STORES`` read into frozen dataclasses; see :mod:`.groups` for each."""

from .aliases import (
    DEFAULT_ALIAS,
    NO_DEFAULT_ALIAS,
    TABLE_SETTINGS,
    StoreConfig,
    aliases,
    find_problems,
    get_config,
    imported,
    provisioned_aliases,
    ratelimit_setting,
    when_changed,
)

__all__ = [
    "DEFAULT_ALIAS",
    "NO_DEFAULT_ALIAS",
    "TABLE_SETTINGS",
    "StoreConfig",
    "aliases",
    "find_problems",
    "get_config",
    "imported",
    "provisioned_aliases",
    "ratelimit_setting",
    "when_changed",
]
