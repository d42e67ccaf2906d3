"""The names of ``django_ratelimit.exceptions``."""

from ..exceptions import RateLimited, Ratelimited

__all__ = ["RateLimited", "Ratelimited"]
