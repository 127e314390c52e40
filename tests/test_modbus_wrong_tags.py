"""100 devices with 300 of 10,000 tags wrong: they start, read the 9,700, and name the 300."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from agent.collectors import collectors
from agent.collectors.base import DeviceState, supervise
from agent.config import load
from agent.model import StatusCode
from tests.bus import Recorder
from tests.peers.process import free_port
from tests.rig import Device, Plant, simulator

pytestmark = pytest.mark.timeout(180)  # programs start, and the machine may be busy

GATEWAYS, UNITS, TAGS, WRONG = 10, 10, 100, 3


async def test_300_wrong_tags_of_10000_are_named_and_the_others_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    dice = random.Random(seed)
    configured, served, wrong = [], [], set()
    for gateway in range(GATEWAYS):
        port = free_port()
        for unit in range(1, UNITS + 1):
            name = f"g{gateway}u{unit}"
            lines = f'protocol = "modbus"\nurl = "tcp://127.0.0.1:{port}"\nunit = {unit}\npoll = "2s"\ntimeout = "20s"'
            rows = {number: f"t{number},hr:{number},uint16," for number in range(TAGS)}
            bad = dice.sample(range(TAGS), WRONG)
            wrong |= {f"{name}/t{number}" for number in bad}
            configured.append(Device(name, lines, list(rows.values())))
            served.append(Device(name, lines, [row for number, row in rows.items() if number not in bad]))
    broker = "mqtt://127.0.0.1:1883"
    plant = Plant.write(tmp_path / "agent", broker, configured)
    with simulator(tmp_path, Plant.write(tmp_path / "plant", broker, served)):
        config = load(plant.path)
        inlet = Recorder(config.tags)
        made = collectors(config.devices, inlet)
        states = [DeviceState(each.device.name) for each in made]
        tasks = [asyncio.create_task(supervise(each, inlet, state)) for each, state in zip(made, states, strict=True)]
        names = [f"{tag.device}/{tag.name}" for tag in config.tags]
        good: set[str] = set()
        bad_ones: set[str] = set()
        async with asyncio.timeout(120):
            while len(good) + len(bad_ones) < len(names):
                await asyncio.sleep(0.1)
                latest = inlet.buffer.latest()
                good = {names[index] for index, _, _, quality in latest if not quality}
                bad_ones = {names[index] for index, _, _, quality in latest if quality}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    assert bad_ones == wrong
    assert len(good) == 9_700
    assert {quality for _, _, _, quality in inlet.buffer.latest()} == {0, StatusCode.BAD_NODE_ID_UNKNOWN}
    assert all(state.reconnects == 0 for state in states)
    # Each of them in one line of the log, by name.
    told = [each for each in caplog.records if getattr(each, "event", "") == "read_refused"]
    assert len(told) == len(wrong)
    for line in told:
        assert any(f"{line.device}/{word}" in wrong for word in line.getMessage().split())  # type: ignore[attr-defined]
