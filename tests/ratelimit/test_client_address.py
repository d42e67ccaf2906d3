"""The client's address behind trusted proxies, with headers that any client may send."""

from __future__ import annotations

import pytest

from dynamo_stores.client_address import client_address, is_in, masked, parse_address
from dynamo_stores.exceptions import ConfigurationError


def address_of(peer, forwarded="", trusted=0):
    return str(client_address({"REMOTE_ADDR": peer, "HTTP_X_FORWARDED_FOR": forwarded}, trusted))


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "expected"),
    [
        ("1.2.3.4", "", 0, "1.2.3.4"),
        ("1.2.3.4", "6.6.6.6", 0, "1.2.3.4"),
        ("10.0.0.1", "6.6.6.6, 5.5.5.5", 1, "5.5.5.5"),
        ("10.0.0.1", "6.6.6.6, 5.5.5.5, 10.0.0.2", 2, "5.5.5.5"),
        ("10.0.0.1", "5.5.5.5", 3, "5.5.5.5"),
        ("10.0.0.1", "", 1, "10.0.0.1"),
        ("10.0.0.1", "5.5.5.5, nonsense", 2, "10.0.0.1"),
        ("10.0.0.1", "6.6.6.6, 5.5.5.5, 10.0.0.2", ["10.0.0.0/8"], "5.5.5.5"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", ["10.0.0.0/8"], "10.0.0.3"),
        ("7.7.7.7", "6.6.6.6", ["10.0.0.0/8"], "7.7.7.7"),
        ("", "5.5.5.5, 10.0.0.2", 2, "5.5.5.5"),
        ("", "5.5.5.5", 1, "5.5.5.5"),
        ("::1", "[2001:db8::1]:443", 1, "2001:db8::1"),
        ("10.0.0.1", "5.5.5.5:8080", 1, "5.5.5.5"),
        ("::ffff:1.2.3.4", "", 0, "1.2.3.4"),
        ("fe80::1%eth0", "", 0, "fe80::1"),
    ],
)
def test_addresses(peer, forwarded, trusted, expected):
    """Read from the right, as far as the trusted proxies reach."""
    assert address_of(peer, forwarded, trusted) == expected


@pytest.mark.parametrize("peer", ["", "unix:", "localhost"])
def test_no_address_is_a_mistake_of_configuration(peer):
    """All clients would share one limit."""
    with pytest.raises(ConfigurationError, match="REMOTE_ADDR"):
        address_of(peer)


def test_masks():
    """A client with IPv6 has a /64."""
    assert masked(parse_address("2001:db8::1:2")) == "2001:db8::"
    assert masked(parse_address("1.2.3.4")) == "1.2.3.4"
    assert masked(parse_address("1.2.3.4"), v4=16) == "1.2.0.0"
    assert is_in(parse_address("10.1.2.3"), ["192.168.0.0/16", "10.0.0.0/8"])
    assert not is_in(parse_address("11.1.2.3"), ["10.0.0.0/8"])
