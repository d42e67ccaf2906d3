"""HMAC-SHA256 for many short messages under one key."""

from __future__ import annotations

import hashlib

_BLOCK = 64
_INNER, _OUTER = (bytes(each ^ pad for each in range(256)) for pad in (0x36, 0x5C))


class KeyedHash:
    """
    HMAC-SHA256 (RFC 2104) under ``key``, for messages that begin with ``start``.

    The state after the key is kept and copied for each message, which takes half the time of
    :func:`hmac.digest` for a short one. Thread-safe.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes, start: bytes = b"") -> None:
        if len(key) > _BLOCK:
            key = hashlib.sha256(key).digest()
        padded = key.ljust(_BLOCK, b"\0")
        self._inner = hashlib.sha256(padded.translate(_INNER) + start)
        self._outer = hashlib.sha256(padded.translate(_OUTER))

    def digest(self, *rest: bytes) -> bytes:
        """Return the 32 bytes of the message: the start, and ``rest`` after it."""
        inner, outer = self._inner.copy(), self._outer.copy()
        for each in rest:
            inner.update(each)
        outer.update(inner.digest())
        return outer.digest()
