"""The items of rate limits: windows and stored rates."""

from __future__ import annotations

from pynamodb.attributes import BinaryAttribute, UnicodeAttribute

from ..models import RawItem, StoreItem, binary_of, string_of


class RateWindow(StoreItem):
    """
    The counted requests of one key. The algorithm that the sort key names (:mod:`.algorithms`)
    defines the attributes, whose names contain the numbers of its windows.
    """


class StoredRate(StoreItem):
    """
    The limit of a resource for all processes, in JSON, in the form of the settings.

    ``name`` is that of the resource. Stored rates are few and seldom written, so they are in the
    index, by which they are listed.
    """

    config = UnicodeAttribute(attr_name="config")
    name = BinaryAttribute(null=True, attr_name="n", legacy_encoding=False)


def config_of(item: RawItem) -> str:
    """Return the stored limit as JSON, ``""`` without one."""
    return string_of(item, StoredRate.config)


def resource_of(item: RawItem) -> str:
    """Return the name of the resource whose limit is stored, ``""`` without one."""
    return (binary_of(item, StoredRate.name) or b"").decode(errors="surrogatepass")
