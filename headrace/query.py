"""`headrace query`: readings by identifier, from a data center's HTTP interface."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import struct
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from agent.errors import HeadraceError, spoken
from headrace.facts import moment
from headrace.progress import Misused

FLOAT32_MAX = 3.4e38
BAD_REQUEST = 400
TIMEOUT = 40.0
"""Seconds for an answer to begin: longer than the data center takes to say that it takes too long."""


class NoAnswer(HeadraceError):
    """The data center did not answer, or said no; the message has its reason, `status` the HTTP status if any."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class WrongQuestion(NoAnswer, Misused):
    """Nobody could answer this: the call is wrong."""


def fetch(url: str, path: str, **parameters: object) -> bytes:
    """The body of an answer. The environment's HEADRACE_TOKEN goes with the question. Raises NoAnswer, and
    WrongQuestion where no data center would have one."""
    wanted = {name: value for name, value in parameters.items() if value is not None}
    address = f"{url.rstrip('/')}{path}?{urllib.parse.urlencode(wanted)}"
    token = os.environ.get("HEADRACE_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if not address.startswith(("http://", "https://")):
        raise WrongQuestion(f"{url!r} is not a data center's address; write --url http://127.0.0.1:8080")
    try:
        request = urllib.request.Request(address, headers=headers)  # noqa: S310  (the scheme is checked above)
        with _OPENER.open(request, timeout=TIMEOUT) as answer:
            body: bytes = answer.read()
            return body
    except urllib.error.HTTPError as refused:
        with refused:
            kind = WrongQuestion if refused.code == BAD_REQUEST else NoAnswer
            raise kind(_reason(refused), refused.code) from None
    except http.client.HTTPException as reason:
        raise NoAnswer(f"{url} broke its answer off ({type(reason).__name__}); ask again, or for less") from None
    except (OSError, ValueError) as reason:
        cause = getattr(reason, "reason", reason)
        cause = spoken(cause) if isinstance(cause, OSError) else cause
        raise NoAnswer(f"no answer from {url}: {cause}; is `headrace datacenter` running there?") from None


class _Nowhere(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the token would go there too."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_Nowhere)


def _reason(refused: urllib.error.HTTPError) -> str:
    if 300 <= refused.code < 400:
        return f"it is said to be at {refused.headers.get('Location')!r}; write --url with that address"
    try:
        problem = json.loads(refused.read(65536))
        return str(problem.get("detail") or problem.get("title") or refused)
    except (ValueError, AttributeError, OSError):
        return str(refused)


def main(options: argparse.Namespace) -> int:
    """Prints or writes the readings of one identifier, or of all that begin with what stands before a star."""
    form = "json" if options.json else options.format
    if form == "parquet" and options.output is None:
        raise WrongQuestion("parquet is not text; write --output FILE.parquet")
    asked = {"id": options.identifier, "from": options.start, "to": options.end, "limit": options.limit}
    asked |= {"aggregate": options.aggregate, "window": options.window}
    body = fetch(options.url, "/v1/readings", **asked, format="json" if form == "table" else form)
    if form == "table":
        body = _table(json.loads(body)).encode()
    if options.output is not None:
        Path(options.output).write_bytes(body)
        print(f"{options.output}: {len(body)} bytes", file=sys.stderr)
    else:
        sys.stdout.buffer.write(body if body.endswith(b"\n") else body + b"\n")
        sys.stdout.buffer.flush()
    return 0


def shown(value: object, kind: str) -> str:
    """A value for people. A float32 comes as the float64 of the same value: it is shown as the short decimal it was."""
    if value is None:
        return ""
    if kind == "float32" and isinstance(value, float):
        for digits in range(1, 9):
            short = float(f"{value:.{digits}g}")
            if abs(short) < FLOAT32_MAX and struct.unpack("<f", struct.pack("<f", short))[0] == value:
                return str(short)
    if isinstance(value, list):
        return f"[{', '.join(shown(each, kind.removesuffix('[]')) for each in value)}]"
    return str(value)


def _table(answer: dict[str, Any]) -> str:
    whom = answer.get("identifiers") or [answer]
    kinds = {each["id"]: str(each["type"]) for each in whom}
    lines = [f"{each['id']}  {each['type']}" + (f" [{each['unit']}]" if each.get("unit") else "") for each in whom]
    if "windows" in answer:
        lines.append("".join(f"{name:<32}" for name in ("window", *answer["columns"][1:])).rstrip())
        for begin, *values in answer["windows"]:
            lines.append("".join(f"{text:<32}" for text in (moment(begin), *map(str, values))).rstrip())
    else:
        lines.append(f"{'time':<32}{'value':<26}quality{'     id' * ('identifiers' in answer)}")
        for time_ns, value, quality, *of in answer["readings"]:
            kind, status = kinds[of[0] if of else answer["id"]], "Good" if quality == 0 else f"{quality:#010x}"
            lines.append(f"{moment(time_ns):<32}{shown(value, kind):<26}{f'{status:<12}{of[0]}' if of else status}")
    lines += [f"gap {moment(gap['from_ns'])} to {moment(gap['to_ns'])}: {gap['reason']}" for gap in answer["gaps"]]
    if "next" in answer:
        shown_now = len(answer.get("windows") or answer.get("readings") or ())
        lines.append(f"... more: --limit takes up to 1000000, or narrow --from and --to ({shown_now} shown)")
    return "\n".join(lines)
