"""The forms of rates."""

from __future__ import annotations

import json

import pytest

from dynamo_stores.conf.rates import (
    RESOURCES,
    Rate,
    ResourceConfig,
    describe,
    parse_rates,
    parse_resource,
    paths_error,
    resolve_rate,
)
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
        ("5/s,10/s", [(5, 1)]),
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
    "rate",
    ["5/m,5/36501d", "1/99999999999999999999", (1, 1e300), (1, 3_153_600_001)],
    ids=["days", "text", "float", "int"],
)
def test_a_window_of_over_100_years_is_refused(rate):
    """DynamoDB has no number for the end of some, and nobody waits for the others."""
    with pytest.raises(ConfigurationError, match="expected at most 3153600000 seconds"):
        parse_rates(rate)
    assert parse_rates("1/36500d") == (Rate(1, 3_153_600_000),)


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


@pytest.mark.parametrize(
    "rate",
    [("a", "b"), (1, 0), (-1, 60), (1, -60), (True, 60), (1.5, 60), (1, None), ("1/m", 5), None],
)
def test_a_list_with_an_invalid_rate_is_invalid(rate):
    """Each rate of a list must be one; None is not, there."""
    with pytest.raises(ConfigurationError, match="expected '100/m'"):
        parse_rates(["10/s", rate])


def test_the_message_has_the_whole_rate():
    """Of several rates in a string too, and the reason."""
    with pytest.raises(ConfigurationError, match=r"^'1/m,2/x' is not a rate"):
        parse_rates("1/m,2/x")
    with pytest.raises(ConfigurationError, match=r"^The rate '1/m,2/0s' has a window of 0 seconds"):
        parse_rates("1/m,2/0s")
    with pytest.raises(ConfigurationError, match=r"^The rate \[\] is empty"):
        parse_rates([])


def test_periods_may_be_upper_case_and_rates_have_spaces_around():
    """As people write them."""
    assert parse_rates(" 5/M , 7/2H ") == (Rate(5, 60), Rate(7, 7200))


def test_a_rate_is_shown_in_seconds():
    """Without zeros behind the point."""
    assert [str(Rate(100, 60)), str(Rate(1, 0.5)), str(Rate(2, 60.0))] == [
        "100/60s",
        "1/0.5s",
        "2/60s",
    ]


def rate_of(group, request):
    """Return a rate that contains its arguments."""
    return f"{group}/{request}"


def test_a_rate_may_be_a_function_or_its_path():
    """It is called with the arguments; what else it may be is returned as it is."""
    path = f"{__name__}.rate_of"
    assert resolve_rate(rate_of, 5, "m") == "5/m"
    assert resolve_rate(path, 5, "m") == "5/m"
    for rate in ("5/m", "1.5/m", "5", None, (5, 60), ["5/m"]):
        assert resolve_rate(rate, 5, "m") is rate
    assert resolve_rate(f"{__name__}.RATE", 1) == "10/m"


RATE = "10/m"


def test_the_path_of_a_rate_must_be_importable():
    """The message has the path and the reason."""
    with pytest.raises(ConfigurationError, match=r"'no_such\.rate' cannot be imported: No module"):
        resolve_rate("no_such.rate", 1)


def test_all_of_a_resource_is_read():
    """A dict of RATE, ALGORITHM, BURST, SHARDS and BLOCK; without them their defaults."""
    assert parse_resource(
        {"RATE": "100/m", "ALGORITHM": "fixed", "BURST": 3, "SHARDS": 4, "BLOCK": 5}
    ) == ResourceConfig(rates=(Rate(100, 60),), algorithm="fixed", burst=3, shards=4, block=5)
    default = ResourceConfig(
        rates=(Rate(100, 60),), algorithm="sliding", burst=None, shards=1, block=1
    )
    assert parse_resource("100/m") == default
    assert parse_resource({"RATE": "100/m"}) == default
    nothing = {"BURST": None, "SHARDS": None, "BLOCK": None}
    assert parse_resource({"RATE": "100/m", **nothing}) == default
    assert parse_resource(default) is default


def test_the_algorithm_of_a_resource_is_the_default_one_unless_it_has_its_own():
    """Also where the resource is a rate alone."""
    assert parse_resource("1/m", algorithm="log").algorithm == "log"
    assert parse_resource({"RATE": "1/m"}, algorithm="log").algorithm == "log"
    own = {"RATE": "1/m", "ALGORITHM": "gcra"}
    assert parse_resource(own, algorithm="log").algorithm == "gcra"
    with pytest.raises(ConfigurationError, match="ALGORITHM is 'lgo'"):
        parse_resource("1/m", algorithm="lgo")


@pytest.mark.parametrize("name", ["BURST", "SHARDS", "BLOCK"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "2", True])
def test_burst_shards_and_block_are_whole_positive_numbers(name, value):
    """The message has the setting and its value."""
    with pytest.raises(ConfigurationError, match=f"^{name} is {value!r}; expected a whole number"):
        parse_resource({"RATE": "100/m", name: value})
    assert parse_resource({"RATE": "100/m", name: 1})


@pytest.mark.parametrize(
    "config",
    [
        {"RATE": "1000/m", "ALGORITHM": "log"},
        {"RATE": "1001/m", "ALGORITHM": "sliding"},
        {"RATE": "0/m", "SHARDS": 4},
        {"RATE": None, "SHARDS": 4},
        {"RATE": "4/s,5/m", "SHARDS": 4},
        {"RATE": "9/m", "BLOCK": 2, "ALGORITHM": "sliding"},
        {"RATE": "9/m", "BLOCK": 2, "ALGORITHM": "fixed"},
        {"RATE": "9/m", "BLOCK": 1, "ALGORITHM": "gcra"},
        {"RATE": "9/m", "BLOCK": 1, "ALGORITHM": "log"},
    ],
)
def test_limits_that_are_just_valid(config):
    """At a maximum, or where the maximum does not apply."""
    assert parse_resource(config).algorithm == config.get("ALGORITHM", "sliding")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"RATE": "1001/m", "ALGORITHM": "log"}, "the rate 1001/60s is above its maximum of 1,000"),
        ({"RATE": "1/s,1001/m", "ALGORITHM": "log"}, "the rate 1001/60s is above"),
        ({"RATE": "3/s,100/m", "SHARDS": 4}, "SHARDS is 4; expected at most the limit of 3/1s"),
        ({"RATE": "1/m", "SHARDS": 2}, "SHARDS is 2; expected at most the limit of 1/60s"),
        ({"RATE": "9/m", "BLOCK": 2, "ALGORITHM": "gcra"}, "BLOCK requires the algorithm"),
        ({"RATE": "9/m", "BLOCK": 2, "ALGORITHM": "log"}, "BLOCK requires the algorithm"),
        ({"RATE": "1/m", "ALGORITHM": "LOG"}, "did you mean 'log'"),
    ],
)
def test_limits_that_are_just_invalid(config, message):
    """One over a maximum, of any of the rates."""
    with pytest.raises(ConfigurationError, match=message):
        parse_resource(config)


def test_a_description_has_all_of_a_limit():
    """JSON serializable, as it is stored in the table."""
    config = ResourceConfig(
        rates=(Rate(10, 1), Rate(100, 60)), algorithm="fixed", burst=3, shards=4, block=5
    )
    assert describe(config) == {
        "RATE": [[10, 1], [100, 60]],
        "ALGORITHM": "fixed",
        "BURST": 3,
        "SHARDS": 4,
        "BLOCK": 5,
    }
    assert json.loads(json.dumps(describe(config))) == describe(config)
    assert parse_resource(describe(config)) == config


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({}, ""),
        ({"api": "100/m", "login": {"RATE": "5/m"}, "free": None}, ""),
        (["100/m"], " Expected a dict, got list."),
        ({"api": "100/m", "login": {"RAET": 1}}, " 'login': Unknown setting 'RAET'"),
        ({"login": {"RATE": "1/x"}}, " 'login': '1/x' is not a rate"),
    ],
)
def test_resources(value, error):
    """A dict of limits; the first error has the resource's name."""
    assert RESOURCES.accepts(value) is (not error)
    found = RESOURCES.details(value)
    assert found.startswith(error)
    assert bool(found) is bool(error)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({}, ""),
        ({"/": {"RATE": "1/m"}}, ""),
        (
            {
                "/api/": {
                    "RATE": "1/m",
                    "KEY": "ip",
                    "METHOD": "POST",
                    "ALGORITHM": "fixed",
                    "BURST": 1,
                    "SHARDS": 1,
                    "BLOCK": 1,
                    "ALLOW": [],
                }
            },
            "",
        ),
        ([], " Expected a dict, got list."),
        ({"api/": {"RATE": "1/m"}}, " 'api/' does not begin with a slash."),
        ({7: {"RATE": "1/m"}}, " 7 does not begin with a slash."),
        ({"/a": "1/m"}, " '/a': expected a dict, got str."),
        (
            {"/a": {"RATE": "1/m"}, "/b": {"RATE": "1/m", "KYE": "ip"}},
            " '/b': unknown setting 'KYE'; did you mean 'KEY'?",
        ),
        ({"/a": {"KEY": "ip"}}, " '/a': RATE is missing"),
        ({"/a": {"RATE": "1/m", "SHARDS": 2}}, " '/a': SHARDS is 2; expected at most"),
        ({"/a": {"RATE": "1/m", "BURST": 0}}, " '/a': BURST is 0"),
        ({"/a": {"RATE": "9/m", "BLOCK": 2, "ALGORITHM": "log"}}, " '/a': BLOCK requires"),
    ],
)
def test_paths(value, error):
    """A dict of paths and their limits; the first error has the path."""
    found = paths_error(value)
    assert found.startswith(error)
    assert bool(found) is bool(error)
