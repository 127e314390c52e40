"""kill -9 of the agent, of the broker and of the data center, ten times each at random moments of a run.

What was committed in the outbox must be in the data center, once. The plant that is collected is simulated, so every
stored reading is compared with it as well.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID

import duckdb
import pytest

from agent import config
from headrace.verify import Verdict, verify
from tests.peers.brokers import Mosquitto, Nats
from tests.peers.process import Peer, free_port
from tests.rig import Command, Device, Plant, agent, data_center, simulator, until

KILLS = 10
SEED = 7
PLANT_SEED = 3

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    return random.Random(seed)


def press() -> Device:
    types = ["float32", "float64", "int16", "uint32", "int64", "uint64", "bool", "string[12]"]
    rows, at = [], 0
    for index in range(48):
        kind = types[index % len(types)]
        rows.append(f"t{index},hr:{at},{kind},CDAB")
        at += 6
    lines = f'protocol = "modbus"\nurl = "tcp://127.0.0.1:{free_port()}"\npoll = "100ms"\ntimeout = "1s"'
    return Device("press", lines, rows)


def furnace() -> Device:
    types = ["float32", "float64", "int32", "bool", "string"]
    rows = [f"t{index},nsu=urn:furnace;s=T{index},{types[index % len(types)]}," for index in range(20)]
    lines = f'protocol = "opcua"\nurl = "opc.tcp://127.0.0.1:{free_port()}"\nsecurity = "None"\npublish = "200ms"'
    lines += '\nsampling = "50ms"'
    return Device("furnace", lines, rows)


def kill_often(victim: Peer, chance: random.Random) -> None:
    for _ in range(KILLS):
        # Random on purpose: the moment within seal, commit, publish and receipt is what is tried.
        time.sleep(chance.uniform(0.1, 1.5))
        victim.kill()
        victim.start()


def committed(home: Path) -> dict[int, int]:
    """Sequence -> readings of what is in the outbox now."""
    with sqlite3.connect(f"file:{home / 'agent' / 'outbox.db'}?mode=ro", uri=True) as db:
        return dict(db.execute("SELECT sequence, readings FROM entry"))


def stored(home: Path) -> tuple[list[tuple[UUID, int, int]], list[tuple[UUID, int, int]]]:
    """(stream, sequence, readings) of each block that the store says it has, and of the readings that it has."""
    with duckdb.connect(str(home / "store" / "headrace.duckdb"), read_only=True) as db:
        blocks = db.execute(
            "SELECT s.stream, b.sequence, b.readings FROM blocks b JOIN streams s ON s.id = b.stream ORDER BY ALL"
        ).fetchall()
        readings = db.execute(
            "SELECT s.stream, r.sequence, count(*) FROM every r JOIN streams s ON s.id = r.stream"
            " GROUP BY ALL ORDER BY ALL"
        ).fetchall()
    return blocks, readings


def settle(plant: Plant, process: Command) -> Verdict:
    """Stops the agent when all is delivered, and compares the store with the plant."""

    def delivered() -> bool:
        [stream] = plant.streams()
        return bool(stream["holes"] == [] and stream["committed"] == stream["last"])

    until(delivered, 60)
    process.stop()
    until(lambda: not committed(plant.path.parent), 1)
    return verify(config.load(plant.path), PLANT_SEED, plant.url)


def check_whole(home: Path) -> None:
    blocks, readings = stored(home)
    assert blocks == readings
    sequences = [sequence for _, sequence, _ in blocks]
    assert sequences == list(range(1, len(sequences) + 1))
    assert len({stream for stream, _, _ in blocks}) == 1


def survives(home: Path, running: ExitStack, chance: random.Random, broker: Mosquitto | Nats, victim: str) -> None:
    """The agent lives on, so nothing at all may be missing: not what was committed, and not what was accepted."""
    plant = Plant.write(home, broker.url, [press(), furnace()])
    running.enter_context(simulator(home, plant, PLANT_SEED))
    center = running.enter_context(data_center(home, plant))
    process = running.enter_context(agent(home, plant, "--drain", "30"))
    kill_often(broker if victim == "broker" else center, chance)
    verdict = settle(plant, process)
    center.stop()
    last = process.lines()[-1]
    assert last["stopped"]
    assert last["accepted"] - last["filtered"] == verdict.stored
    assert (verdict.lost, verdict.duplicates, verdict.wrong, verdict.gaps) == (0, 0, 0, 0), verdict.examples
    check_whole(home)


def test_kills_of_the_broker(tmp_path: Path, running: ExitStack, chance: random.Random, mosquitto: Mosquitto) -> None:
    mosquitto.persistence = False  # what it acknowledged is gone after a kill: only receipts can tell
    mosquitto.restart()
    survives(tmp_path, running, chance, mosquitto, "broker")


def test_kills_of_the_data_center(tmp_path: Path, running: ExitStack, chance: random.Random, nats: Nats) -> None:
    survives(tmp_path, running, chance, nats, "data center")


def test_kills_of_the_agent(tmp_path: Path, running: ExitStack, chance: random.Random, mosquitto: Mosquitto) -> None:
    plant = Plant.write(tmp_path, mosquitto.url, [press(), furnace()])
    running.enter_context(simulator(tmp_path, plant, PLANT_SEED))
    center = running.enter_context(data_center(tmp_path, plant))
    process = running.enter_context(agent(tmp_path, plant, "--drain", "30"))
    promised: dict[int, int] = {}
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.1, 1.5))
        process.kill()
        found = committed(tmp_path)
        assert all(promised.get(sequence, readings) == readings for sequence, readings in found.items())
        promised |= found
        process.start()
    verdict = settle(plant, process)
    center.stop()
    # What was in memory and not yet committed is gone, and was promised to nobody; nothing stored may be wrong.
    assert verdict.wrong == 0, verdict.examples
    check_whole(tmp_path)
    blocks, _ = stored(tmp_path)
    arrived = {sequence: readings for _, sequence, readings in blocks}
    assert promised.items() <= arrived.items()
