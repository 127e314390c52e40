"""`headrace simulate --background`: returns once its devices listen, and leaves them running."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.peers.process import free_port
from tests.rig import Device, Plant, headrace, until


def devices(port: int) -> list[Device]:
    return [Device("press", f'protocol = "modbus"\nurl = "tcp://127.0.0.1:{port}"', ["temp,ir:2,float32,ABCD"])]


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_it_returns_when_devices_listen_and_leaves_them(tmp_path: Path) -> None:
    plant = Plant.write(tmp_path, "mqtt://127.0.0.1:1883", devices(free_port()))
    ended = headrace("simulate", str(plant.path), "--loopback", "--background", "--json", timeout=50)
    assert ended.returncode == 0, ended.stderr
    facts = json.loads(ended.stdout)
    try:
        assert facts["config"] == str(tmp_path / "plant.loopback.toml")
        port = urlsplit(facts["devices"][0]["url"]).port
        assert port
        assert listens(port)
    finally:
        os.kill(facts["pid"], signal.SIGTERM)
    until(lambda: not listens(port))
    assert "All simulated devices are listening" in Path(facts["log"]).read_text(encoding="utf-8")


def test_what_lies_where_it_is_typed_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('not the json of Python')\n")
    plant = Plant.write(tmp_path, "mqtt://127.0.0.1:1883", devices(free_port()))
    monkeypatch.chdir(tmp_path)
    command = [str(Path(sys.executable).with_name("headrace")), "simulate", str(plant.path), "--background", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert ended.returncode == 0, ended.stderr
    os.kill(json.loads(ended.stdout)["pid"], signal.SIGTERM)


def test_where_it_ends_before_it_says_why(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        plant = Plant.write(tmp_path, "mqtt://127.0.0.1:1883", devices(taken.getsockname()[1]))
        ended = headrace("simulate", str(plant.path), "--background", timeout=50)
    assert ended.returncode == 1
    assert "is taken by another program" in ended.stderr
    assert "stops it" not in ended.stderr
