"""
Tools that hook into botocore: instrumentations that wrap its methods, and mocks.

They see only the requests that go through botocore.
"""

from __future__ import annotations

import sys
from types import FunctionType
from typing import Any

from botocore.client import BaseClient
from botocore.endpoint import Endpoint
from botocore.httpsession import URLLib3Session


def _own(owner: Any, name: str) -> Any:
    """Return botocore's own function, None if it was replaced before this module was imported."""
    found = vars(owner)[name]
    is_own = type(found) is FunctionType and found.__globals__["__name__"].startswith("botocore.")
    return found if is_own else None


# OpenTelemetry, X-Ray, Datadog and Elastic wrap _make_api_call, Sentry __init__; propagation of
# traces wraps prepare_request; recorders of HTTP replace send.
_PLACES: tuple[tuple[Any, str, Any], ...] = tuple(
    (owner, name, _own(owner, name))
    for owner, name in (
        (BaseClient, "_make_api_call"),
        (BaseClient, "__init__"),
        (Endpoint, "prepare_request"),
        (Endpoint, "make_request"),
        (URLLib3Session, "send"),
    )
)


def find_hook() -> str:
    """Return the tool that hooks into botocore now, as text for a message; ``""`` for none."""
    for owner, name, own in _PLACES:
        if getattr(owner, name) is not own:
            return f"{_replaced_by(vars(owner)[name])} replaced {owner.__name__}.{name}"
    # moto does not replace methods: it answers in an event handler of botocore while it is active.
    models = sys.modules.get("moto.core.models")
    if models is not None and models.botocore_stubber.enabled:
        return "a mock of moto is active"
    return ""


def _replaced_by(found: Any) -> str:
    # wrapt's wrappers have the module of the function that they wrap.
    wrapper = getattr(found, "_self_wrapper", found)
    module = getattr(wrapper, "__module__", None) or type(wrapper).__module__
    return f"a function of {module}"
