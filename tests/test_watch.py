"""`headrace simulate --watch` on terminals of any width, and where there is none."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from agent import config
from agent.config import Config
from headrace.watch import Watch
from simulators.faults import load
from simulators.mood import Ill, Wrong
from simulators.run import Simulation
from tests.peers.process import free_port
from tests.rig import Device, Plant


def written(home: Path) -> Config:
    rows = ["a,hr:0,float32,ABCD"]
    tcp, line = f"tcp://127.0.0.1:{free_port()}", f"rtu://{home}/tty[bold]A"
    devices = [
        Device("press-with-a-name-that-is-long", f'protocol = "modbus"\nurl = "{tcp}"', rows),
        Device("line", f'protocol = "modbus"\nurl = "{line}"', rows),
    ]
    return config.load(Plant.write(home, "mqtt://127.0.0.1:1883", devices).path)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
async def test_every_width_has_names_clients_rates_and_faults(width: int, tmp_path: Path) -> None:
    simulation = Simulation(written(tmp_path), 1)
    await simulation.act("line", Ill(Wrong.FROZEN)).begin()
    shown = io.StringIO()
    Console(file=shown, width=width, force_terminal=True, color_system=None).print(Watch(simulation).render(width))
    lines = [line.rstrip() for line in shown.getvalue().splitlines()]
    assert max(map(len, lines)) <= width
    assert lines[1].split()[:2] == ["device", "at" if width >= 100 else "clients"]
    assert lines[2].startswith("press-with-")
    assert lines[3].startswith("line")
    assert lines[3].endswith("frozen")
    assert "0 requests" in " ".join(lines[4:])
    assert ("tty[bold]A" in lines[3]) is (width == 200)


async def test_a_device_behind_a_faulty_line_is_where_its_clients_find_it(tmp_path: Path) -> None:
    found = written(tmp_path)
    (tmp_path / "faults.toml").write_text('[[fault]]\ndevice = "press*"\nkind = "cut"\nfor = "1s"\nat = "1h"\n')
    simulation = Simulation(found, 1, faults=load(tmp_path / "faults.toml", found))
    await simulation.start()
    try:
        assert [each.place for each in simulation.devices()] == [each.url for each in found.devices]
    finally:
        await simulation.stop()


def test_without_a_terminal_it_says_so_and_serves(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "headrace", "simulate", str(written(tmp_path).path), "--watch"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        lines = [running.stdout.readline() for _ in range(2)]
        while "no terminal" not in (line := running.stderr.readline()):
            assert line, "it ended"
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 0
        assert running.stdout.read() == ""
    assert all("1 tags" in line for line in lines)
