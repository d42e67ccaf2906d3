"""
The forum's three tables. Times are ISO 8601 in UTC with microseconds, so that they sort as text.

Attributes keep the camelCase names of the stored items.
"""

from __future__ import annotations

from typing import ClassVar

from pynamodb.attributes import UnicodeAttribute
from pynamodb.indexes import AllProjection, GlobalSecondaryIndex

from dynamo_stores.models import DynamoModel

# One partition for all threads, because an index can only sort within a partition.
LISTING = "threads"


class EmailIndex(GlobalSecondaryIndex["User"]):
    class Meta:
        index_name = "EmailIndex"
        projection = AllProjection()

    email = UnicodeAttribute(hash_key=True)


class User(DynamoModel):
    class Meta:
        table_name = "forum-users"

    user_id = UnicodeAttribute(hash_key=True, attr_name="userId")
    name = UnicodeAttribute()
    username = UnicodeAttribute(null=True)
    bio = UnicodeAttribute(null=True)
    email = UnicodeAttribute(null=True)
    created_at = UnicodeAttribute(attr_name="createdAt")
    email_index = EmailIndex()


class CreatedAtIndex(GlobalSecondaryIndex["Thread"]):
    class Meta:
        index_name = "CreatedAtIndex"
        projection = AllProjection()

    listing = UnicodeAttribute(hash_key=True)
    created_at = UnicodeAttribute(range_key=True, attr_name="createdAt")


class Thread(DynamoModel):
    class Meta:
        table_name = "forum-threads"

    references: ClassVar = {"created_by": "forum.models.User"}

    thread_id = UnicodeAttribute(hash_key=True, attr_name="threadId")
    title = UnicodeAttribute()
    description = UnicodeAttribute(null=True)
    created_by = UnicodeAttribute(null=True, attr_name="createdBy")
    created_at = UnicodeAttribute(attr_name="createdAt")
    listing = UnicodeAttribute(default=LISTING)
    created_at_index = CreatedAtIndex()


class ThreadIndex(GlobalSecondaryIndex["Post"]):
    class Meta:
        index_name = "ThreadIndex"
        projection = AllProjection()

    thread_id = UnicodeAttribute(hash_key=True, attr_name="threadId")
    created_at = UnicodeAttribute(range_key=True, attr_name="createdAt")


class UserIndex(GlobalSecondaryIndex["Post"]):
    class Meta:
        index_name = "UserIndex"
        projection = AllProjection()

    user_id = UnicodeAttribute(hash_key=True, attr_name="userId")
    created_at = UnicodeAttribute(range_key=True, attr_name="createdAt")


class Post(DynamoModel):
    class Meta:
        table_name = "forum-posts"

    references: ClassVar = {"thread_id": "forum.models.Thread", "user_id": "forum.models.User"}

    post_id = UnicodeAttribute(hash_key=True, attr_name="postId")
    thread_id = UnicodeAttribute(range_key=True, attr_name="threadId")
    user_id = UnicodeAttribute(attr_name="userId")
    title = UnicodeAttribute(null=True)
    content = UnicodeAttribute()
    created_at = UnicodeAttribute(attr_name="createdAt")
    thread_index = ThreadIndex()
    user_index = UserIndex()
