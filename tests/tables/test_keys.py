"""Keys: different owners never share one, long and odd ones are hashed."""

from __future__ import annotations

import hashlib
import itertools

import pytest

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


@pytest.mark.parametrize(
    ("build", "pk", "sk"),
    [
        (lambda: keys.cache_entry("p", "p:1:k"), "CACHE#p#p:1:k", "ENTRY"),
        (lambda: keys.cache_part("CACHE#p#k", "w1", 0), "CACHE#p#k#w1#0", "PART"),
        (lambda: keys.lock("p", "p:1:k"), "LOCK#p#p:1:k", "LOCK"),
        (lambda: keys.lease("p", "p:1:k"), "LEASE#p#p:1:k", "LEASE"),
        (lambda: keys.generation("p#1"), "GEN#p%231", "GEN"),
        (lambda: keys.tag("p", "news"), "TAG#p#news", "TAG"),
        (lambda: keys.rate_window("login", "ip:1", "SW#10#60"), "RL#login#ip:1", "SW#10#60"),
        (lambda: keys.rate_window("s", "k", "SW", kind=keys.ADAPTIVE_WINDOW), "AL#s#k", "SW"),
        (lambda: keys.rate_window("s", "k", "SW", shard=1), "RL#s#k+#1", "SW"),
        (
            lambda: keys.dedupe_job("job"),
            "DD#5e8c9902207afaeb7120430c585a445f21e92932081d64bc99f80e4925bcb002",
            "JOB",
        ),
        (lambda: keys.dedupe_part(keys.ItemKey("DD#1", "JOB"), 7, 0), "DD#1", "R#7#0"),
        (lambda: keys.capacity("t", keys.RECORD), "CAP#t", "RECORD"),
        (lambda: keys.capacity("t", keys.CLAIM), "CAP#t", "CLAIM"),
        (lambda: keys.demand("t", "host#1"), "CAP#t", "DEMAND#host#1"),
        (lambda: keys.capacity_tables(), "CAPACITY", "TABLES"),
        (lambda: keys.process_status("host#1"), "STATUS", "host#1"),
        (lambda: keys.usage(29_333_333, "t"), "USE", "0029333333#t"),
        (lambda: keys.usage(29_333_333), "USE", "0029333333#"),
        (lambda: keys.decision(1_760_000_000_123, "t"), "DECISIONS", "001760000000123#t"),
        (lambda: keys.decision(1_760_000_000_123), "DECISIONS", "001760000000123#"),
        (lambda: keys.action("token"), "ACTIONS#token", "ACTIONS"),
        (lambda: keys.stored_rate("api#v1"), "RATE#api%23v1", "CONFIG"),
    ],
)
def test_the_stored_format_of_every_key(build, pk, sk):
    """Items of earlier versions are found, so these never change."""
    made = build()
    assert made == (pk, sk, None)
    assert made.raw() == {"PK": {"S": pk}, "SK": {"S": sk}}


def test_the_stored_format_of_hashed_keys():
    """A hash of the key without its owner; the key itself is stored with the item."""
    found = keys.lock("a#", "x" * 2000)
    digest = hashlib.sha256(b"x" * 2000).hexdigest()
    assert found == (f"LOCK#a%23#H#{digest}", "LOCK", b"x" * 2000)
    digest = hashlib.sha256(b"\xed\xa0\x80").hexdigest()
    assert keys.tag("p", "\ud800") == (f"TAG#p#H#{digest}", "TAG", b"\xed\xa0\x80")
    assert keys.dedupe_job("\ud800").pk == f"DD#{digest}"
    assert keys.cache_hashes("a#") == "CACHE#a%23#H#"


@pytest.mark.parametrize("text", ["x", "é", "🐍"])
def test_the_longest_partition_key_is_not_hashed(text):
    """1,900 bytes in UTF-8, with kind and owner, are stored as they are; one more is not."""
    head = len("CACHE#pé#".encode())
    fitting, size = keys.MAX_PARTITION_KEY_BYTES - head, len(text.encode())
    key = text * (fitting // size) + "x" * (fitting % size)
    longest = keys.cache_entry("pé", key)
    assert longest.original is None
    assert len(longest.pk.encode()) == 1900
    over = keys.cache_entry("pé", key + "x")
    assert over.original == (key + "x").encode()


@pytest.mark.parametrize("text", ["x", "é"])
def test_the_longest_names_of_limits_are_not_hashed(text):
    """A scope or key of 512 bytes is stored as it is; a longer one is hashed, each by itself."""
    longest = text * (512 // len(text.encode()))
    assert keys.rate_window(longest, longest, "SW").pk == f"RL#{longest}#{longest}"
    over = longest + "x"
    hashed = "H#" + hashlib.sha256(over.encode()).hexdigest()
    assert keys.rate_window("s", over, "SW").pk == f"RL#s#{hashed}"
    assert keys.rate_window(over, "k", "SW").pk == f"RL#{hashed}#k"
    assert keys.stored_rate(over).pk == f"RATE#{hashed}"


def test_names_of_limits_that_are_not_utf8_are_hashed():
    """A lone surrogate, of any length."""
    hashed = "H#" + hashlib.sha256(b"\xed\xa0\x80").hexdigest()
    assert keys.rate_window("\ud800", "k", "SW").pk == f"RL#{hashed}#k"


def test_limits_never_share_a_key():
    """Whatever scope, key and shard contain, different ones have different partition keys."""
    names = ["", "a", "#", "a#", "#a", "%", "%23", "a+#1", "+", "H#", "x" * 513]
    made = [
        keys.rate_window(scope, key, "SW", shard=shard).pk
        for scope, key, shard in itertools.product(names, names, (0, 1, 2))
    ]
    assert len(set(made)) == len(made)


@pytest.mark.parametrize("prefix", ["", "p", "p#1", "100%"])
@pytest.mark.parametrize("key", ["p:1:k", "", "a#b%23", "H#", "H#x", "\ud800", "é" * 1000])
def test_the_key_of_a_cache_entry_is_read_back(prefix, key):
    """From the partition key, or from the attribute of a hashed one."""
    made = keys.cache_entry(prefix, key)
    assert keys.cache_key(prefix, made.pk, made.original) == key
    assert made.pk.startswith(keys.cache_prefix(prefix))
    assert made.pk.startswith(keys.cache_hashes(prefix)) == (made.original is not None)


def test_the_entry_of_a_part_is_read_back():
    """Also if the key of the entry looks like that of a part."""
    for pk in ("CACHE#p#k", "CACHE#p#k#w#3", "CACHE##"):
        assert keys.head_of_part(keys.cache_part(pk, "w1", 12).pk) == (pk, "w1")


def test_the_expiry_index_lists_an_entry_in_one_of_its_shards():
    """By a checksum of the partition key, so that writes are spread over all."""
    shards = keys.expiry_index_shards("p#")
    assert shards == [f"X#p%23#{number}" for number in range(8)]
    assert keys.expiry_index_shard("p#", "CACHE#p#a") == "X#p%23#4"
    assert keys.expiry_index_shard("p#", "CACHE#p#b") == "X#p%23#6"
    assert {keys.expiry_index_shard("p#", f"CACHE#p#{each}") for each in range(99)} == set(shards)


def test_the_expiry_index_is_sorted_by_removal():
    """Entries that are never removed are last; a hash tells apart those of one moment."""
    made = [
        keys.expiry_index_sort_key("CACHE#p#b", 999),
        keys.expiry_index_sort_key("CACHE#p#a", 1_760_000_000_123),
        keys.expiry_index_sort_key("CACHE#p#b", 1_760_000_000_123),
        keys.expiry_index_sort_key("CACHE#p#a", None),
    ]
    assert made == sorted(made)
    assert made[1] == "001760000000123#959980f6cdb78ba8"
    assert made[3] == "999999999999999#959980f6cdb78ba8"


def test_moments_in_sort_keys_sort_as_numbers():
    """They have leading zeros."""
    for builder in (keys.usage, keys.decision):
        made = [builder(number).sk for number in (0, 9, 10, 99_999, 100_000)]
        assert made == sorted(made)


def test_owners_are_escaped_reversibly():
    """Only ``#`` and ``%`` are, and ``%`` first."""
    assert keys.escape("a:b/c é+") == "a:b/c é+"
    assert keys.escape("#%23%") == "%23%2523%25"
    assert keys.escape("%") == "%25"
