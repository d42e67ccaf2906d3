"""The entry on the admin's index."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import NoReverseMatch, URLPattern, path, reverse

from .permissions import Status

OVERVIEW = "dynamo_stores_admin:overview"


@admin.register(Status)
class StatusAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """An entry that redirects to the overview; objects cannot be added, changed or deleted."""

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        user: Any = request.user
        return is_included() and bool(user.has_perm("dynamo_stores.view_status"))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_urls(self) -> list[URLPattern]:
        # The admin's log links to the changed object, which is shown on the overview too.
        redirect = self.admin_site.admin_view(_redirect)
        return [
            path("", redirect, name="dynamo_stores_status_changelist"),
            path("<path:object_id>/change/", redirect, name="dynamo_stores_status_change"),
        ]


def _redirect(request: HttpRequest, object_id: str = "") -> HttpResponse:
    return HttpResponseRedirect(reverse(OVERVIEW))


def is_included() -> bool:
    """Return whether the project's URLs include the pages."""
    try:
        reverse(OVERVIEW)
    except NoReverseMatch:
        return False
    return True
