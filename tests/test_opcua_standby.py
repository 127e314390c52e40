"""Redundant OPC UA servers: values go on from the next one, what was missed is a gap, and the first is gone back to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agent.config import load
from agent.errors import ConfigError
from simulators.proxy import Fault, Kind
from tests.opcua_plant import Committed, events, opcua_plant
from tests.peers.line import Line
from tests.peers.process import free_port
from tests.peers.servers import NodeOpcUaServer
from tests.rig import Command, Plant, agent, until

pytestmark = pytest.mark.timeout(180)
"""Programs start and end here again and again; each takes seconds where others keep the machine busy."""

PERIOD = 100_000_000
BUSY = 10.0
"""Seconds that a machine without time may add to what is promised; nothing here waits for so long by itself."""


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def pair(home: Path, running: ExitStack, *options: str) -> tuple[NodeOpcUaServer, NodeOpcUaServer]:
    first, second = (NodeOpcUaServer(home / name) for name in ("first", "second"))
    first.options = second.options = options
    running.enter_context(first)
    running.enter_context(second)
    return first, second


def begin(home: Path, running: ExitStack, url: str, *backup: str) -> tuple[Plant, Command]:
    lines = (f"backup = [{', '.join(map(repr, backup))}]", 'return_after = "1s"')
    plant = opcua_plant(home, url, *lines, tags=("Counter", "UInt16"))
    process = running.enter_context(agent(home, plant, "--drain", "0"))
    until((plant.path.parent / "agent" / "outbox.db").exists)
    return plant, process


def goes_on(plant: Plant) -> None:
    count = len(Committed.of(plant).counted())
    until(lambda: len(Committed.of(plant).counted()) > count + 8)


def changes(process: Command) -> list[tuple[Any, Any]]:
    return [(line["from"], line["to"]) for line in process.lines() if line.get("event") == "failed_over"]


def judged(plant: Plant) -> list[tuple[int, int, str]]:
    """The gaps, after a look at the counter: whole but for them, and nothing twice. Each server has its own counter, so
    that the step from one to the other is told by the time of its zero."""
    found = Committed.of(plant)
    counted = found.counted()
    zeros = [t - value * PERIOD for t, value in counted]
    for (a_ns, a), (b_ns, b), same in zip(counted, counted[1:], (x == y for x, y in pairwise(zeros)), strict=False):
        # A change to another server lies within a gap; and so does whatever is missing of one server.
        within = any(from_ns <= a_ns + PERIOD and b_ns <= to_ns for from_ns, to_ns, _ in found.gaps)
        assert (same and b == a + 1) or within, (a_ns, a, b_ns, b, found.gaps)
    for readings in found.readings.values():
        assert len({(t, value) for t, value, _ in readings}) == len(readings)
        assert all(quality == 0 for _, _, quality in readings)
    return found.gaps


def test_values_go_on_from_the_second_and_return_to_the_first(tmp_path: Path, running: ExitStack) -> None:
    first, second = pair(tmp_path, running)
    plant, process = begin(tmp_path, running, first.url, second.url)
    goes_on(plant)
    first.kill()
    killed = time.monotonic()
    until(lambda: changes(process) == [(first.url, second.url)])
    assert time.monotonic() - killed < 2.0 + 0.5 + BUSY  # `timeout`, and what it took to see it
    goes_on(plant)
    first.start()
    started = time.monotonic()
    until(lambda: len(changes(process)) == 2)
    assert changes(process)[1] == (second.url, first.url)
    assert time.monotonic() - started >= 1.0
    goes_on(plant)
    gaps = judged(plant)
    assert len(gaps) == 2
    assert all(to_ns - from_ns < 3_000_000_000 + BUSY * 1e9 for from_ns, to_ns, _ in gaps)
    assert events(process)["readings_lost"] == 2


def test_a_server_that_is_not_well_is_left(tmp_path: Path, running: ExitStack) -> None:
    first, second = pair(tmp_path, running)
    (first.home / "level").write_text("199")
    plant, process = begin(tmp_path, running, first.url, second.url)
    goes_on(plant)
    # Before anything was read from the first: no gap.
    assert changes(process) == [(first.url, second.url)]
    assert judged(plant) == []
    (first.home / "level").write_text("200")
    until(lambda: len(changes(process)) == 2)
    goes_on(plant)
    (second.home / "level").write_text("50")
    (first.home / "level").write_text("50")
    time.sleep(1.5)  # longer than the hold-off: equally unwell servers are no reason to change
    assert len(changes(process)) == 2
    (second.home / "level").write_text("51")
    until(lambda: len(changes(process)) == 3)
    goes_on(plant)
    assert changes(process) == [(first.url, second.url), (second.url, first.url), (first.url, second.url)]
    gaps = judged(plant)
    print("gaps of", [(to_ns - from_ns) / 1e9 for from_ns, to_ns, _ in gaps], "s")
    assert len(gaps) == 2


def test_a_line_that_goes_dark_and_comes_back(tmp_path: Path, running: ExitStack) -> None:
    """The first server lives on with our session and its subscription: they are found again, and cleared away."""
    first, second = pair(tmp_path, running)
    line = running.enter_context(Line(first.port, seed=1))
    url = f"opc.tcp://127.0.0.1:{line.port}"
    plant, process = begin(tmp_path, running, url, second.url)
    goes_on(plant)
    line.apply(Fault(Kind.VANISH))
    gone = time.monotonic()
    until(lambda: changes(process) == [(url, second.url)])
    # 1.5 keep-alive intervals until it is seen, the pause before the next attempt, and its `timeout`.
    assert time.monotonic() - gone < 1.5 + 0.5 + 2.0 + 2.0 + BUSY
    goes_on(plant)
    line.apply(None)
    until(lambda: len(changes(process)) == 2)
    goes_on(plant)
    gaps = judged(plant)
    print("gaps of", [(to_ns - from_ns) / 1e9 for from_ns, to_ns, _ in gaps], "s")
    assert len(gaps) == 2
    assert events(process)["device_error"] == 0


def test_servers_with_the_same_values_give_none_of_them_twice(tmp_path: Path, running: ExitStack) -> None:
    first, second = pair(tmp_path, running, f"mirror:{time.time_ns() // 1_000_000}")
    plant, process = begin(tmp_path, running, first.url, second.url)
    goes_on(plant)
    first.kill()
    until(lambda: changes(process))
    goes_on(plant)
    found = Committed.of(plant)
    faults = found.faults()
    first_ns, value = found.counted()[0]
    [(from_ns, to_ns, reason)] = found.gaps
    # What is missing lies in the gap. One value that was known already may be said as what holds at the change.
    assert all(from_ns <= first_ns + (each - value) * PERIOD <= to_ns for each in faults["lost"])
    assert faults["doubled"] == faults["wrong"]
    assert len(faults["wrong"]) <= 1
    assert "did not keep the subscription" not in reason
    assert f"{second.url} is used now" in reason


def test_an_agent_that_is_killed_goes_on_with_the_server_that_it_had(tmp_path: Path, running: ExitStack) -> None:
    second = running.enter_context(NodeOpcUaServer(tmp_path / "second"))
    nowhere = f"opc.tcp://127.0.0.1:{free_port()}"
    plant, process = begin(tmp_path, running, nowhere, second.url)
    goes_on(plant)
    process.kill()
    process.start()
    goes_on(plant)
    assert events(process)["resumed"] == 1
    assert Committed.of(plant).gaps == []
    assert Committed.of(plant).faults() == {"lost": [], "doubled": [], "wrong": []}


def test_a_backup_is_checked_like_a_url(tmp_path: Path) -> None:
    one = opcua_plant(tmp_path / "a", "opc.tcp://127.0.0.1:1", 'backup = "opc.tcp://127.0.0.1:2"')
    (device,) = load(one.path).devices
    assert device.backup == ("opc.tcp://127.0.0.1:2",)
    with pytest.raises(ConfigError, match="is not an OPC UA address"):
        load(opcua_plant(tmp_path / "b", "opc.tcp://127.0.0.1:1", 'backup = ["tcp://127.0.0.1:2"]').path)
