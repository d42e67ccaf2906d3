"""Status pages inside Django's admin; ``path("admin/dynamo-stores/", include(…admin.urls))``."""
