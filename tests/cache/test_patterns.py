"""Glob patterns as Redis has them."""

from __future__ import annotations

import random

import pytest

from dynamo_stores.cache.store.patterns import compile_pattern, escape, literal_start


@pytest.mark.parametrize(
    ("pattern", "matches", "others"),
    [
        ("*", ["", "a", "a\nb", "é"], []),
        ("user:*", ["user:", "user:1"], ["user", "xuser:1"]),
        ("h?llo", ["hello", "h\nllo"], ["hllo", "heello"]),
        ("h[ae]llo", ["hello", "hallo"], ["hillo", "h[llo"]),
        ("h[^e]llo", ["hallo"], ["hello", "hllo"]),
        ("h[a-c]llo", ["hallo", "hcllo"], ["hdllo", "h-llo"]),
        ("h[c-a]llo", ["hbllo"], ["hdllo"]),
        ("[a\\]]", ["a", "]"], ["\\"]),
        ("[a-]", ["a", "]", "_"], ["b", "-"]),
        ("a\\*b", ["a*b"], ["axb", "a\\*b"]),
        ("a[b", ["ab"], ["a[b"]),
        ("[]x", [], ["x", "[]x"]),
        (".+(", [".+("], ["aa("]),
        ("", [""], ["a"]),
        ("a\\", ["a\\"], ["a"]),
    ],
)
def test_what_matches(pattern, matches, others):
    """The whole text, every character, nothing of regular expressions."""
    found = compile_pattern(pattern)
    assert [text for text in matches if not found.fullmatch(text)] == []
    assert [text for text in others if found.fullmatch(text)] == []


def test_escaped_text_matches_itself_alone():
    """Whatever it holds."""
    noise = random.Random(5)
    for _ in range(500):
        text = "".join(noise.choices("ab*?[]^-\\:.\n", k=noise.randrange(8)))
        found = compile_pattern(escape(text))
        assert found.fullmatch(text)
        assert not found.fullmatch(text + "x")
        assert literal_start(escape(text)) == text


def test_the_literal_start_begins_every_match():
    """It ends where anything else may stand."""
    assert literal_start("user:1*2") == "user:1"
    assert literal_start("a\\*b?") == "a*b"
    assert literal_start("[ab]") == ""
    assert literal_start("plain") == "plain"


def test_many_stars_cost_no_backtracking_without_end():
    """A row of stars is one star; stars between characters do not multiply."""
    assert compile_pattern("*" * 50 + "x").pattern == ".*x"
    assert not compile_pattern("*" * 50 + "x").fullmatch("a" * 5000)
    assert not compile_pattern("*a" * 30 + "*x").fullmatch("a" * 5000)
    assert not compile_pattern("*[ab]?" * 30 + "*x").fullmatch("a" * 5000)


def redis_matches(pattern, text):
    """``stringmatchlen`` of Redis (util.c), character by character."""
    while pattern and text:
        first = pattern[0]
        if first == "*":
            rest = pattern.lstrip("*")
            return any(redis_matches(rest, text[n:]) for n in range(len(text) + 1))
        if first == "[":
            pattern = pattern[1:]
            negated = pattern.startswith("^")
            pattern = pattern[negated:]
            found = False
            while True:
                if len(pattern) >= 2 and pattern[0] == "\\":
                    pattern = pattern[1:]
                    found |= pattern[0] == text[0]
                elif not pattern or pattern[0] == "]":
                    break
                elif len(pattern) >= 3 and pattern[1] == "-":
                    low, high = sorted((pattern[0], pattern[2]))
                    pattern = pattern[2:]
                    found |= low <= text[0] <= high
                else:
                    found |= pattern[0] == text[0]
                pattern = pattern[1:]
            if found == negated:
                return False
        elif first != "?":
            if first == "\\" and len(pattern) >= 2:
                pattern = pattern[1:]
            if pattern[0] != text[0]:
                return False
        pattern, text = pattern[1:], text[1:]
    return not pattern.lstrip("*") and not text


def test_random_patterns_match_as_in_redis():
    """Also those that nobody writes: classes without an end, ranges to a bracket."""
    noise = random.Random(7)
    for _ in range(20_000):
        pattern = "".join(noise.choices("ab-]*?[^\\", k=noise.randrange(9)))
        text = "".join(noise.choices("ab-]^\\", k=noise.randrange(5)))
        is_match = compile_pattern(pattern).fullmatch(text) is not None
        assert is_match == redis_matches(pattern, text), (pattern, text)


@pytest.mark.parametrize(
    ("pattern", "matches", "others"),
    [
        ("x[ab\\]c]y", ["xay", "x]y", "xcy"], ["x\\y", "xdy", "xa"]),
        ("[\\]a]", ["]", "a"], ["\\"]),
        ("[\\]]x]", ["]x]"], ["x", "]"]),
        ("[\\\\]x", ["\\x"], ["]x", "x"]),
        ("[a\\", ["a", "\\"], ["b"]),
        ("[a\nb]", ["\n", "b"], ["c"]),
        ("[a\\\nb]", ["\n"], ["\\"]),
        ("[^\n]", ["a"], ["\n"]),
        ("[xa-cz]", ["x", "a", "b", "c", "z"], ["-", "y", "w"]),
        ("[a-cx-z]", ["b", "y"], ["-", "e"]),
        ("[a-ce-g]", ["a", "c", "e", "f", "g"], ["d", "-"]),
        ("[a-c-e]", ["b", "-", "e"], ["d"]),
        ("[-a]", ["-", "a"], ["b"]),
        ("[a-]x", ["a", "]", "x"], ["ax", "-x", "-"]),
        ("[ab^]", ["a", "^"], ["X", "c"]),
        ("[^^]", ["a"], ["^"]),
        ("[ab]X", ["aX", "bX"], ["XX"]),
        ("[abX]", ["X"], ["c"]),
        ("[ab]", ["a", "b"], ["X", "", "ab"]),
        ("x[^]", ["xa", "x\n"], ["x", "xab"]),
        ("x[", [], ["x", "x[", "xa"]),
        ("a*b*", ["ab", "axbx"], ["a", "xab"]),
        ("**", ["", "ab"], []),
        ("??", ["ab"], ["a", "abc"]),
        ("\\\\", ["\\"], ["\\\\"]),
        ("\\a", ["a"], ["\\a"]),
        ("[ab]*[cd]", ["ac", "bxd"], ["a", "xc"]),
    ],
)
def test_the_boundaries_of_classes_and_escapes(pattern, matches, others):
    """Escaped brackets, ranges beside each other, empty classes, classes without an end."""
    found = compile_pattern(pattern)
    assert [text for text in matches if not found.fullmatch(text)] == []
    assert [text for text in others if found.fullmatch(text)] == []


def test_the_literal_start_ends_before_what_is_not_literal():
    """A backslash at the end is a character; characters after an escaped one belong to it."""
    assert literal_start("") == ""
    assert literal_start("*a") == ""
    assert literal_start("a?b") == "a"
    assert literal_start("ab[c]d") == "ab"
    assert literal_start("ab\\") == "ab\\"
    assert literal_start("\\[a\\]b*") == "[a]b"
    assert literal_start("\\\\*") == "\\"
