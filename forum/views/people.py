"""Pages of accounts and profiles."""

from __future__ import annotations

import contextlib
from typing import Any
from urllib.parse import unquote, urlsplit

from django.contrib import messages
from django.contrib.auth import get_user_model, login
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import LoginView
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_http_methods, require_safe

from dynamo_stores.exceptions import StoreUnavailable

from .. import accounts, activities, cursors, profiles
from ..accounts import Taken
from ..adapters import Conflict, get_adapter
from ..forms import NAME_TAKEN, LogInForm, ProfileForm, SignUpForm
from ..limits import limit_log_ins, limit_sign_ups
from ..models import User
from .answers import after_of, limit_editing, own_id, page, show_form, staff_only, version_of

ACTIVITIES_PER_PAGE = 50

_form_methods = require_http_methods(["GET", "HEAD", "POST"])
_TAKEN = {
    "username": NAME_TAKEN,
    "email": "Another user has this address. Log in if it is yours, or use another one.",
}


@method_decorator(limit_log_ins, name="dispatch")
class LogIn(LoginView):
    """The log-in page."""

    form_class = LogInForm
    template_name = "forum/login.html"
    redirect_authenticated_user = True

    def get_redirect_url(self, request: HttpRequest | None = None) -> str:
        """Return the page to go on with, ``""`` for the front page."""
        return _next_page(request or self.request)

    def form_valid(self, form: Any) -> HttpResponse:
        """Log in, and finish a sign-up that was cut off; without DynamoDB the next visit does."""
        response = super().form_valid(form)
        with contextlib.suppress(StoreUnavailable):
            accounts.ensure_profile(self.request.user)
        return response


@_form_methods
@limit_sign_ups
@page
def sign_up(request: HttpRequest) -> HttpResponse:
    """A form for a new account."""
    if request.user.is_authenticated:
        return redirect("forum:front")
    target = _next_page(request)
    form = SignUpForm(request.POST if request.method == "POST" else None)
    if not form.is_valid():
        return show_form(request, "forum/sign_up.html", form, next=target)
    data = form.cleaned_data
    try:
        user = accounts.sign_up(
            data["username"], data["email"], data["password1"], name=data["name"]
        )
    except Taken as exc:
        form.add_error(exc.field, _TAKEN[exc.field])
        return show_form(request, "forum/sign_up.html", form, next=target)
    login(request, user)
    messages.success(request, "Welcome! Your account is made.")
    return HttpResponseRedirect(target) if target else redirect("forum:front")


def _next_page(request: HttpRequest) -> str:
    """Return the page of this site to go on with, ``""`` without one; no form to log in is one."""
    target = request.POST.get("next") or request.GET.get("next", "")
    is_own = url_has_allowed_host_and_scheme(
        target, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    forms = (reverse("forum:login"), reverse("forum:sign-up"))
    return target if is_own and unquote(urlsplit(target).path) not in forms else ""


@require_safe
@login_required
@page
def account(request: HttpRequest) -> HttpResponse:
    """Redirects to one's own profile."""
    return redirect("forum:user", accounts.ensure_profile(request.user))


@_form_methods
@login_required
@limit_editing
@page
def edit_profile(request: HttpRequest) -> HttpResponse:
    """One's own name, e-mail address and text about oneself, to be changed."""
    profile_id = accounts.ensure_profile(request.user)
    if request.method != "POST":
        item = get_adapter(User).get_by_id(profile_id, consistent=True) or {}
        form = ProfileForm(initial=item)
        return show_form(request, "forum/edit_profile.html", form, version=item.get("version", 1))
    form, version = ProfileForm(request.POST), version_of(request)
    if not form.is_valid():
        return show_form(request, "forum/edit_profile.html", form, version=version)
    try:
        accounts.edit_profile(profile_id, **form.cleaned_data, version=version)
    except Taken as exc:
        form.add_error(exc.field, _TAKEN[exc.field])
        return show_form(request, "forum/edit_profile.html", form, version=version)
    except Conflict as exc:
        # Read again, for an error of the transaction may be about another item.
        now = exc.item or get_adapter(User).get_by_id(profile_id, consistent=True) or {}
        return show_form(
            request, "forum/edit_profile.html", form, 409,
            version=now.get("version", 1), present=now,
        )  # fmt: skip
    # Django sends mail to the address of the account.
    get_user_model().objects.filter(pk=request.user.pk).update(email=form.cleaned_data["email"])
    messages.success(request, "Your profile is changed.")
    return redirect("forum:user", profile_id)


@require_safe
@login_required
@page
def activity(request: HttpRequest) -> HttpResponse:
    """What one has done in the last 90 days."""
    return _show_activity(request, own_id(request), is_own=True)


@require_safe
@staff_only
@page
def activity_of(request: HttpRequest, user_id: str) -> HttpResponse:
    """What a user has done in the last 90 days, for the staff."""
    return _show_activity(request, user_id, is_own=user_id == own_id(request))


def _show_activity(request: HttpRequest, user_id: str, *, is_own: bool) -> HttpResponse:
    profile = profiles.get_profile(user_id)
    if profile is None and not is_own:
        raise Http404("There is no such user.")
    listing = f"activity.{user_id}"
    after = after_of(request, listing)
    found = activities.page(user_id, size=ACTIVITIES_PER_PAGE, after=after)
    context = {
        "rows": activities.described(found.items),
        "profile": profile,
        "is_own": is_own,
        "days": activities.KEPT_DAYS,
        "is_first": after is None,
        "after": cursors.dump(listing, found.after),
    }
    return render(request, "forum/activity.html", context)
