"""The items of rate limits: windows and stored rates."""

from __future__ import annotations

from pynamodb.attributes import UnicodeAttribute

from ..models import RawItem, StoreItem, string_of


class RateWindow(StoreItem):
    """
    The counted requests of one key. The algorithm that the sort key names (:mod:`.algorithms`)
    defines the attributes, whose names contain the numbers of its windows.
    """


class StoredRate(StoreItem):
    """The limit of a resource for all processes, in JSON, in the form of the settings."""

    config = UnicodeAttribute(attr_name="config")


def config_of(item: RawItem) -> str:
    """Return the stored limit as JSON, ``""`` without one."""
    return string_of(item, StoredRate.config)
