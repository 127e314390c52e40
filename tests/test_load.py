"""`headrace simulate --load`: the compiled server is the devices of a config, value by value, and says what it does."""

from __future__ import annotations

import math
import shutil
import signal
from base64 import b64encode
from pathlib import Path

import pytest

from agent import config as configs
from agent.errors import ConfigError
from agent.model import Tag, Value
from headrace import load
from simulators.load_plan import Times, plan
from simulators.plant import Plant as Signals
from tests import rig
from tests.peers.brokers import Mosquitto
from tests.peers.process import free_port

pytestmark = pytest.mark.timeout(180)  # programs start, and the machine may be busy

PERIOD_NS = 200_000_000
TIMEOUT_NS = 3_000_000_000
"""Of the Modbus device: the longest that an answer may be on its way."""
MODBUS = (
    "temp,hr:100,float32,CDAB",
    "oil,hr:102,float64,ABCD",
    "count,hr:106,uint32,ABCD",
    "bit3,hr:108.3,bool,",
    "high,hr:109.h,uint8,",
    "state,ir:8,int16,",
    "total,ir:9,uint64,DCBA",
    "running,co:3,bool,",
    "ready,co:4,bool,",
    "open,di:17,bool,",
)
OPCUA = (
    "Temp,nsu=urn:plant;s=Furnace.Temp,float64",
    "Single,nsu=urn:plant;s=Furnace.Single,float32",
    "Strokes,nsu=urn:plant:more;i=7,uint64",
    "Level,ns=3;s=Level,int16",
    "Small,nsu=urn:plant;s=Small,int8",
    "Batch,nsu=urn:plant;s=Batch,string",
    "Open,nsu=urn:plant;g=09087e75-8e5e-499b-954f-f2a9603db28a,bool",
    "Raw,nsu=urn:plant;b=M/RbKBsRVkePCePcx24oRA==,bytes",
    "Profile,nsu=urn:plant;s=Profile,float64[]",
)


def write(home: Path, broker: str) -> rig.Plant:
    lines = f'protocol = "modbus"\nurl = "tcp://127.0.0.1:{free_port()}"\nunit = 3\npoll = "50ms"\ntimeout = "3s"'
    lines_opcua = (
        f'protocol = "opcua"\nurl = "opc.tcp://127.0.0.1:{free_port()}"\nsecurity = "None"\npublish = "100ms"\n'
        'sampling = "every change"'
    )
    return rig.Plant.write(
        home,
        broker,
        [
            rig.Device("press", lines, MODBUS),
            rig.Device("furnace", lines_opcua, OPCUA, header="name,address,type"),
        ],
    )


def same(found: Value, shown: Value) -> bool:
    """Bytes come as hexadecimal or base64 in JSON, arrays as lists: compared by what they hold."""
    if isinstance(shown, bytes):
        return isinstance(found, str) and found in (shown.hex(), b64encode(shown).decode())
    if isinstance(shown, tuple | list):
        return isinstance(found, list) and found == list(shown)
    return found == shown


def test_an_agent_reads_the_very_values_of_the_plan_over_both_protocols(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "broker") as broker:
        plant = write(tmp_path / "plant", broker.url)
        config = configs.load(plant.path)
        simulator = rig.simulator(tmp_path / "sim", plant, 5, "--load", "--period", "200ms")
        with simulator, rig.data_center(tmp_path, plant), rig.agent(tmp_path, plant):
            found = next(line for line in simulator.lines() if line.get("ready"))
            facts = found["load"]
            times = Times(facts["begin_ns"], facts["period_ns"], facts["images"])
            assert times.period_ns == PERIOD_NS
            wanted = {tag.name: tag for tag in config.tags}
            signals = Signals.of(config, 5)
            moving = ("temp", "oil", "Temp", "Single")
            rig.until(lambda: all(len(plant.readings(wanted[name].identifier)["readings"]) > 12 for name in moving))
            for tag in config.tags:
                readings = plant.readings(tag.identifier)["readings"]
                assert readings, tag.name
                for time_ns, value, quality in readings:
                    assert quality == 0, tag.name
                    assert any(same(value, shown) for shown in shown_at(signals, times, tag, time_ns)), (
                        tag.name,
                        value,
                    )
            rig.until(lambda: simulator.lines()[-1].get("clients", 0) >= 1)
            last = simulator.lines()[-1]
            assert last["readings_per_second"] > 0
            assert last["changes_per_second"] > 0
            assert last["exceptions"] == 0
            assert "cpu_percent" in last


def shown_at(signals: Signals, times: Times, tag: Tag, time_ns: int) -> list[Value]:
    """A node's value has the time at which it began; a register's was read within half a time-out of the reading's
    time, and may have been shown a little late: on an idle machine it is the one of that time, or the one before."""
    if tag.device == "furnace":
        return [signals.value(tag, times.moment(time_ns))]
    periods = math.ceil(TIMEOUT_NS / 2 / times.period_ns) + 1
    at = (time_ns + period * times.period_ns for period in range(-2 * periods, periods + 1))
    return [signals.value(tag, times.moment(each)) for each in at]


def test_it_stops_at_once_and_frees_its_ports(tmp_path: Path) -> None:
    plant = write(tmp_path, "mqtt://127.0.0.1:1")
    simulator = rig.simulator(tmp_path / "sim", plant, 1, "--load")
    with simulator:
        pid = next(line for line in simulator.lines() if line.get("ready"))["pid"]
        rig.until(lambda: "seconds" in simulator.lines()[-1])
        simulator._end(signal.SIGINT)
        assert simulator.lines()[-1]["stopped"] is True
        assert not Path(f"/proc/{pid}").exists()
    with rig.simulator(tmp_path / "again", plant, 1, "--load"):
        pass


def test_the_server_outlives_no_simulator_that_was_killed(tmp_path: Path) -> None:
    plant = write(tmp_path, "mqtt://127.0.0.1:1")
    simulator = rig.simulator(tmp_path / "sim", plant, 1, "--load")
    with simulator:
        pid = next(line for line in simulator.lines() if line.get("ready"))["pid"]
        simulator.kill()
        rig.until(lambda: not Path(f"/proc/{pid}").exists())


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    plant = write(tmp_path, "mqtt://127.0.0.1:1")
    with rig.simulator(tmp_path / "sim", plant, 1, "--load"):
        found = rig.headrace("simulate", str(plant.path), "--load")
    assert found.returncode == 1
    assert "press: can't listen at port" in found.stderr
    assert "in use" in found.stderr


def test_what_it_cannot_be_is_said_for_every_device(tmp_path: Path) -> None:
    devices = [
        rig.Device("datagrams", f'protocol = "modbus"\nurl = "udp://127.0.0.1:{free_port()}"', MODBUS[:1]),
        rig.Device("far", 'protocol = "modbus"\nurl = "tcp://192.0.2.7:502"', MODBUS[:1]),
        rig.Device("locked", 'protocol = "opcua"\nurl = "opc.tcp://127.0.0.1:4840"', OPCUA[:1], "name,address,type"),
        rig.Device(
            "walked",
            'protocol = "opcua"\nurl = "opc.tcp://127.0.0.1:4841"\nsecurity = "None"',
            ("Temp,nsu=urn:plant;path=/Objects/Furnace/Temp,float64",),
            "name,address,type",
        ),
        rig.Device(
            "parted",
            'protocol = "opcua"\nurl = "opc.tcp://127.0.0.1:4842"\nsecurity = "None"',
            ("Temp,nsu=urn:plant;s=Furnace#Temp,float64",),
            "name,address,type",
        ),
    ]
    config = configs.load(rig.Plant.write(tmp_path, "mqtt://127.0.0.1:1883", devices).path)
    with pytest.raises(ConfigError) as wrong:
        plan(config, Signals.of(config), Times(0, 1, 2), tmp_path)
    said = [f"{each.field}: {each.message}; {each.hint}" for each in wrong.value.problems]
    words = (
        "over tcp:// only",
        "192.0.2.7 is not this machine",
        "without encryption",
        "is not a node that",
        "is not a node that",
    )
    assert all(word in text for word, text in zip(words, said, strict=True)), said


def test_options_that_do_not_go_together_and_a_server_that_is_not_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant = write(tmp_path, "mqtt://127.0.0.1:1")
    found = rig.headrace("simulate", str(plant.path), "--load", "--watch")
    assert found.returncode == 2
    assert "--load knows no --watch" in found.stderr
    monkeypatch.setattr(load, "BUILT", tmp_path / "nowhere")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(load.LoadFailed, match="run `make peers`"):
        load.command()


def test_images_go_forward_and_back_without_a_jump() -> None:
    times = Times.of(100_000, PERIOD_NS, 1_750_000_000_123_456_789)
    assert times.begin_ns % PERIOD_NS == 0
    shown = [times.image(times.begin_ns + at * PERIOD_NS) for at in range(20)]
    assert shown == [0, 1, 2, 3, 4, 5, 6, 7, 6, 5, 4, 3, 2, 1, 0, 1, 2, 3, 4, 5]
    assert times.image(times.begin_ns + PERIOD_NS - 1) == 0
    assert times.moments[1] - times.moments[0] == 10**9
