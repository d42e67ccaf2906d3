from django.urls import path

from . import views

app_name = "forum"
urlpatterns = [
    path("", views.front, name="front"),
    path("threads/<path:thread_id>/", views.thread, name="thread"),
]
