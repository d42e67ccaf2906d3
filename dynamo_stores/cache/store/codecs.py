"""
How values become bytes and bytes become values: serialise, compress, sign.

An attacker who can write the table must neither run code here nor swap two values. So all bytes are
signed with an HMAC over the bytes, their serializer and compressor, the name of the table and the
full key of the entry. Bytes that were not signed with one of the project's secrets are never
deserialised.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import pickle
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from django.conf import settings
from django.utils.module_loading import import_string

from ... import conf
from ...exceptions import ConfigurationError
from ...keyed_hash import KeyedHash
from ...serialization import dump_json, load_json


class Serializer(Protocol):
    """Converts a value to bytes and back."""

    def dumps(self, value: Any) -> bytes: ...
    def loads(self, data: bytes) -> Any: ...


class Compressor(Protocol):
    """Compresses bytes and decompresses them."""

    def compress(self, data: bytes) -> bytes: ...
    def decompress(self, data: bytes) -> bytes: ...


class PickleSerializer:
    """Pickle, with the highest protocol of the running Python."""

    def dumps(self, value: Any) -> bytes:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)

    def loads(self, data: bytes) -> Any:
        return pickle.loads(data)  # noqa: S301 - its signature was verified


class JSONSerializer:
    """JSON in UTF-8; tuples come back as lists."""

    def dumps(self, value: Any) -> bytes:
        return dump_json(value)

    def loads(self, data: bytes) -> Any:
        return load_json(data)


class ZlibCompressor:
    """zlib at its default level; always available."""

    def compress(self, data: bytes) -> bytes:
        return zlib.compress(data)

    def decompress(self, data: bytes) -> bytes:
        return zlib.decompress(data)


class ZstdCompressor:
    """Zstandard; needs the extra ``compression``."""

    def __init__(self) -> None:
        import zstandard

        self._zstd = zstandard

    # zstandard's objects must not be shared by threads; creating them is cheap.
    def compress(self, data: bytes) -> bytes:
        compressed: bytes = self._zstd.ZstdCompressor().compress(data)
        return compressed

    def decompress(self, data: bytes) -> bytes:
        whole: bytes = self._zstd.ZstdDecompressor().decompress(data)
        return whole


class LZ4Compressor:
    """LZ4 frames; needs the extra ``compression``."""

    def __init__(self) -> None:
        import lz4.frame

        self._lz4 = lz4.frame

    def compress(self, data: bytes) -> bytes:
        compressed: bytes = self._lz4.compress(data)
        return compressed

    def decompress(self, data: bytes) -> bytes:
        whole: bytes = self._lz4.decompress(data)
        return whole


SERIALIZERS: dict[str, type[Serializer]] = {"pickle": PickleSerializer, "json": JSONSerializer}
COMPRESSORS: dict[str, type[Compressor]] = {
    "zlib": ZlibCompressor,
    "zstd": ZstdCompressor,
    "lz4": LZ4Compressor,
}


class Signer:
    """
    HMAC-SHA256 with a key derived from each secret: signs with the first, verifies with all.

    Each field of a message has its length, so different lists of fields never have equal bytes. A
    message is given in pieces.
    """

    SIZE = 32

    def __init__(self, secrets: list[str | bytes]) -> None:
        self._hashes = [
            KeyedHash(hashlib.sha256(b"dynamo_stores.codecs:" + _bytes(secret)).digest())
            for secret in secrets
        ]

    def sign(self, *message: bytes) -> bytes:
        """Return the signature of a message of :func:`joined` fields, ``SIZE`` bytes."""
        return self._hashes[0].digest(*message)

    def verify(self, signature: bytes, *message: bytes) -> bool:
        """Return whether ``signature`` is that of the message with one of the secrets."""
        return any(hmac.compare_digest(signature, each.digest(*message)) for each in self._hashes)


def _bytes(secret: str | bytes) -> bytes:
    return secret.encode() if isinstance(secret, str) else secret


def joined(*fields: bytes) -> bytes:
    """
    Return the fields, each with its length, as one message. The messages of two lists of fields are
    joined to that of both.
    """
    return b"".join([b"%d:%b" % (len(each), each) for each in fields])


class InvalidSignature(Exception):
    """Stored bytes were not signed for their key by this project. Carries no content."""


class UnreadableValue(Exception):
    """Signed bytes cannot be deserialised; the serializer's error is the ``__cause__``."""


# What serializers raise for bytes of code that has changed. Not every Exception: a time limit, such
# as Celery's, may be raised meanwhile.
_LOAD_ERRORS = (
    AttributeError, EOFError, ImportError, LookupError, TypeError, ValueError,
    pickle.UnpicklingError,
)  # fmt: skip


# Stored bytes begin with the number of this format, then 1 if they are compressed, else 0.
_VERSION = b"\x01"
_PLAIN, _COMPRESSED = b"\x00", b"\x01"


SEAL_SIZE = 2 + Signer.SIZE
# With what stored bytes begin that are compressed.
COMPRESSED_HEADERS = frozenset([_VERSION + _COMPRESSED])


class Encoded(NamedTuple):
    """A value as bytes; ``header`` is the format, and whether they are compressed."""

    header: bytes
    data: bytes


class Codec:
    """
    Converts values to signed bytes and back.

    The names of the serializer and, for compressed bytes, of the compressor are signed too: bytes
    of another one are refused. So is the ``context``, a message of :func:`joined` fields.
    """

    def __init__(
        self,
        signer: Signer,
        *,
        serializer: str = "pickle",
        compressor: str | None = None,
        compress_over: int = 1024,
    ) -> None:
        self._signer = signer
        self._serializer = make_serializer(serializer)
        self._compressor = make_compressor(compressor) if compressor is not None else None
        self._compress_over = compress_over
        # The beginnings of the messages that are signed, by the header of the bytes.
        names = {_PLAIN: serializer, _COMPRESSED: f"{serializer}|{compressor}"}
        self._beginnings = {
            _VERSION + form: joined(_VERSION + form, name.encode()) for form, name in names.items()
        }

    def encode(self, value: Any) -> Encoded:
        """
        Return ``value`` as bytes, not signed yet.

        Raises the serializer's error for a value that it cannot serialise.
        """
        data = self._serializer.dumps(value)
        if self._compressor is not None and len(data) > self._compress_over:
            compressed = self._compressor.compress(data)
            if len(compressed) < len(data):
                return Encoded(_VERSION + _COMPRESSED, compressed)
        return Encoded(_VERSION + _PLAIN, data)

    def sign(self, encoded: Encoded, context: bytes) -> bytes:
        """Return the ``SEAL_SIZE`` bytes to store before ``encoded.data`` under ``context``."""
        header, data = encoded
        beginning = b"%b%b%d:" % (self._beginnings[header], context, len(data))
        return header + self._signer.sign(beginning, data)

    def seal(self, value: Any, context: bytes) -> bytes:
        """Return the signed bytes of ``value`` under ``context`` (its full key, its write)."""
        encoded = self.encode(value)
        return self.sign(encoded, context) + encoded.data

    def verify(self, sealed: bytes, context: bytes) -> bool:
        """Return whether the bytes are signed for ``context`` under the options of this codec."""
        beginning = self._beginnings.get(sealed[:2])
        if beginning is None:
            return False
        data = sealed[SEAL_SIZE:]
        beginning = b"%b%b%d:" % (beginning, context, len(data))
        return self._signer.verify(sealed[2:SEAL_SIZE], beginning, data)

    def open(self, sealed: bytes, context: bytes) -> Any:
        """
        Return the value that was sealed under ``context``.

        Raises InvalidSignature if the bytes are not signed for it; they are not deserialised then.
        Raises UnreadableValue if they cannot be deserialised.
        """
        if not self.verify(sealed, context):
            raise InvalidSignature
        return self.load(sealed)

    def load(self, sealed: bytes) -> Any:
        """Return the value of bytes that were verified. Raises UnreadableValue."""
        data = sealed[SEAL_SIZE:]
        if sealed[1:2] == _COMPRESSED:
            if self._compressor is None:
                raise InvalidSignature
            data = self._compressor.decompress(data)
        try:
            return self._serializer.loads(data)
        except _LOAD_ERRORS as exc:
            raise UnreadableValue from exc


@functools.lru_cache(maxsize=32)
def get_codec(serializer: str, compressor: str | None, compress_over: int) -> Codec:
    """Return the process's codec for these options, with the secrets of the settings."""
    secrets = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    return Codec(
        Signer(secrets), serializer=serializer, compressor=compressor, compress_over=compress_over
    )


conf.when_changed(get_codec.cache_clear)


def make_serializer(name: str) -> Serializer:
    """Return the serializer called ``name``, or at that path. Raises ConfigurationError."""
    serializer: Serializer = _make(name, SERIALIZERS, "SERIALIZER")
    return serializer


def make_compressor(name: str) -> Compressor:
    """Return the compressor called ``name``, or at that path. Raises ConfigurationError."""
    compressor: Compressor = _make(name, COMPRESSORS, "COMPRESSOR")
    return compressor


def _make(name: str, known: dict[str, type[Any]], setting: str) -> Any:
    names = ", ".join(map(repr, known))
    try:
        make: Callable[[], Any] = known[name] if name in known else import_string(name)
        return make()
    except ImportError as exc:
        hint = (
            "Install dynamo-stores[compression]."
            if name in known
            else f"Expected {names} or the dotted path of a class."
        )
        raise ConfigurationError(
            f"{setting} is {name!r}, which cannot be imported: {exc}. {hint}"
        ) from exc
    except TypeError as exc:
        raise ConfigurationError(
            f"{setting} is {name!r}, which cannot be made without arguments: {exc}. Expected "
            f"{names} or the dotted path of a class that can; those of django-redis cannot."
        ) from exc
