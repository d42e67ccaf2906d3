"""Health checks for load balancers and orchestrators; details for staff; Prometheus' page."""

from __future__ import annotations

import logging
from ipaddress import ip_network
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from . import clock
from .client_address import client_address
from .conf import aliases, get_config
from .conf.groups import MetricsConfig
from .exceptions import ConfigurationError
from .monitoring.exporter import get_exporters
from .monitoring.formatting import ago, exact, milliseconds
from .monitoring.health import HealthDetails, as_json, health_details, is_ready

if TYPE_CHECKING:
    from .monitoring.sinks.prometheus import PrometheusSink

logger = logging.getLogger(__name__)

PROMETHEUS = "dynamo_stores.monitoring.sinks.prometheus.PrometheusSink"


@never_cache
@require_safe
def live(request: HttpRequest) -> HttpResponse:
    """
    Return 200: the process serves requests. No request is sent to DynamoDB. Staff with the
    permission ``view_status`` see the results of the last checks.
    """
    return _answer(request, True, checks=False)


@never_cache
@require_safe
def ready(request: HttpRequest) -> HttpResponse:
    """
    Return 200 if every alias is ready, else 503; see ``HEALTH`` in the settings. Staff with the
    permission ``view_status`` see the details of each alias, with ``?format=json`` as JSON.
    """
    return _answer(request, all(is_ready(using) for using in aliases()), checks=True)


@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """
    Return what all processes of this host have counted, in OpenMetrics or Prometheus' text format;
    404 without the sink for it. Readable with the token of ``METRICS``, from its networks in
    ``ALLOW``, and by staff with the permission ``view_status``.
    """
    sinks = prometheus_sinks()
    if not sinks:
        raise Http404("PrometheusSink is not in METRICS['SINKS'] of any alias.")
    if not any(_may_read(request, sink.config) for sink in sinks) and not _may_see_details(request):
        return HttpResponse(
            "Send METRICS['TOKEN'] as 'Authorization: Bearer TOKEN', read from a network of "
            "METRICS['ALLOW'], or log in as staff with the permission view_status.\n",
            content_type="text/plain", status=403,
        )  # fmt: skip
    from .monitoring.sinks.prometheus import OPENMETRICS, TEXT, page

    openmetrics = "application/openmetrics-text" in request.headers.get("Accept", "")
    try:
        text = page(sinks, openmetrics=openmetrics)
    except (ImproperlyConfigured, OSError) as exc:
        # Prometheus shows such an answer as a failed scrape.
        logger.warning("The metrics of this host's processes cannot be read: %s", exc)
        return HttpResponse(
            f"The metrics cannot be read: {exc}\n", content_type="text/plain", status=503
        )
    return HttpResponse(text, content_type=OPENMETRICS if openmetrics else TEXT)


def _may_read(request: HttpRequest, config: MetricsConfig) -> bool:
    kind, _, sent = request.headers.get("Authorization", "").partition(" ")
    is_bearer = kind.lower() == "bearer"
    if config.token and is_bearer and constant_time_compare(sent.strip(), config.token):
        return True
    if not config.allow:
        return False
    try:
        address = client_address(request.META, get_config().rate_limit.trusted_proxies)
    except ConfigurationError:
        return False
    return any(address in ip_network(each, strict=False) for each in config.allow)


def prometheus_sinks() -> list[PrometheusSink]:
    """Return the sinks of this process whose counts the page shows."""
    if not any(PROMETHEUS in get_config(using).metrics.sinks for using in aliases()):
        return []
    from .monitoring.sinks.prometheus import PrometheusSink

    found = [each.sink for using in aliases() for each in get_exporters(using).all]
    return [each for each in found if isinstance(each, PrometheusSink)]


def _answer(request: HttpRequest, is_available: bool, *, checks: bool) -> HttpResponse:
    text, status = ("ok", 200) if is_available else ("unavailable", 503)
    if not _may_see_details(request):
        return HttpResponse(text, content_type="text/plain", status=status)
    found = [health_details(using, checks=checks) for using in aliases()]
    if request.GET.get("format") == "json":
        body = {"status": text, "at": clock.now(), "aliases": [as_json(each) for each in found]}
        return JsonResponse(body, status=status)
    lines = [text, *(line for each in found for line in _lines(each))]
    return HttpResponse(
        "\n".join(lines) + "\n", content_type="text/plain; charset=utf-8", status=status
    )


def _may_see_details(request: HttpRequest) -> bool:
    # Probes have no cookie, and cost no look-up of a session, which may be in DynamoDB too.
    if settings.SESSION_COOKIE_NAME not in request.COOKIES:
        return False
    try:
        user = getattr(request, "user", None)
        return bool(
            user and user.is_active and user.is_staff and user.has_perm("dynamo_stores.view_status")
        )
    except Exception as exc:  # noqa: BLE001 - whatever sessions and users are kept in
        logger.info("Who asks for the health is not known: %s", type(exc).__name__)
        return False


def _lines(details: HealthDetails) -> list[str]:
    result, now = details.result, clock.now()
    need = "required" if details.is_required else "not required"
    if result is None:
        lines = [f"alias {details.using} ({need}): not checked yet"]
    else:
        does = "answers" if result.success else f"does not answer ({result.error})"
        since = f", since {exact(details.since)}" if details.since is not None else ""
        lines = [
            f"alias {details.using} ({need}): {does}{since}; "
            f"checked {ago(result.at, now)} in {milliseconds(result.seconds)}"
        ]
    if details.last_error_at is not None:
        lines.append(f"  last error: {details.last_error} at {exact(details.last_error_at)}")
    for table, breaker in sorted((result.breakers if result else {}).items()):
        after = f" after {breaker.error}" if breaker.error else ""
        lines.append(
            f"  circuit breaker of {table}: {breaker.state} since {exact(breaker.since)}{after}"
        )
    for each in details.failovers:
        lines.append(
            f"  {each.table}: alias {each.failover} answers instead since {exact(each.since)} "
            f"after {each.error}"
        )
    return lines
