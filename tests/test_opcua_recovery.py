"""Lost lines, stopped and killed servers, forgotten sessions, and kill -9 of the agent: no change of a counter is lost
or doubled while the server keeps it; what the server could not keep is a gap with the right bounds.

Each runs against two servers of other people, made with node-opcua and with async-opcua.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from os import kill
from pathlib import Path

import pytest

from tests.opcua_rig import Committed, Line, events, opcua_plant
from tests.peers.servers import AsyncOpcUaServer, Device, NodeOpcUaServer
from tests.rig import Command, Plant, agent, until

SERVERS = (NodeOpcUaServer, AsyncOpcUaServer)
WHOLE = {"lost": [], "doubled": [], "wrong": []}
BAD_NOT_CONNECTED = 0x808A0000


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def counts(plant: Plant) -> int:
    """Waits until the counter has come on; returns how far."""
    far = max((value for _, value in Committed.of(plant).counted()), default=-1)
    return int(until(lambda: max((v for _, v in Committed.of(plant).counted() if v > far + 3), default=None), 20))


def begin(home: Path, running: ExitStack, kind: type[Device], *lines: str) -> tuple[Device, Line, Plant, Command]:
    server = running.enter_context(kind(home / "server"))
    line = running.enter_context(Line(server.port))
    plant = opcua_plant(home, line.url, *lines)
    process = running.enter_context(agent(home, plant))
    until(lambda: (plant.path.parent / "agent" / "outbox.db").exists())
    counts(plant)
    return server, line, plant, process


@pytest.mark.parametrize("kind", SERVERS)
def test_a_line_that_is_cut_goes_dark_or_stops(tmp_path: Path, running: ExitStack, kind: type[Device]) -> None:
    server, line, plant, process = begin(tmp_path, running, kind)
    line.cut()
    time.sleep(1.0)
    line.heal()
    counts(plant)
    line.dark()
    until(lambda: events(process)["device_lost"] == 2)
    line.heal()
    counts(plant)
    kill(server.pid, signal.SIGSTOP)
    until(lambda: events(process)["device_lost"] == 3)
    kill(server.pid, signal.SIGCONT)
    counts(plant)
    found = Committed.of(plant)
    assert found.faults() == WHOLE
    assert found.gaps == []
    assert BAD_NOT_CONNECTED not in {quality for _, _, quality in found.readings[0]}
    assert events(process)["resumed"] == 3


@pytest.mark.parametrize("kind", SERVERS)
def test_kills_of_the_agent(tmp_path: Path, running: ExitStack, kind: type[Device]) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    _, _, plant, process = begin(tmp_path, running, kind)
    for _ in range(4):
        # Random on purpose: the moment within push, seal, commit and acknowledgement is what is tried.
        time.sleep(chance.uniform(0.0, 0.5))
        process.kill()
        time.sleep(chance.uniform(0.0, 0.5))
        process.start()
        counts(plant)
    found = Committed.of(plant)
    assert found.faults() == WHOLE
    assert found.gaps == []
    assert events(process)["resumed"] == 1


def test_a_stopped_agent_goes_on_where_it_was(tmp_path: Path, running: ExitStack) -> None:
    _, _, plant, process = begin(tmp_path, running, NodeOpcUaServer)
    process.stop()
    time.sleep(0.5)
    process.start()
    counts(plant)
    found = Committed.of(plant)
    assert (found.faults(), found.gaps) == (WHOLE, [])
