from typing import Any

from django.urls import path, re_path

from .problems import not_found, with_problems
from .service import api

_urls: Any = api.urls
for pattern in _urls[0]:
    # The library answers a method that a path does not have with text.
    pattern.callback = with_problems(pattern.callback)
urlpatterns = [
    path("", _urls),
    re_path("", not_found),
]
