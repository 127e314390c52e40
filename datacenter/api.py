"""The HTTP face: readings by identifier, and what is known of streams, agents and tags. Problems are RFC 9457.

Every route goes the same way: who asks, what is asked, the answer from a snapshot in a thread, whether the caller still
may, the record in the ledger, and only then the answer.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agent.audit import AuditError
from datacenter import (
    asked,
    completeness,
    handles,
    lineage,
    metering,
    metrics,
    moment,
    overview,
    page,
    questions,
    scores,
)
from datacenter.access import Access, Caller
from datacenter.answers import HEADERS, Answer, Problem, as_json, problem
from datacenter.asked import DEFAULT_LIMIT, FORMATS, MAX_LIMIT, opaque
from datacenter.grants import GrantError, Grants
from datacenter.quality import Rules
from datacenter.questions import Asked
from datacenter.recorder import Recorder
from datacenter.scores import TooMuch
from datacenter.store import Snapshot, Store

log = logging.getLogger("headrace.datacenter")

T = TypeVar("T")
Ask: TypeAlias = Callable[[Request, Caller], Awaitable[Answer]]

SECONDS = 30.0
"""How long one query may take."""
STRANGERS_BYTES = 2048
"""Of the question of whoever has no good token, that go into the ledger."""


class Api:
    """The application. `health` gives the facts of /healthz ("status" is "ok" or says what is wrong), `counters`
    what the ingest counted since its start. Without a recorder nothing is recorded: for tests."""

    def __init__(
        self,
        store: Store,
        health: Callable[[], dict[str, Any]],
        counters: Callable[[], dict[str, Any]],
        access: Access | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self._store = store
        self._health = health
        self._counters = counters
        self._access = access or Access("open", Grants(store.folder))
        self._recorder = recorder
        self._threads = ThreadPoolExecutor(4, "read")
        # Apart from the queries: those may take half a minute each, and whoever waits must learn that he may not.
        self._porters = ThreadPoolExecutor(2, "access")
        self._running: set[Snapshot] = set()
        self._lock = threading.Lock()
        self._page = page.read()
        self.app = Starlette(
            routes=[
                Route("/", self._front),
                Route("/healthz", self._healthz),
                Route("/metrics", self._metrics),
                Route("/api/handles/{handle:path}", self._route(self._handles, None)),
                Route("/v1/readings", self._route(self._readings, _READINGS)),
                Route("/v1/catalog", self._route(self._catalog, ("prefix", "limit"))),
                Route("/v1/completeness", self._route(self._completeness, ("id", "from", "to"))),
                Route("/v1/quality", self._route(self._quality, _QUALITY)),
                Route("/v1/lineage", self._route(self._lineage, ("id", "time"))),
                Route("/v1/metering", self._route(self._metering, ())),
                Route("/v1/streams", self._route(self._streams, (), recorded=False)),
                Route("/v1/agents", self._route(self._agents, (), recorded=False)),
                Route("/v1/summary", self._route(self._summary, ("blocks",), recorded=False)),
            ],
            exception_handlers={HTTPException: _problem, Exception: _broken},
        )

    def close(self) -> None:
        """Stops what is being read; its callers get an error."""
        with self._lock:
            for view in self._running:
                view.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._porters.shutdown(wait=False, cancel_futures=True)

    def _route(
        self, ask: Ask, parameters: tuple[str, ...] | None, *, recorded: bool = True
    ) -> Callable[[Request], Awaitable[Response]]:
        """`recorded` is for what tells of readings; of the rest only refusals are recorded."""

        async def answer(request: Request) -> Response:
            began = time.perf_counter()
            caller, readings = Caller(), 0
            try:
                caller = await self._porter(self._access.caller, request.headers.get("authorization"))
                if parameters is not None:
                    asked.only(request, *parameters)
                found = await ask(request, caller)
                await self._porter(self._access.still, caller)
                response, readings = found.response, found.readings
            except Exception as reason:
                response = _refusal(request, reason)
            # Whole, unless a stranger wrote it: what is cut off could be what was asked for.
            most = STRANGERS_BYTES if response.status_code == 401 else None
            facts = {
                "who": caller.who,
                "grant": caller.grant.id if caller.grant else None,
                "path": str(request.scope["path"])[:most],
                "asked": request.scope["query_string"].decode("latin-1")[:most],
                "client": request.client.host if request.client else None,
                "readings": readings if response.status_code == 200 else 0,
                "bytes": len(response.body),
                "ms": round((time.perf_counter() - began) * 1000, 1),
            }
            if self._recorder is not None and (recorded or response.status_code in (401, 403)):
                try:
                    await self._recorder.record(facts, response.status_code)
                except AuditError as reason:
                    log.error("a query was not answered: %s", reason, extra={"event": "query_unrecorded"})
                    return problem(503, f"the query can't be recorded, so it is not answered: {reason}")
            return response

        return answer

    async def _porter(self, work: Callable[..., T], *values: Any) -> T:
        if self._access.mode == "open":
            return work(*values)
        return await asyncio.get_running_loop().run_in_executor(self._porters, work, *values)

    async def _ask(self, request: Request, work: Callable[[Snapshot], T]) -> T:
        """Runs `work` on a snapshot in a thread. Raises TimeoutError after SECONDS, and Problem where nobody waits for
        the answer any more: four who give up and ask again would be all that is answered."""
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
        gone = asyncio.create_task(_gone(request))
        try:
            async with asyncio.timeout(SECONDS):
                first: list[asyncio.Future[Any]] = [running, gone]
                await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                raise Problem(499, "who asked went away")
            return running.result()
        finally:
            gone.cancel()
            if not running.done():
                running.cancel()
                late.set()
                for view in views:
                    view.stop()

    async def _front(self, request: Request) -> Response:
        asked.only(request)
        return self._page

    async def _healthz(self, request: Request) -> Response:
        asked.only(request)
        facts = self._health()
        return as_json(facts, 200 if facts["status"] == "ok" else 503)

    async def _metrics(self, request: Request) -> Response:
        asked.only(request)
        text = metrics.page(self._health(), self._counters())
        return Response(text, headers=HEADERS, media_type=metrics.MEDIA_TYPE)

    async def _streams(self, request: Request, caller: Caller) -> Answer:  # noqa: ARG002 - of every route
        return Answer(as_json(await self._ask(request, overview.streams)))

    async def _agents(self, request: Request, caller: Caller) -> Answer:  # noqa: ARG002
        return Answer(as_json(await self._ask(request, overview.agents)))

    async def _summary(self, request: Request, caller: Caller) -> Answer:  # noqa: ARG002
        blocks = asked.number(request, "blocks", 1000, 100_000)
        return Answer(
            as_json({**await self._ask(request, lambda view: overview.summary(view, blocks)), **self._counters()})
        )

    async def _completeness(self, request: Request, caller: Caller) -> Answer:
        identifier = request.query_params.get("id")
        from_ns = asked.at(request, "from", moment.LOWEST)
        to_ns = asked.at(request, "to", moment.HIGHEST) if "to" in request.query_params else None
        if to_ns is not None and from_ns > to_ns:
            raise Problem(400, "from is later than to")

        def answer(view: Snapshot) -> dict[str, Any]:
            who = None if identifier is None else questions.known(view, identifier, caller)
            return completeness.account(view, from_ns, to_ns, who)

        return Answer(as_json(await self._ask(request, answer)))

    async def _catalog(self, request: Request, caller: Caller) -> Answer:
        prefix = request.query_params.get("prefix", "")
        limit = asked.number(request, "limit", DEFAULT_LIMIT, MAX_LIMIT)

        def answer(view: Snapshot) -> list[dict[str, Any]]:
            found = overview.catalog(view, prefix)
            return [tag for tag in found if caller.may(tag["identifier"], tag["level"])][:limit]

        return Answer(as_json(await self._ask(request, answer)))

    async def _handles(self, request: Request, caller: Caller) -> Answer:
        handle = request.path_params["handle"]
        types, indexes = request.query_params.getlist("type"), request.query_params.getlist("index")
        if not handle:
            raise Problem(400, "an identifier is missing: /api/handles/IDENTIFIER")
        if odd := [index for index in indexes if not (index.isascii() and index.isdigit() and len(index) < 11)]:
            raise Problem(400, f"index={odd[0]!r}: write the number of a value")
        base = str(request.base_url).rstrip("/")

        def answer(view: Snapshot) -> dict[str, Any]:
            found = handles.record(view, questions.known(view, handle, caller), base)
            return handles.chosen(found, types, [*map(int, indexes)])

        return Answer(as_json(await self._ask(request, answer)))

    async def _lineage(self, request: Request, caller: Caller) -> Answer:
        identifier = _identifier(request)
        if "time" not in request.query_params:
            raise Problem(400, "time is missing: the time of the reading, as /v1/readings gives it")
        at = asked.at(request, "time", 0)
        if caller.grant is not None and caller.grant.form != "raw":
            raise Problem(403, f"grant {caller.grant.id} allows aggregates only, and lineage is of single readings")

        def answer(view: Snapshot) -> dict[str, Any]:
            who = questions.known(view, identifier, caller)
            found = lineage.of(view, who, at)
            if not found:
                raise Problem(404, f"{who.identifier} has no reading at {at}; times are exact to the nanosecond")
            return {"id": who.identifier, "unit": who.unit, "type": who.type, "readings": found}

        found = await self._ask(request, answer)
        return Answer(as_json(found), len(found["readings"]))

    async def _quality(self, request: Request, caller: Caller) -> Answer:
        identifier = _identifier(request)
        span = asked.span(request)
        given = {name: request.query_params.get(name) for name in ("window", "interval", "deadline")}
        window, interval, deadline = (asked.duration(text, name) if text else None for name, text in given.items())
        rules = Rules(interval) if deadline is None else Rules(interval, deadline)
        if window is not None:
            caller.whole(window)

        def answer(view: Snapshot) -> dict[str, Any]:
            who = questions.known(view, identifier, caller)
            try:
                return scores.of(view, who, span, window, rules, base_ns=caller.base_ns)
            except TooMuch as reason:
                raise Problem(400, str(reason)) from None

        return Answer(as_json(await self._ask(request, answer)))

    async def _metering(self, request: Request, caller: Caller) -> Answer:  # noqa: ARG002
        grants = self._access.grants

        def answer() -> list[dict[str, Any]]:
            if self._recorder is not None:
                metering.count(self._recorder.folder, grants)
            return grants.metering(caller.who if caller.grant else None)

        found = await asyncio.get_running_loop().run_in_executor(self._porters, answer)
        return Answer(as_json(found))

    async def _readings(self, request: Request, caller: Caller) -> Answer:
        prefix = request.query_params.get("prefix")
        ids = () if prefix is not None else tuple(request.query_params.getlist("id"))
        if prefix is not None and "id" in request.query_params:
            raise Problem(400, "id and prefix: write one of them")
        if prefix is None and not all(ids or ("",)):
            raise Problem(400, "id is missing: /v1/readings?id=IDENTIFIER; /v1/catalog lists the identifiers")
        if len(ids) > 1000:
            raise Problem(400, f"{len(ids)} identifiers; write 1000 at most, or a prefix")
        format_ = asked.format_of(request)
        question = Asked(ids, prefix, asked.span(request), asked.windows(request), format_)
        found = await self._ask(request, lambda view: questions.readings(view, question, caller))
        headers = dict(HEADERS)
        if found.next is not None:
            there = request.query_params.multi_items()
            again = urlencode([*(item for item in there if item[0] != "after"), ("after", opaque(found.next))])
            headers["Link"] = f'</v1/readings?{again}>; rel="next"'
        return Answer(Response(found.body, media_type=FORMATS[format_], headers=headers), found.readings)


_READINGS = ("id", "prefix", "from", "to", "limit", "format", "after", "aggregate", "window")
_QUALITY = ("id", "from", "to", "window", "interval", "deadline")
_HANDLE_CODES = {400: 102, 401: handles.TOKEN_WANTED, 403: handles.NOT_ALLOWED, 404: handles.NOT_FOUND}


async def _gone(request: Request) -> None:
    """Returns when the caller has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _identifier(request: Request) -> str:
    found = request.query_params.get("id")
    if not found:
        raise Problem(400, f"id is missing: {request.url.path}?id=IDENTIFIER; /v1/catalog lists the identifiers")
    return found


def _refusal(request: Request, reason: Exception) -> Response:
    """The answer instead of one."""
    if isinstance(reason, TimeoutError):
        status, detail = 503, f"the query was stopped after {SECONDS:.0f} s; ask for less: a later from, an earlier to"
    elif isinstance(reason, HTTPException):
        status, detail = reason.status_code, reason.detail
    elif isinstance(reason, GrantError):
        log.error("a query was not answered: %s", reason, extra={"event": "grants_unreadable"})
        status, detail = 503, "the grants can't be read now; ask again soon (the data center's log says why)"
    else:
        log.error("a query failed: %s", reason, exc_info=reason, extra={"event": "query_failed"})
        status, detail = 500, f"the data center could not answer: {type(reason).__name__}"
    more = {}
    if handle := request.path_params.get("handle"):
        more = {"responseCode": _HANDLE_CODES.get(status, 2), "handle": handle}
    return problem(status, detail, more)


async def _problem(request: Request, reason: Exception) -> Response:
    status = reason.status_code if isinstance(reason, HTTPException) else 500
    if isinstance(reason, Problem):
        detail = reason.detail
    elif status == 405:
        detail = f"{request.method} is not taken here, and nothing can be changed: ask with GET"
    else:
        detail = f"{request.url.path} is not there; /v1/catalog lists the identifiers, /v1/readings?id= has readings"
    return problem(status, detail)


async def _broken(request: Request, reason: Exception) -> Response:  # noqa: ARG001 - starlette's signature
    return problem(500, f"the data center could not answer: {type(reason).__name__}")
