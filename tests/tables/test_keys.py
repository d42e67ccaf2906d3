"""Keys: different owners never share one, long and odd ones are hashed."""

from __future__ import annotations

import itertools

from dynamo_stores import keys


def test_looks_as_documented():
    """CACHE#<prefix>#<key>, ENTRY."""
    assert keys.cache_entry("shop", "shop:1:user:7") == ("CACHE#shop#shop:1:user:7", "ENTRY", None)


def test_prefixes_that_look_alike_never_share_a_key():
    """Whatever the key, another prefix gives another partition key."""
    prefixes = ["", "a", "a#", "a#b", "a%23b", "a%23", "#", "##", "%", "H#"]
    names = ["", "b", "#b", "b#", "#", "H#", "a#b", "%23b"]
    made = [keys.cache_entry(*each).pk for each in itertools.product(prefixes, names)]
    assert len(set(made)) == len(made)


def test_the_keys_of_a_prefix_begin_with_nothing_of_another():
    """The beginning that clear() searches for is in no key of another prefix."""
    for one, other in itertools.permutations(["", "a", "ab", "a#b", "a%23b", "#"], 2):
        assert not keys.cache_entry(other, "b#x").pk.startswith(keys.cache_prefix(one))


def test_long_keys_are_hashed_and_kept_beside():
    """Over 1,900 bytes in UTF-8 the key becomes a hash, and the item carries it."""
    for text in ("x" * 5000, "é" * 1000, "🐍" * 500):
        found = keys.cache_entry("p", text)
        assert len(found.pk.encode()) < 100
        assert found.original == text.encode()
    short = keys.cache_entry("p", "é" * 900)
    assert short.original is None
    assert len(short.pk.encode()) <= keys.MAX_PARTITION_KEY_BYTES


def test_odd_keys_are_hashed():
    """A lone surrogate cannot be UTF-8; a key that looks like a hash must not be taken for one."""
    odd = keys.cache_entry("p", "\ud800")
    assert odd.original == b"\xed\xa0\x80"
    odd.pk.encode()
    long = keys.cache_entry("p", "x" * 5000)
    imitation = keys.cache_entry("p", long.pk.removeprefix("CACHE#p#"))
    assert imitation.pk != long.pk
