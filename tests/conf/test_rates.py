"""The forms of rates."""

from __future__ import annotations

import pytest

from dynamo_stores.conf.rates import Rate, describe, parse_rates, parse_resource
from dynamo_stores.exceptions import ConfigurationError


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        ("100/m", [(100, 60)]),
        ("100/10s", [(100, 10)]),
        ("100/10", [(100, 10)]),
        ("100/600s", [(100, 600)]),
        ("5/2h", [(5, 7200)]),
        ("1/d", [(1, 86_400)]),
        ("0/s", [(0, 1)]),
        ("10/s, 1000/h,100/m", [(10, 1), (100, 60), (1000, 3600)]),
        ("10/s,5/s", [(5, 1)]),
        ((100, 60), [(100, 60)]),
        ((100, 0.5), [(100, 0.5)]),
        (["10/s", (100, 60)], [(10, 1), (100, 60)]),
        ([[10, 1], [100, 60]], [(10, 1), (100, 60)]),
        (Rate(7, 3), [(7, 3)]),
    ],
)
def test_rates(rate, expected):
    """Strings, pairs and lists of them; the shortest window first, the smaller of two limits."""
    assert parse_rates(rate) == tuple(Rate(*each) for each in expected)


def test_none_is_no_limit():
    """As in django-ratelimit."""
    assert parse_rates(None) is None
    assert parse_resource(None).rates is None


@pytest.mark.parametrize(
    "rate", ["", "100", "100/", "m/100", "-1/m", "1.5/m", "100/x", "100/0", "1/m;2/s", 100, (1,),
             ("a", "b"), (1, 0), (-1, 60), (True, 60, 1), [], object()],
)  # fmt: skip
def test_invalid_rates(rate):
    """The message has the value and the expected forms."""
    with pytest.raises(ConfigurationError, match="expected '100/m'"):
        parse_rates(rate)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"RATE": "1/m", "ALGORITHM": "slidng"}, "did you mean 'sliding'"),
        ({"RAET": "1/m"}, "Unknown setting 'RAET'; did you mean 'RATE'"),
        ({}, "RATE is missing"),
        ({"RATE": "1/m", "BURST": 0}, "BURST is 0; expected a whole number"),
        ({"RATE": "2000/m", "ALGORITHM": "log"}, "stores every request"),
        ({"RATE": "3/m", "SHARDS": 4}, "SHARDS is 4; expected at most"),
        ({"RATE": "3/m", "BLOCK": 4, "ALGORITHM": "gcra"}, "BLOCK requires the algorithm"),
    ],
)
def test_invalid_resources(config, message):
    """Each error has its own sentence."""
    with pytest.raises(ConfigurationError, match=message):
        parse_resource(config)


def test_a_description_can_be_parsed():
    """The stored form of a limit is parsed to the same limit."""
    config = parse_resource({"RATE": "10/s,100/m", "BURST": 3, "ALGORITHM": "gcra"})
    assert parse_resource(describe(config)) == config
    assert parse_resource(describe(parse_resource(None))).rates is None


def test_a_limit_may_have_as_many_shards_as_requests():
    """Each shard then admits one request."""
    assert parse_resource({"RATE": "4/m", "SHARDS": 4}).shards == 4
