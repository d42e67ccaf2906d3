"""
Middleware: a deadline and a correlation id for each request, the response of an outage, and
findings about operations.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.exceptions import MiddlewareNotUsed
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.template import TemplateDoesNotExist, loader
from django.utils.deprecation import MiddlewareMixin

from .calls.policy import deadline
from .conf import get_config
from .exceptions import CircuitBreakerOpenError, LockError, StoreUnavailable, retry_after_of
from .monitoring.correlation import ATTRIBUTE, correlated, id_or_new

logger = logging.getLogger(__name__)

_TEMPLATE = "503.html"
_TEXT = "The service is not available at the moment. Please try again later."


class _ContextMiddleware:
    """Answers each request within a context. Sync and async."""

    sync_capable = async_capable = True

    def __init__(
        self,
        get_response: Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]],
    ) -> None:
        self._get_response: Callable[[HttpRequest], Any] = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        if self._is_async:
            return self._answer(request)
        with self._context(request) as entered:
            return self._finish(self._get_response(request), entered)

    async def _answer(self, request: HttpRequest) -> HttpResponseBase:
        with self._context(request) as entered:
            return self._finish(await self._get_response(request), entered)

    def _context(self, request: HttpRequest) -> AbstractContextManager[Any]:
        raise NotImplementedError

    def _finish(self, response: HttpResponseBase, entered: Any) -> HttpResponseBase:
        return response


class DeadlineMiddleware(_ContextMiddleware):
    """
    Sets one deadline for all calls of DynamoDB that a request makes: ``REQUEST_DEADLINE`` of the
    alias ``default``, in seconds from its beginning. Sync and async.

    Calls of other aliases count, too. What a streaming response reads after its begin, and work
    that other threads do, have their own deadlines.
    """

    def _context(self, request: HttpRequest) -> AbstractContextManager[Any]:
        return deadline(get_config().request_deadline)


class CorrelationMiddleware(_ContextMiddleware):
    """
    Gives each request a correlation id, which its log lines, spans and Celery tasks have: that of
    the request's header (``METRICS["CORRELATION_HEADER"]`` of the alias ``default``), or a new one.
    The response has it in the same header. Sync and async.
    """

    def _context(self, request: HttpRequest) -> AbstractContextManager[Any]:
        found = id_or_new(request.headers.get(get_config().metrics.correlation_header))
        setattr(request, ATTRIBUTE, found)
        return correlated(found)

    def _finish(self, response: HttpResponseBase, entered: Any) -> HttpResponseBase:
        response[get_config().metrics.correlation_header] = entered
        return response


class StoreUnavailableMiddleware(MiddlewareMixin):
    """
    Answers with status 503 and ``Retry-After`` if a view raises StoreUnavailable, or LockError
    because of it.

    The body is the template ``503.html``, rendered without a context as Django renders
    ``500.html``; without that template, a sentence. The error is logged in one line. Sync and
    async.
    """

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Return the response to an unavailable store, None for another exception."""
        error = exception.__cause__ if isinstance(exception, LockError) else exception
        if not isinstance(error, StoreUnavailable):
            return None
        # The breaker logs once that it opened; a call that it refuses is not worth a line.
        is_refused = isinstance(error, CircuitBreakerOpenError)
        logger.log(logging.DEBUG if is_refused else logging.WARNING, "%s", exception)
        headers = {"Retry-After": str(retry_after_of(error))}
        try:
            # A template that needs DynamoDB does not wait for it again.
            with deadline(0.0):
                body = loader.get_template(_TEMPLATE).render()
        except Exception as exc:  # noqa: BLE001 - the answer is a 503 whatever the template does
            if not isinstance(exc, TemplateDoesNotExist):
                logger.warning("The template %s was not rendered: %s", _TEMPLATE, exc)
            return HttpResponse(_TEXT, status=503, headers=headers, content_type="text/plain")
        return HttpResponse(body, status=503, headers=headers)


class AdviceMiddleware(_ContextMiddleware):
    """
    Logs a line for each finding about the operations of a request: problems as warnings, hints as
    infos. Sync and async.

    Without ``DEBUG`` it is not used, unless ``ADVICE["ENABLED"]`` of the alias ``default`` is True.
    What a streaming response does after its begin is not seen.
    """

    def __init__(
        self,
        get_response: Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]],
    ) -> None:
        wanted = get_config().advice.enabled
        if not (settings.DEBUG if wanted is None else wanted):
            raise MiddlewareNotUsed("ADVICE['ENABLED'] is off")
        from .monitoring.advice.log import FindingsLog

        super().__init__(get_response)
        self._log = FindingsLog()

    def _context(self, request: HttpRequest) -> AbstractContextManager[Any]:
        return self._log.of(request)
