"""What tests of limits share."""

from __future__ import annotations

import secrets

import pytest


@pytest.fixture
def group():
    """The name of a group that nobody else counts in."""
    return secrets.token_hex(6)
