"""The ways to a device: its backup, and one place that is written in two ways."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest

from agent.collectors import collectors
from agent.collectors.base import DeviceState, supervise
from agent.collectors.carrier import Ear, Trust
from agent.collectors.modbus import ModbusCollector
from agent.endpoint import Endpoint
from agent.intake import Intake
from agent.modbus_options import misfits
from tests.bus import Bus, Rig, _Wire, device, steady, tags
from tests.virtual_time import run


def test_it_fails_over_to_the_backup_and_comes_back() -> None:
    async def scene() -> None:
        bus = Bus({1: steady()})
        rig = Rig(bus, {1: [100]}, "tcp://first", backup="tcp://second", timeout="50ms", poll="1s")
        bus.down = {"first"}
        state = DeviceState("unit1")
        task = asyncio.create_task(supervise(rig.collectors[1], rig.inlet, state))
        await asyncio.sleep(30)
        assert bus.opened == ["second"]
        # It accepts connections again, and does not answer: nobody notices that it was tried.
        bus.down, bus.mute = set(), {"first"}
        await asyncio.sleep(60)
        assert bus.opened[:3] == ["second", "first", "second"]
        bus.mute = set()
        await asyncio.sleep(180)
        assert bus.opened[-1] == "first"
        assert (state.reconnects, state.connected) == (0, True)
        times = [time for time, _, _ in rig.inlet.good]
        assert max(b - a for a, b in pairwise(times)) < 1.2
        # A first endpoint that accepts and is mute from the start is passed over as well.
        bus.mute, bus.opened = {"first"}, []
        await asyncio.sleep(20)
        assert state.connected
        assert bus.opened[-1] == "second"
        task.cancel()
        await asyncio.wait([task])
        assert bus.open_now == 0

    run(scene())


def test_a_line_with_transactions_always_under_way_comes_back_from_its_backup() -> None:
    class Two(Bus):
        """Two devices, each of which answers whoever asked it."""

        async def open(self, endpoint: Endpoint, trust: Trust, ear: Ear) -> _Wire:
            before = self.ears
            wire = await super().open(endpoint, trust, ear)
            self.ears = [*before, ear]
            return wire

    async def scene() -> None:
        bus = Two({unit: steady(0.02 + unit / 1000) for unit in range(1, 9)})
        numbers: dict[int, Sequence[int]] = {unit: [100, 200, 300] for unit in bus.units}
        rig = Rig(bus, numbers, "tcp://first", backup="tcp://second", timeout="1s", poll="20ms", pipeline=4)
        bus.down = {"first"}
        states = {unit: DeviceState(f"unit{unit}") for unit in bus.units}
        tasks = [asyncio.create_task(supervise(rig.collectors[u], rig.inlet.of(u), states[u])) for u in bus.units]
        await asyncio.sleep(5)
        bus.down = set()
        await asyncio.sleep(70)
        assert (bus.opened, bus.open_now) == (["second", "first"], 1)
        assert {state.reconnects for state in states.values()} == {0}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    run(scene())


def test_one_gateway_written_in_two_ways_is_one_line() -> None:
    urls = ("tcp://Gateway", "tcp://gateway:502")
    made = [device(at, tags(f"unit{at}", at, [1]), url) for at, url in enumerate(urls)]
    inlet = Intake([tag for each in made for tag in each.tags], 1 << 20)
    one, two = (each for each in collectors(made, inlet) if isinstance(each, ModbusCollector))
    assert one._line is two._line


@pytest.mark.parametrize(
    ("first", "second", "wrong"),
    [
        ("tcp://Gateway", "tcp://gateway:502", None),
        ("udp://gateway", "tcp://gateway", None),
        ("rtu:///dev/ttyS1", "rtu:///dev/ttyS1?baudrate=19200", None),
        ("rtu+tcp://gateway:4001", "tcp://gateway:4001", "url"),
        ("rtu:///dev/ttyS1?baudrate=9600", "rtu:///dev/ttyS1", "url"),
    ],
)
def test_one_port_can_be_reached_in_one_way_only(first: str, second: str, wrong: str | None) -> None:
    found = list(misfits([(0, device(1, [], first)), (1, device(2, [], second))]))
    assert [(at, name) for at, name, _ in found] == ([(1, wrong)] if wrong else [])
    assert all(text.endswith("in another way; write the same url in both") for *_, text in found)
