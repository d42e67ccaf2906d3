"""Fixtures and helpers for tests of limits."""

from __future__ import annotations

import secrets

import pytest
from django.http import HttpResponse
from django.test import RequestFactory

requests = RequestFactory()


@pytest.fixture
def group():
    """The name of a group that no other test uses."""
    return secrets.token_hex(6)


def ok(request, *args, **kwargs):
    return HttpResponse("ok")


def get(path="/", address="1.2.3.4", **kwargs):
    return requests.get(path, REMOTE_ADDR=address, **kwargs)
