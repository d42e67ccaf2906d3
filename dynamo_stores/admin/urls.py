"""``path("admin/dynamo-stores/", include("dynamo_stores.admin.urls"))``, before ``admin/``."""

from django.contrib import admin
from django.urls import path

from . import views

app_name = "dynamo_stores_admin"
urlpatterns = [
    path("", admin.site.admin_view(views.overview), name="overview"),
    path("breakers/", admin.site.admin_view(views.breakers), name="breakers"),
    path("history/", admin.site.admin_view(views.history), name="history"),
    path("latency/", admin.site.admin_view(views.latency), name="latency"),
    path("cost/", admin.site.admin_view(views.cost), name="cost"),
    path("cache/", admin.site.admin_view(views.cache), name="cache"),
    path("limits/", admin.site.admin_view(views.limits), name="limits"),
    path("jobs/", admin.site.admin_view(views.jobs), name="jobs"),
    path("act/", admin.site.admin_view(views.act), name="act"),
]
