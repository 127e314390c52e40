"""`headrace simulate`, `run` and `datacenter` with one config: every kind of line and every form of value, verified."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import config
from agent.encoding import Form
from simulators.oracle import Oracle
from simulators.plant import Plant as VirtualPlant
from tests.peers.brokers import Mosquitto
from tests.peers.process import free_port
from tests.rig import Device, Plant, agent, data_center, simulator, until

SEED = 7
ORDERS = ("ABCD", "DCBA", "BADC", "CDAB")
PLAIN = ("int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64", "string[7]")


def rows() -> list[str]:
    """Every type in every order, and what has a place of its own."""
    found, at = [], 0
    for kind in (*PLAIN, *(form.value for form in Form)):
        for order in ORDERS:
            word = kind.translate(str.maketrans("[]", "__"))
            found.append(f"{word}_{order},hr:{at},{kind},{order},")
            at += 8
    found += [
        "bit,ir:0.3,bool,,",
        "high,ir:1.h,uint8,,",
        "low,ir:1.l,int8,,",
        "running,co:5,bool,,",
        "door,di:9,bool,,",
    ]
    found += ["level,ir:2,int16,,0x7FFF", "classic,30011,uint16,,"]
    return found


def devices(home: Path) -> list[Device]:
    port = free_port()
    places = {
        "tcp_one": f'url = "tcp://127.0.0.1:{port}"\nunit = 1',
        "tcp_two": f'url = "tcp://127.0.0.1:{port}"\nunit = 2',
        "tls": f'url = "tls://127.0.0.1:{free_port()}"\nca = "plc.pem"',
        "udp": f'url = "udp://127.0.0.1:{free_port()}"',
        "rtu_one": f'url = "rtu://{home}/ttyA?baudrate=115200"\nunit = 3',
        "rtu_two": f'url = "rtu://{home}/ttyA?baudrate=115200"\nunit = 4',
        "ascii": f'url = "ascii://{home}/ttyB"\nunit = 5',
        "rtu_tcp": f'url = "rtu+tcp://127.0.0.1:{free_port()}"',
        "ascii_tcp": f'url = "ascii+tcp://127.0.0.1:{free_port()}"',
    }
    header = "name,address,type,order,invalid"
    return [
        Device(name, f'protocol = "modbus"\npoll = "400ms"\ntimeout = "10s"\n{lines}', rows(), header)
        for name, lines in places.items()
    ]


@pytest.mark.timeout(300)
def test_every_line_and_every_form_is_stored_as_the_plant_had_it(tmp_path: Path, mosquitto: Mosquitto) -> None:
    plant = Plant.write(tmp_path, mosquitto.url, devices(tmp_path))
    with simulator(tmp_path, plant, SEED), data_center(tmp_path, plant), agent(tmp_path, plant) as process:
        found = config.load(plant.path)
        oracle = Oracle(VirtualPlant(found.tags, SEED), found)
        last = [device.tags[-1].identifier for device in found.devices]
        until(lambda: all(len(_good(plant, each)) >= 2 for each in last), 150)
        for tag in found.tags:
            readings = _good(plant, tag.identifier)
            assert readings, tag
            for time_ns, value, quality in readings:
                assert not oracle.wrong(tag, time_ns, value, quality), (tag, time_ns, value)
        events = process.events()
        assert events.count("device_connected") == len(found.devices)
        assert "read_refused" not in events


def _good(plant: Plant, identifier: str) -> list[tuple[int, bool | int | float | str, int]]:
    return [(at, value, quality) for at, value, quality in plant.readings(identifier)["readings"] if not quality]
