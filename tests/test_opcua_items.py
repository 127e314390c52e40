"""Items of an OPC UA server: browse paths, bad nodes, deadbands, polling, and waiting when there is no room."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from agent.model import StatusCode, ValueType
from tests.opcua_collector import Rig, node, running, until
from tests.peers.servers import OPCUA_NAMESPACE, NodeOpcUaServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeOpcUaServer]:
    with NodeOpcUaServer(tmp_path_factory.mktemp("node-opcua")) as running:
        yield running


async def test_one_bad_node_is_one_bad_tag(server: NodeOpcUaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.collectors.opcua.collector.RETRY_BAD", 0.2)
    path = f"nsu={OPCUA_NAMESPACE};path=/Objects/Device/Double", ValueType.FLOAT64, ""
    elsewhere = "nsu=urn:elsewhere;s=Counter", ValueType.INT32, ""
    lost = f"nsu={OPCUA_NAMESPACE};path=/Objects/Device/Nothing", ValueType.FLOAT64, ""
    rig = Rig(server.url, node("Counter"), path, node("Nowhere"), elsewhere, lost)

    async def work() -> None:
        await until(lambda: len(rig.of(0)) >= 8)
        assert [value for value, _ in rig.of(1)] == [pytest.approx(3.14159265)]
        unknown = int(StatusCode.BAD_NODE_ID_UNKNOWN)
        # They are tried again several times in this test, and told of once.
        assert (rig.of(2), rig.of(3)) == ([(None, unknown)], [(None, unknown)])
        assert [value for value, _ in rig.of(4)] == [None]
        assert rig.collector.counters["bad_nodes"] == 3

    await running(rig, work)


async def test_a_server_without_subscriptions_is_polled(tmp_path: Path) -> None:
    server = NodeOpcUaServer(tmp_path / "server")
    server.options = ("no-subscriptions",)
    with server:
        rig = Rig(server.url, node("Counter"), node("Nowhere"), node("String", ValueType.STRING), sampling="50ms")

        async def work() -> None:
            await until(lambda: len(rig.of(0)) >= 10)
            counted = [value for value, _ in rig.of(0)]
            steps = sorted(b - a for a, b in pairwise(counted) if isinstance(a, int) and isinstance(b, int))
            assert steps[0] >= 0
            assert steps[len(steps) // 2] <= 2  # a busy machine may be late for some of them
            assert rig.of(1) == [(None, int(StatusCode.BAD_NODE_ID_UNKNOWN))]
            assert set(rig.of(2)) == {("press 7 · 压力机", 0)}

        await running(rig, work)


async def test_a_deadband_is_the_servers_where_it_can_be(server: NodeOpcUaServer) -> None:
    rig = Rig(server.url, node("Counter", rule="deadband=4"), node("String", ValueType.STRING, "on_change"))

    async def work() -> None:
        await until(lambda: len(rig.of(0)) >= 4)
        counted = [value for value, _ in rig.of(0)]
        assert all(b - a > 4 for a, b in pairwise(counted) if isinstance(a, int) and isinstance(b, int))
        # The others never came: it was not our filter that held them back.
        assert rig.intake.buffer.stats()["filtered"] == 0

    await running(rig, work)


async def test_without_room_the_server_queues_and_the_session_lives(server: NodeOpcUaServer) -> None:
    rig = Rig(server.url, node("Counter"), keep_alive="300ms", sampling="every change")

    async def work() -> None:
        await until(lambda: len(rig.of(0)) >= 3)
        rig.intake.hold()
        await until(lambda: rig.collector.counters["withheld"] >= 4)
        # What was asked for already may still come: no more than the requests that were out.
        come = rig.collector.counters["publishes"]
        await until(lambda: rig.collector.counters["withheld"] >= 7)
        assert rig.collector.counters["publishes"] == come
        rig.intake.release()
        count = len(rig.of(0))
        await until(lambda: len(rig.of(0)) >= count + 25)
        counted = [value for value, _ in rig.of(0)]
        assert {b - a for a, b in pairwise(counted) if isinstance(a, int) and isinstance(b, int)} == {1}
        assert rig.collector.counters["renewed"] == 1

    await running(rig, work)


async def test_nothing_is_acknowledged_before_it_is_durable(server: NodeOpcUaServer) -> None:
    rig = Rig(server.url, node("Counter"))

    async def work() -> None:
        await until(lambda: rig.collector.counters["publishes"] >= 8)
        publisher = rig.collector._publisher
        # Publishing goes on while nothing is committed, and the server keeps it all.
        assert list(publisher._pushed) == list(range(1, len(publisher._pushed) + 1))
        assert not publisher._told
        rig.take()
        await until(lambda: publisher._told or publisher._committed)
        pushed = rig.collector.counters["publishes"]
        await until(lambda: rig.collector.counters["publishes"] >= pushed + 6)
        rig.take()
        await until(lambda: len(rig.of(0)) >= 14)

    await running(rig, work)
