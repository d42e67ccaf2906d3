"""Stored responses of idempotent requests, and the answers without a stored response."""

from __future__ import annotations

import base64
import math
from typing import Any

from django.http import HttpResponse, HttpResponseBase, JsonResponse

from ..models import RawItem
from ..serialization import load_json
from .items import COMPLETED, payload_of, state_of
from .jobs import Jobs, payload_hash

REPLAYED = "Idempotency-Replayed"
OMITTED = "Idempotency-Body-Omitted"
# These ask the client to try again; 5xx do, too.
_TRY_AGAIN = frozenset([401, 403, 408, 409, 423, 425, 429])
# These belong to one connection, one client or one moment.
_NOT_STORED = frozenset(
    [
        "connection", "content-length", "date", "retry-after", "set-cookie", "transfer-encoding",
        "ratelimit", "ratelimit-policy",
        "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset",
    ]
)  # fmt: skip


def is_final(response: Any) -> bool:
    """Return whether a response is the outcome of its request: stored, not tried again."""
    return (
        isinstance(response, HttpResponse)
        and response.status_code < 500
        and response.status_code not in _TRY_AGAIN
    )


def pack(response: HttpResponse, max_bytes: int) -> dict[str, Any]:
    """Return what is stored of a response; a body over ``max_bytes`` is left out."""
    headers = [each for each in response.items() if each[0].lower() not in _NOT_STORED]
    body = None
    if len(response.content) <= max_bytes:
        body = base64.b64encode(response.content).decode()
    return {"status": response.status_code, "headers": headers, "body": body}


def without_body(packed: dict[str, Any]) -> dict[str, Any]:
    """Return the same without the body and without the headers that describe it."""
    return {"status": packed["status"], "headers": [], "body": None}


async def answer(jobs: Jobs, job: str, item: RawItem, payload: str) -> HttpResponseBase:
    """Return the response of a request whose key is in use: the stored one, 409 or 422. A verb."""
    if payload_of(item) != payload_hash(payload):
        return problem(422, "This Idempotency-Key was used with another request.")
    data = await jobs.read_result(job, item) if state_of(item) == COMPLETED else None
    if data is None:
        seconds = max(1, math.ceil(min(jobs.seconds_left(item), 60)))
        return retry_later(409, "A request with this Idempotency-Key is in progress.", seconds)
    return _unpack(load_json(data))


def retry_later(status: int, detail: str, seconds: int) -> HttpResponse:
    """Return an error with ``Retry-After``."""
    response = problem(status, detail)
    response["Retry-After"] = str(seconds)
    return response


def problem(status: int, detail: str) -> HttpResponse:
    """Return an error as JSON."""
    return JsonResponse({"error": detail}, status=status)


def _unpack(packed: dict[str, Any]) -> HttpResponse:
    body = packed["body"]
    replay = HttpResponse(base64.b64decode(body or b""), status=packed["status"])
    for name in list(replay.headers):
        del replay[name]
    for name, value in packed["headers"]:
        replay[name] = value
    replay[REPLAYED] = "true"
    if body is None:
        replay[OMITTED] = "true"
    return replay
