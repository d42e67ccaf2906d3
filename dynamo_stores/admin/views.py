"""The status pages: show a snapshot; confirm actions, carry them out once and log them."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, JsonResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.views.decorators.http import require_POST, require_safe

from ..monitoring.reporter import get_reporter
from ..monitoring.snapshot import read_all
from ..monitoring.status import AliasStatus, as_json
from .actions import (
    ALL_PROCESSES,
    BadAction,
    Receipts,
    Target,
    checked,
    perform,
)
from .cards import SYMBOLS, Card, cards, describe_change, processes, summary
from .permissions import Status

REFRESH = 30
_PAGES = ("overview", "breakers", "history")
_TOKEN = re.compile(r"[\w-]{20,60}")

View = Callable[..., HttpResponse]


def _permitted(permission: str) -> Callable[[View], View]:
    def decorate(view: View) -> View:
        @wraps(view)
        def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if not _has(request, permission):
                raise PermissionDenied(
                    f"This page requires the permission dynamo_stores.{permission}."
                )
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


@require_POST
@_permitted("view_status")
@_permitted("manage_capacity")
def act(request: HttpRequest) -> HttpResponse:
    """Show a page to confirm the action, then carry it out once."""
    name = request.POST.get("action", "")
    back = request.POST.get("back", "")
    back = back if back in _PAGES else "overview"
    target = Target(
        request.POST.get("using", ""),
        request.POST.get("table", ""),
        request.POST.get("process", ""),
        request.user.get_username(),
    )
    try:
        action = checked(name, target)
    except BadAction as exc:
        return HttpResponseBadRequest(str(exc), content_type="text/plain")
    token = request.POST.get("token", "")
    if not _TOKEN.fullmatch(token):
        context = {
            "action": action,
            "effect": action.effect(target),
            "target": target,
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
        object_id=target.table or target.using,
        object_repr=(target.table or target.using)[:200],
        action_flag=CHANGE,
        change_message=f"{action.label}: {outcome.message}",
    )
    level = messages.SUCCESS if outcome.is_good else messages.ERROR
    messages.add_message(request, level, outcome.message)
    return redirect(f"dynamo_stores_admin:{back}")


def _by_length(found: list[Card]) -> tuple[list[Card], list[Card]]:
    """Return the cards that are shown whole, and those that are one line at first."""
    return [card for card in found if card.is_open], [card for card in found if not card.is_open]


def _read() -> list[AliasStatus]:
    return read_all(lambda using: get_reporter(using).report())


def _has(request: HttpRequest, permission: str) -> bool:
    user: Any = request.user
    return bool(user.has_perm(f"dynamo_stores.{permission}"))


def _page(
    request: HttpRequest, name: str, statuses: list[AliasStatus], **context: Any
) -> HttpResponse:
    if request.GET.get("format") == "json":
        return JsonResponse(as_json(statuses), json_dumps_params={"indent": 1})
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
