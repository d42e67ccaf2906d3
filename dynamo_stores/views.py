"""Health checks for load balancers and orchestrators, without details."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from .conf import aliases
from .monitoring.health import is_ready


@never_cache
@require_safe
def live(request: HttpRequest) -> HttpResponse:
    """Return 200: the process serves requests. No request is sent to DynamoDB."""
    return _answer(True)


@never_cache
@require_safe
def ready(request: HttpRequest) -> HttpResponse:
    """Return 200 if every alias is ready, else 503; see ``HEALTH`` in the settings."""
    return _answer(all(is_ready(using) for using in aliases()))


def _answer(is_available: bool) -> HttpResponse:
    text, status = ("ok", 200) if is_available else ("unavailable", 503)
    return HttpResponse(text, content_type="text/plain", status=status)
