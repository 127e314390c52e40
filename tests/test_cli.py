"""The command line as its users meet it: exit codes, messages without tracebacks, clean stops."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from importlib import import_module
from pathlib import Path

import pytest

from agent import _native
from agent.model import Tag, ValueType
from headrace.commands import parser
from headrace.facts import moment
from tests.peers.brokers import Mosquitto
from tests.peers.process import free_port
from tests.rig import Command, Device, Plant, agent, data_center, headrace, simulator, until

pytestmark = pytest.mark.timeout(180)  # programs start, and the machine may be busy

LIMIT = 20.0
"""Seconds that a clean stop may take on a busy machine; whoever waits for what never comes takes longer."""


def press() -> Device:
    lines = f'protocol = "modbus"\nurl = "tcp://127.0.0.1:{free_port()}"\npoll = "100ms"'
    return Device("press", lines, ["temp,hr:0,float32,", "count,hr:2,uint32,CDAB"])


def furnace() -> Device:
    lines = f'protocol = "opcua"\nurl = "opc.tcp://127.0.0.1:{free_port()}"\nsecurity = "None"\npublish = "200ms"'
    return Device("furnace", lines, ["zone1,nsu=urn:furnace;s=Zone1,float32,"])


def interrupt(process: Command) -> None:
    """What Ctrl-C does; it must end by itself, in time, with exit code 0 and no traceback."""
    os.kill(process.pid, signal.SIGINT)
    running = process._process
    assert running is not None
    assert running.wait(LIMIT) == 0
    assert "Traceback" not in process.log.read_text(errors="replace")


def test_ctrl_c_stops_each_command_cleanly(tmp_path: Path, mosquitto: Mosquitto) -> None:
    plant = Plant.write(tmp_path, mosquitto.url, [press(), furnace()])
    with (
        simulator(tmp_path, plant) as devices,
        data_center(tmp_path, plant) as center,
        agent(tmp_path, plant) as process,
    ):
        until(lambda: plant.readings("88.118.8/furnace.zone1")["readings"])
        interrupt(process)
        assert process.lines()[-1]["stopped"]
        interrupt(devices)
        interrupt(center)


def test_ctrl_c_of_an_agent_that_has_no_broker_and_no_device(tmp_path: Path) -> None:
    plant = Plant.write(tmp_path, f"mqtt://127.0.0.1:{free_port()}", [press(), furnace()])
    with agent(tmp_path, plant) as process:
        until(lambda: {"uplink_lost", "device_unreachable"} <= set(process.events()))
        interrupt(process)


PLAIN = [sys.executable, "-m", "headrace"]
BEGINNING = [sys.executable, "-X", "importtime", "-m", "headrace"]
"""Tells what it imports. Before the first lines of our own code run, Ctrl-C is the interpreter's to answer."""


def begun(process: subprocess.Popen[str]) -> None:
    """Returns when our own code has begun, and imports."""
    assert process.stderr is not None
    assert any(line.split()[-1] == "argparse" for line in process.stderr)


def test_ctrl_c_at_the_start(tmp_path: Path) -> None:
    plant = Plant.write(tmp_path, f"mqtt://127.0.0.1:{free_port()}", [press()])
    for pause in (0.0, 0.1, 0.25, 0.4, 0.6):
        process = subprocess.Popen([*BEGINNING, "run", str(plant.path)], stderr=subprocess.PIPE, text=True)
        begun(process)
        time.sleep(pause)  # a moment somewhere in its imports: each must end, whatever it was doing
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=LIMIT)
        assert process.returncode in (0, 130, -signal.SIGINT), said
        assert "Traceback" not in said


def test_the_same_agent_twice_is_refused(tmp_path: Path) -> None:
    plant = Plant.write(tmp_path, f"mqtt://127.0.0.1:{free_port()}", [press()])
    with agent(tmp_path, plant):
        second = headrace("run", str(plant.path))
    assert second.returncode == 1
    assert "Traceback" not in second.stderr
    assert "outbox" in second.stderr


def test_a_data_dir_that_can_not_be(tmp_path: Path) -> None:
    plant = Plant.write(tmp_path, f"mqtt://127.0.0.1:{free_port()}", [press()])
    (tmp_path / "agent").write_text("a file where a directory should be")
    found = headrace("run", str(plant.path))
    assert found.returncode == 1
    assert str(tmp_path / "agent") in found.stderr
    assert "Traceback" not in found.stderr


def test_a_simulated_device_whose_port_is_taken(tmp_path: Path) -> None:
    plant = Plant.write(tmp_path, "mqtt://127.0.0.1:1883", [press()])
    with simulator(tmp_path, plant):
        second = headrace("simulate", str(plant.path))
    assert second.returncode == 1
    assert "press" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_broken_config_is_exit_code_2_for_every_command(tmp_path: Path) -> None:
    plant = Plant.write(tmp_path, "mqtt://127.0.0.1:1883", [press()])
    broken = plant.path.read_text().replace('poll = "100ms"', 'pol = "100ms"')
    plant.path.write_text(broken)
    for command in ("check", "plan", "run", "simulate", "datacenter"):
        found = headrace(command, str(plant.path))
        assert found.returncode == 2, command
        assert "poll" in found.stdout + found.stderr, command
        assert "Traceback" not in found.stderr, command
    checked = json.loads(headrace("check", str(plant.path), "--json").stdout)
    [problem] = checked["problems"]
    assert not checked["ok"]
    assert problem["field"] == "device[0].pol"
    assert problem["line"] == broken.splitlines().index('pol = "100ms"') + 1
    assert "poll" in problem["message"] + problem["hint"]


def test_init_writes_a_config_that_is_fine_and_overwrites_nothing(tmp_path: Path) -> None:
    assert headrace("init", str(tmp_path / "new")).returncode == 0
    checked = headrace("check", str(tmp_path / "new" / "plant.toml"), "--json")
    assert checked.returncode == 0
    assert json.loads(checked.stdout)["ok"]
    again = headrace("init", str(tmp_path / "new"))
    assert again.returncode == 1
    assert "exists already" in again.stderr


def test_decode_shows_a_block(tmp_path: Path) -> None:
    tag = Tag(0, "press", "temp", "hr:0", ValueType.FLOAT32, "88.1/press.temp")
    buffer = _native.Buffer([tag])
    buffer.push([(0, 1_700_000_000_123_456_789, 71.5, 0), (0, 1_700_000_001_123_456_789, None, 0x80050000)])
    block = buffer.seal(sequence=7)
    assert block is not None
    path = tmp_path / "block"
    path.write_bytes(block.data)
    shown = json.loads(headrace("decode", str(path), "--json").stdout)
    assert (shown["sequence"], shown["readings"]) == (7, 2)
    assert shown["columns"][0]["readings"] == [
        [1_700_000_000_123_456_789, 71.5, 0],
        [1_700_000_001_123_456_789, None, 0x80050000],
    ]
    assert "2023-11-14T22:13:20.123456789Z" in headrace("decode", str(path)).stdout
    path.write_bytes(block.data[:-1])
    damaged = headrace("decode", str(path))
    assert damaged.returncode == 1
    assert "not a readable block" in damaged.stderr
    assert headrace("decode", str(tmp_path / "none")).returncode == 1


def test_query_by_identifier(tmp_path: Path, mosquitto: Mosquitto) -> None:
    plant = Plant.write(tmp_path, mosquitto.url, [press()])
    with simulator(tmp_path, plant), data_center(tmp_path, plant), agent(tmp_path, plant):
        until(lambda: len(plant.readings("88.118.8/press.temp")["readings"]) > 5)
        asked = ("query", "88.118.8/press.temp", "--url", plant.url)
        answer = json.loads(headrace(*asked, "--format", "json", "--limit", "5").stdout)
        assert answer["type"] == "float32"
        assert len(answer["readings"]) == 5
        assert "next" in answer
        first = moment(answer["readings"][0][0])
        assert first in headrace(*asked, "--from", first).stdout
        assert headrace(*asked, "--format", "csv").stdout.count("\n") > 5
        written = tmp_path / "readings.parquet"
        assert headrace(*asked, "--format", "parquet", "--output", str(written)).returncode == 0
        assert written.read_bytes().startswith(b"PAR1")
        unknown = headrace("query", "88.118.8/press.nothing", "--url", plant.url)
        assert unknown.returncode == 1
        assert "88.118.8/press.nothing" in unknown.stderr
        undated = headrace(*asked, "--from", "yesterday")
        assert undated.returncode == 2
        assert "RFC 3339" in undated.stderr
    away = headrace(*asked)
    assert away.returncode == 1
    assert "headrace datacenter" in away.stderr


def test_no_command_and_a_wrong_one() -> None:
    assert headrace().returncode == 2
    assert headrace("fly").returncode == 2
    assert headrace("--version").stdout.startswith("headrace ")


@pytest.mark.timeout(120)
def test_the_demo_with_an_outage_loses_nothing() -> None:
    found = headrace("demo", "--seconds", "8", "--outage", "3s", "--json", timeout=110)
    assert found.returncode == 0, found.stderr
    answer = json.loads(found.stdout.splitlines()[-1])
    assert answer["readings_stored"] == answer["readings_collected"] > 1000
    assert (answer["lost"], answer["duplicates"], answer["wrong"], answer["gaps"]) == (0, 0, 0, 0)
    assert answer["bytes_per_reading"] > 0
    assert answer["latency_ms_p50"] <= answer["latency_ms_p99"]


@pytest.mark.timeout(120)
def test_ctrl_c_of_the_demo_leaves_nothing_running(tmp_path: Path) -> None:
    """In a terminal, as a person runs it: the view is drawn, and Ctrl-C reaches the whole foreground group."""
    for pause in (0.5, 6.0):
        home = tmp_path / str(pause)
        screen, theirs = pty.openpty()
        process = subprocess.Popen(
            [*(BEGINNING if pause < 1 else PLAIN), "demo", "--seconds", "60", "--keep", str(home)],
            stdin=theirs,
            stdout=theirs,
            stderr=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        os.close(theirs)
        # Somebody looks at the screen: a terminal that nobody reads fills up, and blocks whoever draws on it.
        looking = threading.Thread(target=_look, args=[screen], daemon=True)
        looking.start()
        if pause > 1:
            _wait_for(home / "agent.log", "device_connected")
        else:
            begun(process)
            time.sleep(pause)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=LIMIT)
        looking.join(LIMIT)
        os.close(screen)
        # A machine that is slow to start has no handler yet: then the signal itself ends the process.
        assert process.returncode == 130 or (pause < 1 and process.returncode == -signal.SIGINT)
        assert "Traceback" not in said
        until(lambda: str(home) not in _running(), LIMIT)  # noqa: B023


def _running() -> str:
    return subprocess.run(["ps", "-ax", "-o", "args"], capture_output=True, text=True, check=True).stdout


def _look(screen: int) -> None:
    with contextlib.suppress(OSError):  # EIO: the other side is gone
        while os.read(screen, 65536):
            pass


def _wait_for(path: Path, word: str) -> None:
    until(lambda: path.exists() and word in path.read_text(errors="replace"), 30)


def test_every_command_is_there() -> None:
    (commands,) = [each for each in parser()._actions if isinstance(each, argparse._SubParsersAction)]
    for name, command in commands.choices.items():
        module, function = command.get_default("run").args
        assert callable(getattr(import_module(f"headrace.{module}"), function)), name
