"""Template tags and filters for the times and numbers on the status pages."""

from __future__ import annotations

from datetime import UTC, datetime

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from ..monitoring import formatting

register = template.Library()


@register.simple_tag
def moment(at: float, now: float) -> SafeString:
    """Return the relative time, with the exact time in UTC as title and ``datetime``."""
    return _time(at, formatting.ago(at, now))


@register.simple_tag
def clock(at: float, now: float) -> SafeString:
    """Return the time of day in UTC, with the date unless it is that of ``now``."""
    return _time(at, formatting.clock_time(at, now))


@register.simple_tag
def exactly(at: float) -> SafeString:
    """Return the moment in UTC, to the second."""
    return _time(at, formatting.exact(at))


def _time(at: float, text: str) -> SafeString:
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds"),
        formatting.exact(at),
        text,
    )


register.filter("short_number", formatting.number)
register.filter("milliseconds", formatting.milliseconds)
