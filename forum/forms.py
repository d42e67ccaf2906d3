"""The forms of the pages."""

from __future__ import annotations

import re
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from django import forms
from django.contrib.auth import get_user_model
from django.contrib.auth.forms import AuthenticationForm, BaseUserCreationForm, UsernameField
from django.urls import Resolver404, resolve

from .accounts import MAX_BIO, MAX_EMAIL, MAX_NAME
from .posting import MAX_TEXT, MAX_TITLE, TooManyWords, check_title
from .words import is_visible

NAME_TAKEN = (
    "Another user has this name. If you have just signed up, log in. Otherwise choose another one."
)


def check_visible(text: str) -> None:
    """Raise ValidationError if nothing of a text can be seen."""
    if not is_visible(text):
        raise forms.ValidationError("Write something that can be seen.")


class TextField(forms.CharField):
    """A text of some lines, of which the first keeps its indentation."""

    def __init__(self, *, rows: int, **options: Any) -> None:
        widget = forms.Textarea(attrs={"rows": rows, "dir": "auto"})
        super().__init__(strip=False, widget=widget, validators=[check_visible], **options)

    def to_python(self, value: Any) -> str:
        """Return the text without empty lines before it, and without whitespace after it."""
        text = super().to_python(value) or ""
        return re.sub(r"\A\s*\n", "", text.rstrip())


def _line(**attributes: str) -> forms.TextInput:
    """Return an input for a line in either direction."""
    return forms.TextInput(attrs={"dir": "auto", **attributes})


class TitleForm(forms.Form):
    """The title of a thread."""

    title = forms.CharField(max_length=MAX_TITLE, validators=[check_visible], widget=_line())

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

    text = TextField(label="First post", max_length=MAX_TEXT, rows=10)


class PostForm(forms.Form):
    """A post in a thread."""

    text = TextField(label="Your text", max_length=MAX_TEXT, rows=6)


class MoveForm(forms.Form):
    """The post below which another post of its thread is to be."""

    parent = forms.CharField(
        label="New place",
        required=False,
        max_length=4_000,
        help_text="The address of the post that it is to be a reply to. Open that post by its "
        "time, and copy the address. Leave this empty to make it a reply to the thread.",
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
            match = resolve(unquote(urlsplit(text).path))
        except (Resolver404, ValueError):
            match = None
        if match is None or match.view_name != "forum:post":
            raise forms.ValidationError(
                "This is not the address of a post. Open the post by its time, and copy its "
                "address."
            )
        if match.kwargs["thread_id"] != self._thread_id:
            raise forms.ValidationError(
                "This post is in another thread. Choose one of this thread."
            )
        found: str = match.kwargs["post_id"]
        return found


class SignUpForm(BaseUserCreationForm):  # type: ignore[type-arg]
    """A new account."""

    name = forms.CharField(
        required=False,
        max_length=MAX_NAME,
        validators=[check_visible],
        help_text="Shown with your posts. Without it, your user name is.",
        widget=_line(autocomplete="name"),
    )
    email = forms.EmailField(
        label="E-mail address",
        max_length=MAX_EMAIL,
        help_text="Nobody else sees it.",
        widget=forms.EmailInput(attrs={"autocomplete": "email"}),
    )
    field_order = ("username", "name", "email", "password1", "password2")

    class Meta:
        model = get_user_model()
        fields = ("username", "email")
        labels: ClassVar = {"username": "User name"}
        error_messages: ClassVar = {
            "username": {
                "invalid": "Enter a valid user name: letters, digits and @/./+/-/_ only.",
                "unique": NAME_TAKEN,
            }
        }


class LogInForm(AuthenticationForm):
    """The user name and the password of an account."""

    username = UsernameField(label="User name", widget=forms.TextInput(attrs={"autofocus": True}))
    error_messages = {  # noqa: RUF012 - as in the base class
        **AuthenticationForm.error_messages,
        "invalid_login": (
            "Please enter a correct user name and password. Note that both may be case-sensitive."
        ),
    }


class ProfileForm(forms.Form):
    """What a user may change of the profile."""

    name = forms.CharField(
        max_length=MAX_NAME, validators=[check_visible], widget=_line(autocomplete="name")
    )
    email = forms.EmailField(
        label="E-mail address",
        max_length=MAX_EMAIL,
        help_text="Nobody else sees it.",
        widget=forms.EmailInput(attrs={"autocomplete": "email"}),
    )
    bio = TextField(label="About you", required=False, max_length=MAX_BIO, rows=5)


class TokenForm(forms.Form):
    """A new token for the API."""

    name = forms.CharField(
        max_length=100, help_text="What is it for? Such as: backup script.", widget=_line()
    )
