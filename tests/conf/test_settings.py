"""Settings: defaults, differences per table, and errors with hints."""

from __future__ import annotations

import dataclasses

import pytest
from botocore.utils import is_valid_uri
from django.test import override_settings

from dynamo_stores import conf
from dynamo_stores.cache import options
from dynamo_stores.conf import rules
from dynamo_stores.exceptions import ConfigurationError


def problems(**default):
    with override_settings(DYNAMO_STORES={"default": default}):
        return conf.find_problems()


def test_everything_is_optional():
    """With nothing set there is one alias, with the documented defaults."""
    with override_settings(DYNAMO_STORES=None):
        config = conf.get_config()
        assert conf.find_problems() == []
        assert conf.aliases() == ["default"]
    assert config.store_table == "dynamo-stores"
    assert config.retry.max_retries == 3
    assert config.circuit_breaker.recovery_timeout == 60.0
    assert config.scaling.enabled is False


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"CIRCUIT_BREAKER": {"FAILURE_TRESHOLD": 3}},
            "DYNAMO_STORES['default']['CIRCUIT_BREAKER'] has no setting 'FAILURE_TRESHOLD'; "
            "did you mean 'FAILURE_THRESHOLD'?",
        ),
        (
            {"TABEL_NAME": "x"},
            "DYNAMO_STORES['default'] has no setting 'TABEL_NAME'; did you mean 'TABLE_NAME'?",
        ),
        (
            {"RETRIES": 5},
            "DYNAMO_STORES['default'] has no setting 'RETRIES'; did you mean 'RETRY'?",
        ),
        ({"PREFIX": "a-"}, "has no setting 'PREFIX'; did you mean 'TABLE_PREFIX'?"),
        (
            {"MAX_RETRIES": 5},
            "DYNAMO_STORES['default'] has no setting 'MAX_RETRIES'; it is a setting of the group "
            "RETRY: DYNAMO_STORES['default']['RETRY']['MAX_RETRIES'].",
        ),
        (
            {"WINDOW": 60},
            "it is a setting of the groups CIRCUIT_BREAKER, RATE_LIMIT: "
            "DYNAMO_STORES['default']['CIRCUIT_BREAKER']['WINDOW'] or "
            "DYNAMO_STORES['default']['RATE_LIMIT']['WINDOW'].",
        ),
        (
            {"TABLES": {"t": {"MAX_RETRIES": 5}}},
            "it is a setting of the group RETRY: "
            "DYNAMO_STORES['default']['TABLES']['t']['RETRY']['MAX_RETRIES'].",
        ),
        ({"TABLES": {"t": {"TTL": 5}}}, "DYNAMO_STORES['default']['TABLES']['t'] has no setting"),
        ({"_NAMES": {}}, "DYNAMO_STORES['default'] has no setting '_NAMES'"),
        (
            {"READ_TIMEOUT": "ten"},
            "DYNAMO_STORES['default']['READ_TIMEOUT'] is 'ten'; expected a number above 0.",
        ),
        (
            {"RETRY": {"MAX_RETRIES": True}},
            "DYNAMO_STORES['default']['RETRY']['MAX_RETRIES'] is True; "
            "expected a whole number, 0 or more.",
        ),
        (
            {"TABLE_NAME": "my project!"},
            "DYNAMO_STORES['default']['TABLE_NAME'] is 'my project!'; expected a string of A-Z, "
            "a-z, 0-9, '_', '-' and '.' that is not empty.",
        ),
        ({"TABLE_NAME": "ab"}, "the name of the table, 'ab', has 2 characters; expected 3 to 247."),
        ({"TABLE_PREFIX": "a b"}, "expected a string of A-Z, a-z, 0-9, '_', '-' and '.'."),
        ({"RETRY": 3}, "DYNAMO_STORES['default']['RETRY'] is int; expected a dict of settings."),
        (
            {"TABLES": {"t": {"REGION": "eu-west-1"}}},
            "DYNAMO_STORES['default']['TABLES']['t'] has no setting 'REGION'",
        ),
        ({"FAILOVER": "default"}, "expected another alias"),
        ({"SCALING": {"BASE_READ_CAPACITY": 500}}, "expected at least BASE_READ_CAPACITY, 500"),
        (
            {"TABLES": {"orders": {"SCALING": {"MAX_READ_CAPACITY": 1}}}},
            "DYNAMO_STORES['default']['TABLES']['orders']['SCALING']['MAX_READ_CAPACITY'] is 1; "
            "expected at least BASE_READ_CAPACITY, 5.",
        ),
        ({"STREAM": "ON"}, "expected 'NEW_AND_OLD_IMAGES' or 'NEW_IMAGE' or "),
        ({"TAGS": {"aws:team": "a"}}, "expected a dict of at most 50 tags, keys (1 to 128 "),
        ({"TAGS": {"team": "\0HOME\0"}}, "expected a dict of at most 50 tags"),
        ({"TAGS": {"team": 1}}, "expected a dict of at most 50 tags"),
        (
            {"ENCRYPTION_KEY": "tables"},
            "expected 'AWS_OWNED', 'aws/dynamodb', or the id, the alias",
        ),
        ({"TABLE_CLASS": "GLACIER"}, "expected 'STANDARD' or 'STANDARD_INFREQUENT_ACCESS', or No"),
        ({"METRICS": {"NAMESPACE": "AWS/Shop"}}, "expected a string of 1 to 255 printable ASCII"),
        ({"METRICS": {"NAMESPACE": "Bücher"}}, "that does not begin with 'AWS/' or ':'."),
        ({"BILLING_MODE": "FREE"}, "expected 'PAY_PER_REQUEST' or 'PROVISIONED'"),
    ],
)
def test_wrong_settings_are_named_with_what_was_expected(settings, message):
    """Each error has the expected values, an id and a hint."""
    (problem,) = problems(**settings)
    assert message in problem.message
    assert problem.id.startswith("dynamo_stores.E")
    assert problem.hint
    with (
        override_settings(DYNAMO_STORES={"default": settings}),
        pytest.raises(ConfigurationError, match=r"expected|has no setting"),
    ):
        conf.get_config()


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8400", "ftp://engine", "http://", "http://:8400", "http://engine:port",
        "http://engine:99999", "http://[::1", "http://[x:1]", "http://dynamodb_local:8000",
        "http://a b", "http://engine\n", "http://-engine", "http://" + "a" * 64, 8400,
    ],
)  # fmt: skip
def test_an_endpoint_that_no_request_can_be_sent_to_is_refused(url):
    """By the check, and not by an error of botocore with the first request."""
    (problem,) = problems(ENDPOINT_URL=url)
    assert "expected a URL such as 'http://127.0.0.1:8400', with a host of" in problem.message


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8400", "http://localhost", "https://vpce-0a.dynamodb.eu-west-1.vpce.amazonaws.com",
        "http://[::1]:8400", "http://engine.:8000/", "https://engine/path",
    ],
)  # fmt: skip
def test_an_endpoint_that_botocore_takes_is_accepted(url):
    assert problems(ENDPOINT_URL=url) == []
    assert is_valid_uri(url)


def test_only_hints_of_durations_name_their_unit():
    """A duration is in seconds; other settings have no unit."""
    (duration,) = problems(DEDUPE={"FAILURE_TTL": -1})
    (other,) = problems(SCALING={"SCALE_UP_FACTOR": 1})
    assert duration.hint == "Durations are in seconds. docs/settings.md lists every setting."
    assert other.hint == "docs/settings.md lists every setting."


def test_a_contradiction_of_the_alias_is_reported_once():
    """And not again for each of its tables."""
    (found,) = problems(SCALING={"MAX_READ_CAPACITY": 1}, TABLES={"orders": {}})
    assert "'TABLES'" not in found.message


def test_settings_that_are_not_dicts():
    """DYNAMO_STORES itself and its aliases must be dicts, and one must be 'default'."""
    for value in ([], "x", {"default": None}):
        with override_settings(DYNAMO_STORES=value):
            (problem,) = conf.find_problems()
            assert problem.id == rules.NOT_A_DICT
    with override_settings(DYNAMO_STORES={"other": {}}):
        (problem,) = conf.find_problems()
        assert problem.id == conf.NO_DEFAULT_ALIAS


def test_unknown_alias_is_named_with_the_nearest():
    """The error of an unknown alias names the known ones."""
    with (
        override_settings(DYNAMO_STORES={"default": {}, "sessions": {}}),
        pytest.raises(ConfigurationError, match="did you mean 'sessions'"),
    ):
        conf.get_config("session")


def test_every_setting_has_a_check_id_of_its_own():
    """No two settings share an id, and none is without."""
    ids = []
    waiting = [conf.StoreConfig, options.CacheOptions]
    while waiting:
        cls = waiting.pop()
        for field in dataclasses.fields(cls):
            if field.metadata:
                ids.append(field.metadata["id"])
            elif dataclasses.is_dataclass(field.default_factory):
                waiting.append(field.default_factory)
            else:
                assert field.name.startswith("_")
    assert len(ids) == len(set(ids))
    assert len(ids) > 60


def test_defaults_meet_their_own_rules():
    """Each default would be accepted as a setting."""
    config = conf.StoreConfig()
    groups = [config, *(getattr(config, f.name) for f in dataclasses.fields(config))]
    for group in groups:
        if dataclasses.is_dataclass(group):
            for field in dataclasses.fields(group):
                if field.metadata:
                    assert field.metadata["rule"].accepts(getattr(group, field.name)), field.name


def test_tables_override_settings_of_the_alias():
    """TABLES merges over the alias, by the model's name and by the real one."""
    with override_settings(
        DYNAMO_STORES={
            "default": {
                "TABLE_PREFIX": "dev-",
                "SCALING": {"BASE_READ_CAPACITY": 7, "BASE_WRITE_CAPACITY": 8},
                "TABLES": {
                    "posts": {"TABLE_NAME": "posts-live", "SCALING": {"BASE_READ_CAPACITY": 70}},
                },
            }
        }
    ):
        config = conf.get_config()
        assert config.store_table == "dev-dynamo-stores"
        assert config.real_name("users") == "dev-users"
        assert config.real_name("posts") == "posts-live"
        for name in ("posts", "posts-live"):
            scaling = config.for_table(name).scaling
            assert (scaling.base_read_capacity, scaling.base_write_capacity) == (70, 8)
        assert config.for_table("dev-users").scaling.base_read_capacity == 7


@pytest.mark.parametrize(
    "settings",
    [
        {"SCALING": {"BASE_READ_CAPACITY": 70, "MAX_READ_CAPACITY": 70}},
        {"SCALING": {"BASE_WRITE_CAPACITY": 70, "MAX_WRITE_CAPACITY": 70}},
        {"ADAPTIVE": {"HIGH_ACTIVITY_THRESHOLD": 4, "MODERATE_ACTIVITY_THRESHOLD": 4}},
        {"RETRY": {"DELAY": 2.0, "MAX_DELAY": 2.0}},
    ],
)
def test_equal_bounds_are_accepted(settings):
    """A maximum may equal its minimum; the message says 'at least'."""
    assert problems(**settings) == []


@pytest.mark.parametrize(
    "key",
    [
        None,
        "AWS_OWNED",
        "aws/dynamodb",
        "alias/tables",
        "3d2f8a1e-0000-4000-8000-000000000000",
        "mrk-" + "0a" * 16,
        "arn:aws:kms:eu-west-1:000000000000:key/3d2f8a1e-0000-4000-8000-000000000000",
        "arn:aws-cn:kms:cn-north-1:000000000000:alias/tables",
    ],
)
def test_every_form_of_a_key_is_accepted(key):
    """Ids, aliases and ARNs, and the two keys of AWS."""
    assert problems(ENCRYPTION_KEY=key, TABLES={"orders": {"ENCRYPTION_KEY": key}}) == []


@pytest.mark.parametrize("seconds", [1e300, 10**400, 3_153_600_001], ids=["float", "int", "least"])
def test_times_of_over_100_years_are_errors(seconds):
    """Of settings whose end is a number in DynamoDB."""
    dedupe = {"TTL": seconds, "LEASE": seconds, "FAILURE_TTL": seconds}
    found = problems(DEDUPE=dedupe, RATE_LIMIT={"WINDOW": seconds})
    assert sorted(each.id for each in found) == [
        f"dynamo_stores.E0{number}" for number in (60, 61, 64, 71)
    ]
    assert all("at most 3153600000 (100 years)" in each.hint + each.message for each in found)
