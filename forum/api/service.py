"""The paths of the API."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.views.decorators.http import conditional_page
from ninja import NinjaAPI, Path, Query, Schema, Status, security
from ninja.decorators import decorate_view
from ninja.errors import AuthenticationError, HttpError
from ninja.security import HttpBearer
from ninja.utils import check_csrf
from pydantic import Field

from dynamo_stores.decorators import ratelimit
from dynamo_stores.exceptions import StoreUnavailable
from dynamo_stores.ratelimit import UNSAFE

from .. import accounts, cursors, posting
from ..adapters import Item
from ..trees import NoSuchPost
from . import problems, reading, schemas
from .problems import NoVersion, Stale
from .reading import Found
from .tokens import identify

MAX_PAGE = 100
MAX_KEY = 255


class TokenAuth(HttpBearer):
    """The header ``Authorization: Bearer <token>``."""

    def authenticate(self, request: HttpRequest, token: str) -> Any:
        """Return the token. Raises AuthenticationError if it is not valid."""
        found = getattr(request, "forum_token", None)
        if found is None:
            raise AuthenticationError
        return found


class SessionAuth(security.SessionAuth):
    """The session of a user, with the header ``X-CSRFToken``."""

    def __call__(self, request: HttpRequest) -> Any:
        """Return the user, None without one. Raises HttpError without the CSRF token."""
        if not request.user.is_authenticated:
            return None
        if check_csrf(request):
            raise HttpError(403, "A session writes with its CSRF token in the header X-CSRFToken.")
        return request.user


def _anybody(request: HttpRequest) -> bool:
    return True


class Service(NinjaAPI):
    """The API, whose document says that errors are problems."""

    def get_openapi_schema(self, **options: Any) -> Any:
        """Return the OpenAPI document."""
        found = super().get_openapi_schema(**options)
        for operations in found["paths"].values():
            for operation in operations.values():
                for status, answer in operation["responses"].items():
                    if status >= 400:
                        content = answer["content"]
                        answer["content"] = {"application/problem+json": content.popitem()[1]}
        return found


def _with_policy(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Return the view with the policy that the interactive page needs: images in its styles."""

    @functools.wraps(view)
    def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        response = view(request, *args, **kwargs)
        response["Content-Security-Policy"] = "default-src 'self'; img-src 'self' data:"
        return response

    return wrapper


api = Service(
    title="Forum",
    version="1",
    description="Lists are arrays; the header Link leads to the next page.",
    urls_namespace="forum-api",
    docs_decorator=_with_policy,
)
problems.handle_errors(api)
api.add_exception_handler(
    reading.NoSuchUser, lambda request, exc: problems.problem(404, "There is no such user.")
)

api.add_exception_handler(
    posting.KeyUsed,
    lambda request, exc: problems.problem(
        422, "The Idempotency-Key was used with another content. Use a new one."
    ),
)

_ERRORS: dict[Any, Any] = dict.fromkeys(
    (400, 401, 403, 404, 409, 412, 422, 428, 429, 503), schemas.Problem
)
# The ETag of an item; a proxy that compresses the content may have marked it as weak.
_TAG = re.compile(r'"(\d+)-[0-9a-f]{32}"')

AUTH = [TokenAuth(), SessionAuth()]
# A token that is not valid is refused for reading, too.
_READERS = [TokenAuth(), _anybody]
Version = Annotated[int | None, Query(ge=1, le=2**53, description="The version that is changed.")]


class Paging(Schema):
    """Which page of a list is wanted."""

    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = MAX_PAGE
    after: Annotated[str, Field(max_length=8_000)] = ""


Pages = Annotated[Paging, Query()]
PathId = Annotated[str, Path()]


def _guarded(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Return the view with the user of its token, limits, and answers that may be 304."""
    limited: Any = view
    for group, rate, method in (
        ("forum.api", "300/m", ["GET"]),
        # The pages for writing have the same limit.
        ("forum.post", "10/m", UNSAFE),
    ):
        limited = ratelimit(group, "user_or_ip", rate, method, response=problems.too_many)(limited)
    limited = conditional_page(limited)

    @functools.wraps(view)
    def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        identify(request)
        try:
            response: HttpResponseBase = limited(request, *args, **kwargs)
        except StoreUnavailable as exc:
            return problems.unavailable(exc)
        response.setdefault("Cache-Control", "no-cache")
        return response

    return wrapper


def _path(method: str, path: str, status: int = 200, response: Any = None, **options: Any) -> Any:
    """Return the decorator for the function of a path."""

    def decorate(function: Any) -> Any:
        return getattr(api, method)(
            path,
            response={status: response, **_ERRORS},
            operation_id=function.__name__,
            **({"auth": _READERS} if method == "get" else {}),
            **options,
        )(decorate_view(_guarded)(function))

    return decorate


@_path("get", "", response=list[str])
def list_paths(request: HttpRequest) -> list[str]:
    """Return the paths of the API."""
    root = request.path.rstrip("/")
    return sorted(f"{root}{path.removeprefix(root)}" for path in api.get_openapi_schema()["paths"])


@_path("get", "/users", response=list[schemas.UserOut])
def list_users(request: HttpRequest, response: HttpResponse, paging: Pages) -> Any:
    """Return users."""
    return _paged(request, response, "api.users", paging, reading.list_users)


@_path("get", "/users/{path:user_id}", response=schemas.UserOut)
def get_user(request: HttpRequest, response: HttpResponse, user_id: PathId) -> Any:
    """Return a user."""
    return _tagged(response, reading.user_out(reading.get_user(user_id)))


@_path("patch", "/users/{path:user_id}", response=schemas.UserOut, auth=AUTH)
def edit_user(
    request: HttpRequest,
    response: HttpResponse,
    user_id: PathId,
    content: schemas.UserIn,
    version: Version = None,
) -> Any:
    """Change one's own profile."""
    item = reading.get_user(user_id)
    author, expected = _to_change(request, item, item["userId"], version)
    if content.name is None and content.bio is None:
        raise HttpError(422, "Send name, bio or both.")
    accounts.edit_profile(
        author,
        name=item["name"] if content.name is None else content.name,
        bio=item.get("bio") or "" if content.bio is None else content.bio,
        version=expected,
    )
    return _tagged(response, reading.user_out(reading.get_user(user_id)))


@_path("get", "/threads", response=list[schemas.ThreadOut])
def list_threads(
    request: HttpRequest, response: HttpResponse, paging: Pages, newest: bool = False
) -> Any:
    """Return threads by their time, the oldest first."""
    read = functools.partial(reading.list_threads, newest=newest)
    return _paged(request, response, f"api.threads.{newest}", paging, read)


@_path("post", "/threads", 201, schemas.ThreadOut, auth=AUTH)
def create_thread(request: HttpRequest, response: HttpResponse, content: schemas.ThreadIn) -> Any:
    """Start a thread with its first post."""
    created = posting.create_thread(
        accounts.ensure_profile(request.user), content.title, content.text, key=_key(request)
    )
    response["Location"] = f"{request.path}/{quote(created['threadId'], safe='')}"
    return Status(201, _tagged(response, *reading.thread_outs([created])))


@_path("get", "/threads/{path:thread_id}", response=schemas.ThreadOut)
def get_thread(request: HttpRequest, response: HttpResponse, thread_id: PathId) -> Any:
    """Return a thread."""
    return _tagged(response, *reading.thread_outs([reading.get_thread(thread_id)]))


@_path("patch", "/threads/{path:thread_id}", response=schemas.ThreadOut, auth=AUTH)
def edit_thread(
    request: HttpRequest,
    response: HttpResponse,
    thread_id: PathId,
    content: schemas.TitleIn,
    version: Version = None,
) -> Any:
    """Change the title of a thread that one has started."""
    item = reading.get_thread(thread_id)
    author, expected = _to_change(request, item, item.get("createdBy"), version)
    changed = posting.edit_thread(author, item, content.title, version=expected)
    return _tagged(response, *reading.thread_outs([changed]))


@_path("delete", "/threads/{path:thread_id}", 204, auth=AUTH)
def delete_thread(request: HttpRequest, thread_id: PathId) -> Any:
    """Delete a thread with all its posts, of which many are deleted later; for staff."""
    if not getattr(request.user, "is_staff", False):
        raise HttpError(403, "Only staff may delete a thread.")
    posting.delete_thread(accounts.ensure_profile(request.user), reading.get_thread(thread_id))
    return Status(204, None)


@_path("get", "/posts", response=list[schemas.PostOut])
def list_posts(request: HttpRequest, response: HttpResponse, paging: Pages) -> Any:
    """Return posts."""
    return _paged(request, response, "api.posts", paging, reading.list_posts)


@_path("post", "/posts", 201, schemas.PostOut, auth=AUTH)
def create_post(request: HttpRequest, response: HttpResponse, content: schemas.PostIn) -> Any:
    """Write a post."""
    thread = reading.get_thread(str(content.thread))
    parent = None if content.parent is None else str(content.parent)
    if parent is not None and not reading.is_id(parent):
        raise NoSuchPost
    created = posting.create_post(
        accounts.ensure_profile(request.user),
        thread["threadId"],
        content.text,
        parent=parent,
        key=_key(request),
    )
    response["Location"] = f"{request.path}/{quote(created['postId'], safe='')}"
    return Status(201, _tagged(response, *reading.post_outs([created])))


@_path("get", "/posts/in-thread/{path:thread_id}", response=list[schemas.PostOut])
def list_posts_in_thread(
    request: HttpRequest, response: HttpResponse, thread_id: PathId, paging: Pages
) -> Any:
    """Return the posts of a thread, the oldest first."""
    read = functools.partial(reading.list_posts_of, "ThreadIndex", thread_id)
    return _paged(request, response, f"api.in-thread.{thread_id}", paging, read)


@_path("get", "/posts/by-user/{path:user_id}", response=list[schemas.PostOut])
def list_posts_by_user(
    request: HttpRequest, response: HttpResponse, user_id: PathId, paging: Pages
) -> Any:
    """Return the posts of a user, the oldest first."""
    read = functools.partial(reading.list_posts_of, "UserIndex", user_id)
    return _paged(request, response, f"api.by-user.{user_id}", paging, read)


@_path("get", "/posts/{path:post_id}", response=schemas.PostOut)
def get_post(request: HttpRequest, response: HttpResponse, post_id: PathId) -> Any:
    """Return a post."""
    return _tagged(response, *reading.post_outs([reading.get_post(post_id)]))


@_path("patch", "/posts/{path:post_id}", response=schemas.PostOut, auth=AUTH)
def edit_post(
    request: HttpRequest,
    response: HttpResponse,
    post_id: PathId,
    content: schemas.TextIn,
    version: Version = None,
) -> Any:
    """Change the text of one's own post."""
    item = reading.get_post(post_id)
    author, expected = _to_change(request, item, item["userId"], version)
    changed = posting.edit_post(author, item, content.text, version=expected)
    return _tagged(response, *reading.post_outs([changed]))


@_path("delete", "/posts/{path:post_id}", 204, auth=AUTH)
def delete_post(request: HttpRequest, post_id: PathId, version: Version = None) -> Any:
    """Delete one's own post; one with replies stays without its text."""
    item = reading.get_post(post_id)
    author, expected = _to_change(request, item, item["userId"], version)
    posting.delete_post(author, item, version=expected)
    return Status(204, None)


def _paged(
    request: HttpRequest,
    response: HttpResponse,
    listing: str,
    paging: Paging,
    read: Callable[[int, Any], Found],
) -> list[Any]:
    """Return a page of a list, and set the header ``Link`` if there is another one."""
    found = read(paging.limit, cursors.load(listing, paging.after))
    if found.after is not None:
        after = cursors.dump(listing, found.after)
        query = urlencode({**request.GET.dict(), "limit": paging.limit, "after": after})
        response["Link"] = f'<{request.build_absolute_uri(request.path)}?{query}>; rel="next"'
    return found.rows


def _tagged(response: HttpResponse, content: Any) -> Any:
    """Set the ETag of an item, which names its version and all of its content; return it."""
    digest = hashlib.sha256(content.model_dump_json().encode()).hexdigest()[:32]
    response["ETag"] = f'"{content.version}-{digest}"'
    return content


def _to_change(
    request: HttpRequest, item: Item, owner: str | None, version: int | None
) -> tuple[str, int]:
    """
    Return the caller's profile, which has to be the ``owner``, and the version of the item that the
    request changes. Raises HttpError, Stale, or NoVersion.
    """
    author = accounts.ensure_profile(request.user)
    if author != owner:
        raise HttpError(403, "It belongs to another user.")
    if tags := request.headers.get("If-Match", "").strip():
        present = int(item.get("version", 1))
        if tags != "*" and str(present) not in _TAG.findall(tags):
            raise Stale
        return author, present
    if version is None:
        raise NoVersion
    return author, version


def _key(request: HttpRequest) -> str:
    """Return the key that makes a request idempotent, ``""`` without one."""
    key = request.headers.get("Idempotency-Key", "")
    # The draft's header is a quoted string; most clients send the bare key.
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if len(key) > MAX_KEY:
        raise HttpError(400, f"Idempotency-Key has {len(key)} characters; use {MAX_KEY} at most.")
    return key
