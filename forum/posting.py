"""Writing of threads and posts, each in one transaction."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from django import forms
from pynamodb.exceptions import TransactWriteError
from pynamodb.transactions import TransactWrite

from dynamo_stores.calls.connection import get_connection

from . import services
from .models import Post, Thread, User


class ThreadForm(forms.Form):
    """A new thread with its first post."""

    title = forms.CharField(max_length=200)
    text = forms.CharField(max_length=20_000, widget=forms.Textarea(attrs={"rows": 8}))


class PostForm(forms.Form):
    """A post in a thread."""

    text = forms.CharField(max_length=20_000, widget=forms.Textarea(attrs={"rows": 5}))


class NoSuchThread(Exception):
    """A post refers to a thread that does not exist."""


def create_thread(author: Any, title: str, text: str) -> str:
    """Write a thread and its first post in one transaction; return the thread's id."""
    now, thread_id = _now(), uuid.uuid4().hex
    user_id = _user_id(author)
    with TransactWrite(connection=get_connection(Thread.using)) as transaction:
        _save_author(transaction, author, now)
        transaction.save(Thread(thread_id, title=title, created_by=user_id, created_at=now))
        transaction.save(_post(thread_id, user_id, text, now))
    services.invalidate(thread_id)
    return thread_id


def create_post(author: Any, thread_id: str, text: str) -> None:
    """Write a post. Raises NoSuchThread, and writes nothing, if the thread does not exist."""
    now = _now()
    try:
        with TransactWrite(connection=get_connection(Thread.using)) as transaction:
            transaction.condition_check(Thread, thread_id, condition=Thread.thread_id.exists())
            _save_author(transaction, author, now)
            transaction.save(_post(thread_id, _user_id(author), text, now))
    except TransactWriteError as exc:
        reasons = exc.cancellation_reasons
        if reasons and reasons[0] is not None and reasons[0].code == "ConditionalCheckFailed":
            raise NoSuchThread from exc
        raise
    services.invalidate(thread_id)


def _save_author(transaction: TransactWrite, author: Any, now: str) -> None:
    transaction.update(
        User(_user_id(author)),
        actions=[
            User.name.set(author.get_full_name() or author.get_username()),
            User.username.set(author.get_username()),
            User.created_at.set(User.created_at | now),
        ],
    )


def _post(thread_id: str, user_id: str, text: str, now: str) -> Post:
    return Post(uuid.uuid4().hex, thread_id, user_id=user_id, content=text, created_at=now)


def _user_id(author: Any) -> str:
    # The prefix avoids the ids of the sample forum's users.
    return f"django-{author.pk}"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
