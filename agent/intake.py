"""Where collectors' readings enter the core: the buffer, and the watch over how full it is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent._native import Buffer
from agent.collectors.base import Row
from agent.model import Tag

if TYPE_CHECKING:
    from agent._native import Field

MAX_BYTES = 64 * 1024 * 1024
"""Memory of readings that are not sealed yet. Past it they are refused, counted, and recorded as a gap."""
ENOUGH = MAX_BYTES // 2
"""Collectors stop reading here, so that what they already asked for still fits."""


class Intake:
    """The `Inlet` of all collectors. Pushes are synchronous and take microseconds; only `room` and `durable` wait."""

    def __init__(self, tags: Sequence[Tag], seal_bytes: int) -> None:
        self.buffer = Buffer(tags, MAX_BYTES)
        self.ripe = asyncio.Event()
        """Set when the open block has reached its size."""
        self._seal_bytes = seal_bytes
        self._open = asyncio.Event()
        self._open.set()
        self._waiting: list[asyncio.Future[None]] = []

    def modbus_plan(self, fields: Sequence[Field], *, bits: bool = False) -> int:
        return self.buffer.modbus_plan(fields, bits=bits)

    def push_registers(self, plan: int, payload: bytes, time_ns: int) -> int:
        kept = self.buffer.push_registers(plan, payload, time_ns)
        self._weigh()
        return kept

    def push(self, rows: Sequence[Row]) -> int:
        kept = self.buffer.push(rows)
        self._weigh()
        return kept

    async def room(self) -> None:
        await self._open.wait()

    async def durable(self) -> None:
        written = asyncio.get_running_loop().create_future()
        self._waiting.append(written)
        await written

    @property
    def is_open(self) -> bool:
        return self._open.is_set()

    def hold(self) -> None:
        """Collectors wait in `room` from here on."""
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    def waiting(self) -> list[asyncio.Future[None]]:
        """Takes those who wait in `durable`. To be called before a seal, and resolved when its block is committed."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def _weigh(self) -> None:
        pending = self.buffer.pending_bytes
        if pending >= self._seal_bytes:
            self.ripe.set()
            if pending >= ENOUGH:
                self.hold()
