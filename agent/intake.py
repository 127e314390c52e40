"""Where collectors' readings enter the core: the buffer, and the watch over how full it is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent._native import Buffer
from agent.collectors.base import Row
from agent.model import Tag

if TYPE_CHECKING:
    from agent._native import Field, History, Published

MAX_BYTES = 64 * 1024 * 1024
"""Memory of readings that are not sealed yet. Past it they are refused, counted, and recorded as a gap."""
MOST_REASONS = 64
"""Different losses that are told apart between two seals; what is more is told as one."""
MORE = "several collectors lost readings, for more reasons than can be told apart"
ENOUGH = MAX_BYTES // 2
"""Collectors stop reading here, so that what they already asked for still fits."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Readings that a collector knows to be missing: when (ns UTC), how many (-1: nobody can know), and why."""

    from_ns: int
    to_ns: int
    count: int
    reason: str

    def joined(self, other: Loss) -> Loss:
        """Both as one, for the same reason."""
        count = -1 if -1 in (self.count, other.count) else self.count + other.count
        return Loss(min(self.from_ns, other.from_ns), max(self.to_ns, other.to_ns), count, self.reason)


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
        self._marks: dict[str, bytes] = {}
        self._new_marks: dict[str, bytes] = {}
        self._losses: dict[str, Loss] = {}

    def set_range(self, tag: int, low: float, high: float) -> None:
        self.buffer.set_range(tag, low, high)

    def set_filtering(self, tags: Sequence[int], *, theirs: bool) -> None:
        self.buffer.set_filtering(tags, theirs=theirs)

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

    def opcua_subscription(self, handles: Sequence[tuple[int, int]]) -> int:
        return self.buffer.opcua_subscription(handles)

    def opcua_renewed(self, subscription: int, known_ns: int, *, spans: bool = False) -> None:
        self.buffer.opcua_renewed(subscription, known_ns, spans=spans)

    def opcua_resumed(self, subscription: int) -> None:
        self.buffer.opcua_resumed(subscription)

    def opcua_structure(
        self,
        tag: int,
        *,
        types: Sequence[tuple[str, Sequence[tuple[int, bool, bool]]]],
        encoding: bytes,
        fields: Sequence[tuple[int, Sequence[int]]],
    ) -> None:
        self.buffer.opcua_structure(tag, types=types, encoding=encoding, fields=fields)

    def opcua_known(self, after_ns: int) -> list[tuple[int, int]]:
        return self.buffer.opcua_known(after_ns)

    def opcua_know(self, known: Sequence[tuple[int, int]]) -> None:
        self.buffer.opcua_know(known)

    def push_publish(self, subscription: int, body: bytes, received_ns: int) -> Published:
        published = self.buffer.push_publish(subscription, body, received_ns)
        self._weigh()
        return published

    def push_read(self, tags: Sequence[int], body: bytes, received_ns: int) -> Published:
        published = self.buffer.push_read(tags, body, received_ns)
        self._weigh()
        return published

    def push_history(self, spans: Sequence[tuple[int, int, int]], body: bytes) -> list[History]:
        found = self.buffer.push_history(spans, body)
        self._weigh()
        return found

    def mark(self, name: str, body: bytes) -> None:
        self._marks[name] = self._new_marks[name] = body

    def marked(self, name: str) -> bytes | None:
        return self._marks.get(name)

    def lost(self, from_ns: int, to_ns: int, count: int, reason: str) -> None:
        if reason not in self._losses and len(self._losses) >= MOST_REASONS:
            reason = MORE
        loss = Loss(from_ns, max(from_ns, to_ns), count, reason)
        known = self._losses.get(reason)
        self._losses[reason] = known.joined(loss) if known else loss

    async def room(self) -> None:
        if not self._open.is_set():  # asked before each poll of each device
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

    def restore(self, marks: Mapping[str, bytes]) -> None:
        """The marks that an earlier run left."""
        self._marks = dict(marks)

    def cut(self, *, every_mark: bool = False) -> tuple[bool, dict[str, bytes], list[Loss]]:
        """Sets aside what was pushed, for `buffer.seal`, and takes the marks and losses that belong to it: nothing can
        be pushed in between. Returns (whether there are readings, marks, losses); the marks that are new, or all."""
        marks, self._new_marks = dict(self._marks) if every_mark else self._new_marks, {}
        losses, self._losses = list(self._losses.values()), {}
        return self.buffer.cut(), marks, losses

    def _weigh(self) -> None:
        pending = self.buffer.pending_bytes
        if pending >= self._seal_bytes:
            self.ripe.set()
            if pending >= ENOUGH:
                self.hold()
