"""Deadbands in percent: of the server's EURange, by the server where it can, and never of nothing.

Against servers made with node-opcua and with async-opcua: a ramp of 1 every 100 ms, with an EURange of 0 to 200.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import pairwise

import pytest

from agent.model import ValueType
from tests.opcua_collector import Rig, node, running, until
from tests.peers.servers import AsyncOpcUaServer, Device, NodeOpcUaServer

INVALID = 0x808E0000
"""BadDeadbandFilterInvalid."""


@pytest.fixture(scope="module", params=[NodeOpcUaServer, AsyncOpcUaServer])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    with request.param(tmp_path_factory.mktemp("server")) as running:
        yield running


def ramp(rule: str = "deadband=1.9%") -> tuple[str, ValueType, str]:
    return node("Ramp", ValueType.FLOAT64, rule)


def steps(rig: Rig, tag: int = 0) -> set[float]:
    values = [value for value, _ in rig.of(tag) if isinstance(value, float)]
    return {b - a for a, b in pairwise(values)}


async def test_a_percentage_is_the_servers(server: Device) -> None:
    rig = Rig(server.url, ramp(), sampling="every change")

    async def work() -> None:
        await until(lambda: len(rig.of(0)) >= 4)
        assert steps(rig) == {4.0}  # 1.9 % of 200 is 3.8
        # The others never came: it was not our filter that held them back.
        assert rig.intake.buffer.stats()["filtered"] == 0

    await running(rig, work)


@pytest.mark.parametrize("how", [{"deadband": "agent"}, {"mode": "poll", "sampling": "50ms"}])
async def test_a_percentage_is_ours_where_the_server_has_only_the_range(server: Device, how: dict[str, str]) -> None:
    rig = Rig(server.url, ramp(), **{"sampling": "every change"} | how)

    async def work() -> None:
        await until(lambda: len(rig.of(0)) >= 4)
        # A poll may be late, and come upon a later change.
        assert min(steps(rig)) >= 4.0 if "mode" in how else steps(rig) == {4.0}
        assert rig.intake.buffer.stats()["filtered"] >= (1 if "mode" in how else 9)

    await running(rig, work)


async def test_a_heartbeat_keeps_a_percentage_with_us(server: Device) -> None:
    rig = Rig(server.url, ramp("deadband=1.9%; heartbeat=300ms"), sampling="every change")

    async def work() -> None:
        await until(lambda: len(rig.of(0)) >= 4)
        assert steps(rig) <= {3.0, 4.0}

    await running(rig, work)


async def test_a_subscription_that_goes_on_knows_the_range(server: Device) -> None:
    rig = Rig(server.url, ramp(), sampling="every change", deadband="agent")

    async def work() -> None:
        await until(lambda: len(rig.of(0)) >= 2)

    await running(rig, work)
    again = Rig(server.url, ramp(), sampling="every change", deadband="agent")  # as after a restart
    again.intake.restore(rig.intake._marks)

    async def more() -> None:
        await until(lambda: len(again.of(0)) >= 3)
        assert again.collector.counters["resumed"] == 1
        assert steps(again) == {4.0}

    await running(again, more)


async def test_without_any_range_it_is_one_bad_tag(
    tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    with NodeOpcUaServer(tmp_path_factory.mktemp("server")) as server:
        rig = Rig(server.url, node("Bare", ValueType.FLOAT64, "deadband=2%"), node("Counter"))

        async def work() -> None:
            await until(lambda: len(rig.of(1)) >= 4)
            assert rig.of(0) == [(None, INVALID)]

        with caplog.at_level(logging.WARNING, "headrace.collector"):
            await running(rig, work)
    [told] = [each.getMessage() for each in caplog.records if getattr(each, "event", "") == "no_range"]
    assert "t0 (deadband=2%)" in told
    assert "write low and high" in told
