"""Profiles of users, read through the cache named ``profiles``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from django.core.cache import caches

from dynamo_stores.exceptions import StoreUnavailable

from . import times
from .adapters import Item, get_adapter
from .models import User

# Seconds for which a profile is cached; a change replaces it there.
_FRESH_FOR = 300
_SHOWN = ["userId", "number", "name", "username", "bio", "createdAt"]


@dataclass(frozen=True)
class Profile:
    """What everybody may see of a user; ``number`` is an imported id that was a number."""

    user_id: str
    name: str
    username: str
    bio: str
    created_at: str
    number: int | None = None

    @classmethod
    def of(cls, item: Item) -> Self:
        """Return the profile of an item."""
        number = item.get("number")
        return cls(
            item["userId"],
            item["name"],
            item.get("username") or "",
            item.get("bio") or "",
            item["createdAt"],
            None if number is None else int(number),
        )

    @property
    def since(self) -> Any:
        """The time of the first visit."""
        return times.moment_of(self.created_at)


def get_profiles(
    user_ids: Iterable[str | None], *, perhaps_partly: bool = False
) -> dict[str, Profile]:
    """
    Return the profiles of users that exist, by their ids; with ``perhaps_partly`` those that this
    process knows, while DynamoDB does not answer.

    Those that this process has lately read take no call; otherwise one BatchGetItem of the cache,
    and one of the table for those that are not cached.
    """
    wanted = sorted({each for each in user_ids if each})
    if not wanted:
        return {}
    cache = caches["profiles"]
    found: dict[str, Profile] = cache.get_many(wanted)
    if missing := [each for each in wanted if each not in found]:
        try:
            # Strongly: what is read just after a change would stay in the cache.
            items = get_adapter(User).get_many(missing, consistent=True, attributes=_SHOWN)
        except StoreUnavailable:
            if perhaps_partly:
                return found
            raise
        read = {item["userId"]: Profile.of(item) for item in items}
        cache.set_many(read, _FRESH_FOR)
        found |= read
    return found


def get_profile(user_id: str) -> Profile | None:
    """Return the profile of a user, None if there is none."""
    return get_profiles([user_id]).get(user_id)


def remember(item: Item) -> None:
    """Put a profile that was changed into the cache, as its item is now."""
    caches["profiles"].set(item["userId"], Profile.of(item), _FRESH_FOR)
