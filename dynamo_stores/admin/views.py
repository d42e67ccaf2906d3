"""The status pages: show a snapshot; confirm actions, carry them out once and log them."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, JsonResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from ..monitoring.reporter import get_reporter
from ..monitoring.snapshot import read_all
from ..monitoring.status import AliasStatus, as_json
from . import actions, entries, events
from . import cost as cost_pages
from . import jobs as job_pages
from . import latency as latency_pages
from . import limits as limit_pages
from .actions import ALL_PROCESSES, Action, BadAction, Receipts, Target, check_alias, perform
from .cards import SYMBOLS, Card, cards, describe_change, processes, summary
from .past import Past, Reading
from .permissions import Status

REFRESH = 30
_PAGES = ("overview", "breakers", "history", "latency", "cost", "cache", "limits", "jobs")
_ACTIONS = {**actions.ACTIONS, **entries.ACTIONS, **limit_pages.ACTIONS, **job_pages.ACTIONS}
# A key is sent in the body of a POST: addresses are in the logs of servers.
_LOOK_UP = ("GET", "HEAD", "POST")
_TOKEN = re.compile(r"[\w-]{20,60}")

View = Callable[..., HttpResponse]


def _permitted(permission: str) -> Callable[[View], View]:
    def decorate(view: View) -> View:
        @wraps(view)
        def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if not _has(request, permission):
                raise _forbidden(permission)
            return view(request, *args, **kwargs)

        return wrapper

    return decorate


@require_safe
@_permitted("view_status")
def overview(request: HttpRequest) -> HttpResponse:
    """Show a card for each table."""
    statuses = _read()
    return _page(
        request,
        "overview",
        statuses,
        groups=[(status, *_by_length(cards(status))) for status in statuses],
        processes=[row for status in statuses for row in processes(status)],
        title="DynamoDB status",
    )


@require_safe
@_permitted("view_status")
def breakers(request: HttpRequest) -> HttpResponse:
    """Show every breaker of every process."""
    statuses = _read()
    return _page(
        request,
        "breakers",
        statuses,
        rows=[row for status in statuses for row in status.breakers],
        all_processes=ALL_PROCESSES,
        unknown=[status.using for status in statuses if not status.knows_others],
        title="Circuit breakers",
    )


@require_safe
@_permitted("view_status")
def history(request: HttpRequest) -> HttpResponse:
    """Show each decision about capacity, also those that changed nothing."""
    statuses = _read()
    rows = [
        (status.using, decision, describe_change(decision))
        for status in statuses
        for decision in status.decisions
    ]
    return _page(
        request,
        "history",
        statuses,
        rows=sorted(rows, key=lambda row: -row[1].at),
        unknown=[status.using for status in statuses if not status.knows_decisions],
        title="Scaling history",
    )


@require_safe
@_permitted("view_status")
def latency(request: HttpRequest) -> HttpResponse:
    """Show how long calls took, by table and operation."""
    statuses, pasts = _read_with_past(day=True)
    table, order = request.GET.get("table", ""), request.GET.get("sort")
    order = latency_pages.SLOWEST if order == latency_pages.SLOWEST else latency_pages.BUSIEST
    found = latency_pages.latencies(pasts, table=table, order=order)
    chosen = {"sort": order} if order == latency_pages.SLOWEST else {}
    return _page(
        request,
        "latency",
        statuses,
        data={"latency": [each.as_json() for each in found]},
        groups=found,
        table=table,
        order=order,
        query=urlencode({**chosen, **({"table": table} if table else {})}),
        title="Latency",
    )


@require_safe
@_permitted("view_status")
def cost(request: HttpRequest) -> HttpResponse:
    """Show what tables cost in a month and on each day, and which mode is cheaper."""
    reading = cost_pages.Reading()
    statuses = _read()
    found = cost_pages.costs(statuses, reading.measured(statuses))
    return _page(
        request,
        "cost",
        statuses,
        data={"costs": [each.as_json() for each in found]},
        groups=found,
        title="Cost",
    )


@require_http_methods(_LOOK_UP)
@_permitted("view_status")
def cache(request: HttpRequest) -> HttpResponse:
    """Show hits and misses, and what a cache has under a key."""
    (statuses, pasts), form = _read_with_past(day=True), request.POST
    found = None
    if request.method == "POST":
        try:
            found = entries.look_up(
                form.get("cache", ""),
                form.get("key", ""),
                form.get("version", ""),
                dead=_dead(statuses),
            )
        except BadAction as exc:
            return _refused(exc)
    rows, caches, lookups = entries.hits(statuses), entries.caches(), events.lookups(pasts)
    return _page(
        request,
        "cache",
        statuses,
        data={
            "hits": [{**asdict(row), "rate": row.rate} for row in rows],
            "caches": [asdict(each) for each in caches],
            "entry": found and found.as_json(),
            "lookups": [each.as_json() for each in lookups],
        },
        events=lookups,
        hits=rows,
        caches=caches,
        lookup=found,
        seconds=entries.CLEAR_SECONDS,
        title="Cache",
    )


@require_http_methods(_LOOK_UP)
@_permitted("view_status")
def limits(request: HttpRequest) -> HttpResponse:
    """Show the limits of resources, and the use of one."""
    (statuses, pasts), form = _read_with_past(), request.POST
    found = None
    aliases_limits, refusals = limit_pages.limits(statuses), events.refusals(pasts)
    if request.method == "POST":
        using = form.get("using", "")
        stored = next((each.stored for each in aliases_limits if each.using == using), None)
        try:
            found = limit_pages.look_up(
                using,
                form.get("resource", ""),
                form.get("key", ""),
                form.get("rate", ""),
                stored,
                dead=_dead(statuses),
            )
        except BadAction as exc:
            return _refused(exc)
    return _page(
        request,
        "limits",
        statuses,
        data={
            "limits": [each.as_json() for each in aliases_limits],
            "use": found and found.as_json(),
            "refusals": [each.as_json() for each in refusals],
        },
        events=refusals,
        groups=aliases_limits,
        lookup=found,
        title="Rate limits",
    )


@require_http_methods(_LOOK_UP)
@_permitted("view_status")
def jobs(request: HttpRequest) -> HttpResponse:
    """Show a job, or those of the first pages of a table."""
    (statuses, pasts), form = _read_with_past(), request.POST
    counted = events.jobs(pasts)
    found = listing = None
    if request.method == "POST":
        using = form.get("using", "")
        try:
            if "list" in form:
                listing = job_pages.list_jobs(using, dead=_dead(statuses))
            else:
                found = job_pages.look_up(
                    using,
                    form.get("key", ""),
                    shows_messages=_has(request, "manage_data"),
                    dead=_dead(statuses),
                )
        except BadAction as exc:
            return _refused(exc)
    return _page(
        request,
        "jobs",
        statuses,
        data={
            "job": found and found.as_json(),
            "list": listing and listing.as_json(),
            "counts": [each.as_json() for each in counted],
        },
        events=counted,
        lookup=found,
        listing=listing,
        pages=job_pages.LIST_PAGES,
        units=job_pages.LIST_PAGES * job_pages.PAGE_UNITS,
        title="Jobs",
    )


@require_POST
@_permitted("view_status")
def act(request: HttpRequest) -> HttpResponse:
    """Show a page to confirm the action, then carry it out once."""
    back = request.POST.get("back", "")
    back = back if back in _PAGES else "overview"
    target = Target.of(request.POST, request.user.get_username())
    try:
        action = _action(request.POST.get("action", ""))
        if not _has(request, action.permission):
            raise _forbidden(action.permission)
        check_alias(target.using)
        action.check(target)
    except BadAction as exc:
        return _refused(exc)
    token = request.POST.get("token", "")
    if not _TOKEN.fullmatch(token):
        context = {
            "action": action,
            "effect": action.effect(target),
            "fields": target.fields,
            "token": secrets.token_urlsafe(24),
            "back": back,
            "back_url": f"dynamo_stores_admin:{back}",
            "title": action.question(target),
        }
        return _respond(request, "confirm", context)
    if not Receipts(target.using).take(token):
        messages.info(request, "This form was already carried out; it was not repeated.")
        return redirect(f"dynamo_stores_admin:{back}")
    outcome = perform(action, target)
    LogEntry.objects.create(
        user_id=request.user.pk,
        content_type=ContentType.objects.get_for_model(Status),
        object_id=target.subject,
        object_repr=target.subject[:200],
        action_flag=CHANGE,
        change_message=f"{action.label}: {outcome.message}",
    )
    level = messages.SUCCESS if outcome.is_good else messages.ERROR
    messages.add_message(request, level, outcome.message)
    return redirect(f"dynamo_stores_admin:{back}")


def _action(name: str) -> Action:
    """Return the action. Raises BadAction if there is none of this name."""
    if name not in _ACTIONS:
        expected = ", ".join(_ACTIONS)
        raise BadAction(f"Unknown action {actions.short(name)}; expected one of {expected}.")
    return _ACTIONS[name]


def _refused(exc: BadAction) -> HttpResponse:
    return HttpResponseBadRequest(str(exc), content_type="text/plain")


def _forbidden(permission: str) -> PermissionDenied:
    return PermissionDenied(f"This page requires the permission dynamo_stores.{permission}.")


def _by_length(found: list[Card]) -> tuple[list[Card], list[Card]]:
    """Return the cards that are shown whole, and those that are one line at first."""
    return [card for card in found if card.is_open], [card for card in found if not card.is_open]


def _dead(statuses: list[AliasStatus]) -> set[str]:
    """Return the aliases whose snapshot got no answer: nothing more is asked of them."""
    return {status.using for status in statuses if status.outage is not None}


def _read() -> list[AliasStatus]:
    return read_all(lambda using: get_reporter(using).report())


def _read_with_past(*, day: bool = False) -> tuple[list[AliasStatus], list[Past]]:
    """Return the snapshots, and the minutes of each alias, with ``day`` its hours too."""
    reading = Reading(day=day)
    statuses = _read()
    return statuses, reading.past(statuses)


def _has(request: HttpRequest, permission: str) -> bool:
    user: Any = request.user
    return bool(user.has_perm(f"dynamo_stores.{permission}"))


def _page(
    request: HttpRequest,
    name: str,
    statuses: list[AliasStatus],
    *,
    data: dict[str, Any] | None = None,
    **context: Any,
) -> HttpResponse:
    if request.GET.get("format") == "json":
        found = as_json(statuses)
        if data is not None:
            found = {"at": found["at"], "problems": found["problems"], **data}
        return JsonResponse(found, json_dumps_params={"indent": 1})
    level, sentences = summary(statuses)
    refreshes = request.GET.get("refresh") == "on"
    return _respond(
        request,
        name,
        {
            **context,
            "page": name,
            "statuses": statuses,
            "now": statuses[0].at,
            "level": level,
            "symbol": SYMBOLS[level],
            "sentences": sentences,
            "can_manage": _has(request, "manage_capacity"),
            "can_manage_data": _has(request, "manage_data"),
            "most_typed": actions.MOST_TYPED,
            "refresh": REFRESH if refreshes else None,
            "refresh_seconds": REFRESH,
        },
    )


def _respond(request: HttpRequest, name: str, context: dict[str, Any]) -> HttpResponse:
    return TemplateResponse(
        request,
        f"admin/dynamo_stores/{name}.html",
        {**admin.site.each_context(request), **context},
    )
