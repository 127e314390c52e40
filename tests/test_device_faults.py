"""Every fault of the proxy on the lines between agent and devices: they heal without a restart, and no value is wrong.

Modbus TCP and RTU over TCP against virtual devices, whose value at any time is known; OPC UA against servers made with
node-opcua and async-opcua, of whose counters no change may be lost without a gap that says so, nor come twice.

No bit is turned on lines whose protocol has no check of its own, Modbus TCP and OPC UA without security: what TCP's
checksum lets through there nobody can tell from the truth.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import cast

import pytest

from agent import config
from agent.model import Value
from simulators.oracle import Oracle
from simulators.plant import Plant as VirtualPlant
from simulators.proxy import Fault, Kind, Way
from tests.opcua_plant import Committed
from tests.peers.line import Line
from tests.peers.process import free_port
from tests.peers.servers import OPCUA_NAMESPACE, AsyncOpcUaServer, NodeOpcUaServer
from tests.rig import Device, Plant, agent, simulator, until

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
    Fault(Kind.LOSE, probability=0.5),
    Fault(Kind.LOSE, Way.DOWN, probability=0.3),
    Fault(Kind.DOUBLE, probability=0.5),
    Fault(Kind.REORDER, probability=0.5),
    Fault(Kind.SPLIT),
    Fault(Kind.TRUNCATE, probability=0.5),
]
CHECKED = [
    Fault(Kind.CORRUPT, probability=0.5),
    Fault(Kind.CUT),
    Fault(Kind.CORRUPT, Way.DOWN, probability=0.3),
    Fault(Kind.STALL),
    Fault(Kind.CORRUPT, Way.UP, probability=0.3),
    Fault(Kind.VANISH),
    Fault(Kind.LOSE, probability=0.5),
    Fault(Kind.SPLIT),
    Fault(Kind.TRUNCATE, probability=0.5),
]
"""For RTU, whose frames have a CRC-16. They carry no number: two answers that trade places can't be told apart, so none
are doubled or reordered here (tests/hostile.py does that as far as it can be told)."""
LASTS = 1.2
"""Seconds of each fault."""
HEALS = 30.0
"""Seconds after which readings must arrive again."""
SOAK = bool(os.environ.get("HEADRACE_SOAK"))
SEED = 9
PERIOD_NS = 100_000_000
"""Between two values of a counter."""


def press(name: str, scheme: str, port: int) -> Device:
    rows = [f"t{index},hr:{2 * index},float32,ABCD" for index in range(40)]
    lines = f'protocol = "modbus"\nurl = "{scheme}://127.0.0.1:{port}"\npoll = "100ms"\ntimeout = "500ms"'
    return Device(name, lines, rows)


def counter(name: str, port: int) -> Device:
    lines = [
        'protocol = "opcua"',
        f'url = "opc.tcp://127.0.0.1:{port}"',
        'security = "None"',
        'publish = "200ms"',
        'sampling = "every change"',
        'keep_alive = "1s"',
        'timeout = "2s"',
    ]
    return Device(name, "\n".join(lines), [f"Counter,nsu={OPCUA_NAMESPACE};s=Counter,int32,"])


def shared(faults: Sequence[Fault], first: int) -> list[Fault]:
    """Every second one, or all of them in a soak."""
    return list(faults if SOAK else faults[first::2])


@pytest.mark.timeout(900)
def test_every_fault_of_the_lines_to_devices_heals(tmp_path: Path) -> None:
    ports = {"press": free_port(), "lathe": free_port()}
    schemes = {"press": "tcp", "lathe": "rtu+tcp"}
    with ExitStack() as running:
        for name, kind in (("node", NodeOpcUaServer), ("rust", AsyncOpcUaServer)):
            ports[name] = running.enter_context(kind(tmp_path / name)).port
        virtual = [press(name, schemes[name], ports[name]) for name in schemes]
        running.enter_context(
            simulator(tmp_path, Plant.write(tmp_path / "virtual", "mqtt://127.0.0.1:9", virtual), SEED)
        )
        lines = {name: running.enter_context(Line(port, seed=SEED)) for name, port in ports.items()}
        devices = [press(name, schemes[name], lines[name].port) for name in schemes]
        devices += [counter(name, lines[name].port) for name in ("node", "rust")]
        # The broker is nobody: what is committed stays in the outbox, and is looked at there.
        plant = Plant.write(tmp_path / "agent", f"mqtt://127.0.0.1:{free_port()}", devices)
        found = config.load(plant.path)
        places = {name: next(tag.index for tag in found.tags if tag.device == name) for name in ports}
        process = running.enter_context(agent(tmp_path, plant, "--drain", "0"))

        def arrived(since_ns: int, names: Sequence[str]) -> bool:
            readings = Committed.of(plant).readings
            return all(
                any(t > since_ns and quality == 0 for t, _, quality in readings.get(places[name], [])[-50:])
                for name in names
            )

        until((tmp_path / "agent" / "agent" / "outbox.db").exists)
        until(lambda: arrived(0, list(ports)))
        plans = {
            "press": shared(FAULTS, 0),
            "lathe": shared(CHECKED, 0),
            "node": shared(FAULTS, 1),
            "rust": shared(FAULTS, 0),
        }
        healed: dict[str, float] = {}
        for at in range(max(map(len, plans.values()))):
            now = {name: plan[at] for name, plan in plans.items() if at < len(plan)}
            for name, fault in now.items():
                lines[name].apply(fault)
            time.sleep(LASTS)  # not for luck: this is how long the fault lasts
            for name in now:
                lines[name].apply(None)
            began, healed_ns = time.monotonic(), time.time_ns()
            until(partial(arrived, healed_ns, list(now)), HEALS, f"after {now}")
            healed[" ".join(f"{name}:{fault.kind}:{fault.way}" for name, fault in now.items())] = round(
                time.monotonic() - began, 1
            )
        print(f"seed {SEED}", healed)
        end_ns = time.time_ns()
        until(lambda: arrived(end_ns + 10**9, list(ports)))
        process.stop()
    committed = Committed.of(plant)
    oracle = Oracle(VirtualPlant(found.tags, SEED), found)
    for tag in found.tags:
        readings = committed.readings[tag.index]
        if tag.device in schemes:
            wrong = [
                (t, value) for t, value, quality in readings if oracle.wrong(tag, t, cast("Value", value), quality)
            ]
            assert wrong == [], tag
            assert max(Counter(t for t, _, _ in readings).values()) == 1
        else:
            gaps = [(begin, end) for begin, end, reason in committed.gaps if reason.startswith(f"{tag.device}:")]
            faults = committed.faults(tag.index, PERIOD_NS)
            print(tag.device, {name: len(values) for name, values in faults.items()}, len(gaps), "gaps")
            first_ns, first = committed.counted(tag.index)[0]
            unnamed = [
                value
                for value in faults["lost"]
                if not any(begin <= first_ns + (value - first) * PERIOD_NS <= end for begin, end in gaps)
            ]
            assert (unnamed, faults["doubled"], faults["wrong"]) == ([], [], []), tag.device
