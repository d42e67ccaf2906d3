"""The cache store, usable without Django's cache API."""

from .store import CacheStore

__all__ = ["CacheStore"]
