"""The names of ``django_ratelimit.core``."""

from .decorators import aget_usage, ais_ratelimited, get_usage, is_ratelimited

__all__ = ["aget_usage", "ais_ratelimited", "get_usage", "is_ratelimited"]
