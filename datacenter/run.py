"""The data center as one coroutine: store, ingest, subscription and HTTP, from start to a clean stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvicorn

from agent.errors import HeadraceError
from agent.tls import Credentials
from agent.wire import Broker
from datacenter.access import Access, Mode
from datacenter.api import Api
from datacenter.connection import Connection
from datacenter.grants import Grants
from datacenter.ingest import Ingest
from datacenter.recorder import Recorder
from datacenter.settle import Settler
from datacenter.store import Store
from datacenter.subscription import Subscription
from datacenter.subscriptions import Subscriptions

log = logging.getLogger("headrace.datacenter")


class AddressInUse(HeadraceError):
    """The HTTP address can't be listened at. The message says why and what to set."""


class _Server(uvicorn.Server):
    """uvicorn inside a loop that is not its own: signals stay with whoever owns the process."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    *,
    store: Path,
    broker: str,
    http: str,
    root: str,
    ca: str | None,
    mqtt: str,
    stop: asyncio.Event,
    ready: Callable[[dict[str, Any]], None],
    access: Mode = "open",
    keep_days: float = 200.0,
    audit_bytes: int = 1024**3,
    backup: Sequence[str] = (),
    cert: str | None = None,
    key: str | None = None,
) -> None:
    """Runs until `stop`, then ends within about two seconds; what was not acknowledged comes again.

    Every query is recorded in the ledger `audit/queries` of the store's folder, for `keep_days` and in `audit_bytes`.

    `ready` is called once, when HTTP listens; the broker may come later (see /healthz). `http` is "host:port"; port 0
    takes a free one, which `ready` is told. Raises StoreError, AuditError, GrantError, AddressInUse or ValueError
    where it can't start, and whatever stopped the ingest where that broke. `backup` are more brokers where agents may
    be.
    """
    addresses = [Broker.parse(each) for each in (broker, *backup)]
    credentials = Credentials(*(Path(each) if each else None for each in (ca, cert, key)))
    listener = await asyncio.to_thread(_listen, http)
    try:
        opened = await asyncio.to_thread(Store, store)
    except BaseException:
        listener.close()
        raise
    settler, recorder = None, None
    try:
        ingest = await asyncio.to_thread(Ingest, opened, root)
        subscription = Subscriptions(
            [
                Subscription(
                    broker=address,
                    root=root,
                    credentials=credentials,
                    mqtt=mqtt,
                    # Brokers of one cluster would take a second session of the same name for the first.
                    client=f"headrace-datacenter-{opened.client}{f'-{at}' if at else ''}",
                    deliver=ingest.offer,
                    greet=ingest.greet,
                )
                for at, address in enumerate(addresses)
            ]
        )
        recorder = await asyncio.to_thread(
            Recorder, opened.folder / "audit", keep_days=keep_days, max_bytes=audit_bytes
        )
        settler = Settler(opened)
        facts = _Facts(addresses[0], ingest, subscription, settler, recorder)
        porter = Access(access, await asyncio.to_thread(Grants, opened.folder))
        api = await asyncio.to_thread(Api, opened, facts.health, facts.counters, porter, recorder)
        settler.start()
        await _run(listener, ingest, subscription, api, stop=stop, ready=ready, store=opened)
    finally:
        if settler is not None and not await asyncio.to_thread(settler.stop, 1.5):
            log.warning("a run of readings was not given up in time", extra={"event": "stopped_late"})
        if recorder is not None:
            await asyncio.to_thread(recorder.close)
        listener.close()
        await asyncio.to_thread(opened.close)


@dataclass(frozen=True, slots=True)
class _Facts:
    """What /healthz and /v1/summary say of the running parts."""

    broker: Broker
    ingest: Ingest
    subscription: Subscriptions
    settler: Settler
    recorder: Recorder

    def health(self) -> dict[str, Any]:
        wrong = []
        if not self.ingest.alive:
            wrong.append("ingest stopped")
        elif not self.ingest.writable:
            wrong.append("the store can't be written")
        if not self.subscription.connected:
            wrong.append("no broker")
        return {
            "status": ", ".join(wrong) or "ok",
            "broker": {"connected": self.subscription.connected, "address": f"{self.broker.host}:{self.broker.port}"},
            "ingest": {
                "alive": self.ingest.alive,
                "writable": self.ingest.writable,
                "queued": self.ingest.queued,
                "parked": self.ingest.parked,
            },
            "audit": {"head": str(self.recorder.head), "refused": self.recorder.refused},
        }

    def counters(self) -> dict[str, Any]:
        counted = asdict(self.ingest.counters)
        counted["duplicate_blocks"] = counted.pop("duplicates")
        counted["stored_blocks"] = counted.pop("stored")
        return {
            **counted,
            "parked": self.ingest.parked,
            "queued": self.ingest.queued,
            "settled_readings": self.settler.readings,
            "unrecorded_queries": self.recorder.refused,
        }


async def _run(
    listener: socket.socket,
    ingest: Ingest,
    subscription: Subscriptions,
    api: Api,
    *,
    stop: asyncio.Event,
    ready: Callable[[dict[str, Any]], None],
    store: Store,
) -> None:
    server = _Server(
        uvicorn.Config(
            api.app,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=64,
            timeout_keep_alive=10,
            timeout_graceful_shutdown=1,
        )
    )
    loop = asyncio.get_running_loop()
    stopping, stored_all = asyncio.Event(), asyncio.Event()

    def ended() -> None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(stored_all.set)

    ingest.start(subscription.publish, ended)
    parts: list[asyncio.Task[Any]] = [
        asyncio.create_task(server.serve(sockets=[listener]), name="http"),
        asyncio.create_task(subscription.run(stopping), name="subscription"),
        asyncio.create_task(stored_all.wait(), name="ingest"),
    ]
    asked = asyncio.create_task(stop.wait(), name="stop")
    listening = asyncio.create_task(server.listening.wait(), name="listening")
    try:
        await asyncio.wait([*parts, asked, listening], return_when=asyncio.FIRST_COMPLETED)
        if listening.done():
            host, port = listener.getsockname()[:2]
            place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            facts = {"http": place, "url": f"http://{place}/", "store": str(store.path)}
            log.info("the data center answers at %s", facts["url"], extra={"event": "datacenter_ready", **facts})
            ready(facts)
        await asyncio.wait([*parts, asked], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (asked, listening):
            task.cancel()
        stopping.set()
        server.should_exit = True
        api.close()
        if not await asyncio.to_thread(ingest.stop, 1.5):
            log.warning("the last transaction did not end in time", extra={"event": "stopped_late"})
        _done, late = await asyncio.wait(parts, timeout=2.0)
        for task in late:
            task.cancel()
        await asyncio.gather(*parts, return_exceptions=True)
    failures = [ingest.failure, *(task.exception() for task in parts if not task.cancelled())]
    for failure in failures:
        if failure is not None:
            raise failure


def _listen(http: str) -> socket.socket:
    host, _, port = http.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{http!r} is not an address to listen at; write host:port, such as 127.0.0.1:8080")
    try:
        family = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, int(port)), family=family, backlog=64)
    except OSError as reason:
        raise AddressInUse(
            f"can't listen at {http}: {reason.strerror or reason}; stop what uses it, or set another [datacenter] http"
        ) from reason
