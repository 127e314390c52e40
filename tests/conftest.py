"""The peers as fixtures: each is started for one test, and killed after it however the test ended.

What tests throw dice for is the same in every run, so that what a run says of a commit is the commit's doing.
`HEADRACE_DICE=7` throws others, and `make explore` ever new ones.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.peers import process
from tests.peers.brokers import Mosquitto, Nats
from tests.peers.servers import AsyncOpcUaServer, LibmodbusServer, ModbusSerialServer, NodeOpcUaServer

# How long an example takes says how busy the machine is, and nothing of what is tested.
settings.register_profile("headrace", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("headrace")

DICE = int(os.environ.get("HEADRACE_DICE", "1"))


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--hypothesis-seed") is None:
        config.option.hypothesis_seed = str(DICE)


def pytest_report_header() -> str:
    return f"HEADRACE_DICE={DICE}"


@pytest.fixture(autouse=True)
def _dice(request: pytest.FixtureRequest) -> None:
    """The agent's own dice (first ids, jitter) and those of which a test makes its seed."""
    random.seed(f"{DICE} {request.node.nodeid}")


@pytest.fixture
def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens at. Who needs several calls `tests.peers.process.free_port`."""
    return process.free_port()


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "mosquitto") as broker:
        yield broker


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[Nats]:
    with Nats(tmp_path / "nats") as broker:
        yield broker


@pytest.fixture
def libmodbus_server(tmp_path: Path) -> Iterator[LibmodbusServer]:
    with LibmodbusServer(tmp_path / "libmodbus") as server:
        yield server


@pytest.fixture
def modbus_serial_server(tmp_path: Path) -> Iterator[ModbusSerialServer]:
    with ModbusSerialServer(tmp_path / "modbus-serial") as server:
        yield server


@pytest.fixture
def node_opcua_server(tmp_path: Path) -> Iterator[NodeOpcUaServer]:
    with NodeOpcUaServer(tmp_path / "node-opcua") as server:
        yield server


@pytest.fixture
def async_opcua_server(tmp_path: Path) -> Iterator[AsyncOpcUaServer]:
    with AsyncOpcUaServer(tmp_path / "async-opcua") as server:
        yield server
