"""A site that reads a cache, with a page for Prometheus, for servers with several workers."""

import os

from django.conf import settings
from django.http import HttpResponse
from django.urls import include, path

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    CACHES={"default": {"BACKEND": "dynamo_stores.cache.DynamoDBCache", "LOCATION": "default"}},
    DYNAMO_STORES={
        "default": {
            "ENDPOINT_URL": os.environ["DYNAMODB_ENDPOINT"],
            "TABLE_PREFIX": os.environ["DYNAMODB_TABLE_PREFIX"],
            "REPORTS": {"ENABLED": False},
            "METRICS": {
                "SINKS": ["dynamo_stores.monitoring.sinks.prometheus.PrometheusSink"],
                "OPTIONS": {
                    "dynamo_stores.monitoring.sinks.prometheus.PrometheusSink": {
                        "FOLDER": os.environ["METRICS_FOLDER"],
                        "INTERVAL": 0.5,
                    }
                },
                "TOKEN": "token",
            },
        }
    },
    INSTALLED_APPS=["dynamo_stores"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="measured-site",
)

from django.core.cache import cache  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402


def page(request):
    cache.get(request.GET.get("key", "k"))
    return HttpResponse(str(os.getpid()))


urlpatterns = [path("page", page), path("", include("dynamo_stores.urls"))]
wsgi = get_wsgi_application()
