"""kill -9 of a part of the whole chain, again and again, and what must be true afterwards.

What was committed in the outbox must be in the data center, once. The plant that is collected is simulated, so every
stored reading is compared with it as well.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from uuid import UUID

import duckdb
import pytest

from agent import config
from headrace.query import NoAnswer
from headrace.verify import Verdict, verify
from tests.peers.brokers import Mosquitto, Nats
from tests.peers.process import Peer, free_port
from tests.rig import Command, Device, Plant, agent, data_center, simulator, until

KILLS = int(os.environ.get("HEADRACE_KILLS", "30"))
"""Of each victim; of the brokers half for each."""
PLANT_SEED = 3
EARLY = 0.3
"""Of the kills: those that come while the victim still starts, or before anything went on."""
RECOVERY = 60.0
DRAIN = str(50 + KILLS // 10)
SECONDS = 180 + 10 * KILLS


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def chance() -> random.Random:
    seed = int(os.environ.get("HEADRACE_SEED") or random.randrange(1, 1 << 32))
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


def kills(plant: Plant, victim: Peer, count: int, chance: random.Random) -> Iterator[None]:
    """Kills it so often, and yields while it is dead. It runs in the end."""
    began, furthest = time.monotonic(), 0
    for number in range(1, count + 1):
        if chance.random() < EARLY:
            time.sleep(chance.uniform(0.0, 0.5))
        else:
            victim.wait()
            furthest = until(partial(reached, plant, furthest), RECOVERY, "for a block to arrive after a kill")
            # Random on purpose: the moment within seal, commit, publish and receipt is what is tried.
            time.sleep(chance.uniform(0.0, 0.6))
        victim.kill()
        yield
        victim.start(wait=False)
        if number % 20 == 0:
            print(f"{number} kills, {furthest} blocks, {time.monotonic() - began:.0f} s", flush=True)
    victim.wait()


def reached(plant: Plant, before: int) -> int:
    """The last place that the data center has, where that is a later one; 0 where it is not, or does not answer."""
    try:
        found = plant.streams()
    except NoAnswer:
        return 0
    last: int = found[0]["last"] if found else 0
    return last if last > before else 0


def committed(home: Path) -> dict[int, int]:
    """Sequence -> readings of what is in the outbox now."""
    with closing(sqlite3.connect(f"file:{home / 'agent' / 'outbox.db'}?mode=ro", uri=True)) as db:
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
    assert not committed(plant.path.parent)
    return verify(config.load(plant.path), PLANT_SEED, plant.url)


def check_whole(home: Path) -> None:
    blocks, readings = stored(home)
    assert blocks == readings
    sequences = [sequence for _, sequence, _ in blocks]
    assert sequences == list(range(1, len(sequences) + 1))
    assert len({stream for stream, _, _ in blocks}) == 1


def survives(
    home: Path, running: ExitStack, chance: random.Random, broker: Mosquitto | Nats, *, center_dies: bool
) -> None:
    """The agent lives on, so nothing at all may be missing: not what was committed, and not what was accepted."""
    plant = Plant.write(home, broker.url, [press(), furnace()])
    running.enter_context(simulator(home, plant, PLANT_SEED))
    center = running.enter_context(data_center(home, plant))
    process = running.enter_context(agent(home, plant, "--drain", DRAIN))
    count = KILLS if center_dies else (KILLS + 1) // 2
    for _ in kills(plant, center if center_dies else broker, count, chance):
        pass
    verdict = settle(plant, process)
    center.stop()
    last = process.lines()[-1]
    assert last["stopped"]
    assert last["accepted"] - last["filtered"] == verdict.stored
    assert (verdict.lost, verdict.duplicates, verdict.wrong, verdict.gaps) == (0, 0, 0, 0), verdict.examples
    check_whole(home)
    print(f"{count} kills of {'the data center' if center_dies else type(broker).__name__}: {verdict}")
