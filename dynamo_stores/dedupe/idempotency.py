"""
``@idempotent``: a repeated request with the same ``Idempotency-Key`` is not done again.

draft-ietf-httpapi-idempotency-key-header: the first response is stored and returned again; 409
while the first request is in progress, 422 if the key was used with another request.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponseBase
from django.views import View

from ..client_address import request_of
from ..concurrency.effects import arun, run
from ..conf import DEFAULT_ALIAS
from ..conf.rules import WHOLE, check_number, check_seconds
from ..exceptions import ConfigurationError, StoreUnavailable, retry_after_of
from .jobs import Jobs
from .requests import MAX_KEY, client_of, key_of, payload_of
from .responses import answer, problem, retry_later
from .running import Running

logger = logging.getLogger(__name__)

_SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")
_MAX_BYTES = 1024 * 1024


def idempotent(
    view: Any = None,
    *,
    ttl: float = 86_400,
    required: bool = False,
    field: str | None = None,
    scope: Callable[[HttpRequest], str] | None = None,
    max_bytes: int = _MAX_BYTES,
    using: str = DEFAULT_ALIAS,
) -> Any:
    """
    Process an unsafe request once for each ``Idempotency-Key`` of a client.

    The first response is stored for ``ttl`` seconds and returned again with the header
    ``Idempotency-Replayed: true``; a body over ``max_bytes`` is not stored. Responses that ask the
    client to try again (401, 403, 408, 409, 423, 425, 429, 5xx), streams and exceptions are not
    stored, and the next request is processed. With an open database transaction the response is
    stored when the transaction is committed.

    A request without the header, and without the form field ``field``, is processed as usual, or
    answered with 400 if ``required``. Keys belong to the host and to the authenticated user, else
    to the credentials of the request, else to the client's address; or to the result of
    ``scope(request)``. Returns 503 while DynamoDB is unavailable.

    For function views, coroutine functions, class-based views and their methods. On a class it
    runs after the authentication of the class: around the handler, such as ``post``.
    """
    check_seconds("ttl", ttl)
    check_number("max_bytes", max_bytes, WHOLE)
    rule = _Rule(ttl, required, field, scope, max_bytes, using)
    return rule.decorate if view is None else rule.decorate(view)


class _Keyed(NamedTuple):
    """The job of a request with a key, and a digest of the request."""

    job: str
    payload: str


@dataclass(frozen=True)
class _Rule:
    ttl: float
    required: bool
    field: str | None
    scope: Callable[[HttpRequest], str] | None
    max_bytes: int
    using: str

    def decorate(self, view: Any) -> Any:
        if isinstance(view, type):
            return self._decorate_class(view)

        @functools.wraps(view)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            running = self.begin(request_of(args, kwargs, "@idempotent"))
            if not isinstance(running, Running):
                return view(*args, **kwargs) if running is None else running
            try:
                response = view(*args, **kwargs)
                running.end(response)
            except BaseException as exc:
                running.free(exc)
                raise
            return response

        @functools.wraps(view)
        async def async_wrapper(*args: Any, **kwargs: Any) -> Any:
            running = await self.abegin(request_of(args, kwargs, "@idempotent"))
            if not isinstance(running, Running):
                return await view(*args, **kwargs) if running is None else running
            try:
                response = await view(*args, **kwargs)
                await running.aend(response)
            except Exception as exc:
                await running.afree(exc)
                raise
            except BaseException:
                # The client went away, or the server stops: nothing may be awaited any more.
                running.free_in_background()
                raise
            return response

        chosen: Any = async_wrapper if iscoroutinefunction(view) else wrapper
        chosen.is_idempotent = True
        return chosen

    def begin(self, request: HttpRequest) -> Running | HttpResponseBase | None:
        """Return the running request, the response without running it, or None: no key."""
        keyed = self._identify(request)
        return run(self._take(request, keyed)) if isinstance(keyed, _Keyed) else keyed

    async def abegin(self, request: HttpRequest) -> Running | HttpResponseBase | None:
        """See :meth:`begin`. A caller that is cancelled meanwhile leaves nothing running."""
        # The user, or the caller's scope, may be read from the database.
        keyed = await sync_to_async(self._identify)(request)
        return await arun(self._take(request, keyed)) if isinstance(keyed, _Keyed) else keyed

    def _identify(self, request: HttpRequest) -> _Keyed | HttpResponseBase | None:
        if request.method in _SAFE:
            return None
        key = key_of(request, self.field)
        if key is None:
            if self.required:
                return problem(400, "The header Idempotency-Key is required.")
            return None
        if not 0 < len(key) <= MAX_KEY or not key.isprintable():
            return problem(400, f"Idempotency-Key must have 1 to {MAX_KEY} printable characters.")
        if self.scope is None:
            client = client_of(request, self.using)
        elif not (client := self.scope(request)):
            raise ConfigurationError(
                f"scope of @idempotent returned {client!r}; expected the name of a client, because "
                "all such requests would share their responses."
            )
        return _Keyed(f"idempotent:{client}:{key}", payload_of(request, self.field))

    async def _take(self, request: HttpRequest, keyed: _Keyed) -> Running | HttpResponseBase:
        jobs, (job, payload) = Jobs(self.using), keyed
        try:
            claim = await jobs.claim(job, payload)
            if claim.fence is None:
                return await answer(jobs, job, claim.item or {}, payload)
        except StoreUnavailable as exc:
            logger.warning("An idempotent request was answered by 503: %s", exc)
            return retry_later(
                503,
                "Whether this request was done before is unknown now. Try again later.",
                retry_after_of(exc),
            )
        # Nothing is awaited between the claim and an object that frees the job.
        running = Running(jobs, request, job, claim.fence, ttl=self.ttl, max_bytes=self.max_bytes)
        await running.start()
        return running

    def _decorate_class(self, view: type) -> type:
        if not issubclass(view, View):
            raise ConfigurationError(
                f"@idempotent is for views; {view.__qualname__} is not a subclass of "
                "django.views.View. Decorate its methods instead."
            )
        # REST framework authenticates in initial(); Django's mixins do in dispatch(), which calls
        # the handler that setup() leaves on the object.
        name = "initial" if hasattr(view, "initial") else "setup"
        prepare = getattr(view, name)

        def wrap_handler(instance: Any, request: HttpRequest) -> None:
            method = (request.method or "").lower()
            handler = getattr(instance, method, None)
            if method.upper() in _SAFE or handler is None:
                return
            if getattr(handler, "is_idempotent", False):
                # A base class is decorated, too; the rule of the subclass holds.
                handler = handler.__wrapped__
            setattr(instance, method, self.decorate(handler))

        @functools.wraps(prepare)
        def prepared(instance: Any, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            result = prepare(instance, request, *args, **kwargs)
            wrap_handler(instance, request)
            return result

        @functools.wraps(prepare)
        async def async_prepared(
            instance: Any, request: HttpRequest, *args: Any, **kwargs: Any
        ) -> Any:
            result = await prepare(instance, request, *args, **kwargs)
            wrap_handler(instance, request)
            return result

        setattr(view, name, async_prepared if iscoroutinefunction(prepare) else prepared)
        return view
