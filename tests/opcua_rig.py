"""What the tests of OPC UA recovery share: a line that can be cut, and what the agent has committed."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from agent import _native
from tests.peers.process import Peer, free_port
from tests.peers.servers import OPCUA_NAMESPACE
from tests.rig import Device, Plant

Reading = tuple[int, object, int]
"""(time_ns, value, quality)"""


class Line:
    """A TCP line to a server, which can be cut (connections reset, none accepted) or go dark (nothing gets through)."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.WriteTransport] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._light = asyncio.Event()

    @property
    def url(self) -> str:
        return f"opc.tcp://127.0.0.1:{self.port}"

    def cut(self) -> None:
        self._run(self._cut())

    def heal(self) -> None:
        """After `cut`, or after `dark`: a line that was dark comes back as one whose connections are gone."""
        self._run(self._heal())

    def dark(self) -> None:
        self._loop.call_soon_threadsafe(self._light.clear)

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._heal())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._cut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: object) -> None:
        future: Future[None] = asyncio.run_coroutine_threadsafe(work, self._loop)  # type: ignore[arg-type]
        future.result(10)

    async def _heal(self) -> None:
        if not self._light.is_set() and self._server is not None:
            await self._cut()
        self._light.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._joined, "127.0.0.1", self.port)

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for transport in self._open:
            transport.abort()
        self._open.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _joined(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        try:
            await self._light.wait()
            far_in, far_out = await asyncio.open_connection("127.0.0.1", self._target)
        except (OSError, asyncio.CancelledError):
            near_out.transport.abort()
            return
        self._open |= {near_out.transport, far_out.transport}
        for ours, theirs in ((near_in, far_out), (far_in, near_out)):
            self._tasks.add(asyncio.create_task(self._copy(ours, theirs)))

    async def _copy(self, ours: asyncio.StreamReader, theirs: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            while some := await ours.read(65536):
                await self._light.wait()
                theirs.write(some)
                await theirs.drain()
        theirs.transport.abort()


@dataclass(slots=True)
class Committed:
    """What is in an agent's outbox: readings of each tag in the order of commits, and gaps."""

    readings: dict[int, list[Reading]] = field(default_factory=dict)
    gaps: list[tuple[int, int, str]] = field(default_factory=list)

    @classmethod
    def of(cls, plant: Plant) -> Committed:
        found = cls()
        path = plant.path.parent / "agent" / "outbox.db"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            rows = db.execute("SELECT body FROM entry ORDER BY sequence").fetchall()
        for (body,) in rows:
            if (header := _native.header(body)).kind == "gap":
                found.gaps.append((header.first_ns, header.last_ns, header.reason))
            for tag, time_ns, value, quality in _native.decode(body).rows():
                found.readings.setdefault(tag, []).append((time_ns, value, quality))
        return found

    def counted(self, tag: int = 0) -> list[tuple[int, int]]:
        """(time_ns, value) of the counter's good readings."""
        return [(t, v) for t, v, quality in self.readings.get(tag, []) if quality == 0 and isinstance(v, int)]

    def faults(self, tag: int = 0, period_ns: int = 100_000_000) -> dict[str, list[int]]:
        """What is wrong with a counter: which values are lost, which came twice, which have another's time."""
        counted = self.counted(tag)
        times = Counter(value for _, value in counted)
        first_ns, first = min(counted, key=lambda each: each[1])
        lost = [value for value in range(first, max(times) + 1) if value not in times]
        wrong = [value for t, value in counted if t != first_ns + (value - first) * period_ns]
        return {"lost": lost, "doubled": [value for value, n in times.items() if n > 1], "wrong": wrong}


def opcua_plant(home: Path, url: str, *lines: str, tags: tuple[str, ...] = ("Counter",)) -> Plant:
    """An agent with one OPC UA device. Its uplink has no broker: what it commits stays in its outbox."""
    rows = [f"{name},nsu={OPCUA_NAMESPACE};s={name},int32," for name in tags]
    settings = [
        'protocol = "opcua"',
        f'url = "{url}"',
        'security = "None"',
        'publish = "200ms"',
        'sampling = "every change"',
    ]
    settings += ['keep_alive = "1s"', 'timeout = "2s"', *lines]
    return Plant.write(home, f"mqtt://127.0.0.1:{free_port()}", [Device("server", "\n".join(settings), rows)])


def events(process: Peer) -> Counter[str]:
    """How often each event was logged since the process started."""
    return Counter(process.events())  # type: ignore[attr-defined]
