"""Moments and numbers in the templates of the status pages."""

from __future__ import annotations

from datetime import UTC, datetime

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from ..monitoring import formatting as words

register = template.Library()


@register.simple_tag
def moment(at: float, now: float) -> SafeString:
    """Return how long ago, or in how long, with the exact time in UTC to read and to hover."""
    return _time(at, words.ago(at, now))


@register.simple_tag
def exactly(at: float) -> SafeString:
    """Return the moment in UTC, to the second."""
    return _time(at, words.exact(at))


def _time(at: float, text: str) -> SafeString:
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds"),
        words.exact(at),
        text,
    )


register.filter("short_number", words.number)
