"""The Celery application: ``celery --app project worker --beat``."""

import os
from pathlib import Path

from celery import Celery
from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

app = Celery("project")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@app.on_after_finalize.connect
def schedule(sender: Celery, **kwargs: object) -> None:
    """Set beat's schedule from the settings."""
    from dynamo_stores import tasks
    from forum import tasks as forum_tasks

    of_dynamodb = tasks.beat_schedule() if settings.USE_DYNAMODB else {}
    sender.conf.beat_schedule = {**of_dynamodb, **forum_tasks.beat_schedule()}


@app.on_configure.connect
def make_folders(**kwargs: object) -> None:
    """Create the folders of the ``filesystem://`` broker."""
    options = getattr(settings, "CELERY_BROKER_TRANSPORT_OPTIONS", {})
    for name, folder in options.items():
        if name.endswith(("_in", "_out", "_folder")):
            Path(folder).mkdir(parents=True, exist_ok=True)
