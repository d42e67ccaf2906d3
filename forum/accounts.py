"""
Accounts: users of Django in SQL, each with a profile in the forum's tables.

``Account`` has the id of the profile, which is random, before the profile is made. User names and
e-mail addresses are unique in both: an item reserves each of them for the profile. A sign-up that
is cut off is finished when the user logs in, or its reservations end.
"""

from __future__ import annotations

import contextlib
import logging
import unicodedata
import uuid
from functools import partial
from typing import Any

from django.contrib.auth import get_user_model
from django.db import DatabaseError, IntegrityError, transaction

from dynamo_stores import clock
from dynamo_stores.exceptions import StoreError, StoreUnavailable

from . import activities, keys, profiles, times
from .adapters import (
    MISSING,
    Conflict,
    Create,
    Delete,
    Item,
    ItemMissing,
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
# The kinds of reservations, by the attributes of profiles and fields of users.
RESERVED = {"username": USER_NAME, "email": EMAIL}
# Characters of a profile, in forms and in the API.
MAX_NAME, MAX_BIO = 80, 2_000
# As in Django's accounts.
MAX_EMAIL = 254
# Seconds for which a sign-up holds its names before its account is made.
_HELD = 900

logger = logging.getLogger(__name__)


class Taken(Exception):
    """Another user has the name; ``field`` says which: ``username`` or ``email``."""

    def __init__(self, field: str) -> None:
        super().__init__(f"The {field} is taken.")
        self.field = field


class Linked(Exception):
    """The user writes under another imported profile: ``profile_id``."""

    def __init__(self, profile_id: str) -> None:
        super().__init__(f"The user has the profile {profile_id!r}.")
        self.profile_id = profile_id


def sign_up(username: str, email: str, password: str, name: str = "") -> Any:
    """
    Make an account with its profile; return Django's user. Raises Taken if another user has the
    user name or the e-mail address; nothing is made then.
    """
    profile_id = _new_id()
    names = {"username": username, "email": email}
    held = []
    for field, value in names.items():
        operation = reserving(field, value, profile_id, until=int(clock.now()) + _HELD)
        if operation is None or _has_another_user(field, value, profile_id):
            raise Taken(field)
        held.append(operation)
    try:
        get_database().transact(held)
        with transaction.atomic():
            users: Any = get_user_model().objects
            user = users.create_user(username, email, password, first_name=name)
            Account.objects.create(user=user, profile_id=profile_id)
    except WriteRefused as exc:
        raise Taken([*names][exc.position]) from exc
    except (DatabaseError, StoreUnavailable) as exc:
        with contextlib.suppress(StoreUnavailable):
            _free(names, profile_id)
        if isinstance(exc, IntegrityError):
            raise Taken("username") from exc
        raise
    _make_profile(user, profile_id)
    return user


def profile_id_of(user: Any) -> str:
    """Return the id of a user's profile, which may not exist yet; ``""`` before the first visit."""
    return Account.objects.filter(user=user).values_list("profile_id", flat=True).first() or ""


def ensure_profile(user: Any) -> str:
    """Make the profile of a user if it is missing; return its id."""
    while True:
        account, _ = Account.objects.get_or_create(user=user, defaults={"profile_id": _new_id()})
        profile_id = account.profile_id
        item = get_adapter(User).get_by_id(profile_id, attributes=["userId", "account"])
        is_own = item is not None and item.get("account") == user.pk
        if is_own or _make_profile(user, profile_id):
            return profile_id
        # The tables are of another SQL database, and the profile is that of a user there.
        Account.objects.filter(pk=account.pk, profile_id=profile_id).update(
            profile_id=_new_id(), is_linked=False
        )


def edit_profile(
    profile_id: str, *, name: str, bio: str, email: str | None = None, version: int
) -> None:
    """
    Change a profile that was read with a ``version``. A new e-mail address is reserved, and the old
    one freed, with it. Raises Taken, or Conflict if the profile was changed otherwise since then.
    """
    users = get_adapter(User)
    item = users.get_by_id(profile_id, consistent=True)
    change = {"name": name, "bio": bio or None, **({} if email is None else {"email": email})}
    if item is None or item["version"] != version:
        conflict = Conflict("The profile was changed.", item=item)
        # The process that made the change may have ended before it was in the cache.
        profiles.remember(conflict.own_change(version, change))
        return
    operations: list[Operation] = [
        Update(users.table, {"userId": profile_id}, change, {"version": 1}, {"version": version}),
        activities.record(profile_id, activities.EDITED),
    ]
    of_profile = len(operations)
    old = item.get("email") or ""
    if email is not None and plain(email) != plain(old):
        operation = reserving("email", email, profile_id)
        if operation is None or _has_another_user("email", email, profile_id):
            raise Taken("email")
        operations.append(operation)
        if _holds(profile_id, "email", old):
            operations.append(_freeing(profile_id, "email", old))
    try:
        get_database().transact(operations)
    except WriteRefused as exc:
        if exc.position >= of_profile:
            raise Taken("email") from exc
        if not isinstance(exc, Conflict):
            raise
        item = exc.own_change(version, change)
    profiles.remember({**item, **change})


def link(profile_id: str, user: Any, *, replace: bool = False) -> None:
    """
    Give an imported profile to an account. Posts of the account's earlier profile stay with that
    one; the account's user name and e-mail address go to the new one, or are free if it has others.

    Raises Taken if the profile has another account, ItemMissing if it does not exist, Linked if the
    account has another imported profile, unless ``replace``, and Conflict if one of the profiles
    was changed meanwhile.
    """
    account = Account.objects.filter(user=user).first()
    former = "" if account is None else account.profile_id
    if account is not None and account.is_linked and former != profile_id and not replace:
        raise Linked(former)
    users = get_adapter(User)
    new = users.get_by_id(profile_id, consistent=True)
    if new is None:
        raise ItemMissing("The profile does not exist.")
    others = Account.objects.filter(profile_id=profile_id).exclude(user=user)
    if new.get("account", user.pk) != user.pk or others.exists():
        raise Taken("account")
    operations: list[Operation] = []
    changed: list[Item] = []
    given: Item = {"account": user.pk}
    old = users.get_by_id(former, consistent=True) if former not in ("", profile_id) else None
    if old is not None and old.get("account") == user.pk:
        removed, moved, operations = _handed_over(user, old, new)
        given |= moved
        operations.append(_changing(old, removed))
        changed.append({**old, **removed})
    if changed or "account" not in new:
        operations.append(_changing(new, given))
        changed.append({**new, **given})
        get_database().transact(operations)
    # The command can be repeated if it is cut off here.
    Account.objects.update_or_create(
        user=user, defaults={"profile_id": profile_id, "is_linked": True}
    )
    for item in changed:
        profiles.remember(item)


def release(profile_id: str, account: int) -> None:
    """
    Take the account of a user who is deleted from a profile, with the user name and the e-mail
    address, which are free then. Its name and posts stay. Raises Conflict if it was changed
    meanwhile.
    """
    item = get_adapter(User).get_by_id(profile_id, consistent=True)
    if item is None or item.get("account") != account:
        return
    removed: Item = {"account": None, **dict.fromkeys(RESERVED)}
    operations: list[Operation] = [_changing(item, removed)]
    for field in RESERVED:
        if (value := item.get(field)) and _holds(profile_id, field, value):
            operations.append(_freeing(profile_id, field, value))
    get_database().transact(operations)
    profiles.remember({**item, **removed})


def release_deleted(instance: Any, using: str, **kwargs: Any) -> None:
    """Release the profile of an account that is deleted, as soon as that is certain."""
    transaction.on_commit(partial(_try_to_release, instance.profile_id, instance.user_id), using)


def _try_to_release(profile_id: str, account: int) -> None:
    try:
        release(profile_id, account)
    except (StoreError, WriteRefused) as exc:
        logger.warning(
            "The profile %s of a deleted account keeps its names (%s). "
            "Run: manage.py forum_verify --repair --free-names",
            profile_id,
            exc,
        )


def reserving(
    field: str, value: str, profile_id: str, until: int | None = None
) -> Operation | None:
    """
    Return the operation that reserves a name for a profile, for good or ``until`` a time (seconds
    since 1970); None if another profile has the name.
    """
    support, key = _support(), _reservation(field, value)
    found = get_adapter(Support).get_by_id(key, consistent=True)
    if found is None:
        return Create(support, {**key, "holder": profile_id, "expiresAt": until})
    holder, ends = found["holder"], found.get("expiresAt")
    if holder != profile_id and (ends is None or ends >= clock.now()):
        return None
    expect = {"holder": holder, "expiresAt": MISSING if ends is None else ends}
    return Update(support, key, {"holder": profile_id, "expiresAt": until}, expect=expect)


def plain(value: str) -> str:
    """Return a name or an address without case and compatible forms."""
    return unicodedata.normalize("NFKC", value).casefold()


def _new_id() -> str:
    # Nobody can guess it, and no other SQL database or file has it by chance.
    return uuid.uuid4().hex


def _make_profile(user: Any, profile_id: str) -> bool:
    """
    Make the profile of a user, or take one without an account. Return False if it has another
    account.
    """
    users = get_adapter(User)
    names = {"username": user.get_username(), "email": user.email}
    while True:
        reserved = {
            field: operation
            for field, value in names.items()
            if value and (operation := reserving(field, value, profile_id)) is not None
        }
        profile = {
            "userId": profile_id,
            "name": user.get_full_name() or user.get_username(),
            **{field: names[field] for field in reserved},
            "account": user.pk,
            "createdAt": times.now(),
            "version": 1,
        }
        operations: list[Operation] = [
            Create(users.table, profile),
            activities.record(profile_id, activities.SIGNED_UP),
            *reserved.values(),
        ]
        try:
            get_database().transact(operations)
        except WriteRefused as exc:
            if exc.position:
                # Another profile has got a name meanwhile.
                continue
            found = exc.item or {}
        else:
            return True
        if "account" in found:
            return bool(found["account"] == user.pk)
        # As after an export and import of the tables, which have no accounts.
        with contextlib.suppress(WriteRefused):
            users.update(profile_id, {"account": user.pk}, expect={"account": MISSING})
            return True


def _handed_over(user: Any, old: Item, new: Item) -> tuple[Item, Item, list[Operation]]:
    """
    Return the names of the account that an old profile loses, those of them that a new one gets,
    and the operations on their reservations.
    """
    removed: Item = {"account": None}
    given: Item = {}
    operations: list[Operation] = []
    for field, value in (("username", user.get_username()), ("email", user.email)):
        if not value or plain(old.get(field) or "") != plain(value):
            continue
        removed[field] = None
        if not _holds(old["userId"], field, value):
            continue
        if new.get(field):
            operations.append(_freeing(old["userId"], field, value))
        else:
            given[field] = old[field]
            holder, key = {"holder": new["userId"]}, _reservation(field, value)
            expect = {"holder": old["userId"]}
            operations.append(Update(_support(), key, holder, expect=expect))
    return removed, given, operations


def _changing(profile: Item, change: Item) -> Operation:
    expect = {"version": profile["version"], "account": profile.get("account", MISSING)}
    return Update(Table.of(User), {"userId": profile["userId"]}, change, {"version": 1}, expect)


def _has_another_user(field: str, value: str, profile_id: str) -> bool:
    """Return whether a user without this profile has a name, such as one without any profile."""
    found: Any = get_user_model().objects.filter(**{f"{field}__iexact": value})
    return bool(found.exclude(forum_account__profile_id=profile_id).exists())


def _support() -> Table:
    return Table.of(Support)


def _reservation(field: str, value: str) -> Item:
    return keys.reservation(RESERVED[field], plain(value))


def _holds(profile_id: str, field: str, value: str) -> bool:
    found = get_adapter(Support).get_by_id(_reservation(field, value), consistent=True)
    return found is not None and found["holder"] == profile_id


def _freeing(profile_id: str, field: str, value: str) -> Operation:
    return Delete(_support(), _reservation(field, value), {"holder": profile_id})


def _free(names: dict[str, str], profile_id: str) -> None:
    """Delete the reservations that a sign-up holds."""
    for field, value in names.items():
        with contextlib.suppress(WriteRefused):
            get_adapter(Support).delete(_reservation(field, value), expect={"holder": profile_id})
