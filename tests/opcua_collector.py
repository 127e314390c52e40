"""A collector in the process of the test, with the agent's own intake and no outbox."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from agent import _native
from agent.collectors.base import DeviceState, supervise
from agent.collectors.opcua import OpcUaCollector
from agent.config import OpcUaDevice
from agent.intake import Intake, Loss
from agent.model import Tag, ValueType
from tests.peers.servers import OPCUA_NAMESPACE

Rows = list[tuple[int, int, object, int]]


class Rig:
    """One collector with the agent's own intake, and no outbox: `take` seals what has come."""

    def __init__(self, url: str, *addresses: tuple[str, ValueType, str], **more: object) -> None:
        known = {"protocol": "opcua", "name": "d", "url": url, "tags": "d.csv", "security": "None", "publish": "100ms"}
        self.device = OpcUaDevice.model_validate(known | more)
        tags = [Tag(at, "d", f"t{at}", *each[:2], f"x{at}", filter=each[2]) for at, each in enumerate(addresses)]
        self.device._tags = tuple(tags)
        self.intake = Intake(tags, 1 << 20)
        self.collector = OpcUaCollector(self.device, self.intake)
        self.rows: Rows = []
        self.losses: list[Loss] = []

    def take(self) -> Rows:
        """Everything up to now; whoever waits for it to be durable goes on."""
        waiting = self.intake.waiting()
        self.losses += self.intake.cut()[2]
        if (block := self.intake.buffer.seal()) is not None:
            self.rows += _native.decode(block.data).rows()
        for each in waiting:
            each.set_result(None)
        return self.rows

    def of(self, tag: int) -> list[tuple[object, int]]:
        return [(value, quality) for index, _, value, quality in self.take() if index == tag]


async def until(condition: Callable[[], object], seconds: float = 40.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  (what is waited for tells nobody)
            await asyncio.sleep(0.02)


async def running(rig: Rig, work: Callable[[], Awaitable[None]]) -> None:
    state = DeviceState("d", counters=rig.collector.counters)
    task = asyncio.create_task(supervise(rig.collector, rig.intake, state))
    try:
        await work()
    finally:
        task.cancel()
        await asyncio.wait([task])


def node(name: str, kind: ValueType = ValueType.INT32, rule: str = "") -> tuple[str, ValueType, str]:
    return f"nsu={OPCUA_NAMESPACE};s={name}", kind, rule
