"""The agent's HTTP face and systemd's notifications, of a real agent process."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Self
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.health import STUCK, health
from tests.peers.process import free_port
from tests.rig import Command, Device, Plant, until

pytestmark = pytest.mark.timeout(180)
"""Programs start and end here again and again; each takes seconds where others keep the machine busy."""

FACTS = {"since_seal": 0.5, "collecting": True, "agent": "a", "stream": "s"}


class Notified(Command):
    """`headrace run` as systemd starts it."""

    def __init__(self, home: Path, plant: Plant, listener: Path) -> None:
        super().__init__(home, "run", str(plant.path), word='"agent_started"')
        self._listener = listener

    def command(self) -> list[str]:
        settings = [f"NOTIFY_SOCKET={self._listener}", "WATCHDOG_USEC=200000"]
        return ["env", *settings, sys.executable, "-m", "headrace", "--log-format", "json", *self._arguments]


class Systemd:
    """The socket that systemd would listen at, and what was said to it."""

    def __init__(self, path: Path) -> None:
        self.said: list[bytes] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._socket.close()

    def _listen(self) -> None:
        while message := self._socket.recv(4096):
            self.said.append(message)


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as refused:
        return refused.code, refused.read().decode()


def test_metrics_health_and_notifications_of_a_running_agent(tmp_path: Path) -> None:
    port = free_port()
    device = Device("press1", f'protocol = "modbus"\nurl = "tcp://127.0.0.1:{free_port()}"', ["temp,hr:0,float32,ABCD"])
    extra = f'[status]\nhttp = "127.0.0.1:{port}"'
    plant = Plant.write(tmp_path, f"mqtt://127.0.0.1:{free_port()}", [device], extra)
    listener = tmp_path / "notify"
    with Systemd(listener) as systemd, Notified(tmp_path / "run", plant, listener) as agent:
        until(lambda: systemd.said[:1] == [b"READY=1"])
        until(lambda: b"STATUS=ok\nWATCHDOG=1" in systemd.said)
        assert get(port, "/readyz")[0] == 200
        assert json.loads(get(port, "/healthz")[1])["agent"] == "test-agent"
        assert get(port, "/nothing")[0] == 404
        # The device is not there: one bad reading of its tag, and what is counted about it.
        until(lambda: "headrace_readings_accepted_total 1.0" in get(port, "/metrics")[1])
        status, text = get(port, "/metrics")
        metrics = {each.name: each for each in text_string_to_metric_families(text)}
        assert status == 200
        assert {"headrace_outbox_entries", "headrace_uplink_connected", "headrace_blocks_sealed"} <= set(metrics)
        [connected] = metrics["headrace_device_connected"].samples
        assert (connected.labels, connected.value) == ({"device": "press1"}, 0.0)
        agent.stop()
        until(lambda: systemd.said[-1:] == [b"STOPPING=1"])


def test_a_client_that_says_nothing_holds_nobody_up_for_long(tmp_path: Path) -> None:
    port = free_port()
    device = Device("press1", f'protocol = "modbus"\nurl = "tcp://127.0.0.1:{free_port()}"', ["temp,hr:0,float32,ABCD"])
    extra = f'[status]\nhttp = "127.0.0.1:{port}"'
    plant = Plant.write(tmp_path, f"mqtt://127.0.0.1:{free_port()}", [device], extra)
    agent = Command(tmp_path / "run", "run", str(plant.path), word='"agent_started"')
    with agent, socket.create_connection(("127.0.0.1", port), 5) as silent:
        until(lambda: get(port, "/healthz")[0] == 200, 40)
        silent.sendall(b"GET /heal")
        began = time.monotonic()
        agent.stop()
        assert time.monotonic() - began < 30  # it would be killed after 60


@pytest.mark.parametrize(
    ("change", "fine", "status"),
    [
        ({}, True, "ok"),
        ({"since_seal": STUCK + 2.0}, False, "no seal for 12 s"),
        ({"collecting": False}, False, "collection waits for room in the outbox"),
    ],
)
def test_what_is_healthy(change: dict[str, object], fine: bool, status: str) -> None:
    found = health({**FACTS, **change}, 1.0)
    assert (found[0], found[1]["status"]) == (fine, status)
