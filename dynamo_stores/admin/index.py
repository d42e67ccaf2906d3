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
    """Leads to the overview; there is nothing to add, change or delete."""

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
        # The log of actions links to the object that was changed: that, too, is the overview.
        lead = self.admin_site.admin_view(_lead)
        return [
            path("", lead, name="dynamo_stores_status_changelist"),
            path("<path:object_id>/change/", lead, name="dynamo_stores_status_change"),
        ]


def _lead(request: HttpRequest, object_id: str = "") -> HttpResponse:
    return HttpResponseRedirect(reverse(OVERVIEW))


def is_included() -> bool:
    """Return whether the project's URLs include the pages."""
    try:
        reverse(OVERVIEW)
    except NoReverseMatch:
        return False
    return True
