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
from itertools import pairwise
from os import kill
from pathlib import Path

import pytest

from simulators.proxy import Fault, Kind
from tests.opcua_plant import Committed, events, opcua_plant
from tests.peers.line import Line
from tests.peers.servers import AsyncOpcUaServer, Device, NodeOpcUaServer
from tests.rig import Command, Plant, agent, until

pytestmark = pytest.mark.timeout(180)
"""Programs start and end here again and again; each takes seconds where others keep the machine busy."""

SERVERS = (NodeOpcUaServer, AsyncOpcUaServer)
WHOLE: dict[str, list[int]] = {"lost": [], "doubled": [], "wrong": []}
BAD_NOT_CONNECTED = 0x808A0000


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def counts(plant: Plant) -> int:
    """Waits until the counter has come on; returns how far."""
    far = max((value for _, value in Committed.of(plant).counted()), default=-1)
    return int(until(lambda: max((v for _, v in Committed.of(plant).counted() if v > far + 3), default=None), 40))


def begin(home: Path, running: ExitStack, kind: type[Device], *lines: str) -> tuple[Device, Line, Plant, Command]:
    server = running.enter_context(kind(home / "server"))
    line = running.enter_context(Line(server.port, seed=1))
    plant = opcua_plant(home, f"opc.tcp://127.0.0.1:{line.port}", *lines)
    process = running.enter_context(agent(home, plant, "--drain", "0"))
    until((plant.path.parent / "agent" / "outbox.db").exists)
    counts(plant)
    return server, line, plant, process


@pytest.mark.parametrize("kind", SERVERS)
def test_a_line_that_is_cut_goes_dark_or_stops(tmp_path: Path, running: ExitStack, kind: type[Device]) -> None:
    server, line, plant, process = begin(tmp_path, running, kind)
    line.apply(Fault(Kind.RESET))
    time.sleep(1.0)
    line.apply(None)
    counts(plant)
    line.apply(Fault(Kind.VANISH))
    until(lambda: events(process)["device_lost"] == 2)
    line.apply(None)
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
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    _, _, plant, process = begin(tmp_path, running, kind)
    for _ in range(3):
        # Random on purpose: the moment within push, seal, commit and acknowledgement is what is tried.
        time.sleep(chance.uniform(0.0, 0.5))
        process.kill()
        time.sleep(chance.uniform(0.0, 0.5))
        process.start()
        counts(plant)
    process.stop()  # as a service manager would, for an upgrade
    process.start()
    counts(plant)
    found = Committed.of(plant)
    assert found.faults() == WHOLE
    assert found.gaps == []
    assert events(process)["resumed"] == 1


def test_a_server_that_is_killed_leaves_a_gap_with_its_bounds(tmp_path: Path, running: ExitStack) -> None:
    server, _, plant, process = begin(tmp_path, running, NodeOpcUaServer)
    killed = time.time_ns()
    server.kill()
    until(lambda: events(process)["device_lost"])
    server.start()
    until(lambda: events(process)["subscribed"] == 2)
    until(lambda: Committed.of(plant).gaps)
    # The gap may be in a block of its own, before the first readings after it.
    until(lambda: Committed.of(plant).counted()[-1][0] > killed)
    counted = Committed.of(plant).counted()
    # The counter began again: what came before the gap is whole, and what comes after it, and the gap is all between.
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(counted)]
    again = 1 + next(at for at, (ns, values) in enumerate(steps) if ns != values * 100_000_000)
    before, after = counted[:again], counted[again:]
    [(from_ns, to_ns, reason)] = Committed.of(plant).gaps
    assert [value for _, value in before] == list(range(before[0][1], before[-1][1] + 1))
    assert from_ns <= killed <= to_ns
    assert before[-1][0] <= from_ns + 200_000_000
    assert from_ns <= after[0][0] <= to_ns
    assert "server: the server did not keep the subscription" in reason
    [lost] = [line for line in process.lines() if line.get("event") == "readings_lost"]
    assert (lost["lost"], lost["from_ns"], lost["to_ns"]) == (-1, from_ns, to_ns)


def test_a_session_that_times_out_and_a_subscription_that_is_forgotten(tmp_path: Path, running: ExitStack) -> None:
    server, _, plant, process = begin(tmp_path, running, NodeOpcUaServer)
    kill(server.pid, signal.SIGHUP)
    until(lambda: events(process)["device_connected"] == 2)
    counts(plant)
    found = Committed.of(plant)
    # A new session took the subscription over.
    assert (found.faults(), found.gaps) == (WHOLE, [])
    assert [line["session"] for line in process.lines() if line.get("event") == "resumed"] == ["new"]
    kill(server.pid, signal.SIGUSR2)
    until(lambda: events(process)["subscribed"] == 2)
    counts(plant)
    found = Committed.of(plant)
    faults = found.faults()
    [(from_ns, to_ns, _)] = found.gaps
    first_ns, first = found.counted()[0]
    assert faults["doubled"] == []
    # Whatever is missing lies in the gap; and a first value that was known before is kept as what holds now.
    assert all(from_ns <= first_ns + (value - first) * 100_000_000 <= to_ns for value in faults["lost"])
    assert len(faults["wrong"]) <= 1


def test_what_a_queue_can_not_hold_is_a_gap(tmp_path: Path, running: ExitStack) -> None:
    """The server's queues cover 1 s; the line is away for longer."""
    _, line, plant, _ = begin(tmp_path, running, NodeOpcUaServer, 'outage = "1s"')
    line.apply(Fault(Kind.RESET))
    time.sleep(3.0)
    line.apply(None)
    until(lambda: Committed.of(plant).gaps)
    counts(plant)
    found = Committed.of(plant)
    faults = found.faults()
    first_ns, first = found.counted()[0]
    # The tag read bad for longer than the server could cover: so its value is said once more, with the time of now.
    assert BAD_NOT_CONNECTED in {quality for _, _, quality in found.readings[0]}
    counted = [value for _, value in found.counted()]
    assert len(counted) == len(set(counted)) + 1
    assert (faults["doubled"], faults["wrong"]) == ([], [])
    assert faults["lost"]
    [(from_ns, to_ns, reason)] = found.gaps
    assert "overflowed" in reason
    assert all(from_ns <= first_ns + (value - first) * 100_000_000 <= to_ns for value in faults["lost"])
