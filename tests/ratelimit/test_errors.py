"""Which errors of calls ON_UNAVAILABLE decides, and which are always raised."""

from __future__ import annotations

import pytest

from dynamo_stores.exceptions import ConfigurationError
from dynamo_stores.stores import RateLimitStore


@pytest.mark.parametrize("code", ["ExpiredTokenException", "AccessDeniedException"])
def test_lost_credentials_and_rights_are_decided_by_on_unavailable(alias, dynamo_faults, code):
    """As other operations without an answer are."""
    dynamo_faults.fail("*", status=400, code=code)
    for policy, allowed in (("allow", True), ("deny", False)):
        using = alias(ENDPOINT_URL=dynamo_faults.url, RATE_LIMIT={"ON_UNAVAILABLE": policy})
        assert RateLimitStore(using).acquire("errors", rate="5/m").allowed is allowed


def test_a_missing_table_is_raised_whatever_on_unavailable_says(alias):
    """Otherwise the limits would be off without anybody knowing."""
    using = alias(TABLE_NAME="there-is-no-such-table", RATE_LIMIT={"ON_UNAVAILABLE": "allow"})
    with pytest.raises(ConfigurationError, match="there-is-no-such-table"):
        RateLimitStore(using).acquire("errors", rate="5/m")


def test_a_missing_region_is_raised_whatever_on_unavailable_says(alias, monkeypatch, tmp_path):
    """The first call of a limit needs the server's time, and so a client."""
    for name in ("AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    using = alias(REGION=None, ENDPOINT_URL=None)
    with pytest.raises(ConfigurationError, match="REGION"):
        RateLimitStore(using).acquire("errors", rate="5/m")
