"""What was planned, against a device that has nothing in its gaps: every tag is read, and right."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import load
from agent.model import Value
from simulators.oracle import Oracle
from simulators.plant import Plant as Signals
from tests.peers.brokers import Mosquitto
from tests.peers.process import free_port
from tests.rig import Device, Plant, agent, data_center, simulator, until

pytestmark = pytest.mark.timeout(180)  # programs start, and the machine may be busy

ROWS = (
    "a,hr:0,float32,CDAB,", "b,hr:2,int16,,", "c,hr:9,float32,,", "d,40021,uint32,,", "e,hr:26,float64,BADC,",
    "f,hr:38,int16,,300ms", "g,hr:500.3,bool,,", "h,co:0,bool,,", "i,co:100,bool,,",
)  # fmt: skip


def test_a_device_without_registers_in_the_gaps_is_read_whole(tmp_path: Path, mosquitto: Mosquitto) -> None:
    lines = f'protocol = "modbus"\nurl = "tcp://127.0.0.1:{free_port()}"\npoll = "100ms"\ntimeout = "10s"'
    plant = Plant.write(tmp_path, mosquitto.url, [Device("press", lines, ROWS, "name,address,type,order,poll")])
    config = load(plant.path)
    oracle = Oracle(Signals(config.tags, seed=1), config)
    with simulator(tmp_path, plant), data_center(tmp_path, plant), agent(tmp_path, plant) as process:
        for tag in config.tags:

            def several(name: str = tag.identifier) -> list[tuple[int, Value, int]]:
                found: list[tuple[int, Value, int]] = plant.readings(name)["readings"]
                return found if len(found) > 3 else []

            for time_ns, value, quality in until(several):
                assert quality == 0, tag.name
                assert not oracle.wrong(tag, time_ns, value, quality), tag.name
        assert "request_split" in process.events()
        assert "read_refused" not in process.events()
