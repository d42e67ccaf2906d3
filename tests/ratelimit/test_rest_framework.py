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


@pytest.mark.parametrize("rate", ["2/10s", "2/minute", "9/s,2/h", (2, 60), "2/60"])
def test_rates_of_all_kinds(rate, dynamo_clock: FakeClock):
    """REST framework's own, and those of all other limits."""
    view = make_view(make_throttle("AnonRateThrottle", rate))
    assert [ask(view).status_code for _ in range(3)] == [200, 200, 429]


def rate_of(scope, request):
    return None if "free" in request.GET else "1/m"


@pytest.mark.parametrize("rate", [staticmethod(rate_of), f"{__name__}.rate_of"])
def test_rates_by_function(rate, dynamo_clock: FakeClock):
    """A function of scope and request, or its dotted path."""
    view = make_view(make_throttle("AnonRateThrottle", rate))
    assert [ask(view).status_code for _ in range(2)] == [200, 429]
    free = RequestFactory().get("/?free", REMOTE_ADDR="1.2.3.4")
    assert view(free).status_code == 200


def test_several_rates_are_in_the_headers_of_the_tightest(dynamo_clock: FakeClock):
    """The status on the request is that of the rate with the least left."""
    throttle = make_throttle("AnonRateThrottle", "9/s,2/h")()
    request = SimpleNamespace(
        _request=RequestFactory().get("/", REMOTE_ADDR="1.2.3.4"), user=None, META={}
    )
    assert throttle.allow_request(request, None)
    assert (throttle.num_requests, throttle.duration) == (9, 1)
    assert request._request.ratelimit[:3] == (True, 2, 1)


def test_a_cost_by_function(dynamo_clock: FakeClock):
    """``get_cost`` of a subclass."""
    throttle = make_throttle("AnonRateThrottle", "5/m")
    throttle.get_cost = lambda self, request, view: int(request.GET["n"])

    def ask_for(number):
        request = RequestFactory().get(f"/?n={number}", REMOTE_ADDR="1.2.3.4")
        return make_view(throttle)(request).status_code

    assert [ask_for(number) for number in (4, 2, 0, 6, 1, 1)] == [200, 429, 200, 429, 200, 429]


def test_a_parse_rate_of_ones_own(dynamo_clock: FakeClock):
    """A subclass may read rates in its own way, as with REST framework."""
    throttle = make_throttle("AnonRateThrottle", "two")
    throttle.parse_rate = lambda self, rate: ({"two": 2}[rate], 60)
    view = make_view(throttle)
    assert [ask(view).status_code for _ in range(3)] == [200, 200, 429]


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
