"""What a server's queue lost, and what came while there was no subscription, read from its history: nothing lost,
nothing doubled, and no gap but for what the history does not have.

Against servers made with node-opcua (a history in memory) and with asyncua (one on disk).
"""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import ExitStack, closing
from itertools import pairwise
from pathlib import Path

import pytest

from simulators.proxy import Fault, Kind
from tests.opcua_plant import Committed, events, opcua_plant
from tests.peers.line import Line
from tests.peers.servers import AsyncuaPlant, Device, NodeOpcUaServer
from tests.rig import Command, Plant, agent, until

pytestmark = pytest.mark.timeout(180)
"""Programs start and end here again and again; each takes seconds where others keep the machine busy."""

WHOLE: dict[str, list[int]] = {"lost": [], "doubled": [], "wrong": []}


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def begin(home: Path, running: ExitStack, server: Device, *lines: str, url: str = "") -> tuple[Plant, Command]:
    lines = ('history = "fill"', *(lines or ('outage = "1s"',)))
    plant = opcua_plant(home, url or server.url, *lines)
    process = running.enter_context(agent(home, plant, "--drain", "0"))
    until((plant.path.parent / "agent" / "outbox.db").exists)
    comes_on(plant)
    return plant, process


def comes_on(plant: Plant) -> None:
    count = len(Committed.of(plant).counted())
    until(lambda: len(Committed.of(plant).counted()) > count + 8, 40)


def whole(plant: Plant) -> None:
    """Waits until everything is there: what was missed comes beside what is new."""
    until(lambda: Committed.of(plant).faults()["lost"] == [], 40)
    found = Committed.of(plant)
    assert (found.faults(), found.gaps) == (WHOLE, [])


def node_opcua(home: Path, running: ExitStack) -> NodeOpcUaServer:
    server = NodeOpcUaServer(home / "server")
    server.options = ("history",)
    return running.enter_context(server)


def kept(server: Device, counted: Collection[int]) -> list[int]:
    """What the history on a server's disk has from the first of these values to the last one."""
    with closing(sqlite3.connect(f"file:{server.home / 'history.db'}?mode=ro", timeout=30, uri=True)) as db:
        [(table,)] = db.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
        values = {int(each) for (each,) in db.execute(f'SELECT Value FROM "{table}"')}
    return sorted(value for value in values if min(counted) <= value <= max(counted))


def filled(process: Command) -> list[int]:
    return [line["filled"] for line in process.lines() if line.get("event") == "history_read"]


def test_what_overflowed_is_read_from_the_history(tmp_path: Path, running: ExitStack) -> None:
    """The agent stands still for longer than the queues cover."""
    plant, process = begin(tmp_path, running, node_opcua(tmp_path, running))
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(4.0)
    os.kill(process.pid, signal.SIGCONT)
    until(lambda: filled(process), 40)
    comes_on(plant)
    whole(plant)
    assert set(filled(process)) == {1}


def test_what_came_without_a_subscription_is_read_from_the_history(tmp_path: Path, running: ExitStack) -> None:
    server = node_opcua(tmp_path, running)
    line = running.enter_context(Line(server.port, seed=1))
    url = f"opc.tcp://127.0.0.1:{line.port}"
    plant, process = begin(tmp_path, running, server, 'outage = "60s"', url=url)
    line.apply(Fault(Kind.RESET))
    os.kill(server.pid, signal.SIGUSR2)  # it forgets the subscription
    time.sleep(2.0)
    line.apply(None)
    until(lambda: filled(process), 40)
    comes_on(plant)
    whole(plant)
    assert filled(process) == [1]
    assert events(process)["subscribed"] == 2


def test_a_node_without_history_leaves_the_gap(tmp_path: Path, running: ExitStack) -> None:
    server = running.enter_context(NodeOpcUaServer(tmp_path / "server"))
    plant, process = begin(tmp_path, running, server)
    os.kill(server.pid, signal.SIGUSR2)
    until(lambda: Committed.of(plant).gaps, 40)
    comes_on(plant)
    [(from_ns, to_ns, reason)] = Committed.of(plant).gaps
    assert from_ns < to_ns
    assert "did not keep the subscription; not in the server's history: Counter: the server keeps no history" in reason
    assert events(process)["readings_lost"] == 1


def test_a_history_that_outlives_its_server_fills_what_was_queued_there(tmp_path: Path, running: ExitStack) -> None:
    server = running.enter_context(AsyncuaPlant(tmp_path / "server"))
    plant, process = begin(tmp_path, running, server)
    server.kill()
    until(lambda: events(process)["device_lost"])
    server.start()
    until(lambda: filled(process), 40)
    comes_on(plant)
    found = Committed.of(plant)
    counted = [value for _, value in found.counted()]
    assert (filled(process), found.gaps) == ([1], [])
    # While it was away nothing changed: all that it ever had from the first reading on is there, once.
    until(lambda: max(counted) in kept(server, counted), what="for the server's own record of what it has sent")
    there = kept(server, counted)
    # What it had sent when it was killed, and not kept yet, is the agent's alone.
    last, _ = max(pairwise(there), key=lambda each: each[1] - each[0])
    sent = range(last + 1, last + 1 + len(set(counted) - set(there)))
    assert sorted(counted) == sorted([*there, *sent])
    assert found.faults()["wrong"] == []


def test_a_hole_outlives_the_agent(tmp_path: Path, running: ExitStack) -> None:
    """It is killed while the history can't be reached, and goes on where it was."""
    server = node_opcua(tmp_path, running)
    plant, process = begin(tmp_path, running, server)
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(4.0)
    os.kill(process.pid, signal.SIGCONT)
    until(lambda: events(process)["device_connected"] == 2 or filled(process), 40)
    process.kill()
    process.start()
    comes_on(plant)
    whole(plant)


PAGE = 4
"""Values of one answer, of some 30 that are missing."""
PAGED: dict[str, tuple[type[NodeOpcUaServer | AsyncuaPlant], str]] = {
    "node-opcua": (NodeOpcUaServer, f"history:{PAGE}"),
    "asyncua": (AsyncuaPlant, str(PAGE)),
}


@pytest.mark.parametrize(("stack", "fault"), [("node-opcua", "kill"), ("asyncua", "cut")])
def test_a_fault_between_two_pages(tmp_path: Path, running: ExitStack, stack: str, fault: str) -> None:
    """The agent is killed, or its line cut, when some pages of a history are committed and others are not read."""
    kind, option = PAGED[stack]
    server = kind(tmp_path / "server")
    server.options = (option,)
    running.enter_context(server)
    line = running.enter_context(Line(server.port, seed=1))
    plant, process = begin(tmp_path, running, server, 'outage = "60s"', url=f"opc.tcp://127.0.0.1:{line.port}")
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(3.0)
    if stack == "node-opcua":
        os.kill(server.pid, signal.SIGUSR2)  # it forgets the subscription
    else:
        server.kill()
        server.start()
    line.apply(Fault(Kind.DELAY, delay=0.25))  # a page each 500 ms
    os.kill(process.pid, signal.SIGCONT)

    def missing() -> int:
        counted = {value for _, value in Committed.of(plant).counted()}
        there = range(min(counted), max(counted)) if stack == "node-opcua" else kept(server, counted)
        return len(set(there) - counted)

    until(lambda: missing() > 3 * PAGE, 40)
    most = missing()
    until(lambda: PAGE < missing() <= most - PAGE, 40, "for a page of the history")
    if fault == "kill":
        process.kill()
    else:
        line.apply(Fault(Kind.CUT))
    assert missing() > 0
    line.apply(None)
    if fault == "kill":
        process.start()
    comes_on(plant)
    until(lambda: missing() == 0, 40)
    found = Committed.of(plant)
    assert [value for value, count in Counter(value for _, value in found.counted()).items() if count > 1] == []
    assert (found.gaps, found.faults()["wrong"], filled(process)) == ([], [], [1])
