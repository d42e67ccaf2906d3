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
    found: list[str] = []
    position = 0
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "*":
            # Several stars match the same as one, but backtrack.
            if not found or found[-1] != ".*":
                found.append(".*")
        elif character == "?":
            found.append(".")
        elif character == "[":
            end = _end_of_class(pattern, position)
            found.append(_class(pattern[position:end]))
            position = end + 1
        else:
            if character == "\\" and position < len(pattern):
                character = pattern[position]
                position += 1
            found.append(re.escape(character))
    return re.compile("".join(found), re.DOTALL)


def _end_of_class(pattern: str, position: int) -> int:
    while position < len(pattern) and pattern[position] != "]":
        position += 2 if pattern[position] == "\\" else 1
    return min(position, len(pattern))


def _class(content: str) -> str:
    negated = content.startswith("^")
    members = []
    characters = iter(re.findall(r"\\.|.", content[negated:], re.DOTALL))
    plain = [each[-1] for each in characters]
    position = 0
    while position < len(plain):
        if position + 2 < len(plain) and plain[position + 1] == "-":
            low, high = sorted((plain[position], plain[position + 2]))
            members.append(f"{re.escape(low)}-{re.escape(high)}")
            position += 3
        else:
            members.append(re.escape(plain[position]))
            position += 1
    if not members:
        # An empty class matches nothing; negated, anything.
        return "." if negated else r"(?!)"
    return f"[{'^' if negated else ''}{''.join(members)}]"
