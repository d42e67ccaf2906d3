"""A site of one limited page, for servers with several workers."""

import os

from django.conf import settings
from django.http import HttpResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    DYNAMO_STORES={
        "default": {
            "ENDPOINT_URL": os.environ["DYNAMODB_ENDPOINT"],
            "TABLE_PREFIX": os.environ["DYNAMODB_TABLE_PREFIX"],
        }
    },
    INSTALLED_APPS=["dynamo_stores"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="limited-site",
)

from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402

from dynamo_stores.asgi import with_last_report  # noqa: E402
from dynamo_stores.decorators import ratelimit  # noqa: E402


@ratelimit("page", "header:x-client", "50/2s")
def page(request):
    return HttpResponse("admitted")


@ratelimit("async page", "header:x-client", "50/2s")
async def async_page(request):
    return HttpResponse("admitted")


urlpatterns = [path("page", page), path("async", async_page)]
wsgi = get_wsgi_application()
asgi = with_last_report(get_asgi_application())
