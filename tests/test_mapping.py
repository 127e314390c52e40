"""Configs of devices that are elsewhere, moved to this machine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent import config
from agent.errors import ConfigError
from simulators.mapping import adapt, parse
from simulators.run import Simulation

PLANT = """
[agent]   # "tcp://10.0.0.7:502" in a comment stays
id = "a"
data_dir = "./var/a/"

[uplink]
url = "mqtts://user:secret@broker.plant:8883"

[[device]]
name = "one"
protocol = "modbus"
url = "tcp://10.0.0.7:502"   # and so does this
tags = "d.csv"

[[device]]
name = "two"
protocol = "modbus"
url = 'tcp://10.0.0.7:502'
unit = 2
tags = "d.csv"

[[device]]
name = "serial"
protocol = "modbus"
url = "rtu:///dev/ttyUSB0?baudrate=9600"
tags = "d.csv"

[[device]]
name = "near"
protocol = "modbus"
url = "tcp://127.0.0.1:1"
tags = "d.csv"

[[device]]
name = "oven"
protocol = "opcua"
security = "None"
url = "opc.tcp://oven.plant:4840/path"
tags = "o.csv"

[datacenter]
store = "./var/store"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "d.csv").write_text("name,address,type\nx,hr:0,int16\n")
    (tmp_path / "o.csv").write_text("name,address,type\nx,nsu=urn:x;s=x,int16\n")
    found = tmp_path / "plant.toml"
    found.write_text(PLANT, encoding="utf-8")
    return found


def test_loopback_moves_everything_that_is_elsewhere(path: Path) -> None:
    target = adapt(path, {}, everything=True)
    found = config.load(target)
    urls = {device.name: device.url for device in found.devices}
    assert target == path.with_name("plant.loopback.toml")
    assert re.fullmatch(r"tcp://127\.0\.0\.1:\d+", urls["one"])
    assert urls["two"] == urls["one"], "units of one gateway stay units of one gateway"
    assert urls["near"] == "tcp://127.0.0.1:1"
    assert urls["serial"] == f"rtu://{path.parent}/plant.ports/ttyUSB0?baudrate=9600"
    assert re.fullmatch(r"opc\.tcp://127\.0\.0\.1:\d+/path", urls["oven"])
    assert found.uplink.url == "mqtt://127.0.0.1:1883"
    assert (found.agent.data_dir.name, found.datacenter and found.datacenter.store.name) == (
        "a-simulated",
        "store-simulated",
    )
    assert "in a comment stays" in target.read_text()
    assert len(Simulation(found, 1).devices()) == 5


def test_map_moves_one_and_nothing_else(path: Path) -> None:
    given = dict([parse("10.0.0.7=127.0.0.1:5021"), parse("/dev/ttyUSB0=/tmp/ttyA")])
    text = adapt(path, given, everything=False).read_text()
    wanted = PLANT.replace('url = "tcp://10.0.0.7:502"', 'url = "tcp://127.0.0.1:5021"')
    wanted = wanted.replace("'tcp://10.0.0.7:502'", "'tcp://127.0.0.1:5021'").replace("/dev/ttyUSB0", "/tmp/ttyA")
    assert text.partition("\n")[2] == wanted


@pytest.mark.parametrize(
    "text",
    ["10.0.0.7", "=127.0.0.1:1", "a=10.0.0.8:1", "a=127.0.0.1", "/dev/x=127.0.0.1:1", "a=/tmp/x", "a=127.0.0.1:x"],
)
def test_a_mapping_that_leads_elsewhere_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write --map"):
        parse(text)


def test_a_mapping_that_fits_no_device_is_named(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--map 10\.0\.0\.9: no device is there"):
        adapt(path, {"10.0.0.9": "127.0.0.1:5"}, everything=False)
