"""The API's document: what it says of errors and headers, which it declares once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ninja import NinjaAPI
from ninja.openapi.docs import Swagger
from ninja.openapi.schema import REF_TEMPLATE

from .problems import content_of
from .schemas import Problem

DESCRIPTION = """\
Users, threads and posts of the forum.

- Lists are arrays. The header `Link` leads to the next page. A page ends with the row by which it
  has 1 MB, or as many rows as `limit` says.
- Everybody may read. To write, log in on this site, or send a token of
  [your account](/account/tokens/).
- Errors are `application/problem+json` (RFC 9457). A method that a path does not have is 405,
  with the header `Allow`. Each path with GET has HEAD.
- A change says which version it changes: by the `ETag` in `If-Match`, or by `?version=`.
- Limits are in the headers `RateLimit` and `RateLimit-Policy` of all answers, and in
  `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset`.
"""
TAGS = [
    {"name": "users", "description": "Profiles."},
    {"name": "threads", "description": "Threads; each begins with a post."},
    {"name": "posts", "description": "Posts, and replies to them."},
    {"name": "paths", "description": "What there is."},
]

# The errors that any operation may have.
_OF_ALL = (401, 429, 503)
_ERRORS = {
    400: "The content is not JSON, or the header `Idempotency-Key` is empty or too long.",
    401: "The request has no session and no token, or its token is not valid.",
    403: "It belongs to another user, or is for staff; or a session has sent no CSRF token.",
    404: "There is nothing with this id.",
    409: "It was changed meanwhile, or since the version in `?version=`.",
    410: "What the `Idempotency-Key` has written was deleted since then.",
    412: "It was changed since the version in `If-Match`.",
    413: "The content is too large.",
    422: "The content or a parameter is not valid, or the `Idempotency-Key` was used before with "
    "another content.",
    428: "The request does not say which version it changes.",
    429: "There were too many requests.",
    503: "The database does not answer, or the posts are being moved.",
}
_HEADERS = {
    "ETag": ("string", "Names the content, for `If-None-Match`, and its version, for `If-Match`."),
    "Link": ("string", '`<address>; rel="next"` of the next page. The last page has none.'),
    "Location": ("string", "The path of what was written."),
    "Retry-After": ("integer", "The seconds after which to try again."),
    "WWW-Authenticate": ("string", "The kind of token that is expected: `Bearer`."),
    "RateLimit": (
        "string",
        "The limit: its name; `r`, the requests that remain; `t`, the seconds until all of them "
        "are there again, which may be a tenth more than the window.",
    ),
    "RateLimit-Policy": (
        "string",
        "The limit: its name; `q`, the requests; and `w`, the seconds of its window.",
    ),
}
_LIMITS = ["RateLimit", "RateLimit-Policy"]
_OF_ERRORS = {
    401: ["WWW-Authenticate"],
    429: ["Retry-After", *_LIMITS],
    503: ["Retry-After"],
}
_OWN_MEMBERS: dict[int, dict[str, Any]] = {
    422: {"errors": [{"pointer": "body/content/text", "detail": "Field required"}]},
    429: {"retryAfter": 12},
    503: {"retryAfter": 1},
}
_PARAMETERS = {
    "If-None-Match": "An `ETag`. If the content is still that, the answer is 304.",
    "If-Match": "The `ETag` of the version that is changed, or `*` for any. Only the version in it "
    "counts: replies that others have written do not change it.",
    "Idempotency-Key": "Any text of 255 characters at most, which names this request. Sent again "
    "with it, it writes nothing and returns what it has written before.",
}


class Service(NinjaAPI):
    """The API, whose document declares errors and headers once."""

    def get_openapi_schema(self, **options: Any) -> Any:
        """Return the OpenAPI document."""
        found = super().get_openapi_schema(**options)
        schemas = found["components"]["schemas"]
        problem = Problem.model_json_schema(ref_template=REF_TEMPLATE)
        schemas |= {**problem.pop("$defs"), "Problem": problem}
        found["components"] |= _components()
        # Titles that are derived from names say nothing.
        for schema in schemas.values():
            for member in schema["properties"].values():
                member.pop("title", None)
        for operations in found["paths"].values():
            for operation in operations.values():
                answers = operation["responses"].values()
                contents = [
                    each for answer in answers for each in answer.get("content", {}).values()
                ]
                for each in [*operation["parameters"], *contents]:
                    each.get("schema", {}).pop("title", None)
        return found


class Docs(Swagger):
    """The interactive page. It writes with the session of its visitor."""

    template = "forum/api.html"


def described(
    method: str, status: int, errors: Iterable[int], *, has_pages: bool
) -> dict[str, Any]:
    """Return what the document says of an operation beside its content and own parameters."""
    headers: list[str] = []
    parameters: list[str] = []
    responses: dict[int, Any] = {}
    if status != 204:
        headers.append("ETag")
    if has_pages:
        headers.append("Link")
    if method == "get":
        parameters.append("If-None-Match")
        responses[304] = {
            "description": "The content is that of `If-None-Match`.",
            "headers": _references("headers", ["ETag", *_LIMITS]),
        }
    if method == "post":
        headers.append("Location")
        parameters.append("Idempotency-Key")
    if 412 in errors:
        parameters.append("If-Match")
    responses |= {
        each: {"$ref": f"#/components/responses/{each}"} for each in sorted({*_OF_ALL, *errors})
    }
    return {
        "parameters": [*_references("parameters", parameters).values()],
        "responses": {
            status: {"headers": _references("headers", [*headers, *_LIMITS])},
            **responses,
        },
        # A reader may have a token.
        **({"security": [{}]} if method == "get" else {}),
    }


def _references(kind: str, names: Iterable[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/{kind}/{name}"} for name in names}


def _components() -> dict[str, Any]:
    return {
        "headers": {
            name: {"description": text, "schema": {"type": kind}}
            for name, (kind, text) in _HEADERS.items()
        },
        "parameters": {
            name: {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}
            for name, text in _PARAMETERS.items()
        },
        "responses": {
            str(status): {
                "description": text,
                "headers": _references("headers", _OF_ERRORS.get(status, [])),
                "content": {
                    "application/problem+json": {
                        "schema": {"$ref": "#/components/schemas/Problem"},
                        "example": content_of(
                            status, text.replace("`", ""), **_OWN_MEMBERS.get(status, {})
                        ),
                    }
                },
            }
            for status, text in _ERRORS.items()
        },
    }
