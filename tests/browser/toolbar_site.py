"""Pages of a project with django-debug-toolbar, for WSGI and ASGI."""

from __future__ import annotations

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import include, path

from dynamo_stores.client import get_dynamodb_client

application = ASGIStaticFilesHandler(get_asgi_application())


def answer():
    policy = {"Content-Security-Policy": "default-src 'self'"}
    return HttpResponse(
        "<!doctype html><html lang=en><title>Page</title><body><h1>Page</h1></body></html>",
        headers=policy,
    )


def view(request):
    client = get_dynamodb_client()
    list(client.scan("forum-users"))
    for number in range(6):
        client.get("forum-users", {"userId": f"user-{number}"})
    return answer()


async def aview(request):
    client = get_dynamodb_client()
    [_ async for _ in client.scan("forum-users")]
    for number in range(6):
        await client.aget("forum-users", {"userId": f"user-{number}"})
    return answer()


urlpatterns = [
    path("offence/sync/", view),
    path("offence/async/", aview),
    path("__debug__/", include("debug_toolbar.urls")),
    path("", include("project.urls")),
]
