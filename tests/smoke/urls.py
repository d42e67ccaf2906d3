"""The status pages, the admin and the health checks."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/dynamo-stores/", include("dynamo_stores.admin.urls")),
    path("admin/", admin.site.urls),
    path("dynamo-stores/", include("dynamo_stores.urls")),
]
