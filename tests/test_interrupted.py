"""What is under way when somebody stops waiting for it: it is finished, or told, and never half done."""

from __future__ import annotations

import asyncio
import random
import time
import types
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from agent import _native, audit, config, delivery, pipeline
from agent.collectors.base import Collector, Inlet
from agent.config import Device
from agent.delivery import Delivery
from agent.entry import Damaged
from agent.errors import NotConnected, OutboxFull
from agent.flight import Flight
from agent.gate import Gate
from agent.intake import MOST_REASONS, Intake
from agent.lanes import Deliver
from agent.outbox import Outbox
from agent.pipeline import Pipeline
from agent.receipts import Receipts
from agent.sealer import FULL_AT_END, TOO_LARGE
from agent.verdict import WITHHELD
from agent.wire import Receipt
from tests.rig import soon
from tests.test_outbox import MEBIBYTE, block, everything, opened


async def test_an_append_whose_caller_is_gone_is_stored_before_the_file_closes(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    for steps in range(12):
        outbox = await Outbox.open(path, max_bytes=64 * MEBIBYTE, when_full="drop_oldest")
        await outbox.flush()
        wanted = outbox.next_sequence
        appending = asyncio.create_task(outbox.append(block(outbox), 7))
        for _ in range(steps + 1):
            await asyncio.sleep(0)
        appending.cancel()
        await outbox.close()
        async with opened(path) as again:
            assert again.last == wanted
            assert (await everything(again))[-1].sequence == wanted


class Collecting:
    """Pushes a reading of each tag now and then, and notes how many were taken."""

    def __init__(self, device: Device, inlet: Inlet) -> None:
        self.device, self.counters = device, {"pushed": 0}
        self._inlet = inlet

    async def connect(self) -> None: ...

    async def close(self) -> None: ...

    async def read(self) -> None:
        await asyncio.sleep(0.01)
        self.counters["pushed"] += 1
        rows = [(tag.index, time.time_ns(), float(self.counters["pushed"]), 0) for tag in self.device.tags]
        assert self._inlet.push(rows) == len(rows)
        self._inlet.mark("place", b"%d" % self.counters["pushed"])


CONFIG = """
[agent]
id = "a"
data_dir = "./agent"
[identifiers]
prefix = "88.118.8"
[seal]
after = "{after}"
[uplink]
url = "mqtt://127.0.0.1:1"
[[device]]
name = "press"
protocol = "modbus"
url = "tcp://127.0.0.1:1"
tags = "press.csv"
"""


def plant(home: Path, egress: str = "", after: str = "100ms") -> config.Config:
    (home / "press.csv").write_text("name,address,type,level\ntemp,hr:0,float64,1\ncount,hr:4,float64,2\n")
    (home / "plant.toml").write_text(CONFIG.format(after=after) + egress)
    return config.load(home / "plant.toml")


class Rig:
    """A pipeline over a collector that only pushes, and what became of it."""

    def __init__(self, found: config.Config, gate: type[Gate] = Gate, deliver: Deliver = Delivery.of) -> None:
        self.collectors: list[Collecting] = []
        self.pipeline = Pipeline(found, collect=self._collect, open_outbox=gate.open, deliver=deliver)
        self.stop = asyncio.Event()
        self.path = found.agent.data_dir / "outbox.db"

    def _collect(self, devices: Sequence[Device], inlet: Inlet) -> list[Collector]:
        self.collectors = [Collecting(device, inlet) for device in devices]
        return [*self.collectors]

    @property
    def pushed(self) -> int:
        return self.collectors[0].counters["pushed"] if self.collectors else 0

    async def pushes(self, count: int) -> None:
        """Returns when so many more were pushed."""
        wanted = self.pushed + count
        await soon(lambda: self.pushed >= wanted)

    async def stored(self) -> tuple[int, int, dict[str, bytes]]:
        """Readings that wait, blocks that wait, and the marks."""
        async with opened(self.path) as outbox:
            entries = await everything(outbox)
            return sum(each.readings for each in entries if not each.gap), len(entries), await outbox.marks()


async def test_a_mistake_elsewhere_loses_nothing_that_was_accepted(tmp_path: Path) -> None:
    class Broken(Delivery):
        async def run(self, stop: asyncio.Event) -> None:
            await rig.pushes(10)
            raise RuntimeError("a mistake of our own")

    rig = Rig(plant(tmp_path, after="1h"), deliver=Broken.of)
    with pytest.raises(ExceptionGroup):
        await rig.pipeline.run(rig.stop)
    readings, _, marks = await rig.stored()
    assert (readings, marks["place"]) == (2 * rig.pushed, b"%d" % rig.pushed)


async def test_whoever_is_cancelled_stores_what_was_accepted(tmp_path: Path) -> None:
    rig = Rig(plant(tmp_path, after="20ms"))
    for turns in range(1, 6):
        rig = Rig(plant(tmp_path, after="20ms"))
        before = (await rig.stored())[0] if turns > 1 else 0
        running = asyncio.create_task(rig.pipeline.run(rig.stop))
        await rig.pushes(5)
        await asyncio.sleep(turns * 0.013)  # anywhere in a seal
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert (await rig.stored())[0] - before == 2 * rig.pushed


@types.coroutine
def interrupted(work: Coroutine[Any, Any, None], place: int) -> Generator[Any, Any, None]:
    """Does `work` in the running task, which is cancelled where `work` waits for the `place`-th time."""
    answer: Callable[[], Any] = partial(work.send, None)
    while True:
        try:
            awaited = answer()
        except StopIteration:
            return
        place -= 1
        if not place:
            cast("asyncio.Task[None]", asyncio.current_task()).cancel()
        try:
            answer = partial(work.send, (yield awaited))
        except BaseException as reason:
            answer = partial(work.throw, reason)


async def test_whoever_is_cancelled_while_it_starts_leaves_all_to_the_next_start(tmp_path: Path) -> None:
    """At every place where the start waits for something, one after another."""
    found = plant(tmp_path)
    for place in range(1, 100):
        rig = Rig(found)
        ready = asyncio.Event()
        run = rig.pipeline.run(rig.stop, ready=ready.set)
        with pytest.raises(asyncio.CancelledError):
            await interrupted(run, place)
        cast("asyncio.Task[None]", asyncio.current_task()).uncancel()
        if ready.is_set():
            break
    else:
        pytest.fail("it never started")
    assert place > 3
    for ledger in audit.names(found.agent.data_dir / "audit"):
        assert not audit.verify(found.agent.data_dir / "audit", ledger).findings


async def test_what_is_of_one_moment_is_stored_in_one_go(tmp_path: Path) -> None:
    """Two levels, so two blocks a seal: a crash between them would bring the first one's readings again."""
    went: list[tuple[int, bool]] = []

    class Watched(Gate):
        async def append_all(self, blocks: Any, epoch: int, kept: Any = None, *, held: bool = False) -> None:
            went.append((len(blocks), "place" in (kept or {})))
            await super().append_all(blocks, epoch, kept, held=held)

    rig = Rig(plant(tmp_path), Watched)
    running = asyncio.create_task(rig.pipeline.run(rig.stop))
    await soon(lambda: len(went) > 3)
    rig.stop.set()
    await running
    assert went
    assert set(went) == {(2, True)}
    assert (await rig.stored())[0] == 2 * rig.pushed


async def test_blocks_that_go_together_are_all_stored_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "outbox.db"

    async def failing(*_: object) -> None:
        raise OutboxFull("the disk takes nothing")

    async with opened(path) as outbox:
        blocks = [block(outbox, sequence=place) for place in (1, 2, 3)]
        with pytest.raises(ValueError, match="next is 2"):
            await outbox.append_all([blocks[0], blocks[2]], 7)
        with monkeypatch.context() as broken:
            broken.setattr("agent.marks.keep", failing)
            with pytest.raises(OutboxFull):
                await outbox.append_all(blocks, 7, {"place": b"3"})
        assert (outbox.last, await everything(outbox)) == (0, [])
        await outbox.append_all(blocks, 7, {"place": b"3"})
        assert [each.sequence for each in await everything(outbox)] == [1, 2, 3]
        await outbox.append(block(outbox), 7)
        assert outbox.last == 4


async def test_a_new_epoch_waits_for_a_disk_and_its_policy_does_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(Gate):
        full = False

        async def keep_catalog(self, epoch: int, body: bytes) -> None:
            if Full.full:
                raise OutboxFull("the disk is full")
            await super().keep_catalog(epoch, body)

    rig = Rig(plant(tmp_path), Full)
    running = asyncio.create_task(rig.pipeline.run(rig.stop))
    await rig.pushes(1)
    outbox = rig.pipeline._lanes.main.outbox
    await soon(lambda: outbox.last >= 4)
    Full.full = True
    deny = '[egress]\n[[egress.rule]]\naction = "deny"\nlevels = [2]\n'
    assert rig.pipeline.reload(plant(tmp_path, deny)) == []
    before = rig.pipeline.facts()["egress"]["withheld"]
    await soon(lambda: events(caplog).count("epoch_waits"))
    waited = outbox.last
    await soon(lambda: outbox.last >= waited + 4)
    assert not running.done()
    handed = await outbox.peek(0, 1000, MEBIBYTE)
    assert {_native.header(each.body).reason for each in handed if each.gap} == {WITHHELD}
    assert rig.pipeline.facts()["egress"]["withheld"] == before == 0
    Full.full = False
    await soon(lambda: rig.pipeline.facts()["egress"]["withheld"])
    rig.stop.set()
    await running
    facts = rig.pipeline.facts()
    assert (await rig.stored())[0] + facts["egress"]["withheld"] == 2 * rig.pushed
    assert events(caplog).count("epoch_waits") == 1


def events(caplog: pytest.LogCaptureFixture) -> list[object]:
    return [each.__dict__.get("event") for each in caplog.records]


async def test_what_no_room_would_ever_hold_becomes_a_gap(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    small = '[outbox]\nmax_bytes = "256 KiB"\nwhen_full = "stop_collecting"\n'
    rig = Rig(plant(tmp_path, small, after="400ms"))
    running = asyncio.create_task(rig.pipeline.run(rig.stop))
    await rig.pushes(1)
    noise = random.Random(1)
    rows = [(0, time.time_ns() + at, noise.random(), 0) for at in range(60_000)]
    assert rig.pipeline._intake.push(rows) == len(rows)
    await soon(lambda: "readings_lost" in events(caplog))
    await rig.pushes(1)
    rig.stop.set()
    await running
    async with opened(rig.path, max_bytes=256 * 1024) as outbox:
        entries = await everything(outbox)
    gaps = [(each.readings, _native.header(each.body).reason) for each in entries if each.gap]
    assert [reason for _, reason in gaps] == [TOO_LARGE]
    assert gaps[0][0] >= len(rows)
    assert gaps[0][0] + sum(each.readings for each in entries if not each.gap) == 2 * rig.pushed + len(rows)
    assert any(each.__dict__.get("lost") == gaps[0][0] for each in caplog.records)


async def test_stopping_with_a_full_outbox_leaves_a_gap(tmp_path: Path) -> None:
    small = '[outbox]\nmax_bytes = "256 KiB"\nwhen_full = "stop_collecting"\n'
    rig = Rig(plant(tmp_path, small))
    ready = asyncio.Event()
    running = asyncio.create_task(rig.pipeline.run(rig.stop, drain=0.0, ready=ready.set))
    await ready.wait()
    noise, pushed = random.Random(2), 0
    while rig.pipeline.facts()["collecting"]:
        rows = [(0, time.time_ns() + at, noise.random(), 0) for at in range(1000)]
        pushed += rig.pipeline._intake.push(rows)
        await asyncio.sleep(0.15)
    rig.stop.set()
    await running
    async with opened(rig.path, max_bytes=256 * 1024) as outbox:
        entries = await everything(outbox)
    gaps = [(each.readings, _native.header(each.body).reason) for each in entries if each.gap]
    assert {reason for readings, reason in gaps if readings} == {FULL_AT_END}
    assert sum(each.readings for each in entries) == 2 * rig.pushed + pushed


async def test_a_collector_that_can_not_even_be_closed_ends_nobody(tmp_path: Path) -> None:
    class Stubborn(Collecting):
        async def read(self) -> None:
            await super().read()
            if self.counters["pushed"] == 3:
                raise NotConnected("away")

        async def close(self) -> None:
            raise ValueError("a mistake of the collector's")

    found = plant(tmp_path)
    pipeline = Pipeline(found, collect=lambda devices, inlet: [Stubborn(each, inlet) for each in devices])
    stop = asyncio.Event()
    running = asyncio.create_task(pipeline.run(stop))
    await asyncio.sleep(0.3)
    assert not running.done()
    stop.set()
    await running


def test_what_collectors_lose_is_told_in_bounded_many_gaps(tmp_path: Path) -> None:
    intake = Intake(plant(tmp_path).tags, 1000)
    for number in range(1000):
        intake.lost(number, number + 1, 1, f"press: reason {number}")
    _, _, losses = intake.cut()
    assert len(losses) == MOST_REASONS + 1
    assert sum(loss.count for loss in losses) == 1000
    assert (min(loss.from_ns for loss in losses), max(loss.to_ns for loss in losses)) == (0, 1000)


async def test_a_data_center_that_is_only_slower_has_forgotten_nothing(tmp_path: Path) -> None:
    """Two data centers have the same blocks: the slower one's receipts come behind what the other let us forget."""
    now = [0.0]
    async with opened(tmp_path / "outbox.db") as outbox:
        receipts = Receipts(outbox, Flight(10.0), lambda: now[0])
        for place in range(1, 41):
            await outbox.append(block(outbox), 7)
            now[0] += 1.0
            receipts.hear(Receipt(outbox.stream, place))
            assert (await receipts.settle())[1] is None
            receipts.hear(Receipt(outbox.stream, place - 1))
            assert (await receipts.settle())[1] is None
        lost = None
        for _ in range(5):  # and one whose store is new stands still
            now[0] += 1.0
            receipts.hear(Receipt(outbox.stream, 7))
            lost = lost or (await receipts.settle())[1]
        assert lost is not None
        assert (_native.header(lost.data).sequence, _native.header(lost.data).last_sequence) == (8, 40)


async def test_who_is_told_to_end_ends_whatever_happens_at_that_moment() -> None:
    """`asyncio.wait_for` of Python 3.11 returns what has just happened, and forgets that it was told to end: of a
    hundred agents one or two did not stop."""
    happened = asyncio.Event()
    waiting = asyncio.create_task(delivery._wait(happened, 60.0))
    for _ in range(3):
        await asyncio.sleep(0)
    happened.set()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_who_does_not_hear_that_it_is_to_end_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "CLOSING", 0.05)

    async def deaf() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await asyncio.sleep(60)

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    await pipeline._end([task])
    assert task.cancelled()


async def test_an_outbox_that_is_made_anew_has_the_marks_and_the_catalog_again(tmp_path: Path) -> None:
    """Collectors say where they are when that changes: what they said before must not be lost with a damaged file."""

    class Once(Collecting):
        async def connect(self) -> None:
            self._inlet.mark("session", b"of the start")

    found = plant(tmp_path, '[egress]\n[[egress.rule]]\naction = "deny"\nlevels = [3]\n')
    pipeline = Pipeline(found, collect=lambda devices, inlet: [Once(each, inlet) for each in devices])
    stop = asyncio.Event()
    ready = asyncio.Event()
    running = asyncio.create_task(pipeline.run(stop, drain=0.0, ready=ready.set))
    await ready.wait()
    await soon(lambda: pipeline.facts()["sealed_blocks"] > 2)
    outbox = pipeline._lanes.main.outbox
    before, epoch = outbox.stream, outbox.newest_epoch
    path = found.agent.data_dir / "outbox.db"

    async def damaged() -> None:
        raise Damaged("a page is not what was written")

    with suppress(OutboxFull):
        raw = path.read_bytes()
        path.write_bytes(raw[:4096] + bytes(len(raw) - 4096))
        tries = iter([damaged])

        async def once() -> None:
            for each in tries:
                await each()

        await outbox._alone(lambda: outbox._contents.session.guard(once))
    assert outbox.stream != before
    sealed = pipeline.facts()["sealed_blocks"]
    await soon(lambda: pipeline.facts()["sealed_blocks"] > sealed + 4)
    stop.set()
    await running
    async with opened(path) as again:
        marks = await again.marks()
        assert marks["session"] == b"of the start"
        assert int(marks["place"]) > 4
        assert epoch is not None
        assert await again.catalog(epoch) is not None


async def test_a_stop_does_not_wait_for_a_resolver_that_is_away(tmp_path: Path) -> None:
    """In mode strict nothing is collected before every identifier was resolved, for up to an hour."""
    rig = Rig(plant(tmp_path))

    asked = asyncio.Event()

    async def never() -> None:
        asked.set()
        await asyncio.sleep(3600.0)

    rig.pipeline._lookup.settle = never  # type: ignore[method-assign]
    running = asyncio.create_task(rig.pipeline.run(rig.stop))
    await asked.wait()
    await asyncio.sleep(0.1)
    assert rig.pushed == 0
    rig.stop.set()
    async with asyncio.timeout(40.0):
        await running
