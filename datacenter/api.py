"""The HTTP face: readings by identifier, and what is known of streams, agents and tags. Problems are RFC 9457."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from datacenter import completeness, metrics, moment, query
from datacenter.query import Cursor, Named, Span
from datacenter.store import Snapshot, Store

T = TypeVar("T")

DEFAULT_LIMIT, MAX_LIMIT = 10_000, 1_000_000
FORMATS = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
}
SECONDS = 30.0
"""How long one query may take."""
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline'; frame-ancestors 'none'",
}
_PAGE = Path(__file__).with_name("page.html")


class Problem(HTTPException):
    """An answer in the form of RFC 9457."""


class Api:
    """The application. `health` gives the facts of /healthz ("status" is "ok" or says what is wrong), `counters`
    what the ingest counted since its start."""

    def __init__(
        self, store: Store, health: Callable[[], dict[str, Any]], counters: Callable[[], dict[str, Any]]
    ) -> None:
        self._store = store
        self._health = health
        self._counters = counters
        self._threads = ThreadPoolExecutor(4, "read")
        self._running: set[Snapshot] = set()
        self._lock = threading.Lock()
        self._page = _PAGE.read_text(encoding="utf-8")
        self.app = Starlette(
            routes=[
                Route("/", self._front),
                Route("/healthz", self._healthz),
                Route("/metrics", self._metrics),
                Route("/v1/readings", self._readings),
                Route("/v1/catalog", self._catalog),
                Route("/v1/streams", self._streams),
                Route("/v1/completeness", self._completeness),
                Route("/v1/agents", self._agents),
                Route("/v1/summary", self._summary),
            ],
            exception_handlers={HTTPException: _problem, TimeoutError: _too_slow, Exception: _broken},
        )

    def close(self) -> None:
        """Stops what is being read; its callers get an error."""
        with self._lock:
            for view in self._running:
                view.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _ask(self, work: Callable[[Snapshot], T]) -> T:
        """Runs `work` on a snapshot in a thread. Raises TimeoutError after SECONDS."""
        views: list[Snapshot] = []
        late = threading.Event()

        def run() -> T:
            with self._store.snapshot() as view:
                with self._lock:
                    self._running.add(view)
                views.append(view)
                try:
                    if late.is_set():
                        raise TimeoutError
                    return work(view)
                finally:
                    with self._lock:
                        self._running.discard(view)

        running = asyncio.get_running_loop().run_in_executor(self._threads, run)
        try:
            async with asyncio.timeout(SECONDS):
                return await running
        except TimeoutError:
            late.set()
            for view in views:
                view.stop()
            raise

    async def _front(self, request: Request) -> Response:
        _only(request)
        return HTMLResponse(self._page, headers=_HEADERS)

    async def _healthz(self, request: Request) -> Response:
        _only(request)
        facts = self._health()
        return _json(facts, 200 if facts["status"] == "ok" else 503)

    async def _metrics(self, request: Request) -> Response:
        _only(request)
        page = metrics.page(self._health(), self._counters())
        return Response(page, headers=_HEADERS, media_type=metrics.MEDIA_TYPE)

    async def _streams(self, request: Request) -> Response:
        _only(request)
        return _json(await self._ask(query.streams))

    async def _completeness(self, request: Request) -> Response:
        _only(request, "id", "from", "to")
        identifier = request.query_params.get("id")
        from_ns = _moment(request, "from", moment.LOWEST)
        to_ns = _moment(request, "to", moment.HIGHEST) if "to" in request.query_params else None
        if to_ns is not None and from_ns > to_ns:
            raise Problem(400, "from is later than to")

        def answer(view: Snapshot) -> dict[str, Any]:
            who = None if identifier is None else _known(view, identifier)
            return completeness.account(view, from_ns, to_ns, who)

        return _json(await self._ask(answer))

    async def _agents(self, request: Request) -> Response:
        _only(request)
        return _json(await self._ask(query.agents))

    async def _summary(self, request: Request) -> Response:
        _only(request, "blocks")
        blocks = _number(request, "blocks", 1000, 100_000)
        return _json({**await self._ask(lambda view: query.summary(view, blocks)), **self._counters()})

    async def _catalog(self, request: Request) -> Response:
        _only(request, "prefix", "limit")
        prefix, limit = request.query_params.get("prefix", ""), _number(request, "limit", DEFAULT_LIMIT, MAX_LIMIT)
        return _json(await self._ask(lambda view: query.catalog(view, prefix, limit)))

    async def _readings(self, request: Request) -> Response:
        _only(request, "id", "from", "to", "limit", "format", "after")
        identifier = request.query_params.get("id")
        if not identifier:
            raise Problem(400, "id is missing: /v1/readings?id=IDENTIFIER; /v1/catalog lists the identifiers")
        format_ = request.query_params.get("format", "json")
        if format_ not in FORMATS:
            raise Problem(400, f"format={format_!r} is unknown; write one of {', '.join(FORMATS)}")
        span = Span(
            _moment(request, "from", moment.LOWEST),
            _moment(request, "to", moment.HIGHEST),
            _number(request, "limit", DEFAULT_LIMIT, MAX_LIMIT),
            _after(request.query_params.get("after")),
        )
        if span.from_ns > span.to_ns:
            raise Problem(400, "from is later than to; readings are those with from <= time < to")

        def answer(view: Snapshot) -> tuple[bytes, Cursor | None]:
            who = _known(view, identifier)
            return _as_json(view, who, span) if format_ == "json" else _as_table(view, who, span, format_)

        body, following = await self._ask(answer)
        headers = dict(_HEADERS)
        if following is not None:
            there = request.query_params.multi_items()
            asked = urlencode([*(item for item in there if item[0] != "after"), ("after", _opaque(following))])
            headers["Link"] = f'</v1/readings?{asked}>; rel="next"'
        return Response(body, media_type=FORMATS[format_], headers=headers)


def _known(view: Snapshot, identifier: str) -> Named:
    who = query.named(view, identifier)
    if who is None:
        raise Problem(404, f"no tag has the identifier {identifier!r}; /v1/catalog lists those that are known")
    return who


def _as_json(view: Snapshot, who: Named, span: Span) -> tuple[bytes, Cursor | None]:
    page = query.readings(view, who, span)

    def parts() -> Iterator[bytes]:
        head = orjson.dumps({"id": who.identifier, "unit": who.unit, "type": who.type})
        yield head[:-1] + b',"readings":['
        yield from query.pieces(page)
        yield b'],"gaps":' + orjson.dumps(query.gaps(view, who, span))
        if page.next is not None:
            yield b',"next":' + orjson.dumps(_opaque(page.next))
        yield b"}"

    return b"".join(parts()), page.next


def _as_table(view: Snapshot, who: Named, span: Span, format_: str) -> tuple[bytes, Cursor | None]:
    table, following = query.table(view, who, span)
    facts = {"id": who.identifier, "unit": who.unit, "type": who.type}
    table = table.replace_schema_metadata({name: value.encode() for name, value in facts.items()})
    sink = io.BytesIO()
    if format_ == "csv":
        pa.csv.write_csv(query.flat(table), sink)
    elif format_ == "parquet":
        pa.parquet.write_table(table, sink, compression="zstd")
    else:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    return sink.getvalue(), following


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, headers=_HEADERS, media_type="application/json")


def _only(request: Request, *names: str) -> None:
    for name in request.query_params:
        if name not in names:
            known = f"it takes {', '.join(names)}" if names else "it takes none"
            raise Problem(400, f"{request.url.path} has no parameter {name!r}; {known}")


def _number(request: Request, name: str, default: int, highest: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 19 and 1 <= int(text) <= highest):
        raise Problem(400, f"{name}={text!r}: write a number from 1 to {highest}")
    return int(text)


def _moment(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name)
    try:
        return default if text is None else moment.parse(text)
    except ValueError as reason:
        raise Problem(400, f"{name}: {reason}") from None


def _opaque(cursor: Cursor) -> str:
    text = f"{cursor.time_ns}.{cursor.stream}.{cursor.sequence}.{cursor.given}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _after(text: str | None) -> Cursor | None:
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


_TITLES = {400: "Bad request", 404: "Not found", 405: "Method not allowed", 503: "Not available"}


def _answer(status: int, detail: str) -> Response:
    body = {"type": "about:blank", "title": _TITLES.get(status, "Error"), "status": status, "detail": detail}
    return Response(orjson.dumps(body), status, headers=_HEADERS, media_type="application/problem+json")


async def _problem(request: Request, reason: Exception) -> Response:
    status = reason.status_code if isinstance(reason, HTTPException) else 500
    detail = reason.detail if isinstance(reason, Problem) else f"{request.method} {request.url.path} is not there"
    return _answer(status, detail)


async def _too_slow(request: Request, reason: Exception) -> Response:  # noqa: ARG001 - starlette's signature
    return _answer(503, f"the query was stopped after {SECONDS:.0f} s; ask for less: a later from, an earlier to")


async def _broken(request: Request, reason: Exception) -> Response:  # noqa: ARG001 - starlette's signature
    return _answer(500, f"the data center could not answer: {type(reason).__name__}")
