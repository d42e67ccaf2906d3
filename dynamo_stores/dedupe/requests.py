"""What identifies an idempotent request: its client, its key and its payload."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from django.conf import settings
from django.http import HttpRequest

from ..client_address import get_ip
from ..conf import get_config

MAX_KEY = 255
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


def key_of(request: HttpRequest, field: str | None) -> str | None:
    """Return the key that the client sent in the header or in the form field, None without one."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return request.POST.get(field) if field is not None else None
    # The draft's header is a quoted string; most clients send the bare key.
    return key[1:-1] if len(key) > 1 and key[0] == key[-1] == '"' else key


def client_of(request: HttpRequest, using: str) -> str:
    """
    Return whose request this is: the host, and the user; else the credentials that the request
    carries, as a digest; else the client's address.
    """
    user = getattr(request, "user", None)
    if user is not None and user.is_authenticated:
        client = f"user:{user.pk}"
    elif credentials := list(_credentials(request, using)):
        client = f"credentials:{_digest(credentials)}"
    else:
        client = f"address:{get_ip(request, using)}"
    return f"{request.get_host()}:{client}"


def payload_of(request: HttpRequest, field: str | None) -> str:
    """Return a digest of the method, the path and the body, without the CSRF token of a form."""
    return _digest(_parts(request, field))


def _credentials(request: HttpRequest, using: str) -> Iterator[bytes]:
    # Not the whole Cookie header: other cookies change between a request and its retry.
    for name in ("Authorization", *get_config(using).dedupe.credential_headers):
        if value := request.headers.get(name):
            yield name.lower().encode()
            yield value.encode(errors="surrogatepass")
    if session := request.COOKIES.get(settings.SESSION_COOKIE_NAME):
        yield b"cookie"
        yield session.encode(errors="surrogatepass")


def _parts(request: HttpRequest, field: str | None) -> Iterator[bytes]:
    yield (request.method or "").encode()
    yield request.get_full_path().encode(errors="surrogatepass")
    yield (request.content_type or "").encode()
    if request.content_type not in _FORMS:
        yield request.body
        return
    # A form that is rendered again has another token.
    for name, values in sorted(request.POST.lists()):
        if name not in ("csrfmiddlewaretoken", field):
            yield from (each.encode(errors="surrogatepass") for each in (name, *values))
    for name, files in sorted(request.FILES.lists()):
        for file in files:
            content = hashlib.sha256()
            for chunk in file.chunks():
                content.update(chunk)
            file.seek(0)
            yield from (name.encode(), str(file.name).encode(), content.digest())


def _digest(parts: Iterator[bytes] | Sequence[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d:%b" % (len(part), part))
    return digest.hexdigest()
