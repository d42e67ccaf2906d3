"""
Accounts: users of Django in SQL, each with a profile in the forum's tables.

User names and e-mail addresses are unique in both: an item reserves each of them before the account
is made. A sign-up that is cut off is finished when the user logs in, or its reservations end.
"""

from __future__ import annotations

import contextlib
import unicodedata
import uuid
from typing import Any

from django.contrib.auth import get_user_model
from django.db import IntegrityError, transaction

from dynamo_stores import clock

from . import activities, keys, profiles, times
from .adapters import (
    MISSING,
    Conflict,
    Create,
    Delete,
    Item,
    ItemExists,
    Operation,
    Table,
    Update,
    WriteRefused,
    get_adapter,
    get_database,
)
from .models import Support, User
from .sql import Account

USER_NAME, EMAIL = "user-name", "email"
# Characters of a profile, in forms and in the API.
MAX_NAME, MAX_BIO = 80, 2_000
# Seconds for which a sign-up holds its names before its account is made.
_HELD = 900


class Taken(Exception):
    """Another user has the name; ``field`` says which: ``username`` or ``email``."""

    def __init__(self, field: str) -> None:
        super().__init__(f"The {field} is taken.")
        self.field = field


def sign_up(username: str, email: str, password: str, name: str = "") -> Any:
    """
    Make an account with its profile; return Django's user. Raises Taken if another user has the
    user name or the e-mail address; nothing is made then.
    """
    holder = uuid.uuid4().hex
    names = {"username": (USER_NAME, username), "email": (EMAIL, email)}
    for field, (kind, value) in names.items():
        try:
            _hold(kind, value, holder)
        except Taken:
            _free(names, holder)
            raise Taken(field) from None
    try:
        with transaction.atomic():
            users: Any = get_user_model().objects
            user = users.create_user(username, email, password, first_name=name)
            Account.objects.create(user=user, profile_id=f"django-{user.pk}")
    except IntegrityError:
        _free(names, holder)
        raise Taken("username") from None
    ensure_profile(user)
    return user


def profile_id_of(user: Any) -> str:
    """Return the id of a user's profile, which may not exist yet."""
    found = Account.objects.filter(user=user).values_list("profile_id", flat=True).first()
    return found or f"django-{user.pk}"


def ensure_profile(user: Any) -> str:
    """Make the profile of a user if it is missing; return its id."""
    account, _ = Account.objects.get_or_create(
        user=user, defaults={"profile_id": f"django-{user.pk}"}
    )
    profile_id = account.profile_id
    if get_adapter(User).get_by_id(profile_id, attributes=["userId"]) is not None:
        return profile_id
    names = {"username": (USER_NAME, user.get_username()), "email": (EMAIL, user.email)}
    held = {
        field: (kind, value)
        for field, (kind, value) in names.items()
        if value and not _is_of_another(kind, value)
    }
    item = {
        "userId": profile_id,
        "name": user.get_full_name() or user.get_username(),
        "username": user.get_username() if "username" in held else None,
        "email": user.email if "email" in held else None,
        "account": user.pk,
        "createdAt": times.now(),
        "version": 1,
    }
    # If it exists, another process has made it.
    with contextlib.suppress(ItemExists):
        get_database().transact(
            [
                Create(Table.of(User), item),
                *(_kept(kind, value, profile_id) for kind, value in held.values()),
                activities.record(profile_id, activities.SIGNED_UP),
            ]
        )
    return profile_id


def edit_profile(
    profile_id: str, *, name: str, bio: str, email: str | None = None, version: int
) -> None:
    """
    Change a profile that was read with a ``version``. A new e-mail address is reserved, and the old
    one freed, with it. Raises Taken, or Conflict if the profile was changed since then.
    """
    users = get_adapter(User)
    item = users.get_by_id(profile_id, consistent=True)
    if item is None or item["version"] != version:
        raise Conflict("The profile was changed.", item=item)
    old = item.get("email")
    operations: list[Operation] = [
        Update(
            users.table,
            {"userId": profile_id},
            {"name": name, "bio": bio or None, **({} if email is None else {"email": email})},
            {"version": 1},
            {"version": version},
        ),
        activities.record(profile_id, activities.EDITED),
    ]
    if email is not None and plain(email) != plain(old or ""):
        reservation = keys.reservation(EMAIL, plain(email))
        operations.append(Create(_support(), {**reservation, "holder": profile_id}))
        if old:
            operations.append(
                Delete(_support(), keys.reservation(EMAIL, plain(old)), {"holder": profile_id})
            )
    try:
        get_database().transact(operations)
    except ItemExists:
        raise Taken("email") from None
    profiles.forget(profile_id)


def link(profile_id: str, user: Any) -> None:
    """
    Give an imported profile to an account; posts of the account's earlier profile stay with that
    one. Raises Taken if the profile has another account, ItemMissing if it does not exist.
    """
    try:
        get_adapter(User).update(profile_id, {"account": user.pk}, expect={"account": MISSING})
    except Conflict as exc:
        # The same call may have been cut off before SQL had it.
        if exc.item is None or exc.item.get("account") != user.pk:
            raise Taken("account") from exc
    Account.objects.update_or_create(user=user, defaults={"profile_id": profile_id})


def _support() -> Table:
    return Table.of(Support)


def plain(value: str) -> str:
    """Return a name or an address without case and compatible forms."""
    return unicodedata.normalize("NFKC", value).casefold()


def _hold(kind: str, value: str, holder: str) -> None:
    """Reserve a name for some minutes. Raises Taken."""
    key, support = keys.reservation(kind, plain(value)), get_adapter(Support)
    item = {**key, "holder": holder, "expiresAt": int(clock.now()) + _HELD}
    try:
        support.create(item)
    except ItemExists as exc:
        if not _has_ended(exc.item):
            raise Taken(kind) from exc
        try:
            support.update(
                key, {"holder": holder, "expiresAt": item["expiresAt"]}, expect=_as_it_is(exc.item)
            )
        except WriteRefused:
            raise Taken(kind) from exc


def _free(names: dict[str, tuple[str, str]], holder: str) -> None:
    """Delete the reservations that a sign-up holds."""
    for kind, value in names.values():
        try:
            get_adapter(Support).delete(
                keys.reservation(kind, plain(value)), expect={"holder": holder}
            )
        except WriteRefused:
            continue


def _kept(kind: str, value: str, profile_id: str) -> Operation:
    key = keys.reservation(kind, plain(value))
    return Update(_support(), key, {"holder": profile_id, "expiresAt": None}, upsert=True)


def _is_of_another(kind: str, value: str) -> bool:
    """Return whether a profile has the name for good."""
    item = get_adapter(Support).get_by_id(keys.reservation(kind, plain(value)), consistent=True)
    return item is not None and "expiresAt" not in item


def _has_ended(item: Item | None) -> bool:
    return item is not None and item.get("expiresAt", clock.now()) < clock.now()


def _as_it_is(item: Item | None) -> dict[str, Any]:
    return {name: (item or {}).get(name) for name in ("holder", "expiresAt")}
