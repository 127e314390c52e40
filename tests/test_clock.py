"""The gateway's clock: whether it is known to be right, what steps of it do, and how wrong times are corrected."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import duckdb
import pytest

from agent import _native, clock, config
from agent.clock import GATEWAY, STEP_NS, Clock
from agent.doubts import MARK, MOST, Doubts
from agent.pipeline import Pipeline
from agent.wire import Catalog, CatalogTag, epoch_of
from datacenter import completeness, store
from headrace.query import fetch
from headrace.verify import verify
from tests.datacenter_rig import AGENT, BEGIN, TAGS, Rig, gap
from tests.datacenter_rig import block as readings_block
from tests.peers.brokers import Mosquitto
from tests.peers.process import free_port
from tests.rig import Device, Plant, data_center, simulator

pytestmark = pytest.mark.timeout(180)  # programs start, and the machine may be busy

SECOND = 10**9
HOUR = 3600 * SECOND
SEED = 11
STREAM = b"s" * 16


class FakeWall:
    """A wall clock that can be set, and may run too fast; and a system that says whether it is synchronised."""

    def __init__(self, off_ns: int = 0, *, synchronized: bool | None = False, drift_ppm: float = 0.0) -> None:
        self.off_ns, self.synchronized, self.drift_ppm = off_ns, synchronized, drift_ppm
        self._since = clock.steady_ns()

    def now(self) -> int:
        passed = clock.steady_ns() - self._since
        return time.time_ns() + self.off_ns + round(passed * self.drift_ppm / 1e6)

    def ask(self) -> bool | None:
        return self.synchronized


@contextmanager
def gateway(wall: FakeWall) -> Iterator[None]:
    """The clock of this process goes by another wall clock."""
    before = GATEWAY.wall, GATEWAY.ask
    GATEWAY.wall, GATEWAY.ask = wall.now, wall.ask
    try:
        yield
    finally:
        GATEWAY.wall, GATEWAY.ask = before
        GATEWAY.begin()


def assert_together(found: Clock, wall: Callable[[], int]) -> None:
    """Whether a clock says what the wall clock says, however long it takes to read the one after the other."""
    before = wall()
    assert before - STEP_NS < found.now_ns() < wall() + STEP_NS


def test_the_system_is_asked() -> None:
    assert clock.synchronized() in (True, False)
    assert UUID(clock.boot())
    assert_together(Clock(), time.time_ns)


def test_a_step_is_told_once_with_its_size_and_never_moves_a_stamp_before_the_look(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for size in (HOUR, -HOUR, -BEGIN, 20_000_000):
        caplog.clear()
        wall = FakeWall(synchronized=True)
        found = Clock(wall.now, ask=wall.ask)
        assert found.look().right
        begun_ns, before = clock.steady_ns(), found.now_ns()
        wall.off_ns += size
        assert 0 <= found.now_ns() - before <= clock.steady_ns() - begun_ns
        look = found.look()
        assert not look.right
        assert not look.doubted
        assert_together(found, wall.now)
        assert found.look().right
        assert found.facts() == {"synchronized": True, "steps": 1}
        [record] = [each for each in caplog.records if each.__dict__["event"] == "clock_stepped"]
        assert abs(record.__dict__["step_ns"] - size) < STEP_NS
        assert record.levelno == logging.WARNING


def test_a_clock_that_drifts_is_followed_without_a_step() -> None:
    now = {"steady": 0}
    found = Clock(lambda: BEGIN + now["steady"] + now["steady"] // 2000, lambda: now["steady"], lambda: True)
    for _ in range(600):
        now["steady"] += SECOND
        assert found.look().right
        assert abs(found.now_ns() - BEGIN - now["steady"] * 2001 // 2000) <= 1_000_000
    assert found.steps == 0


def test_what_the_system_says_is_what_blocks_say() -> None:
    wall = FakeWall(synchronized=None)
    found = Clock(wall.now, ask=wall.ask)
    look = found.look()
    assert (look.right, look.doubted) == (False, False), "nobody knows: marked, and never corrected"
    wall.synchronized = False
    assert not found.look().right
    wall.synchronized = True
    look = found.look()
    assert (look.right, look.doubted) == (False, True), "what was read before it became right is in doubt"
    assert found.look().right
    wall.synchronized = False
    found.begin(trusted=True)
    assert found.look().right


def test_doubts_outlive_the_process_and_not_the_machine(caplog: pytest.LogCaptureFixture) -> None:
    doubts = Doubts("boot")
    assert not doubts.any
    mark = doubts.note(STREAM, 5, 0)
    assert doubts.note(STREAM, 6, 500) == {}
    mark |= doubts.note(STREAM, 9, HOUR)
    again = Doubts("boot")
    again.restore(mark[MARK])
    found = list(again.settle(HOUR + 5 * SECOND, 20))
    assert [(each.first, each.last, each.offset_ns) for each in found] == [
        (5, 8, HOUR + 5 * SECOND),
        (9, 20, 5 * SECOND),
    ]
    assert not again.any
    rest = Doubts("boot")
    rest.restore(found[0].mark)
    assert [(each.first, each.last) for each in rest.settle(0, 9)] == [(9, 9)]
    other = Doubts("another boot")
    other.restore(mark[MARK])
    assert not other.any
    assert [each.__dict__["event"] for each in caplog.records] == ["times_uncorrected"]
    for damaged in (b"[", b"{}", b'{"boot": 1, "spans": [[]]}', b'{"boot": "boot", "spans": [["x", 1, 1]]}'):
        other.restore(damaged)
        assert not other.any


def test_a_clock_that_is_set_again_and_again_takes_no_more_room() -> None:
    doubts = Doubts("boot")
    for place in range(1, 3 * MOST):
        doubts.note(STREAM, place, place * SECOND)
    found = list(doubts.settle(0, 3 * MOST))
    assert len(found) == MOST
    assert (found[0].first, found[-1].last) == (2 * MOST, 3 * MOST)


def test_right_enough_is_left_alone() -> None:
    doubts = Doubts("boot")
    doubts.note(STREAM, 1, 100)
    assert list(doubts.settle(200, 4)) == []
    assert not doubts.any
    assert Doubts("boot").mark() == doubts.mark()


def stamped_catalog(agent: str = AGENT) -> bytes:
    """Tag 0 is read over Modbus, tag 1 over OPC UA."""
    tags = (
        CatalogTag(t.index, t.device, t.name, t.identifier, t.type.value, source={"protocol": protocol})
        for t, protocol in zip(TAGS, ("modbus", "opcua"), strict=False)
    )
    return Catalog(agent, tuple(tags)).encode()


def wrong_block(stream: UUID, sequence: int) -> bytes:
    """Two readings, of which the first is stamped by a gateway that thinks that it is 1970."""
    rows = [(0, sequence * SECOND, True, 0), (1, BEGIN + sequence * SECOND, 7, 0)]
    buffer = _native.Buffer(TAGS)
    buffer.push(rows)
    epoch = epoch_of(stamped_catalog())
    made = buffer.seal(
        stream=stream.bytes, sequence=sequence, epoch=epoch, sealed_ns=sequence * SECOND, synchronized=False
    )
    assert made
    return made.data


def correction(stream: UUID, sequence: int, first: int, last: int, offset_ns: int = BEGIN) -> bytes:
    made = _native.correction(
        stream=stream.bytes,
        sequence=sequence,
        epoch=1,
        corrected=stream.bytes,
        first=first,
        last=last,
        offset_ns=offset_ns,
        sealed_ns=BEGIN + sequence * SECOND,
    )
    return made.data


def times(rig: Rig, tag: int) -> list[int]:
    with rig.store.snapshot() as view:
        query = "SELECT r.time FROM every r JOIN tags t USING (key) WHERE t.identifier = ? ORDER BY r.sequence"
        return [time_ns for (time_ns,) in view.rows(query, [TAGS[tag].identifier])]


@pytest.mark.parametrize("order", [(1, 2, 3, 4), (4, 3, 2, 1), (2, 4, 4, 1, 3), (4, 1, 2, 2, 3, 1)])
def test_a_correction_is_applied_once_whatever_comes_first(tmp_path: Path, order: tuple[int, ...]) -> None:
    """Blocks 1 and 2 are off by as much as the correction at place 4 says; block 3 is not."""
    stream = uuid4()
    bodies = {place: wrong_block(stream, place) for place in (1, 2, 3)} | {4: correction(stream, 4, 1, 2)}
    with Rig(tmp_path) as rig:
        for at, place in enumerate(order):
            if at == 1:
                rig.send(stamped_catalog(), word="catalog")  # what came before was parked
            rig.send(bodies[place])
    with Rig(tmp_path) as rig:
        rig.send(*bodies.values())
        assert times(rig, 0) == [BEGIN + SECOND, BEGIN + 2 * SECOND, 3 * SECOND]
        assert times(rig, 1) == [BEGIN + place * SECOND for place in (1, 2, 3)]
        assert rig.stream(stream)["committed"] == 4
        with rig.store.snapshot() as view:
            [found] = completeness.account(view, 0, None)["streams"]
            assert view.rows("SELECT first_ns, sealed_ns FROM blocks ORDER BY sequence LIMIT 1") == [
                (BEGIN + SECOND, BEGIN + SECOND)
            ]
        assert found["corrections"] == [{"first": 1, "last": 2, "offset_ns": BEGIN}]
        assert found["readings_in_doubt"] == 2


def test_a_correction_that_comes_while_readings_are_put_in_order_holds_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readings are copied to where they stay, and deleted where they were: the correction must not fall in between."""
    stream = uuid4()
    begun, go_on = threading.Event(), threading.Event()
    committed = store._committed

    @contextmanager
    def slow(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        with committed(connection):
            if threading.current_thread() is settling:
                connection.execute("SELECT count(*) FROM arrived_boolean").fetchall()  # what it will move
                begun.set()
                assert go_on.wait(20.0)
            yield

    with Rig(tmp_path) as rig:
        settling = threading.Thread(target=rig.store.settle, args=("boolean", 1000))
        rig.send(stamped_catalog(), word="catalog")
        rig.send(wrong_block(stream, 1), wrong_block(stream, 2))
        monkeypatch.setattr(store, "_committed", slow)
        settling.start()
        assert begun.wait(20.0)
        sending = threading.Thread(target=rig.send, args=(correction(stream, 3, 1, 2),))
        sending.start()
        sending.join(0.5)  # it is stored now, or waits
        go_on.set()
        settling.join(20.0)
        sending.join(20.0)
        with rig.store.snapshot() as view:
            found = view.rows("SELECT time FROM settled_boolean ORDER BY sequence")
        assert [time_ns for (time_ns,) in found] == [BEGIN + place * SECOND for place in (1, 2)]


def test_a_later_correction_adds_to_the_one_before(tmp_path: Path) -> None:
    stream = uuid4()
    with Rig(tmp_path) as rig:
        rig.send(stamped_catalog(), word="catalog")
        rig.send(wrong_block(stream, 1), correction(stream, 2, 1, 1), correction(stream, 3, 1, 1, -HOUR))
        assert times(rig, 0) == [BEGIN + SECOND - HOUR]


def test_only_the_agent_itself_may_correct_its_readings(tmp_path: Path) -> None:
    mine, other = uuid4(), uuid4()
    theirs = _native.correction(
        stream=other.bytes, sequence=1, epoch=1, corrected=mine.bytes, first=1, last=9, offset_ns=1, sealed_ns=BEGIN
    ).data
    huge = correction(mine, 3, 1, 1, 2**63 - 1)
    with Rig(tmp_path) as rig:
        rig.send(stamped_catalog(), word="catalog")
        rig.send(wrong_block(mine, 1))
        rig.send(theirs, agent="somebody-else")
        rig.send(wrong_block(mine, 2), huge)
        assert times(rig, 0) == [SECOND, 2 * SECOND]
        assert rig.ingest.counters.quarantined == 1


def test_a_gap_of_a_wrong_clock_is_moved_and_another_is_not(tmp_path: Path) -> None:
    stream = uuid4()
    own = _native.gap(
        stream=stream.bytes,
        first=1,
        last=1,
        epoch=1,
        from_ns=5,
        to_ns=9,
        readings=1,
        reason="refused",
        sealed_ns=9,
        synchronized=False,
    ).data
    with Rig(tmp_path) as rig:
        rig.send(stamped_catalog(), word="catalog")
        rig.send(own, gap(stream, 2, 2, 1), correction(stream, 3, 1, 2))
        with rig.store.snapshot() as view:
            found = view.rows("SELECT from_ns, to_ns FROM gaps ORDER BY first")
        assert found == [(BEGIN + 5, BEGIN + 9), (BEGIN + 2 * SECOND, BEGIN + 2 * SECOND)]
        assert readings_block(stream, 4)


async def until(condition: Callable[[], Any], seconds: float = 40.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := await asyncio.to_thread(condition)):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain"
        await asyncio.sleep(0.05)
    return found


def devices() -> list[Device]:
    press = Device(
        "press",
        f'protocol = "modbus"\nurl = "tcp://127.0.0.1:{free_port()}"\npoll = "100ms"\ntimeout = "15s"',
        [f"t{index},hr:{2 * index},float32,ABCD" for index in range(5)],
    )
    rows = [f"v{index},nsu=urn:headrace:plant;s=v{index},float64" for index in range(5)]
    furnace = Device(
        "furnace",
        f'protocol = "opcua"\nurl = "opc.tcp://127.0.0.1:{free_port()}"\nsecurity = "None"\npublish = "100ms"',
        rows,
        "name,address,type",
    )
    return [press, furnace]


async def test_steps_of_the_clock_lose_nothing_and_every_time_is_right_in_the_end(
    tmp_path: Path, mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    """A gateway boots in 1970, is set by hand, an hour wrong, and drifts; then NTP comes. Later the hour goes back."""
    caplog.set_level(logging.INFO)
    plant = Plant.write(tmp_path, mosquitto.url, devices())
    wall = FakeWall(-time.time_ns(), drift_ppm=400.0)
    begun_ns = clock.steady_ns()
    pressed, melted = "88.118.8/press.t0", "88.118.8/furnace.v0"

    def stored(name: str, after_ns: int) -> bool:
        answer = json.loads(fetch(plant.url, "/v1/readings", id=name, limit=1, **{"from": after_ns}))
        return bool(answer["readings"])

    def sealed() -> int:
        return int(pipeline.facts()["sealed_blocks"])

    async def blocks(count: int = 6) -> None:
        goal = sealed() + count
        await until(lambda: sealed() >= goal)

    with ExitStack() as running:
        running.enter_context(gateway(wall))
        running.enter_context(simulator(tmp_path, plant, SEED))
        running.enter_context(data_center(tmp_path, plant))
        found = config.load(plant.path)
        pipeline, stop = Pipeline(found), asyncio.Event()
        work = asyncio.create_task(pipeline.run(stop, drain=40.0))
        await until(lambda: plant.readings(pressed)["readings"] and plant.readings(melted)["readings"])
        assert plant.readings(pressed)["readings"][0][0] < 24 * HOUR
        wall.off_ns = -HOUR  # by hand, and wrong
        await blocks()
        drifted_ns = 400 * (clock.steady_ns() - begun_ns) // 1_000_000
        wall.off_ns = wall.drift_ppm = 0  # NTP
        await blocks(2)
        wall.synchronized = True
        await blocks()
        wall.off_ns, wall.synchronized = HOUR, False
        await blocks()
        wall.off_ns, wall.synchronized = 0, True
        await blocks()
        right_ns = time.time_ns()
        await until(lambda: stored(pressed, right_ns) and stored(melted, right_ns))
        stop.set()
        await work
        facts = pipeline.facts()
        verdict = await asyncio.to_thread(verify, found, SEED, plant.url)
        [stream] = plant.streams()
        account = json.loads(fetch(plant.url, "/v1/completeness"))["streams"][0]
        readings = plant.readings(pressed)["readings"]
    assert (verdict.lost, verdict.duplicates, verdict.wrong, verdict.gaps) == (0, 0, 0, 0), verdict.examples
    assert (stream["holes"], stream["committed"]) == ([], stream["last"])
    assert facts["accepted"] - facts["filtered"] == verdict.stored
    assert facts["clock"]["steps"] == 4
    assert facts["clock"]["corrections"] == len(account["corrections"]) == 3
    offsets = [each["offset_ns"] for each in account["corrections"]]
    for offset, off_ns in zip(offsets[1:], (HOUR - drifted_ns, -HOUR), strict=True):
        assert abs(offset - off_ns) < STEP_NS
    assert account["readings_in_doubt"] < verdict.stored
    # Polls went on: after the correction no reading is further from the next than a poll on a busy machine.
    apart = [after[0] - before[0] for before, after in itertools.pairwise(readings)]
    assert min(apart) > 0
    assert max(apart) < 20 * SECOND
    events = [each.__dict__.get("event") for each in caplog.records]
    assert (events.count("clock_stepped"), events.count("times_corrected")) == (4, 3)
    assert "device_lost" not in events


async def test_times_on_the_way_of_level_3_are_corrected_too(tmp_path: Path, mosquitto: Mosquitto) -> None:
    press = Device(
        "press",
        f'protocol = "modbus"\nurl = "tcp://127.0.0.1:{free_port()}"\npoll = "100ms"',
        ["temp,hr:0,float32,ABCD,1", "recipe,hr:2,float32,ABCD,3"],
        "name,address,type,order,level",
    )
    wall = FakeWall(-HOUR)
    with ExitStack() as running:
        broker = running.enter_context(Mosquitto(tmp_path / "broker"))
        inner = Plant.write(tmp_path / "inner", broker.url, [])
        level3 = f'[egress]\nlevel3 = {{ url = "{broker.url}" }}\n'
        plant = Plant.write(tmp_path, mosquitto.url, [press], level3)
        running.enter_context(gateway(wall))
        running.enter_context(simulator(tmp_path, plant, SEED))
        running.enter_context(data_center(tmp_path, plant))
        running.enter_context(data_center(tmp_path / "inner", inner))
        pipeline, stop = Pipeline(config.load(plant.path)), asyncio.Event()
        began_ns = time.time_ns()
        work = asyncio.create_task(pipeline.run(stop, drain=40.0))
        centers = {"temp": plant, "recipe": inner}
        for name, center in centers.items():
            await until(lambda: len(center.readings(f"88.118.8/press.{name}")["readings"]) > 5)  # noqa: B023
        wall.off_ns, wall.synchronized = 0, True
        await until(lambda: pipeline.facts()["clock"]["corrections"] == 2)
        stop.set()
        await work
        for name, center in centers.items():
            readings = center.readings(f"88.118.8/press.{name}")["readings"]
            assert min(time_ns for time_ns, *_ in readings) > began_ns - SECOND
            [account] = json.loads(fetch(center.url, "/v1/completeness"))["streams"]
            assert [abs(each["offset_ns"] - HOUR) < STEP_NS for each in account["corrections"]] == [True]
            assert account["readings_in_doubt"] == 0
