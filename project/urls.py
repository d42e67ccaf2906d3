from django.contrib import admin
from django.urls import include, path

from forum.limits import limit_log_ins

admin.site.login = limit_log_ins(admin.site.login)  # type: ignore[method-assign]
urlpatterns = [
    path("admin/dynamo-stores/", include("dynamo_stores.admin.urls")),
    path("admin/", admin.site.urls),
    path("dynamo-stores/", include("dynamo_stores.urls")),
    path("", include("forum.urls")),
]
