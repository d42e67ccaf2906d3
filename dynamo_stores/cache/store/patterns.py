"""
Glob patterns for keys, as in Redis: ``*`` matches any text, ``?`` one character, ``[ab]``, ``[^a]``
and ``[a-z]`` one character of a class, ``\\\\`` the next character itself.
"""

from __future__ import annotations

import re

_SPECIAL = re.compile(r"([*?\[\\])")


def escape(text: str) -> str:
    """Return the pattern that matches ``text`` and nothing else."""
    return _SPECIAL.sub(r"\\\1", text)


def literal_start(pattern: str) -> str:
    """Return the literal text with which all matches of ``pattern`` begin; it may be empty."""
    start = []
    position = 0
    while position < len(pattern):
        character = pattern[position]
        if character in "*?[":
            break
        if character == "\\" and position + 1 < len(pattern):
            position += 1
            character = pattern[position]
        start.append(character)
        position += 1
    return "".join(start)


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return the regular expression for ``pattern``, to be used with ``fullmatch``."""
    # What is between two stars, as regular expressions.
    between: list[str] = [""]
    position = 0
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "*":
            between.append("")
        elif character == "?":
            between[-1] += "."
        elif character == "[":
            found, position = _class(pattern, position)
            between[-1] += found
        else:
            if character == "\\" and position < len(pattern):
                character = pattern[position]
                position += 1
            between[-1] += re.escape(character)
    if len(between) == 1:
        return re.compile(between[0], re.DOTALL)
    start, *middle, end = between
    # The first match of each is as good as a later one: without atomic groups, a text that does
    # not match would be tried with all of them.
    atomic = "".join(f"(?>.*?{each})" for each in middle if each)
    return re.compile(f"{start}{atomic}.*{end}", re.DOTALL)


def _class(pattern: str, position: int) -> tuple[str, int]:
    """
    Return the regular expression for the class that begins at ``position``, and where it ends.

    As in Redis, any character may end a range, ``]`` and ``\\`` too, and a class without an end
    reaches to the end of the pattern.
    """
    is_negated = pattern.startswith("^", position)
    position += is_negated
    members = []
    while position < len(pattern) and pattern[position] != "]":
        low = high = pattern[position]
        if low == "\\" and position + 1 < len(pattern):
            low = high = pattern[position + 1]
            position += 2
        elif pattern[position + 1 : position + 2] == "-" and position + 2 < len(pattern):
            low, high = sorted((low, pattern[position + 2]))
            position += 3
        else:
            position += 1
        members.append(f"{re.escape(low)}-{re.escape(high)}")
    if not members:
        # An empty class matches nothing; negated, anything.
        return ("." if is_negated else r"(?!)"), position + 1
    return f"[{'^' if is_negated else ''}{''.join(members)}]", position + 1
