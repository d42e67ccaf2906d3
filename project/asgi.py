import os

from django.core.asgi import get_asgi_application

from dynamo_stores.asgi import with_last_report

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
application = with_last_report(get_asgi_application())
