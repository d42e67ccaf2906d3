"""Values to signed bytes and back; nothing forged is ever deserialised."""

from __future__ import annotations

import hashlib
import hmac
import pickle
import random
import subprocess
import sys

import pytest
from django.test import override_settings

from dynamo_stores.cache.store.codecs import Codec, InvalidSignature, Signer, get_codec, joined
from dynamo_stores.exceptions import ConfigurationError

FIELDS = (b"CACHE#p#p:1:k", b"1700000000000aabbccddee")
CONTEXT = joined(*FIELDS)
SIGNER = Signer(["secret"])
VALUES = [None, True, 0, 1.5, "é🐍", b"\x00\xff", [1, {"a": None}], "x" * 5000]


class Bomb:
    """Breaks the process that unpickles it."""

    def __reduce__(self):
        return (sys.exit, (66,))


@pytest.mark.parametrize("compressor", [None, "zlib", "zstd", "lz4"])
@pytest.mark.parametrize("serializer", ["pickle", "json"])
def test_what_is_sealed_opens(serializer, compressor):
    """Every value comes back equal, compressed or not."""
    codec = Codec(SIGNER, serializer=serializer, compressor=compressor, compress_over=100)
    for value in VALUES:
        if serializer == "json" and isinstance(value, bytes):
            continue
        assert codec.open(codec.seal(value, CONTEXT), CONTEXT) == value


def test_compression_is_used_only_where_it_helps():
    """Random bytes stay as they are; text over the threshold gets shorter."""
    codec = Codec(SIGNER, compressor="zlib", compress_over=1024)
    plain = Codec(SIGNER)
    assert len(codec.seal("x" * 5000, CONTEXT)) < 200
    noise = random.Random(1).randbytes(5000)
    assert len(codec.seal(noise, CONTEXT)) == len(plain.seal(noise, CONTEXT))
    assert len(codec.seal("x" * 500, CONTEXT)) == len(plain.seal("x" * 500, CONTEXT))


def test_every_altered_byte_is_noticed():
    """Changing, cutting or adding one byte anywhere makes it forged."""
    codec = Codec(SIGNER, compressor="zlib", compress_over=10)
    sealed = codec.seal(["value"] * 20, CONTEXT)
    forgeries = [
        sealed[:position] + bytes([sealed[position] ^ 1 << bit]) + sealed[position + 1 :]
        for position in range(len(sealed))
        for bit in (0, 7)
    ]
    forgeries += [sealed[:length] for length in range(len(sealed))]
    forgeries += [sealed + b"\x00", b"", b"\x01\x00" + b"\x00" * 32]
    for forgery in forgeries:
        with pytest.raises(InvalidSignature):
            codec.open(forgery, CONTEXT)


def test_bytes_belong_to_their_key_and_their_write():
    """Replayed under another key or another write they are forged."""
    codec = Codec(SIGNER)
    sealed = codec.seal("v", CONTEXT)
    for context in [
        (b"CACHE#p#p:2:k", FIELDS[1]),
        (FIELDS[0], b"1700000000001aabbccddee"),
        (FIELDS[0] + FIELDS[1][:1], FIELDS[1][1:]),
        (FIELDS[0],),
    ]:
        with pytest.raises(InvalidSignature):
            codec.open(sealed, joined(*context))


def test_bytes_of_another_serializer_or_compressor_are_not_read():
    """How they were made is signed too."""
    pickled = Codec(SIGNER).seal([1], CONTEXT)
    with pytest.raises(InvalidSignature):
        Codec(SIGNER, serializer="json").open(pickled, CONTEXT)
    zipped = Codec(SIGNER, compressor="zlib", compress_over=0).seal("x" * 99, CONTEXT)
    for other in (Codec(SIGNER), Codec(SIGNER, compressor="lz4")):
        with pytest.raises(InvalidSignature):
            other.open(zipped, CONTEXT)
    assert Codec(SIGNER, compressor="lz4").open(pickled, CONTEXT) == [1]


def test_unsigned_pickles_run_no_code():
    """Bytes that would do harm when unpickled are refused before."""
    bomb = pickle.dumps(Bomb())
    with pytest.raises(InvalidSignature):
        Codec(SIGNER).open(b"\x01\x00" + b"\x00" * 32 + bomb, CONTEXT)
    with pytest.raises(InvalidSignature):
        Codec(SIGNER).open(bomb, CONTEXT)


def test_fallback_secrets_still_verify_and_do_not_sign():
    """Values of the old key can be read; the new key signs."""
    old = Codec(Signer(["old"])).seal("v", CONTEXT)
    rotated = Codec(Signer(["new", "old"]))
    assert rotated.open(old, CONTEXT) == "v"
    with pytest.raises(InvalidSignature):
        Codec(Signer(["old"])).open(rotated.seal("v", CONTEXT), CONTEXT)


def test_the_process_codec_follows_the_settings():
    """Changing SECRET_KEY makes another codec."""
    with override_settings(SECRET_KEY="one"):
        sealed = get_codec("pickle", None, 1024).seal("v", CONTEXT)
    with override_settings(SECRET_KEY="two"), pytest.raises(InvalidSignature):
        get_codec("pickle", None, 1024).open(sealed, CONTEXT)
    with override_settings(SECRET_KEY="two", SECRET_KEY_FALLBACKS=["one"]):
        assert get_codec("pickle", None, 1024).open(sealed, CONTEXT) == "v"


def test_dotted_paths_and_unknown_names():
    """A project's own class works; an error names a path that cannot be imported."""
    codec = Codec(SIGNER, serializer="dynamo_stores.cache.store.codecs.JSONSerializer")
    assert codec.open(codec.seal({"a": 1}, CONTEXT), CONTEXT) == {"a": 1}
    with pytest.raises(ConfigurationError, match="COMPRESSOR is 'zip', which cannot be imported"):
        Codec(SIGNER, compressor="zip")


def test_errors_of_optional_compressors_name_the_extra():
    """Without the extra the error names it."""
    code = (
        "import sys; sys.modules['zstandard'] = None\n"
        "from django.conf import settings; settings.configure(SECRET_KEY='x')\n"
        "from dynamo_stores.cache.store.codecs import Codec, Signer\n"
        "try: Codec(Signer(['x']), compressor='zstd')\n"
        "except Exception as exc: print(exc)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "dynamo-stores[compression]" in done.stdout


def test_the_stored_format_of_values():
    """Values of earlier versions are read: format, compression, signature, bytes."""
    codec = Codec(Signer(["secret"]), serializer="json", compressor="zlib", compress_over=10)
    plain = (
        b"\x01\x00\xf2'\x10\xc3\xe5k\x1fn\x1d\x9f\x06\xbb\xc2\xd0\x0f\xe4R\xa5\xfeM\xed\xfdD\x9eT"
        b'\x08{\x96j\n\xd4F{"a":1}'
    )
    compressed = (
        b'\x01\x01\x91\x19L\xe61\x9b\x88@uSnU\x1b~<\x1eV\xcd+\x0c+:"\xca\xf3W*_0\xc6\n\xd2'
        b"x\x9cS\xaa \x19(\x01\x00tt\x17\xb5"
    )
    assert codec.seal({"a": 1}, joined(b"CACHE#p#k", b"w")) == plain
    assert codec.open(plain, joined(b"CACHE#p#k", b"w")) == {"a": 1}
    assert codec.open(compressed, joined(b"CACHE#p#k", b"w")) == "x" * 50


def test_the_stored_format_of_signatures():
    """HMAC-SHA256 of the fields with their lengths, by a key that is derived from the secret."""
    key = hashlib.sha256(b"dynamo_stores.codecs:secret").digest()
    signature = hmac.new(key, b"1:a0:2:bc", "sha256").digest()
    signer = Signer(["secret"])
    assert signer.sign(joined(b"a", b"", b"bc")) == signature
    assert signer.verify(signature, joined(b"a", b"", b"bc"))
    assert not signer.verify(signature, joined(b"a", b"b", b"c"))
    assert not signer.verify(signature[:-1], joined(b"a", b"", b"bc"))
    assert len(signature) == Signer.SIZE


def test_a_secret_may_be_bytes():
    """The same as in text, if it is that in UTF-8."""
    assert Signer(["é".encode()]).sign(b"a") == Signer(["é"]).sign(b"a")
    assert Signer([b"\xff", "é"]).verify(Signer(["é".encode()]).sign(b"a"), b"a")
    assert Signer([b"\xff"]).sign(b"a") != Signer(["é"]).sign(b"a")


def test_only_what_is_longer_than_the_threshold_is_compressed():
    """The threshold is 1,024 bytes unless it is set."""
    for codec, threshold in (
        (Codec(SIGNER, serializer="json", compressor="zlib"), 1024),
        (Codec(SIGNER, serializer="json", compressor="zlib", compress_over=100), 100),
    ):
        # JSON has two quotation marks.
        at_threshold = codec.encode("x" * (threshold - 2))
        assert at_threshold == (b"\x01\x00", b'"%b"' % (b"x" * (threshold - 2)))
        over = codec.encode("x" * (threshold - 1))
        assert over.header == b"\x01\x01"
        assert len(over.data) < 50


class SameLength:
    """Compresses nothing."""

    def compress(self, data):
        return bytes(reversed(data))

    def decompress(self, data):
        return bytes(reversed(data))


def test_what_does_not_get_shorter_is_not_compressed():
    """Also if it has the same length: it is then read without decompressing."""
    codec = Codec(SIGNER, compressor=f"{__name__}.SameLength", compress_over=0)
    assert codec.encode("x" * 99).header == b"\x01\x00"


def test_values_are_pickled_by_the_highest_protocol():
    """Also where the default one is lower."""
    assert Codec(SIGNER).encode(["v"]).data == pickle.dumps(["v"], pickle.HIGHEST_PROTOCOL)


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (
            {"serializer": "msgpack"},
            r"^SERIALIZER is 'msgpack'.*\. Expected 'pickle', 'json' or the dotted path of a",
        ),
        (
            {"compressor": "no.such"},
            r"^COMPRESSOR is 'no\.such'.*\. Expected 'zlib', 'zstd', 'lz4' or the dotted path",
        ),
    ],
)
def test_errors_of_unknown_names_have_the_known_ones(options, hint):
    """With the setting, its value, and the reason."""
    with pytest.raises(ConfigurationError, match=hint):
        Codec(SIGNER, **options)


@pytest.mark.parametrize(("name", "module"), [("zstd", "zstandard"), ("lz4", "lz4.frame")])
def test_a_compressor_that_is_not_installed_is_named_with_its_extra(monkeypatch, name, module):
    """The error has the setting, its value, and what to install."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        ConfigurationError,
        match=rf"^COMPRESSOR is '{name}'.*\. Install dynamo-stores\[compression\]\.$",
    ):
        Codec(SIGNER, compressor=name)
