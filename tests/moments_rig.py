"""A device that sends again what was not acknowledged, an agent with two outboxes, and a line that takes all."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from agent import _native, config
from agent.collectors.base import Collector, Inlet
from agent.config import Config, Device
from agent.delivery import Delivery
from agent.outbox import Outbox
from agent.pipeline import Pipeline
from tests.delivery_world import BEGIN_NS, Crashed, Disk, SimOutbox

CONFIG = """
[agent]
id = "a"
data_dir = "./agent"
[identifiers]
prefix = "88.118.8"
[outbox]
max_bytes = "1 MiB"
when_full = "stop_collecting"
[uplink]
url = "mqtt://127.0.0.1:1"
[[device]]
name = "press"
protocol = "modbus"
url = "tcp://127.0.0.1:1"
tags = "press.csv"
"""
LEVEL3 = '[egress]\nlevel3 = { url = "mqtt://127.0.0.2:1" }\n'
MAIN, INNER = "outbox.db", "level3/outbox.db"


class Numbered:
    """Reads one message after another; what was not acknowledged comes again after a start."""

    def __init__(self, plant: Plant, device: Device, inlet: Inlet) -> None:
        self.device = device
        self.counters: dict[str, int] = {}
        self._plant, self._inlet = plant, inlet
        self._next = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def connect(self) -> None:
        if not self._next:
            place = int(self._inlet.marked("place") or b"0")
            assert place >= self._plant.acknowledged or not self._plant.marks, (
                "messages are gone that were acknowledged and not stored"
            )
            self._next = place + 1 if self._plant.marks else self._plant.sent + 1

    async def read(self) -> None:
        await asyncio.sleep(0.01 if self._next < self._plant.sent else 0.4)
        if self._next > self._plant.sent:
            if self._plant.quiet:
                return
            self._plant.sent += 1
        number, self._next = self._next, self._next + 1
        at = BEGIN_NS + number * 1_000_000
        rows = [(tag.index, at, float(number), 0) for tag in self.device.tags]
        assert self._inlet.push(rows) == len(rows)
        if self._plant.marks:
            self._inlet.mark("place", b"%d" % number)
        self._tasks.add(asyncio.create_task(self._acknowledge(number)))

    async def _acknowledge(self, number: int) -> None:
        await self._inlet.durable()
        self._plant.acknowledged = max(self._plant.acknowledged, number)

    async def close(self) -> None: ...


class Line:
    """Takes whatever an outbox hands out: nothing can be taken back from it."""

    def __init__(self, plant: Plant, outbox: Outbox) -> None:
        self._plant, self._outbox = plant, outbox
        self._awake = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self._awake.clear()
            await self.send()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await self._awake.wait()

    async def send(self) -> None:
        outbox = self._outbox
        for entry in await outbox.peek(0, 100, 1 << 20):
            key = outbox.path, outbox.streams.of(entry.sequence), entry.sequence
            known = self._plant.taken.setdefault(key, entry.body)
            # A gap takes no notice of a block that arrived: a policy of now is not that of then.
            assert known == entry.body or entry.gap, f"place {entry.sequence} was given out for different bytes"
            await outbox.confirm(entry.last)

    async def drain(self, seconds: float) -> bool:
        await self.send()
        return bool(seconds)

    def wake(self) -> None:
        self._awake.set()

    def facts(self) -> dict[str, Any]:
        return {}


class Plant:
    """A server, an agent with two outboxes, and what was taken from them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.sent = self.acknowledged = 0
        self.quiet = False
        self.marks = True
        """Whether the device sends again what was not acknowledged."""
        self.taken: dict[Any, bytes] = {}
        self.levels = [1, 3]
        self.extra = LEVEL3
        self.fault: Callable[[str], bool] = lambda _: False
        """Asked before each BEGIN and COMMIT of an outbox: whether that fails. It may raise Crashed."""
        self.next_fault: Callable[[str], bool] | None = None
        """What holds from the next run on, when both outboxes are open."""
        self.outboxes: dict[str, SimOutbox] = {}
        self.running: asyncio.Task[None]
        self.stop = asyncio.Event()
        self.pipeline: Pipeline

    async def start(self) -> None:
        rows = [f"t{at},hr:{4 * at},float64,{level}" for at, level in enumerate(self.levels)]
        (self.home / "press.csv").write_text("\n".join(["name,address,type,level", *rows]) + "\n")
        (self.home / "plant.toml").write_text(CONFIG + self.extra)
        self.stop = asyncio.Event()
        self.pipeline = Pipeline(
            config.load(self.home / "plant.toml"),
            collect=self._collect,
            open_outbox=self._open,
            deliver=self._deliver,
        )
        self.running = asyncio.create_task(self.pipeline.run(self.stop))

    def _collect(self, devices: Sequence[Device], inlet: Inlet) -> list[Collector]:
        return [Numbered(self, device, inlet) for device in devices]

    def _deliver(self, found: Config, outbox: Outbox, *_: Any) -> Delivery:
        return cast("Delivery", Line(self, outbox))

    async def _open(self, path: Path, **settings: Any) -> Outbox:
        name = str(path.relative_to(self.home / "agent"))
        plant = self

        class Faulty(SimOutbox):
            async def _connect(self) -> Any:
                if self.crashed:
                    raise Crashed
                self.disk = Disk(self.path, lambda: plant.fault(name))
                return self.disk

        self.outboxes[name] = outbox = cast("SimOutbox", await Faulty.open(path, **settings))
        return outbox

    def crash(self) -> None:
        """kill -9: to be called from within."""
        for outbox in self.outboxes.values():
            outbox.crash()
        raise Crashed

    async def crashed(self) -> None:
        """What a process leaves behind when it is gone: nothing."""
        mine = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not mine]
        for task in others:
            task.cancel()
        with contextlib.suppress(Crashed):
            await asyncio.gather(*others, return_exceptions=True)
        self.outboxes.clear()
        self.fault = lambda _: False

    async def live(self, seconds: float) -> bool:
        """One run, until it is told to end. Returns whether it crashed instead."""
        await self.start()
        if self.next_fault is not None:
            await asyncio.wait([self.running], timeout=0.1)
            assert len(self.outboxes) == 2
            self.fault, self.next_fault = self.next_fault, None
        await asyncio.wait([self.running], timeout=seconds)
        self.stop.set()
        await asyncio.wait([self.running], timeout=60.0)
        crashed = any(outbox.crashed for outbox in self.outboxes.values())
        if not crashed:
            await self.running
        await self.crashed()
        return crashed

    def found(self, lane: str) -> Counter[int]:
        """How often each message arrived on a lane."""
        return Counter(
            int(value)
            for (path, _, _), body in self.taken.items()
            if path == self.home / "agent" / lane and _native.header(body).kind != "gap"
            for _, _, value, _ in _native.decode(body).rows()
            if isinstance(value, float)
        )

    def gaps(self, lane: str) -> list[tuple[int, str]]:
        """(readings, reason) of the gaps that arrived on a lane."""
        headers = [
            _native.header(body) for (path, *_), body in self.taken.items() if path == self.home / "agent" / lane
        ]
        return [(each.readings, each.reason) for each in headers if each.kind == "gap"]


def stored(plant: Plant, lane: str) -> list[tuple[int, int, str]]:
    """The blocks that wait in an outbox whose process is gone, as (place, readings, reason of a gap)."""
    with contextlib.closing(sqlite3.connect(plant.home / "agent" / lane)) as db:
        bodies = [body for (body,) in db.execute("SELECT body FROM entry ORDER BY sequence")]
    headers = [_native.header(body) for body in bodies]
    return [(each.sequence, each.readings, each.reason) for each in headers]
