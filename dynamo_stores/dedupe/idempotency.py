"""
``@idempotent``: a repeated request with the same ``Idempotency-Key`` is not done again.

draft-ietf-httpapi-idempotency-key-header: the first response is stored and returned again; 409
while the first request is in progress, 422 if the key was used with another request.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.utils.decorators import method_decorator

from ..client_address import get_ip
from ..concurrency.threads import in_thread
from ..conf import DEFAULT_ALIAS
from ..exceptions import ConfigurationError, StoreUnavailable
from ..leases import Renewal
from ..serialization import load_json
from .items import COMPLETED, payload_of, seconds_left, state_of
from .jobs import Claim, encode
from .store import DedupeStore

logger = logging.getLogger(__name__)

REPLAYED = "Idempotency-Replayed"
_MAX_KEY = 255
_SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
# Headers that belong to one connection or one client are not returned again.
_NOT_STORED = frozenset(["connection", "date", "set-cookie", "transfer-encoding", "content-length"])


def idempotent(
    view: Any = None,
    *,
    ttl: float = 86_400,
    required: bool = False,
    field: str | None = None,
    scope: Callable[[HttpRequest], str] | None = None,
    using: str = DEFAULT_ALIAS,
) -> Any:
    """
    Do an unsafe request once for each ``Idempotency-Key`` of a user.

    The first response is stored for ``ttl`` seconds, unless it is a 5xx or streaming, and returned
    again with the header ``Idempotency-Replayed: true``. A request without the header, and without
    the form field ``field``, is not deduplicated, or with ``required`` answered by 400. Keys belong
    to the user, else to the session, else to the client's address; or to the string that ``scope``
    returns for the request. 503 if DynamoDB cannot answer. For view functions, coroutine functions,
    classes and methods of classes.
    """
    rule = _Rule(ttl, required, field, scope, using)
    return rule.decorate if view is None else rule.decorate(view)


class _Begun(NamedTuple):
    """A request whose job was claimed: the job, its fence and the renewal of its lease."""

    job: str
    fence: int
    renewal: Renewal


@dataclass(frozen=True)
class _Rule:
    ttl: float
    required: bool
    field: str | None
    scope: Callable[[HttpRequest], str] | None
    using: str

    def decorate(self, view: Any) -> Any:
        if isinstance(view, type):
            return method_decorator(self.decorate, name="dispatch")(view)

        @functools.wraps(view)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            begun = self.begin(_request_of(args))
            if not isinstance(begun, _Begun):
                return view(*args, **kwargs) if begun is None else begun
            try:
                response = view(*args, **kwargs)
            except BaseException as exc:
                self.end(begun, exc)
                raise
            if not self.waits_for_rendering(begun, response):
                self.end(begun, response)
            return response

        @functools.wraps(view)
        async def async_wrapper(*args: Any, **kwargs: Any) -> Any:
            begun = await sync_to_async(self.begin)(_request_of(args))
            if not isinstance(begun, _Begun):
                return await view(*args, **kwargs) if begun is None else begun
            try:
                response = await view(*args, **kwargs)
            except BaseException as exc:
                await in_thread(self.using, self.end, begun, exc)
                raise
            if not self.waits_for_rendering(begun, response):
                await in_thread(self.using, self.end, begun, response)
            return response

        return async_wrapper if iscoroutinefunction(view) else wrapper

    def begin(self, request: HttpRequest) -> _Begun | HttpResponseBase | None:
        """Return the claimed job, or the response to return; None if not deduplicated."""
        if request.method in _SAFE:
            return None
        key = request.headers.get("Idempotency-Key")
        if key is None and self.field is not None:
            key = request.POST.get(self.field)
        if key is None:
            if self.required:
                return _problem(400, "The header Idempotency-Key is required.")
            return None
        if not 0 < len(key) <= _MAX_KEY or not key.isprintable():
            return _problem(400, f"Idempotency-Key must have 1 to {_MAX_KEY} printable characters.")
        store = DedupeStore(self.using)
        owner = self.scope(request) if self.scope is not None else _owner(request, self.using)
        job, payload = f"idempotent:{owner}:{key}", _payload(request, self.field)
        try:
            claim = store.claim(job, payload)
            if claim.fence is None:
                return _answer(store, job, claim, payload)
        except StoreUnavailable as exc:
            logger.warning("An idempotent request was answered by 503: %s", exc)
            return _retry_later(
                503, "Whether this request was done before is unknown now. Try again later.", 1
            )
        renewal = store.renewal(job, claim.fence)
        renewal.start()
        return _Begun(job, claim.fence, renewal)

    def waits_for_rendering(self, begun: _Begun, response: Any) -> bool:
        """Let ``end`` run when a template response is rendered; return whether it will be."""
        if getattr(response, "is_rendered", True):
            return False
        response.add_post_render_callback(functools.partial(self.end, begun))
        return True

    def end(self, begun: _Begun, outcome: Any) -> None:
        """Store the response; after an error, let the next request run."""
        begun.renewal.stop()
        store = DedupeStore(self.using)
        try:
            if isinstance(outcome, HttpResponse) and outcome.status_code < 500:
                data = encode(_stored(outcome))
                store.complete_encoded(begun.job, data, begun.fence, self.ttl)
            else:
                error = outcome if isinstance(outcome, BaseException) else ValueError("not stored")
                store.fail(begun.job, error, fence=begun.fence, ttl=0)
        except StoreUnavailable as exc:
            logger.warning("The response of an idempotent request was not stored: %s", exc)


def _request_of(args: Sequence[Any]) -> HttpRequest:
    for each in args[:2]:
        if hasattr(each, "META"):
            request: HttpRequest = each
            return request
    raise ConfigurationError("@idempotent is for views; expected a request as first argument.")


def _owner(request: HttpRequest, using: str) -> str:
    user = getattr(request, "user", None)
    if user is not None and user.is_authenticated:
        return f"user:{user.pk}"
    session = getattr(request, "session", None)
    if session is not None and session.session_key:
        return f"session:{session.session_key}"
    return f"address:{get_ip(request, using)}"


def _payload(request: HttpRequest, field: str | None) -> str:
    digest = hashlib.sha256()
    for part in _parts(request, field):
        digest.update(b"%d:%b" % (len(part), part))
    return digest.hexdigest()


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


def _answer(store: DedupeStore, job: str, claim: Claim, payload: str) -> HttpResponseBase:
    item = claim.item or {}
    if payload_of(item) != store.payload_hash(payload):
        return _problem(422, "This Idempotency-Key was used with another request.")
    data = store.read_result(job, item) if state_of(item) == COMPLETED else None
    if data is None:
        seconds = max(1, math.ceil(min(seconds_left(item), 60)))
        return _retry_later(409, "A request with this Idempotency-Key is in progress.", seconds)
    stored = load_json(data)
    replay = HttpResponse(base64.b64decode(stored["body"]), status=stored["status"])
    for name in list(replay.headers):
        del replay[name]
    for name, value in stored["headers"]:
        replay[name] = value
    replay[REPLAYED] = "true"
    return replay


def _stored(response: HttpResponse) -> dict[str, Any]:
    headers = [each for each in response.items() if each[0].lower() not in _NOT_STORED]
    body = base64.b64encode(response.content).decode()
    return {"status": response.status_code, "headers": headers, "body": body}


def _retry_later(status: int, detail: str, seconds: int) -> HttpResponse:
    response = _problem(status, detail)
    response["Retry-After"] = str(seconds)
    return response


def _problem(status: int, detail: str) -> HttpResponse:
    return JsonResponse({"error": detail}, status=status)
