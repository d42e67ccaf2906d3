"""The lean transport asks as botocore's client would: from the same configuration."""

from __future__ import annotations

import ssl
import time

import pytest
from botocore.credentials import RefreshableCredentials

from dynamo_stores.calls.account import Account
from dynamo_stores.calls.client import make_client
from dynamo_stores.calls.connection import get_connection
from dynamo_stores.calls.environment import Environment
from dynamo_stores.conf import get_config
from dynamo_stores.exceptions import ConfigurationError
from tests.helpers.peers import make_certificate

PROFILES = """
[default]
region = eu-north-1
[profile services]
region = ap-southeast-2
services = local
[services local]
dynamodb =
  endpoint_url = https://dynamodb.example:8443/path
[profile variants]
region = us-west-2
use_fips_endpoint = true
use_dualstack_endpoint = true
[profile accounts]
region = us-east-1
account_id_endpoint_mode = disabled
[profile required]
region = us-east-1
account_id_endpoint_mode = required
[profile ignoring]
region = us-east-1
endpoint_url = https://elsewhere.example
ignore_configured_endpoint_urls = true
"""


@pytest.fixture(autouse=True)
def configuration(monkeypatch, tmp_path):
    """AWS's configuration files, and nothing of this machine."""
    import os

    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    (tmp_path / "config").write_text(PROFILES)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


def environment_of(config):
    """Return the environment of an alias with these settings."""
    return Environment(config, Account("default", config))


class Sent(Exception):
    """The request that botocore was about to send."""


def requested(config):
    """Return the URL, the signing region and the user agent of a request of botocore's client."""
    client = make_client(config, Account("default", config))

    def stop(request, **kwargs):
        raise Sent(request)

    client.meta.events.register_first("before-send.dynamodb", stop)
    try:
        client.get_item(TableName="t", Key={})
    except Sent as sent:
        (request,) = sent.args
    client.close()
    authorization = request.headers["Authorization"].decode()
    agent = request.headers["User-Agent"].decode()
    return request.url, authorization.split("/")[2], agent.split(" m/")[0]


@pytest.mark.parametrize(
    ("environment", "changes"),
    [
        ({}, {}),
        ({"AWS_DEFAULT_REGION": "sa-east-1"}, {}),
        ({"AWS_DEFAULT_REGION": "sa-east-1"}, {"REGION": "cn-north-1"}),
        ({}, {"REGION": "us-gov-west-1"}),
        ({}, {"REGION": "eu-isoe-west-1"}),
        ({}, {"REGION": "local"}),
        ({"AWS_PROFILE": "services"}, {}),
        ({"AWS_PROFILE": "services"}, {"ENDPOINT_URL": "https://given.example"}),
        ({"AWS_PROFILE": "variants"}, {}),
        ({"AWS_PROFILE": "variants"}, {"ENDPOINT_URL": "https://given.example"}),
        ({"AWS_PROFILE": "ignoring"}, {}),
        ({"AWS_ENDPOINT_URL": "http://all.example:1234"}, {}),
        ({"AWS_ENDPOINT_URL_DYNAMODB": "http://one.example", "AWS_USE_FIPS_ENDPOINT": "true"}, {}),
        ({"AWS_USE_DUALSTACK_ENDPOINT": "true"}, {}),
        ({"AWS_ACCOUNT_ID": "123456789012"}, {}),
        ({"AWS_ACCOUNT_ID": "123456789012", "AWS_PROFILE": "accounts"}, {}),
        ({"AWS_ACCOUNT_ID": "123456789012", "AWS_PROFILE": "required"}, {}),
        ({"AWS_ACCOUNT_ID": "123456789012", "AWS_USE_FIPS_ENDPOINT": "true"}, {}),
        ({"AWS_ACCOUNT_ID": "123456789012"}, {"ENDPOINT_URL": "https://given.example"}),
        ({}, {"ENDPOINT_URL": "http://127.0.0.1:8400"}),
        ({}, {"ENDPOINT_URL": "http://[::1]:8400/path/"}),
    ],
)
def test_the_endpoint_is_botocores(alias, monkeypatch, environment, changes):
    """By region, profile, variant, account and setting."""
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    config = get_config(alias(**{"REGION": None, "ENDPOINT_URL": None, **changes}))
    found = environment_of(config)
    endpoint = found.endpoint_for(found.credentials(time.monotonic()))
    url, region, agent = requested(config)
    scheme = "https" if endpoint.is_tls else "http"
    assert (f"{scheme}://{endpoint.authority}{endpoint.path}", endpoint.region) == (url, region)
    assert endpoint.user_agent.startswith(agent)
    assert "dynamo-stores/" in endpoint.user_agent
    assert not found.obstacle


def test_a_required_account_that_is_not_known(alias, monkeypatch):
    """The error says what is wrong in the configuration."""
    monkeypatch.setenv("AWS_PROFILE", "required")
    using = alias(REGION="us-east-1", ENDPOINT_URL=None, TRANSPORT="lean")
    with pytest.raises(ConfigurationError, match=r"AccountIdEndpointMode is required"):
        get_connection(using)._transport.prepare(time.monotonic() + 60)


def test_the_endpoint_follows_the_account(alias, monkeypatch):
    """Credentials of another account have another endpoint."""
    found = environment_of(get_config(alias(REGION="eu-west-1", ENDPOINT_URL=None)))
    frozen = found.credentials(1.0)
    first = found.endpoint_for(frozen)
    assert first.host == "dynamodb.eu-west-1.amazonaws.com"
    assert found.endpoint_for(frozen) is first
    other = found.endpoint_for(frozen._replace(account_id="123456789012"))
    assert other.host == "123456789012.ddb.eu-west-1.amazonaws.com"
    assert found.endpoint_for(frozen).host == first.host


def test_botocore_is_asked_for_credentials_once_a_second(alias):
    """It refreshes them; what did not change is the same object."""
    made = []

    def refresh():
        made.append(1)
        return {
            "access_key": f"A{len(made)}",
            "secret_key": "b",
            "token": "t",
            "expiry_time": "2100-01-01T00:00:00Z" if len(made) > 1 else "2000-01-01T00:00:00Z",
        }

    found = environment_of(get_config(alias(REGION="eu-west-1", ENDPOINT_URL=None)))
    found._credentials = RefreshableCredentials.create_from_metadata(
        refresh() | {"expiry_time": "2100-01-01T00:00:00Z"}, refresh, "test"
    )
    first = found.credentials(1.0)
    assert found.credentials(1.9) is first
    assert found.credentials(2.1) is first
    found._credentials._expiry_time = found._credentials._expiry_time.replace(year=2001)
    assert found.credentials(2.9) is first
    assert found.credentials(3.2).access_key == "A2"


@pytest.mark.parametrize(
    ("environment", "region", "words"),
    [
        ({"HTTPS_PROXY": "http://proxy.example:3128"}, "eu-west-1", "proxy"),
        ({"HTTPS_PROXY": "http://proxy.example", "NO_PROXY": "amazonaws.com"}, "eu-west-1", ""),
        ({"HTTP_PROXY": "http://proxy.example"}, "eu-west-1", ""),
        (
            {
                "AWS_ACCOUNT_ID": "123456789012",
                "HTTPS_PROXY": "http://proxy.example",
                "NO_PROXY": "dynamodb.eu-west-1.amazonaws.com",
            },
            "eu-west-1",
            "proxy",
        ),
        ({}, "fips-us-east-1", "fips-us-east-1"),
    ],
)
def test_botocore_is_used_where_it_must_be(alias, monkeypatch, environment, region, words):
    """For proxies, whose protocol the lean transport does not speak."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = environment_of(get_config(alias(REGION=region, ENDPOINT_URL=None)))
    assert words in found.obstacle
    assert bool(words) == bool(found.obstacle)


@pytest.mark.parametrize("name", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_the_ca_bundle_is_botocores(alias, monkeypatch, tmp_path, name):
    """One context for all connections of the process."""
    path = tmp_path / "bundle.pem"
    make_certificate(path)
    config = get_config(alias(REGION="eu-west-1", ENDPOINT_URL=None))
    assert len(environment_of(config).ssl_context().get_ca_certs()) > 50
    monkeypatch.setenv(name, str(path))
    context = environment_of(config).ssl_context()
    assert len(context.get_ca_certs()) == 1
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert environment_of(config).ssl_context() is context
