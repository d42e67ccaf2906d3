"""HMAC-SHA256 with a kept state equals the standard library's."""

from __future__ import annotations

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as some

from dynamo_stores.keyed_hash import KeyedHash


@given(some.binary(max_size=150), some.binary(max_size=150), some.lists(some.binary(max_size=150)))
def test_it_equals_the_standard_librarys(key, start, rest):
    """For keys below, of and above the size of a block, and a message in any pieces."""
    expected = hmac.digest(key, b"".join([start, *rest]), "sha256")
    assert KeyedHash(key, start).digest(*rest) == expected


@pytest.mark.parametrize("size", [63, 64, 65])
def test_a_message_does_not_change_the_next_one(size):
    """The kept state is copied."""
    key, keyed = b"k" * size, KeyedHash(b"k" * size, b"a")
    assert keyed.digest(b"b") == keyed.digest(b"b") == hmac.digest(key, b"ab", "sha256")
