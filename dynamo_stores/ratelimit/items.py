"""The items of rate limits: windows and stored rates."""

from __future__ import annotations

from pynamodb.attributes import UnicodeAttribute

from ..models import RawItem, StoreItem, string_of


class RateWindow(StoreItem):
    """
    The requests of one key that were admitted lately. The algorithm that the sort key names
    (:mod:`.algorithms`) defines its attributes, numbered by the windows that it counts in.
    """


class StoredRate(StoreItem):
    """The limit of a resource, set for all processes: JSON, as settings write it."""

    config = UnicodeAttribute(attr_name="config")


def config_of(item: RawItem) -> str:
    """Return the stored limit as JSON, ``""`` without one."""
    return string_of(item, StoredRate.config)
