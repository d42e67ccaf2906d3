"""Requests that the API's document allows, or nearly allows, have the answers that it declares."""

from __future__ import annotations

import contextlib

import pytest
import schemathesis
from django.contrib.auth import get_user_model
from django.core.wsgi import get_wsgi_application
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from forum.api.tokens import make_token

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = settings(
    max_examples=8,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_answers_are_as_declared(own_tables, db, migrate, settings, mode):
    """Valid and invalid requests to each path, with the rights of staff and without limits."""
    settings.RATELIMIT_ENABLE = False
    migrate()
    user = get_user_model().objects.create_user("s", "s@example.com", "x", is_staff=True)
    token = make_token(user, "test")
    schema = schemathesis.openapi.from_wsgi("/api/openapi.json", get_wsgi_application())
    statuses = set()
    for result in schema.get_all_operations():
        operation = result.ok()

        @EXAMPLES
        @given(operation.as_strategy(generation_mode=mode))
        def send(case):
            answer = case.call(headers={"Authorization": f"Bearer {token}"})
            case.validate_response(answer, checks=CHECKS)
            statuses.add(answer.status_code)

        # A path without parameters has no invalid request.
        with contextlib.suppress(Unsatisfiable):
            send()
    assert statuses > ({200, 404} if mode is GenerationMode.POSITIVE else {422})
