"""The stores: what Django's front rooms are built on, usable by themselves."""

from .cache import CacheStore

__all__ = ["CacheStore"]
