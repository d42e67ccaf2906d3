"""The stores: what Django's front rooms are built on, usable by themselves."""

from .cache import CacheStore
from .locks import AsyncLock, Lock, LockStore

__all__ = ["AsyncLock", "CacheStore", "Lock", "LockStore"]
