"""Public URLs: ``path("dynamo-stores/", include("dynamo_stores.urls"))``."""

from django.urls import path

from . import views

app_name = "dynamo_stores"
urlpatterns = [
    path("health/live", views.live, name="live"),
    path("health/ready", views.ready, name="ready"),
    path("metrics/", views.metrics, name="metrics"),
]
