from django.conf import settings
from django.contrib import admin
from django.urls import include, path

from forum.limits import limit_log_ins

admin.site.login = limit_log_ins(admin.site.login)  # type: ignore[method-assign]
# Status and health are those of DynamoDB.
of_dynamodb = [
    path("admin/dynamo-stores/", include("dynamo_stores.admin.urls")),
    path("dynamo-stores/", include("dynamo_stores.urls")),
]
urlpatterns = [
    *(of_dynamodb if settings.USE_DYNAMODB else []),
    path("admin/", admin.site.urls),
    path("api/", include("forum.api.urls")),
    path("", include("forum.urls")),
]
