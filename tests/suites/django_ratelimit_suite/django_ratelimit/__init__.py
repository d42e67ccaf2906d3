"""django-ratelimit's names, with ours behind them; its tests come from its own source."""

import os

from dynamo_stores.ratelimit import ALL, UNSAFE

__all__ = ["ALL", "UNSAFE"]
__path__.append(os.path.join(os.environ["DJANGO_RATELIMIT"], "django_ratelimit"))
