"""What is asked: the parameters of a request, checked. What does not fit is a Problem 400 that says what to write."""

from __future__ import annotations

import base64
import binascii
import re

from starlette.requests import Request

from datacenter import moment
from datacenter.aggregate import KINDS, Windows
from datacenter.answers import Problem
from datacenter.query import Cursor, Span

DEFAULT_LIMIT, MAX_LIMIT = 10_000, 1_000_000
FORMATS = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ns|us|ms|s|m|h|d)")
_NS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9}


def only(request: Request, *names: str) -> None:
    """Raises Problem for a parameter that is none of these."""
    for name in request.query_params:
        if name not in names:
            known = f"it takes {', '.join(names)}" if names else "it takes none"
            raise Problem(400, f"{request.url.path} has no parameter {name!r}; {known}")


def number(request: Request, name: str, default: int, highest: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 19 and 1 <= int(text) <= highest):
        raise Problem(400, f"{name}={text!r}: write a number from 1 to {highest}")
    return int(text)


def at(request: Request, name: str, default: int) -> int:
    """A moment in ns UTC."""
    text = request.query_params.get(name)
    try:
        return default if text is None else moment.parse(text)
    except ValueError as reason:
        raise Problem(400, f"{name}: {reason}") from None


def duration(text: str, name: str) -> int:
    """ns of `500ms`, `1.5s`, `15m`, `1h`, `1d`."""
    found = _DURATION.fullmatch(text)
    ns = round(float(found[1]) * _NS[found[2]]) if found else 0
    if not 1 <= ns <= 366 * _NS["d"]:
        raise Problem(400, f"{name}={text!r}: write a duration such as 500ms, 10s, 15m, 1h or 1d, of a year at most")
    return ns


def span(request: Request) -> Span:
    found = Span(
        at(request, "from", moment.LOWEST),
        at(request, "to", moment.HIGHEST),
        number(request, "limit", DEFAULT_LIMIT, MAX_LIMIT),
        after(request.query_params.get("after")),
    )
    if found.from_ns > found.to_ns:
        raise Problem(400, "from is later than to; readings are those with from <= time < to")
    return found


def windows(request: Request) -> Windows | None:
    """What `aggregate` and `window` ask for."""
    kinds, length = request.query_params.get("aggregate"), request.query_params.get("window")
    if kinds is None and length is None:
        return None
    if kinds is None or length is None:
        raise Problem(400, f"aggregate and window go together: aggregate={','.join(KINDS)}&window=1m")
    chosen = tuple(dict.fromkeys(kinds.split(",")))
    if odd := set(chosen) - set(KINDS):
        raise Problem(400, f"aggregate={min(odd)!r} is unknown; write some of {', '.join(KINDS)}")
    return Windows(chosen, duration(length, "window"))


def format_of(request: Request) -> str:
    found = request.query_params.get("format", "json")
    if found not in FORMATS:
        raise Problem(400, f"format={found!r} is unknown; write one of {', '.join(FORMATS)}")
    return found


def opaque(cursor: Cursor) -> str:
    """The cursor as clients carry it around."""
    text = f"{cursor.time_ns}.{cursor.stream}.{cursor.sequence}.{cursor.given}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def after(text: str | None) -> Cursor | None:
    if text is None:
        return None
    try:
        plain = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
        numbers = [int(part) for part in plain.split(".")]
        if len(numbers) != 4 or not all(moment.LOWEST <= number <= moment.HIGHEST for number in numbers):
            raise ValueError
        cursor = Cursor(*numbers)
        if cursor.given < 0 or not -(2**31) <= cursor.stream < 2**31:
            raise ValueError
    except (ValueError, binascii.Error):
        raise Problem(400, f"after={text!r} is not a cursor; write the `next` of the answer before") from None
    return cursor
