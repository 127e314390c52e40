"""Answers over HTTP: their headers, and problems in the form of RFC 9457."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.responses import Response

HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
_TITLES = {
    400: "Bad request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    503: "Not available",
}


class Problem(HTTPException):
    """An answer in the form of RFC 9457."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered, and how many readings, lineages or windows it tells."""

    response: Response
    readings: int = 0


def as_json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, headers=HEADERS, media_type="application/json")


def problem(status: int, detail: str, more: dict[str, Any] | None = None) -> Response:
    """`more` are extension members."""
    body = {"type": "about:blank", "title": _TITLES.get(status, "Error"), "status": status, "detail": detail}
    headers = {**HEADERS, "WWW-Authenticate": 'Bearer realm="headrace"'} if status == 401 else HEADERS
    return Response(orjson.dumps(body | (more or {})), status, headers=headers, media_type="application/problem+json")
