"""`headrace plan` of OPC UA servers: from the config alone, and with what a server says that it can take."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.opcua_plant import opcua_plant
from tests.peers.process import free_port
from tests.peers.servers import NodeOpcUaServer
from tests.rig import Plant, headrace

NAMES = ("Counter", "Float", "Double", "Boolean", "String", "UInt16")


class LimitedServer(NodeOpcUaServer):
    """Five items a subscription, three a call, queues of 100 values, sampled every 500 ms at the fastest."""

    options = ("limited",)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeOpcUaServer]:
    with LimitedServer(tmp_path_factory.mktemp("limited")) as running:
        yield running


def planned(plant: Plant, *options: str) -> tuple[int, dict[str, Any]]:
    done = headrace("plan", str(plant.path), "--json", *options)
    found: dict[str, Any] = json.loads(done.stdout)
    assert set(found) == {"devices", "readings_per_second", "bytes_per_day", "outage_hours"}
    (device,) = found["devices"]
    return done.returncode, device


def sampled(home: Path, url: str, sampling: str, *lines: str, tags: tuple[str, ...] = NAMES) -> Plant:
    plant = opcua_plant(home, url, *lines, tags=tags)
    plant.path.write_text(plant.path.read_text().replace("every change", sampling))
    return plant


def test_without_a_connection_the_load_and_the_queues_are_told(tmp_path: Path) -> None:
    nowhere = f"opc.tcp://127.0.0.1:{free_port()}"
    code, device = planned(sampled(tmp_path / "a", nowhere, "50ms", 'outage = "30s"'))
    assert (code, device["ok"]) == (0, True)
    assert (device["monitored_items"], device["queue_size"], device["covered_seconds"]) == (6, 601, 30.0)
    assert (device["values_per_second"], device["notifications_per_second"]) == (120.0, 5.0)
    assert "server" not in device
    code, device = planned(sampled(tmp_path / "b", nowhere, "10ms", 'outage = "10m"'))
    assert (code, device["queue_size"], device["covered_seconds"]) == (0, 10_000, 99.99)
    assert device["notes"] == ["queues of 10000 values cover 100 s of an outage, not 600 s"]
    code, device = planned(sampled(tmp_path / "c", nowhere, "every change"))
    assert (code, device["queue_size"], device["values_per_second"]) == (0, 1201, 120.0)
    code, device = planned(sampled(tmp_path / "d", nowhere, "1s", 'mode = "poll"'))
    assert (code, device["notifications_per_second"], "queue_size" in device) == (0, 0.0, False)


def test_more_items_than_the_server_allows_are_refused(tmp_path: Path, server: NodeOpcUaServer) -> None:
    assert planned(sampled(tmp_path / "a", server.url, "100ms"))[0] == 0
    code, device = planned(sampled(tmp_path / "b", server.url, "100ms"), "--connect")
    assert (code, device["ok"]) == (2, False)
    assert "6 monitored items, and the server allows 5 for a subscription: leave out 1 of the tags" in device["why"]
    assert device["server"] == {
        "max_monitored_items_per_call": 3,
        "max_monitored_items_per_subscription": 5,
        "max_monitored_items": 1_000_000,
        "max_monitored_items_queue_size": 100,
        "max_nodes_per_read": 50,
        "max_sessions": 4,
        "min_supported_sample_rate": 500,
    }
    assert planned(sampled(tmp_path / "c", server.url, "100ms", 'mode = "poll"'), "--connect")[0] == 0


def test_what_a_server_grants_is_told(tmp_path: Path, server: NodeOpcUaServer) -> None:
    plant = sampled(tmp_path, server.url, "100ms", tags=NAMES[:5])
    code, device = planned(plant, "--connect")
    assert (code, device["ok"], device["queue_size"], device["covered_seconds"]) == (0, True, 100, 49.5)
    assert device["notes"] == [
        "sampled every 500 ms, the server's fastest, not every 100 ms",
        "queues of 100 values cover 49.5 s of an outage, not 60 s",
    ]
    shown = headrace("plan", str(plant.path), "--connect").stdout
    assert "max_monitored_items_per_call 3" in shown
    assert "2 calls to create the items" in shown


def test_a_server_that_cant_be_reached(tmp_path: Path) -> None:
    url = f"opc.tcp://127.0.0.1:{free_port()}"
    code, device = planned(sampled(tmp_path, url, "100ms"), "--connect")
    assert (code, device["ok"], "server" in device) == (2, False, False)
    assert device["why"].startswith(f"can't connect to {url}: ")
    assert device["monitored_items"] == 6


def test_security_is_the_agents(tmp_path: Path, server: NodeOpcUaServer) -> None:
    plant = sampled(tmp_path, server.url, "100ms")
    plant.path.write_text(plant.path.read_text().replace('security = "None"', 'security = "auto"'))
    code, device = planned(plant, "--connect")
    assert (code, device["ok"]) == (2, False)
    assert "the server offers no endpoint with a current security policy; it offers None" in device["why"]
