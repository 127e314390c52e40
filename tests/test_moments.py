"""Level 3 with an outbox of its own: what belongs to one moment is in both outboxes, or after a crash in neither.

A server numbers its messages, and sends again what was not acknowledged, as one of OPC UA does. The process ends before
each BEGIN and each COMMIT of both outboxes in turn; after the next start every message is in each lane exactly once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from agent import _native, config
from agent.collectors.base import Collector, Inlet
from agent.config import Config, Device
from agent.delivery import Delivery
from agent.outbox import Outbox
from agent.pipeline import Pipeline
from agent.sealer import FULL_AT_END, STOPPED
from headrace import cli
from tests.delivery_world import BEGIN_NS, Crashed, Disk, SimOutbox
from tests.virtual import run

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


@pytest.fixture
def home() -> Iterator[Path]:
    # In memory where that is: a sync that takes no time changes nothing here.
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        yield Path(name)


def crash_at(plant: Plant, place: int) -> Callable[[str], bool]:
    """Ends the process at the so-manieth BEGIN or COMMIT."""
    left = [place]

    def fault(_: str) -> bool:
        left[0] -= 1
        if not left[0]:
            plant.crash()
        return False

    return fault


@pytest.mark.parametrize("group", range(4))
def test_each_message_is_once_in_each_lane_wherever_the_process_ends(home: Path, group: int) -> None:
    ended = 0
    for place in range(1 + group, 61, 4):
        plant = Plant(home / f"{place}")
        plant.home.mkdir()

        async def life(plant: Plant = plant, place: int = place) -> bool:
            plant.fault = crash_at(plant, place)
            crashed = await plant.live(6.0)
            await plant.live(3.0)
            plant.quiet = True
            await plant.live(3.0)
            return crashed

        ended += run(life())
        every = Counter(range(1, plant.sent + 1))
        assert plant.sent > 5
        assert (place, plant.found(MAIN)) == (place, every)
        assert (place, plant.found(INNER)) == (place, every)
    assert ended > 8


def stored(plant: Plant, lane: str) -> list[tuple[int, int, str]]:
    """The blocks that wait in an outbox whose process is gone, as (place, readings, reason of a gap)."""
    with contextlib.closing(sqlite3.connect(plant.home / "agent" / lane)) as db:
        bodies = [body for (body,) in db.execute("SELECT body FROM entry ORDER BY sequence")]
    headers = [_native.header(body) for body in bodies]
    return [(each.sequence, each.readings, each.reason) for each in headers]


def crash_between(plant: Plant) -> Callable[[str], bool]:
    """Ends the process when level 3 has its part of a moment, and the main outbox asks for its own."""
    seen = Counter[str]()

    def fault(lane: str) -> bool:
        seen[lane] += 1
        if lane == MAIN and seen[INNER] >= 12 and plant.sent > 5 and stored(plant, INNER):
            plant.crash()
        return False

    return fault


def begun(home: Path, then: Callable[[Plant], None]) -> Plant:
    """A plant whose process ended between the two outboxes; `then` happens before it starts again."""
    plant = Plant(home)

    async def life() -> None:
        plant.fault = crash_between(plant)
        assert await plant.live(12.0)
        then(plant)
        await plant.live(4.0)
        plant.quiet = True
        await plant.live(4.0)

    run(life())
    return plant


def test_a_tag_that_moves_to_the_other_lane_at_that_moment_is_neither_lost_nor_doubled(home: Path) -> None:
    def moved(plant: Plant) -> None:
        assert stored(plant, INNER)
        plant.levels.reverse()

    plant = begun(home, moved)
    once = Counter(dict.fromkeys(range(1, plant.sent + 1), 1))
    assert plant.found(MAIN) == plant.found(INNER) == once


def test_level_3_comes_to_the_main_lane_where_its_own_is_given_up_at_that_moment(home: Path) -> None:
    def given_up(plant: Plant) -> None:
        plant.extra = ""

    plant = begun(home, given_up)
    both = plant.found(MAIN) + plant.found(INNER)
    assert both == Counter(dict.fromkeys(range(1, plant.sent + 1), 2))
    assert stored(plant, INNER)
    plant.extra = LEVEL3
    run(plant.live(2.0))  # and when it is back it is not sent either
    assert plant.found(MAIN) + plant.found(INNER) == both
    assert not stored(plant, INNER)


@pytest.mark.parametrize("lane", [MAIN, INNER])
def test_nothing_is_taken_back_where_one_of_the_two_was_put_back_from_a_copy(home: Path, lane: str) -> None:
    def copied(plant: Plant) -> None:
        path = plant.home / "agent" / lane
        shutil.copy(path, path.with_name("copy"))
        path.with_name("copy").rename(path)

    plant = begun(home, copied)
    assert set(plant.found(MAIN)) == set(plant.found(INNER)) == set(range(1, plant.sent + 1))
    assert max(plant.found(MAIN).values()) == 1


def test_what_a_device_does_not_send_again_is_not_taken_back(home: Path) -> None:
    plant = Plant(home)
    plant.marks = False

    async def life() -> int:
        plant.fault = crash_between(plant)
        assert await plant.live(12.0)
        waited = sum(int(readings) for _, readings, _ in stored(plant, INNER))
        before = plant.found(INNER).total()
        plant.quiet = True
        await plant.live(4.0)
        assert plant.found(INNER).total() == before + waited
        return waited

    assert run(life())


def test_a_stop_while_only_the_main_outbox_takes_no_writes_loses_nothing(home: Path) -> None:
    plant = Plant(home)

    async def life() -> None:
        await plant.start()
        await asyncio.sleep(5.0)
        plant.fault = lambda lane: lane == MAIN
        await asyncio.sleep(5.0)
        before = plant.found(INNER)
        assert stored(plant, INNER)
        plant.stop.set()
        await plant.running
        assert plant.found(INNER) == before
        await plant.crashed()
        await plant.live(4.0)
        plant.quiet = True
        await plant.live(4.0)

    run(life())
    once = Counter(dict.fromkeys(range(1, plant.sent + 1), 1))
    assert plant.found(MAIN) == plant.found(INNER) == once
    assert {reason for readings, reason in plant.gaps(INNER) if readings} == {FULL_AT_END}


def test_what_is_missing_is_told_on_both_lanes(home: Path) -> None:
    """Behind each may be a data center that knows nothing of the other."""
    plant = Plant(home)

    async def life() -> None:
        await plant.start()
        await asyncio.sleep(5.0)
        plant.pipeline._intake.lost(BEGIN_NS, BEGIN_NS + 5, 7, "press: its queue ran over")
        await asyncio.sleep(2.0)
        plant.fault = lambda lane: lane == INNER
        await asyncio.sleep(5.0)
        plant.fault = lambda _: False
        await asyncio.sleep(5.0)
        plant.stop.set()
        await plant.running

    run(life())
    assert plant.gaps(MAIN) == [(7, "press: its queue ran over"), (0, STOPPED)]
    assert plant.gaps(INNER) == [(0, "press: its queue ran over"), (0, STOPPED)]


def test_nothing_is_exported_that_may_still_be_taken_back(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant = Plant(home)

    async def life() -> None:
        plant.fault = crash_between(plant)
        assert await plant.live(12.0)

    run(life())
    before = stored(plant, INNER)
    names = [str(home / "plant.toml"), str(home / "out.hdrx")]
    assert cli.main(["outbox", "export", *names, "--uplink", "level3", "--confirm", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["blocks"] == len(before) - 1
