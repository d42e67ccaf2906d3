"""What views have in common: their limits, positions in lists, and answers."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render

from dynamo_stores.decorators import idempotent, ratelimit
from dynamo_stores.exceptions import StoreUnavailable
from dynamo_stores.ratelimit import UNSAFE
from dynamo_stores.ratelimit.responses import remember, too_many

from .. import accounts, caching, cursors
from ..adapters import ItemMissing
from ..caching import Page
from ..trees import NoSuchPost, NoSuchThread, TreeBusy

View = Callable[..., Any]

limit_reading = ratelimit("forum.list", "ip", "300/m")
limit_searching = ratelimit("forum.search", "ip", "30/m")
limit_posting = ratelimit("forum.post", "user", "10/m", UNSAFE)
limit_editing = ratelimit("forum.edit", "user", "30/m", UNSAFE)


def page(view: View) -> View:
    """Answer with 404, 429 or 503 what the forum's functions raise."""

    @functools.wraps(view)
    def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            response: HttpResponse = view(request, *args, **kwargs)
        except caching.Busy as exc:
            remember(request, exc.status)
            return too_many(request, exc.status)
        except (NoSuchThread, ItemMissing) as exc:
            raise Http404("There is no such thread; it may be deleted.") from exc
        except NoSuchPost as exc:
            raise Http404("There is no such post; it may be deleted.") from exc
        except TreeBusy as exc:
            raise StoreUnavailable(str(exc)) from exc
        return response

    return wrapper


def staff_only(view: View) -> View:
    """Ask visitors to log in, and refuse users who are not staff with 403."""

    @functools.wraps(view)
    @login_required
    def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not getattr(request.user, "is_staff", False):
            raise PermissionDenied("Only the staff of the forum may do this.")
        response: HttpResponse = view(request, *args, **kwargs)
        return response

    return wrapper


def replayed(view: View) -> View:
    """
    Answer a request with the ``Idempotency-Key`` of another as that one, where the answers are
    kept: in DynamoDB. The key of a page's form only makes sure that one thread is made, so that
    both answers to a double click lead to it.
    """
    with_answers = idempotent(view)

    @functools.wraps(view)
    def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        chosen = with_answers if settings.USE_DYNAMODB else view
        response: HttpResponse = chosen(request, *args, **kwargs)
        return response

    return wrapper


def key_of(request: HttpRequest) -> str:
    """Return the key that makes a repeated request write nothing, ``""`` without one."""
    return request.headers.get("Idempotency-Key") or request.POST.get("once", "")


def new_key() -> str:
    """Return a key for a form."""
    return secrets.token_urlsafe(16)


def own_id(request: HttpRequest) -> str:
    """Return the id of the visitor's profile, ``""`` for one who is not logged in."""
    return accounts.profile_id_of(request.user) if request.user.is_authenticated else ""


def after_of(request: HttpRequest, listing: str) -> Any:
    """Return where a page begins, None for the first; 404 for what this site has not made."""
    try:
        return cursors.load(listing, request.GET.get("after", ""))
    except cursors.BadCursor as exc:
        raise Http404(str(exc)) from exc


def version_of(request: HttpRequest) -> int:
    """Return the version that a form was made from, 0 if it has none."""
    text = request.POST.get("version", "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else 0


def show(
    request: HttpRequest, template: str, found: Page[Any], status: int = 200, **context: Any
) -> HttpResponse:
    """Return a page with content that may come from the cache."""
    content = {"page": found.content, "from_cache": found.from_cache, "age": found.age, **context}
    response = render(request, template, content, status=status)
    response["X-Cache"] = "hit" if found.from_cache else "miss"
    return response


def show_form(
    request: HttpRequest, template: str, form: Any, status: int | None = None, **context: Any
) -> HttpResponse:
    """Return a page with a form: status 400 if it has errors."""
    if status is None:
        status = 400 if form.is_bound and form.errors else 200
    return render(request, template, {"form": form, "once": new_key(), **context}, status=status)
