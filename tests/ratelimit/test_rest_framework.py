"""Throttle classes of Django REST framework."""

from __future__ import annotations

import secrets
from types import SimpleNamespace

import pytest
from django.test import RequestFactory

from dynamo_stores.testing import FakeClock

rest_framework = pytest.importorskip("rest_framework", reason="dynamo-stores[rest] is missing.")
pytestmark = pytest.mark.usefixtures("tables")


def make_view(throttle, **attributes):
    from rest_framework.response import Response
    from rest_framework.views import APIView

    def get(self, request):
        return Response({"ok": True})

    settings = {
        "throttle_classes": [throttle],
        "authentication_classes": [],
        "permission_classes": [],
        "get": get,
        **attributes,
    }
    return type("ResolvedLimit", (APIView,), settings).as_view()


def make_throttle(name, rate="2/min"):
    from dynamo_stores.ratelimit import rest_framework as throttling

    base = getattr(throttling, name)
    return type(name, (base,), {"rate": rate, "scope": secrets.token_hex(6)})


def ask(view, user=None, address="1.2.3.4"):
    request = RequestFactory().get("/", REMOTE_ADDR=address)
    if user is not None:
        request._force_auth_user = user
        from rest_framework.test import force_authenticate

        force_authenticate(request, user)
    return view(request)


@pytest.mark.parametrize("name", ["AnonRateThrottle", "UserRateThrottle"])
def test_a_request_after_wait_is_admitted(name, dynamo_clock: FakeClock):
    """Retry-After is wait() in whole seconds, as the framework rounds it."""
    view = make_view(make_throttle(name))
    answers = [ask(view) for _ in range(3)]
    assert [each.status_code for each in answers] == [200, 200, 429]
    wait = int(answers[-1]["Retry-After"])
    assert 60 <= wait <= 67
    assert ask(view, address="4.3.2.1").status_code == 200
    dynamo_clock.advance(wait)
    assert ask(view).status_code == 200


def test_users_are_counted_by_themselves(dynamo_clock: FakeClock):
    """From whatever address; anonymous throttles do not limit them."""
    user = SimpleNamespace(pk=1, is_authenticated=True)
    by_user, anonymous = make_throttle("UserRateThrottle"), make_throttle("AnonRateThrottle")
    view = make_view(by_user)
    codes = [ask(view, user, f"1.2.3.{number}").status_code for number in range(3)]
    assert codes == [200, 200, 429]
    view = make_view(anonymous)
    assert [ask(view, user).status_code for _ in range(3)] == [200] * 3


def test_scopes(dynamo_clock: FakeClock):
    """Rates by throttle_scope; a view without one is not limited."""
    from dynamo_stores.ratelimit import rest_framework as throttling

    scope = secrets.token_hex(6)
    rates = {scope: "1/min"}
    throttle = type("Scoped", (throttling.ScopedRateThrottle,), {"THROTTLE_RATES": rates})
    view = make_view(throttle, throttle_scope=scope)
    assert [ask(view).status_code for _ in range(2)] == [200, 429]
    assert [ask(make_view(throttle)).status_code for _ in range(2)] == [200, 200]
