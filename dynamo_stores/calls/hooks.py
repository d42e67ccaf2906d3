"""
Tools that hook into botocore: instrumentations that wrap its methods, and mocks.

They see only the requests that go through botocore.
"""

from __future__ import annotations

import sys
from types import FunctionType
from typing import Any

import botocore
from botocore import awsrequest
from botocore.client import BaseClient
from botocore.endpoint import Endpoint
from botocore.httpsession import URLLib3Session


def _own(owner: Any, name: str) -> Any:
    """Return botocore's own function or class, None if it was replaced before this import."""
    found = vars(owner)[name]
    if isinstance(found, type):
        return found if found.__module__.startswith("botocore.") else None
    is_own = type(found) is FunctionType and found.__globals__["__name__"].startswith("botocore.")
    return found if is_own else None


# OpenTelemetry, X-Ray, Datadog and Elastic wrap _make_api_call, Sentry __init__; propagation of
# traces wraps prepare_request; recorders of HTTP, such as VCR.py, replace send or the connections.
_PLACES: tuple[tuple[Any, str, Any], ...] = tuple(
    (owner, name, _own(owner, name))
    for owner, name in (
        (BaseClient, "_make_api_call"),
        (BaseClient, "__init__"),
        (Endpoint, "prepare_request"),
        (Endpoint, "make_request"),
        (URLLib3Session, "send"),
        (awsrequest, "AWSHTTPConnection"),
        (awsrequest, "AWSHTTPSConnection"),
        (awsrequest.AWSHTTPConnectionPool, "ConnectionCls"),
        (awsrequest.AWSHTTPSConnectionPool, "ConnectionCls"),
    )
)


def find_hook() -> str:
    """Return the tool that hooks into botocore now, as text for a message; ``""`` for none."""
    for owner, name, own in _PLACES:
        if getattr(owner, name) is not own:
            return f"{_replaced_by(vars(owner)[name])} replaced {owner.__name__}.{name}"
    # Functions that every session of botocore calls, to add handlers of its events.
    initializers = getattr(botocore, "_INITIALIZERS", None)
    if initializers:
        return f"{_replaced_by(initializers[0])} initializes botocore's sessions"
    # moto does not replace methods: it answers in an event handler of botocore while it is active.
    models = sys.modules.get("moto.core.models")
    if models is not None and getattr(getattr(models, "botocore_stubber", None), "enabled", False):
        return "a mock of moto is active"
    return ""


def _replaced_by(found: Any) -> str:
    # wrapt's wrappers have the module of the function that they wrap.
    wrapper = getattr(found, "_self_wrapper", found)
    module = getattr(wrapper, "__module__", None) or type(wrapper).__module__
    return f"code of {module}"
