"""The paths of the API."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.encoding import escape_uri_path
from django.views.decorators.http import conditional_page
from ninja import Path, Query, Schema, Status, security
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
from . import document, problems, reading, schemas
from .document import Service
from .problems import NoVersion, Stale
from .reading import Found
from .tokens import identify

MAX_PAGE = 100
MAX_KEY = 255


class TokenAuth(HttpBearer):
    """The header ``Authorization: Bearer <token>``."""

    openapi_description = "A token of an account."

    def authenticate(self, request: HttpRequest, token: str) -> Any:
        """Return the token. Raises AuthenticationError if it is not valid."""
        found = getattr(request, "forum_token", None)
        if found is None:
            raise AuthenticationError
        return found


class SessionAuth(security.SessionAuth):
    """The session of a user, with the header ``X-CSRFToken``."""

    openapi_description = "The session of this site. Writing needs the header `X-CSRFToken`, too."

    def __call__(self, request: HttpRequest) -> Any:
        """Return the user, None without one. Raises HttpError without the CSRF token."""
        if not request.user.is_authenticated:
            return None
        if check_csrf(request):
            raise HttpError(403, "A session writes with its CSRF token in the header X-CSRFToken.")
        return request.user


def _anybody(request: HttpRequest) -> bool:
    return True


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
    description=document.DESCRIPTION,
    urls_namespace="forum-api",
    auth=[TokenAuth(), SessionAuth()],
    docs=document.Docs(),
    docs_decorator=_with_policy,
    openapi_extra={"tags": document.TAGS},
)
problems.handle_errors(api)
api.add_exception_handler(
    reading.NoSuchUser, lambda request, exc: problems.problem(404, "There is no such user.")
)


@api.exception_handler(posting.KeyUsed)
def _key_used(request: HttpRequest, exc: posting.KeyUsed) -> HttpResponse:
    if exc.item is None:
        return problems.problem(
            410, "What the Idempotency-Key has written was deleted. Use a new one."
        )
    return problems.problem(
        422, "The Idempotency-Key was used with another content. Use a new one."
    )


# A token that is not valid is refused for reading, too.
_READERS = [TokenAuth(), _anybody]
# The errors of operations with content, and of those that change a version.
_NEW = (400, 403, 413, 422)
_OLD = (403, 404, 409, 412, 422, 428)
# The ETag of an item; a proxy that compresses the content may have marked it as weak.
_TAG = re.compile(r'"(\d+)-[0-9a-f]{32}"')

UserId = Annotated[str, Path(example="ada")]
ThreadId = Annotated[str, Path(example="ttl-late")]
PostId = Annotated[str, Path(example="ttl-late-1")]
Version = Annotated[
    int | None,
    Query(ge=1, le=2**53, description="The version that is changed, in place of `If-Match`."),
]
Newest = Annotated[bool, Query(description="Whether the newest are first.")]


class Paging(Schema):
    """Which page of a list is wanted."""

    limit: Annotated[int, Field(ge=1, le=MAX_PAGE, description="Rows at most.")] = MAX_PAGE
    after: Annotated[
        str, Field(max_length=8_000, description="From the header `Link` of the page before.")
    ] = ""


Pages = Annotated[Paging, Query()]


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


def _path(
    method: str, path: str, status: int = 200, response: Any = None, errors: tuple[int, ...] = ()
) -> Any:
    """Return the decorator for the function of a path."""
    has_pages = 422 in errors and method == "get"

    def decorate(function: Any) -> Any:
        return getattr(api, method)(
            path,
            response={status: response},
            operation_id=function.__name__,
            tags=[path.split("/")[1] if path else "paths"],
            openapi_extra=document.described(method, status, errors, has_pages=has_pages),
            **({"auth": _READERS} if method == "get" else {}),
        )(decorate_view(_guarded)(function))

    return decorate


@_path("get", "", response=list[str])
def list_paths(request: HttpRequest) -> list[str]:
    """Return the paths of the API."""
    root = request.path.rstrip("/")
    return sorted(f"{root}{path.removeprefix(root)}" for path in api.get_openapi_schema()["paths"])


@_path("get", "/users", response=list[schemas.UserOut], errors=(422,))
def list_users(request: HttpRequest, response: HttpResponse, paging: Pages) -> Any:
    """Return users; those of a page by their time."""
    return _paged(request, response, "api.users", paging, reading.list_users)


@_path("get", "/users/{path:user_id}", response=schemas.UserOut, errors=(404,))
def get_user(request: HttpRequest, response: HttpResponse, user_id: UserId) -> Any:
    """Return a user."""
    return _tagged(response, reading.user_out(reading.get_user(user_id)))


@_path("patch", "/users/{path:user_id}", response=schemas.UserOut, errors=(*_NEW, *_OLD))
def edit_user(
    request: HttpRequest,
    response: HttpResponse,
    user_id: UserId,
    content: schemas.UserIn,
    version: Version = None,
) -> Any:
    """Change one's own profile; what is left out stays as it is."""
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


@_path("get", "/threads", response=list[schemas.ThreadOut], errors=(422,))
def list_threads(
    request: HttpRequest, response: HttpResponse, paging: Pages, newest: Newest = False
) -> Any:
    """Return threads by their time, the oldest or the newest first."""
    read = functools.partial(reading.list_threads, newest=newest)
    return _paged(request, response, f"api.threads.{newest}", paging, read)


@_path("post", "/threads", 201, schemas.ThreadOut, errors=(*_NEW, 410))
def create_thread(request: HttpRequest, response: HttpResponse, content: schemas.ThreadIn) -> Any:
    """Start a thread with its first post."""
    created = posting.create_thread(
        accounts.ensure_profile(request.user), content.title, content.text, key=_key(request)
    )
    response["Location"] = f"{request.path}/{quote(created['threadId'], safe='')}"
    return Status(201, _tagged(response, *reading.thread_outs([created])))


@_path("get", "/threads/{path:thread_id}", response=schemas.ThreadOut, errors=(404,))
def get_thread(request: HttpRequest, response: HttpResponse, thread_id: ThreadId) -> Any:
    """Return a thread."""
    return _tagged(response, *reading.thread_outs([reading.get_thread(thread_id)]))


@_path("patch", "/threads/{path:thread_id}", response=schemas.ThreadOut, errors=(*_NEW, *_OLD))
def edit_thread(
    request: HttpRequest,
    response: HttpResponse,
    thread_id: ThreadId,
    content: schemas.TitleIn,
    version: Version = None,
) -> Any:
    """Change the title of a thread that one has started."""
    item = reading.get_thread(thread_id)
    author, expected = _to_change(request, item, item.get("createdBy"), version)
    changed = posting.edit_thread(author, item, content.title, version=expected)
    return _tagged(response, *reading.thread_outs([changed]))


@_path("delete", "/threads/{path:thread_id}", 204, errors=(403, 404, 409, 412))
def delete_thread(request: HttpRequest, thread_id: ThreadId) -> Any:
    """Delete a thread with all its posts, of which many are deleted later; for staff."""
    if not getattr(request.user, "is_staff", False):
        raise HttpError(403, "Only staff may delete a thread.")
    item = reading.get_thread(thread_id)
    author = accounts.ensure_profile(request.user)
    posting.delete_thread(author, item, version=_matched(request, item))
    return Status(204, None)


@_path("get", "/posts", response=list[schemas.PostOut], errors=(422,))
def list_posts(request: HttpRequest, response: HttpResponse, paging: Pages) -> Any:
    """Return posts of all threads; those of a page by their time."""
    return _paged(request, response, "api.posts", paging, reading.list_posts)


@_path("post", "/posts", 201, schemas.PostOut, errors=(*_NEW, 404, 410))
def create_post(request: HttpRequest, response: HttpResponse, content: schemas.PostIn) -> Any:
    """Write a post in a thread, or a reply to a post of it."""
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


@_path("get", "/posts/in-thread/{path:thread_id}", response=list[schemas.PostOut], errors=(422,))
def list_posts_in_thread(
    request: HttpRequest, response: HttpResponse, thread_id: ThreadId, paging: Pages
) -> Any:
    """Return the posts of a thread, the oldest first; of one that does not exist none."""
    read = functools.partial(reading.list_posts_of, "ThreadIndex", thread_id)
    return _paged(request, response, f"api.in-thread.{thread_id}", paging, read)


@_path("get", "/posts/by-user/{path:user_id}", response=list[schemas.PostOut], errors=(422,))
def list_posts_by_user(
    request: HttpRequest, response: HttpResponse, user_id: UserId, paging: Pages
) -> Any:
    """Return the posts of a user, the oldest first; of one who does not exist none."""
    read = functools.partial(reading.list_posts_of, "UserIndex", user_id)
    return _paged(request, response, f"api.by-user.{user_id}", paging, read)


@_path("get", "/posts/{path:post_id}", response=schemas.PostOut, errors=(404,))
def get_post(request: HttpRequest, response: HttpResponse, post_id: PostId) -> Any:
    """Return a post."""
    return _tagged(response, *reading.post_outs([reading.get_post(post_id)]))


@_path("patch", "/posts/{path:post_id}", response=schemas.PostOut, errors=(*_NEW, *_OLD))
def edit_post(
    request: HttpRequest,
    response: HttpResponse,
    post_id: PostId,
    content: schemas.TextIn,
    version: Version = None,
) -> Any:
    """Change the text of one's own post."""
    item = reading.get_post(post_id)
    author, expected = _to_change(request, item, item["userId"], version)
    changed = posting.edit_post(author, item, content.text, version=expected)
    return _tagged(response, *reading.post_outs([changed]))


@_path("delete", "/posts/{path:post_id}", 204, errors=_OLD)
def delete_post(request: HttpRequest, post_id: PostId, version: Version = None) -> Any:
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
        # An id in the path may have any character.
        path = request.build_absolute_uri(escape_uri_path(request.path))
        response["Link"] = f'<{path}?{query}>; rel="next"'
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
    matched = _matched(request, item)
    if matched is not None:
        return author, matched
    if version is None:
        raise NoVersion
    return author, version


def _matched(request: HttpRequest, item: Item) -> int | None:
    """Return the version of the item that ``If-Match`` has, None without it. Raises Stale."""
    if not (tags := request.headers.get("If-Match", "").strip()):
        return None
    present = int(item.get("version", 1))
    versions = _TAG.findall(tags)
    if tags == "*" or str(present) in versions:
        return present
    if str(present - 1) in versions:
        # The change may be the one that the request is to make: its answer was lost.
        return present - 1
    raise Stale


def _key(request: HttpRequest) -> str:
    """Return the key that makes a request idempotent, ``""`` without one."""
    key = request.headers.get("Idempotency-Key", "")
    # The draft's header is a quoted string; most clients send the bare key.
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = key[1:-1]
        if not key:
            raise HttpError(400, "Idempotency-Key is empty; send a new key for each content.")
    if len(key) > MAX_KEY:
        raise HttpError(400, f"Idempotency-Key has {len(key)} characters; use {MAX_KEY} at most.")
    return key
