"""Filters of the forum's templates."""

from __future__ import annotations

import unicodedata
import zlib
from datetime import UTC, datetime
from urllib.parse import quote

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from dynamo_stores import clock

from .. import times

register = template.Library()

# Colours of avatars in forum.css.
_COLOURS = 8


@register.filter
def when(moment: datetime) -> SafeString:
    """Return a time as a ``time`` element: how long ago, and the exact time in its title."""
    now = datetime.fromtimestamp(clock.now(), UTC)
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        moment.isoformat(timespec="seconds"),
        times.exact(moment),
        times.ago(moment, now),
    )


@register.filter
def age(seconds: float) -> str:
    """Return a number of seconds in words: ``3 minutes``."""
    return times.in_words(seconds)


@register.filter
def anchor(post_id: str) -> str:
    """Return the id of the element of a post: an id may have characters that it may not."""
    return f"post-{quote(post_id, safe='')}"


@register.filter
def initials(name: str) -> str:
    """
    Return the first letters of the first and the last word; one letter if it is Arabic or of a
    similar script, which would join both.
    """
    words = [word for word in name.split() if word[0].isalnum()] or [name[:1] or "?"]
    if unicodedata.bidirectional(words[0][0]) == "AL":
        return words[0][0]
    letters = [word[0] for word in (words if len(words) == 1 else [words[0], words[-1]])]
    return "".join(letters).upper()


@register.filter
def colour(user_id: str) -> int:
    """Return the number of the colour of a user's avatar."""
    return zlib.crc32(user_id.encode("utf-8", "surrogatepass")) % _COLOURS
