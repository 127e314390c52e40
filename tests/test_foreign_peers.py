"""The agent and the data center with devices and a broker that this project did not write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.peers.brokers import Mosquitto
from tests.peers.servers import (
    HOLDING,
    OPCUA_BAD_STATUS,
    OPCUA_NAMESPACE,
    OPCUA_VALUES,
    LibmodbusServer,
    ModbusSerialServer,
    NodeOpcUaServer,
)
from tests.rig import Device, Plant, agent, data_center, until

pytestmark = pytest.mark.timeout(180)  # programs start, and the machine may be busy

UNKNOWN_NODE = 0x80340000
MODBUS_TAGS = [f"h{number},hr:{number},{kind},{order}" for number, (kind, order, _) in HOLDING.items()]


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def modbus(name: str, url: str) -> Device:
    rows = [*MODBUS_TAGS, "counter,hr:8,uint16,", "bit1,hr:9.1,bool,", "bit2,hr:9.2,bool,"]
    rows += ["coil3,co:3,bool,", "coil4,co:4,bool,", "input3,di:3,bool,", "register7,ir:7,uint16,"]
    # Past the 200 items that the server has: it refuses this tag, and must answer the others all the same.
    rows += ["beyond,hr:5000,uint16,"]
    return Device(name, f'protocol = "modbus"\nurl = "{url}"\npoll = "100ms"\ntimeout = "10s"', rows)


def check_modbus(plant: Plant, device: str) -> None:
    def values(tag: str) -> list[Any]:
        return [value for _, value, _ in plant.readings(f"88.118.8/{device}.{tag}")["readings"] if value is not None]

    until(lambda: len(values("register7")) >= 5)
    for number, (_, _, wanted) in HOLDING.items():
        assert set(values(f"h{number}")) == {wanted}, number
    expected = {"bit1": True, "bit2": False, "coil3": True, "coil4": False, "input3": False, "register7": 1007}
    for tag, wanted in expected.items():
        assert set(values(tag)) == {wanted}, tag
    counted = values("counter")
    assert counted == sorted(counted)
    assert len(set(counted)) == len(counted)
    beyond = plant.readings(f"88.118.8/{device}.beyond")["readings"]
    assert [(value, quality) for _, value, quality in beyond] == [(None, UNKNOWN_NODE)]


def test_libmodbus_and_modbus_serial(
    tmp_path: Path,
    mosquitto: Mosquitto,
    libmodbus_server: LibmodbusServer,
    modbus_serial_server: ModbusSerialServer,
    running: ExitStack,
) -> None:
    devices = [modbus("libmodbus", libmodbus_server.url), modbus("serial", modbus_serial_server.url)]
    plant = Plant.write(tmp_path, mosquitto.url, devices)
    running.enter_context(data_center(tmp_path, plant))
    running.enter_context(agent(tmp_path, plant))
    check_modbus(plant, "libmodbus")
    check_modbus(plant, "serial")


def test_node_opcua(
    tmp_path: Path, mosquitto: Mosquitto, node_opcua_server: NodeOpcUaServer, running: ExitStack
) -> None:
    types = {name: kind for name, (kind, _) in OPCUA_VALUES.items()}
    types |= {"Counter": "int32", "Bad": "float64", "Nowhere": "int32"}
    rows = [f"{name},nsu={OPCUA_NAMESPACE};s={name},{kind}," for name, kind in types.items()]
    # A node whose type is not the tag's: a bad reading, not a value that was bent until it fitted.
    rows.append(f"Mistyped,nsu={OPCUA_NAMESPACE};s=String,float32,")
    rows.append(f"Narrow,nsu={OPCUA_NAMESPACE};s=Int16s,int8[],")
    lines = (
        f'protocol = "opcua"\nurl = "{node_opcua_server.url}"\npublish = "200ms"\nsampling = "every change"'
        '\nsecurity = "None"'
    )
    plant = Plant.write(tmp_path, mosquitto.url, [Device("server", lines, rows)])
    running.enter_context(data_center(tmp_path, plant))
    running.enter_context(agent(tmp_path, plant))

    def readings(tag: str) -> list[tuple[int, object, int]]:
        return [tuple(each) for each in plant.readings(f"88.118.8/server.{tag}")["readings"]]

    until(lambda: len(readings("Counter")) >= 30)
    for name, (_, wanted) in OPCUA_VALUES.items():
        assert [(value, quality) for _, value, quality in readings(name)] == [(wanted, 0)], name
    assert readings("Bad")[0][1:] == (None, OPCUA_BAD_STATUS)
    assert readings("Nowhere")[0][1:] == (None, UNKNOWN_NODE)
    assert readings("Mistyped")[0][1:] == (None, 0x80740000)
    assert readings("Narrow")[0][1:] == (None, 0x80740000)
    # Every change of the counter, once, each with its own source time.
    counted = readings("Counter")
    numbers = [value for _, value, _ in counted]
    first = numbers[0]
    assert isinstance(first, int)
    assert numbers == list(range(first, first + len(numbers)))
    assert {b[0] - a[0] for a, b in pairwise(counted)} == {100_000_000}


def test_a_device_that_is_away_does_not_disturb_another(
    tmp_path: Path,
    mosquitto: Mosquitto,
    libmodbus_server: LibmodbusServer,
    modbus_serial_server: ModbusSerialServer,
    running: ExitStack,
) -> None:
    devices = [modbus("steady", libmodbus_server.url), modbus("away", modbus_serial_server.url)]
    plant = Plant.write(tmp_path, mosquitto.url, devices)
    running.enter_context(data_center(tmp_path, plant))
    process = running.enter_context(agent(tmp_path, plant))

    def stored(device: str) -> list[tuple[int, object, int]]:
        return [tuple(each) for each in plant.readings(f"88.118.8/{device}.register7")["readings"]]

    until(lambda: len(stored("away")) >= 3)
    modbus_serial_server.kill()
    lost = until(lambda: [each for each in stored("away") if each[1] is None])
    begun = len(stored("steady"))
    until(lambda: len(stored("steady")) >= begun + 10)
    modbus_serial_server.start()
    until(lambda: stored("away")[-1][1] == 1007 and stored("away")[-1][0] > lost[0][0])
    # One bad reading for the whole outage: not silence, and not a flood.
    assert len([each for each in stored("away") if each[1] is None]) == 1
    assert process.events().count("device_lost") == 1
    assert process.events().count("device_connected") == 3
