"""Every fault of the proxy on the line between agent and broker: it heals, and so does delivery, without a restart.

What an agent accepted is then in the data center once, whatever the line did to it on the way.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from agent import config
from headrace.query import fetch
from headrace.verify import verify
from simulators.proxy import Fault, Kind, Way
from tests.peers.brokers import Broker
from tests.peers.line import Line
from tests.peers.process import free_port
from tests.rig import Command, Device, Plant, agent, data_center, simulator, until

FAULTS = [
    Fault(Kind.CUT),
    Fault(Kind.RESET),
    Fault(Kind.REFUSE),
    Fault(Kind.STALL),
    Fault(Kind.BLACKHOLE),
    Fault(Kind.BLACKHOLE, Way.UP),
    Fault(Kind.BLACKHOLE, Way.DOWN),
    Fault(Kind.VANISH),
    Fault(Kind.DELAY, delay=0.3, jitter=0.2),
    Fault(Kind.DRIP, rate=2000.0),
    Fault(Kind.CORRUPT, Way.UP, probability=0.5),
    Fault(Kind.CORRUPT, Way.DOWN, probability=0.5),
    Fault(Kind.LOSE, probability=0.5),
    Fault(Kind.DOUBLE, probability=0.5),
    Fault(Kind.REORDER, probability=0.5),
    Fault(Kind.SPLIT),
    Fault(Kind.TRUNCATE, probability=0.5),
]
LASTS = 1.2
"""Seconds of each fault."""
HEALS = 30.0
"""Seconds after which readings must arrive again."""
SHARE = 1 if os.environ.get("HEADRACE_SOAK") else 2
"""Each broker gets every fault in a soak, and every second one otherwise."""
SEED = 5
NAME = "88.118.8/press.t0"


def press() -> Device:
    rows = [f"t{index},hr:{2 * index},float32,ABCD" for index in range(40)]
    return Device("press", f'protocol = "modbus"\nurl = "tcp://127.0.0.1:{free_port()}"\npoll = "100ms"', rows)


def heal(plant: Plant, line: Line, fault: Fault) -> float:
    """Lets the line have a fault, and returns the seconds that readings took to arrive again after it."""
    line.apply(fault)
    time.sleep(LASTS)  # not for luck: this is how long the fault lasts
    line.apply(None)
    began, healed_ns = time.monotonic(), time.time_ns()

    def arrived() -> bool:
        found = fetch(plant.url, "/v1/readings", **{"id": NAME, "from": healed_ns, "limit": 1})
        return bool(json.loads(found)["readings"])

    until(arrived, HEALS, f"after {fault.kind} {fault.way}")
    return round(time.monotonic() - began, 1)


def settled(plant: Plant, process: Command) -> bool:
    last = process.lines()[-1]
    whole = all(stream["holes"] == [] and stream["committed"] == stream["last"] for stream in plant.streams())
    return bool(whole and last.get("outbox") and last["outbox"]["entries"] <= 2)


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("kind", "faults"), [("mosquitto", FAULTS[::SHARE]), ("nats", FAULTS[1 % SHARE :: SHARE])])
def test_every_fault_of_the_line_to_the_broker_heals(
    tmp_path: Path, request: pytest.FixtureRequest, kind: str, faults: list[Fault]
) -> None:
    broker: Broker = request.getfixturevalue(kind)
    with ExitStack() as running:
        line = running.enter_context(Line(broker.port, seed=SEED))
        # The agent goes through the line; the data center does not.
        center = Plant.write(tmp_path / "center", broker.url, [])
        plant = replace(Plant.write(tmp_path / "agent", f"mqtt://127.0.0.1:{line.port}", [press()]), http=center.http)
        running.enter_context(simulator(tmp_path, plant, SEED))
        running.enter_context(data_center(tmp_path, center))
        process = running.enter_context(agent(tmp_path, plant, "--drain", "30"))
        until(lambda: plant.readings(NAME)["readings"])
        print({f"{fault.kind} {fault.way}": heal(plant, line, fault) for fault in faults})
        until(lambda: settled(plant, process), HEALS)
        process.stop()
        verdict = verify(config.load(plant.path), SEED, plant.url)
        last = process.lines()[-1]
    assert (verdict.lost, verdict.duplicates, verdict.wrong, verdict.gaps) == (0, 0, 0, 0), verdict.examples
    assert last["accepted"] - last["filtered"] == verdict.stored
