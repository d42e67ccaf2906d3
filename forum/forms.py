"""The forms of the pages."""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import urlsplit

from django import forms
from django.contrib.auth import get_user_model
from django.contrib.auth.forms import BaseUserCreationForm
from django.urls import Resolver404, resolve

from .accounts import MAX_BIO, MAX_NAME
from .posting import MAX_TEXT, MAX_TITLE, TooManyWords, check_title

USERNAME_TAKEN = (
    "Another user has this name. If you have just signed up, log in. Otherwise choose another one."
)


class TitleForm(forms.Form):
    """The title of a thread."""

    title = forms.CharField(max_length=MAX_TITLE)

    def clean_title(self) -> str:
        """Return the title. Raises ValidationError if it cannot be found by its words."""
        title: str = self.cleaned_data["title"]
        try:
            check_title(title)
        except TooManyWords as exc:
            raise forms.ValidationError(str(exc)) from exc
        return title


class ThreadForm(TitleForm):
    """A new thread with its first post."""

    text = forms.CharField(
        label="First post", max_length=MAX_TEXT, widget=forms.Textarea(attrs={"rows": 10})
    )


class PostForm(forms.Form):
    """A post in a thread."""

    text = forms.CharField(
        label="Your text", max_length=MAX_TEXT, widget=forms.Textarea(attrs={"rows": 6})
    )


class MoveForm(forms.Form):
    """The post below which another post of its thread is to be."""

    parent = forms.CharField(
        label="New place",
        required=False,
        max_length=4_000,
        help_text="The link of the post that it is to be a reply to. Empty for the thread itself.",
    )

    def __init__(self, *args: Any, thread_id: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._thread_id = thread_id

    def clean_parent(self) -> str | None:
        """Return the id of the post, None for the thread. Raises ValidationError."""
        text = self.cleaned_data["parent"]
        if not text:
            return None
        try:
            match = resolve(urlsplit(text).path)
        except (Resolver404, ValueError):
            match = None
        if match is None or match.view_name != "forum:post":
            raise forms.ValidationError("This is not the link of a post. Copy it from its time.")
        if match.kwargs["thread_id"] != self._thread_id:
            raise forms.ValidationError("This post is in another thread. Choose one of this.")
        found: str = match.kwargs["post_id"]
        return found


class SignUpForm(BaseUserCreationForm):  # type: ignore[type-arg]
    """A new account."""

    name = forms.CharField(
        required=False,
        max_length=MAX_NAME,
        help_text="Shown with your posts. Without it, your user name is.",
        widget=forms.TextInput(attrs={"autocomplete": "name"}),
    )
    email = forms.EmailField(
        label="E-mail address",
        help_text="Nobody else sees it.",
        widget=forms.EmailInput(attrs={"autocomplete": "email"}),
    )
    field_order = ("username", "name", "email", "password1", "password2")

    class Meta:
        model = get_user_model()
        fields = ("username", "email")
        error_messages: ClassVar = {"username": {"unique": USERNAME_TAKEN}}


class ProfileForm(forms.Form):
    """What a user may change of the profile."""

    name = forms.CharField(
        max_length=MAX_NAME, widget=forms.TextInput(attrs={"autocomplete": "name"})
    )
    email = forms.EmailField(
        label="E-mail address",
        help_text="Nobody else sees it.",
        widget=forms.EmailInput(attrs={"autocomplete": "email"}),
    )
    bio = forms.CharField(
        label="About you",
        required=False,
        max_length=MAX_BIO,
        widget=forms.Textarea(attrs={"rows": 5}),
    )


class TokenForm(forms.Form):
    """A new token for the API."""

    name = forms.CharField(max_length=100, help_text="What is it for? Such as: backup script.")
