"""
The forum's four tables. Times are ISO 8601 in UTC with microseconds, so that they sort as text.

Attributes keep the camelCase names of the stored items. The indexes hold keys alone: the items
that a page shows are read by key, so that what a reply changes is written once.
"""

from __future__ import annotations

from typing import ClassVar

from pynamodb.attributes import (
    BooleanAttribute,
    NumberAttribute,
    TTLAttribute,
    UnicodeAttribute,
)
from pynamodb.indexes import GlobalSecondaryIndex, KeysOnlyProjection

from dynamo_stores.models import DynamoModel

from .attributes import CompressedTextAttribute
from .sql import Account  # noqa: F401 - Django looks for its models here

# One partition for all threads, because an index can only sort within a partition.
LISTING = "threads"


class EmailIndex(GlobalSecondaryIndex["User"]):
    class Meta:
        index_name = "EmailIndex"
        projection = KeysOnlyProjection()

    email = UnicodeAttribute(hash_key=True)


class User(DynamoModel):
    """A profile. ``account`` is the key of Django's user, which an imported profile lacks."""

    class Meta:
        table_name = "forum-users"

    role_actions: ClassVar = {
        "web": ["BatchGetItem", "GetItem", "PutItem", "Scan", "UpdateItem"],
        "worker": ["BatchGetItem"],
    }

    user_id = UnicodeAttribute(hash_key=True, attr_name="userId")
    # The id of an imported row that was a number.
    number = NumberAttribute(null=True)
    name = UnicodeAttribute()
    username = UnicodeAttribute(null=True)
    bio = CompressedTextAttribute(null=True)
    email = UnicodeAttribute(null=True)
    account = NumberAttribute(null=True)
    created_at = UnicodeAttribute(attr_name="createdAt")
    version = NumberAttribute(default=1)
    email_index = EmailIndex()


class CreatedAtIndex(GlobalSecondaryIndex["Thread"]):
    class Meta:
        index_name = "CreatedAtIndex"
        projection = KeysOnlyProjection()

    listing = UnicodeAttribute(hash_key=True)
    created_at = UnicodeAttribute(range_key=True, attr_name="createdAt")


class Thread(DynamoModel):
    """
    A thread. ``posts`` counts its posts, ``children`` the numbers that posts without a parent have
    got, and ``changes`` the writes of its posts. ``mark`` tells it from a deleted one with its id,
    and ``made_from`` is a digest of the request with an idempotency key that has made it.
    """

    class Meta:
        table_name = "forum-threads"

    references: ClassVar = {"created_by": "forum.models.User"}
    role_actions: ClassVar = {
        "web": [
            *("BatchGetItem", "ConditionCheckItem", "DeleteItem", "GetItem", "PutItem"),
            *("Query/CreatedAtIndex", "UpdateItem"),
        ],
        "worker": [
            "BatchGetItem",
            "ConditionCheckItem",
            "GetItem",
            "Query/CreatedAtIndex",
            "UpdateItem",
        ],
    }

    thread_id = UnicodeAttribute(hash_key=True, attr_name="threadId")
    number = NumberAttribute(null=True)
    title = UnicodeAttribute()
    description = CompressedTextAttribute(null=True)
    created_by = UnicodeAttribute(null=True, attr_name="createdBy")
    created_at = UnicodeAttribute(attr_name="createdAt")
    active_at = UnicodeAttribute(null=True, attr_name="activeAt")
    listing = UnicodeAttribute(default=LISTING)
    posts = NumberAttribute(default=0)
    children = NumberAttribute(default=0)
    changes = NumberAttribute(default=0)
    mark = UnicodeAttribute(null=True)
    version = NumberAttribute(default=1)
    made_from = UnicodeAttribute(null=True, attr_name="madeFrom")
    created_at_index = CreatedAtIndex()


class ThreadIndex(GlobalSecondaryIndex["Post"]):
    class Meta:
        index_name = "ThreadIndex"
        projection = KeysOnlyProjection()

    thread_id = UnicodeAttribute(hash_key=True, attr_name="threadId")
    created_at = UnicodeAttribute(range_key=True, attr_name="createdAt")


class UserIndex(GlobalSecondaryIndex["Post"]):
    class Meta:
        index_name = "UserIndex"
        projection = KeysOnlyProjection()

    user_id = UnicodeAttribute(hash_key=True, attr_name="userId")
    created_at = UnicodeAttribute(range_key=True, attr_name="createdAt")


class Post(DynamoModel):
    """
    A post. ``branch`` and ``place`` say where it is in the tree of its thread, ``parent`` is the
    post that it replies to. A long ``content`` is compressed. ``made_from`` is as in a thread.
    """

    class Meta:
        table_name = "forum-posts"

    references: ClassVar = {"thread_id": "forum.models.Thread", "user_id": "forum.models.User"}
    role_actions: ClassVar = {
        "web": [
            *("BatchGetItem", "BatchWriteItem", "ConditionCheckItem", "DeleteItem", "GetItem"),
            *("PutItem", "Query/ThreadIndex", "Query/UserIndex", "Scan", "UpdateItem"),
        ],
        "worker": ["BatchGetItem", "BatchWriteItem", "DeleteItem", "DescribeTable", "UpdateItem"],
    }

    post_id = UnicodeAttribute(hash_key=True, attr_name="postId")
    thread_id = UnicodeAttribute(range_key=True, attr_name="threadId")
    number = NumberAttribute(null=True)
    user_id = UnicodeAttribute(attr_name="userId")
    title = UnicodeAttribute(null=True)
    content = CompressedTextAttribute(null=True)
    parent = UnicodeAttribute(null=True)
    branch = UnicodeAttribute(null=True)
    place = UnicodeAttribute(null=True)
    depth = NumberAttribute(null=True)
    own_branch = UnicodeAttribute(null=True, attr_name="ownBranch")
    children = NumberAttribute(default=0)
    replies = NumberAttribute(default=0)
    is_deleted = BooleanAttribute(null=True, attr_name="isDeleted")
    created_at = UnicodeAttribute(attr_name="createdAt")
    edited_at = UnicodeAttribute(null=True, attr_name="editedAt")
    version = NumberAttribute(default=1)
    made_from = UnicodeAttribute(null=True, attr_name="madeFrom")
    thread_index = ThreadIndex()
    user_index = UserIndex()


class Support(DynamoModel):
    """Reserved names, words of titles, places, keys of requests, activities; see keys.py."""

    class Meta:
        table_name = "forum-support"

    role_actions: ClassVar = {
        "web": ["BatchWriteItem", "DeleteItem", "GetItem", "PutItem", "Query", "UpdateItem"],
        "worker": [
            "BatchWriteItem",
            "DeleteItem",
            "DescribeTable",
            "PutItem",
            "Query",
            "UpdateItem",
        ],
    }

    pk = UnicodeAttribute(hash_key=True, attr_name="PK")
    sk = UnicodeAttribute(range_key=True, attr_name="SK")
    expires_at = TTLAttribute(null=True, attr_name="expiresAt")
