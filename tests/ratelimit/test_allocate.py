"""How a limit is shared between users and background work."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamo_stores.ratelimit.adaptive import DEFAULTS, allocate

NOW = 1_800_000_000.0


def at(*ages):
    return [NOW - age for age in ages]


@pytest.mark.parametrize(
    ("users", "background", "reserved", "paused", "trend"),
    [
        ((), (), 60, False, "none"),
        ((), (5,), 5, False, "none"),
        ((1801,), (), 0, False, "none"),
        ((1000,), (5,), 5, False, "none"),
        ((899,), (), 60, False, "none"),
        ((10, 20), (), 60, False, "increasing"),
        # 0.4 of 200, times 1 + 3 / 10, times 1.2
        ((10, 20, 30), (), 124, False, "increasing"),
        # without the trend's factor
        ((10, 310, 320), (), 104, False, "stable"),
        ((10, 20, 310, 320), (), 112, False, "stable"),
        ((310, 320, 330, 340, 350), (), 96, False, "decreasing"),
        # no more than 0.7 of the limit
        (tuple(range(1, 10)), (), 140, False, "increasing"),
        # no more than 0.9 of it
        (tuple(range(1, 11)), (), 180, True, "increasing"),
        ((*range(1, 7), *range(301, 307)), (), 180, False, "stable"),
    ],
)
def test_the_table(users, background, reserved, paused, trend):
    """The cases of the table, for a limit of 200."""
    found = allocate(200, user_requests=at(*users), background_requests=at(*background), now=NOW)
    assert (found.user_reserved, found.background_max) == (reserved, 200 - reserved)
    assert (found.paused, found.trend) == (paused, trend)
    assert found.reason


def test_settings_change_it():
    """Thresholds, scaling, the pause, the least that users have."""
    users = at(*range(1, 6))
    config = replace(DEFAULTS, high_activity_threshold=5, max_user_scaling=1.0)
    found = allocate(100, user_requests=users, background_requests=[], now=NOW, config=config)
    assert found[:3] == (50, 50, True)
    config = replace(config, pause_background_on_increasing_trend=False)
    assert not allocate(
        100, user_requests=users, background_requests=[], now=NOW, config=config
    ).paused
    config = replace(DEFAULTS, min_user_reserved=50)
    assert allocate(100, user_requests=[], background_requests=[], now=NOW, config=config)[0] == 50


@given(st.lists(st.integers(0, 4000), max_size=60), st.lists(st.integers(0, 4000), max_size=5))
def test_counts_of_times_are_the_same_as_their_requests(users, background):
    """A dict of times and counts is shared like a list that repeats the times."""
    first, second = (
        allocate(200, user_requests=u, background_requests=b, now=NOW)
        for u, b in (
            (at(*users), at(*background)),
            (Counter(at(*users)), Counter(at(*background))),
        )
    )
    assert first == second


AGES = st.lists(st.floats(0, 4000), max_size=40)


@given(st.integers(0, 10_000), AGES, AGES, st.floats(1, 10))
def test_the_parts_add_up(limit, users, background, scaling):
    """For any limit, down to 1 and 0."""
    found = allocate(
        limit,
        user_requests=at(*users),
        background_requests=at(*background),
        now=NOW,
        config=replace(DEFAULTS, max_user_scaling=scaling),
    )
    assert found.user_reserved >= 0
    assert found.background_max >= 0
    assert found.user_reserved + found.background_max == limit
    active = [age for age in users if age < 900]
    if len(active) >= 10:
        assert found.user_reserved <= 0.9 * limit
        most = math.floor(0.5 * limit * scaling)
        assert found.user_reserved == math.floor(min(0.9 * limit, most))
    elif len(active) >= 3:
        assert found.user_reserved <= 0.7 * limit
        assert found.user_reserved >= min(math.floor(0.4 * limit), math.floor(0.7 * limit))
    assert not found.paused or (len(active) >= 10 and found.trend == "increasing")
