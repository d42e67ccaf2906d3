"""The words of titles, and the items that find threads by them."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from . import keys

# Longer words are found by their beginning.
_LONGEST = 40
# Of a title: so many words, old and new, fit one transaction.
MAX_WORDS = 45

_WORD = re.compile(r"\w+")
# Control and format characters, separators, and marks without a letter.
_INVISIBLE = frozenset(["Cc", "Cf", "Cs", "Mn", "Me", "Zl", "Zp", "Zs"])
# Letters and symbols that are blank: Hangul fillers and the empty Braille pattern.
_BLANK = frozenset("\u115f\u1160\u3164\uffa0\u2800")


def words_of(text: str) -> list[str]:
    """Return the words of a title or a search, each once: without case and compatible forms."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return list(dict.fromkeys(word[:_LONGEST] for word in _WORD.findall(plain)))


def is_visible(text: str) -> bool:
    """Return whether a text has a character that can be seen."""
    return any(unicodedata.category(each) not in _INVISIBLE and each not in _BLANK for each in text)


def has_words(title: str, wanted: list[str]) -> bool:
    """Return whether each of ``wanted`` is the beginning of a word of the title."""
    found = words_of(title)
    return all(any(word.startswith(each) for word in found) for each in wanted)


def entry(word: str, thread: dict[str, Any]) -> dict[str, Any]:
    """Return the item that finds a thread by a word of its title; the newest is found first."""
    return {
        "PK": keys.words(word),
        "SK": f"{word}#{thread['createdAt']}#{thread['threadId']}",
        "threadId": thread["threadId"],
        "title": thread["title"],
    }
