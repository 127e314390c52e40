"""What every collector is, and the one loop that keeps it running."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from agent.clock import now_ns
from agent.config import Device
from agent.errors import NotConnected
from agent.model import StatusCode, Value

if TYPE_CHECKING:
    from agent._native import Field, History, Published

log = logging.getLogger("headrace.collector")

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
"""Seconds between attempts to reach a device: doubled each time, with jitter, so that a plant does not return at
once."""

Row = tuple[int, int, Value, int]


class Inlet(Protocol):
    """Where a collector puts what it read: the core's buffer, behind the pipeline's watch over its size and age."""

    def set_range(self, tag: int, low: float, high: float) -> None: ...
    def set_filtering(self, tags: Sequence[int], *, theirs: bool) -> None: ...
    def modbus_plan(self, fields: Sequence[Field], *, bits: bool = False) -> int: ...
    def push_registers(self, plan: int, payload: bytes, time_ns: int) -> int: ...
    def push(self, rows: Sequence[Row]) -> int: ...
    def opcua_subscription(self, handles: Sequence[tuple[int, int]]) -> int: ...
    def opcua_renewed(self, subscription: int, known_ns: int, *, spans: bool = False) -> None: ...
    def opcua_resumed(self, subscription: int) -> None: ...
    def opcua_structure(
        self,
        tag: int,
        *,
        types: Sequence[tuple[str, Sequence[tuple[int, bool, bool]]]],
        encoding: bytes,
        fields: Sequence[tuple[int, Sequence[int]]],
    ) -> None: ...
    def opcua_known(self, after_ns: int) -> list[tuple[int, int]]: ...
    def opcua_know(self, known: Sequence[tuple[int, int]]) -> None: ...
    def push_publish(self, subscription: int, body: bytes, received_ns: int) -> Published: ...
    def push_read(self, tags: Sequence[int], body: bytes, received_ns: int) -> Published: ...
    def push_history(self, spans: Sequence[tuple[int, int, int]], body: bytes) -> list[History]: ...

    def mark(self, name: str, body: bytes) -> None:
        """Notes how far a collector is: committed in one transaction with the block of what was pushed before this
        call, never with less or more. The last mark of a name counts."""

    def marked(self, name: str) -> bytes | None:
        """The last mark of that name, also one that an earlier run of the agent left; None where there is none."""

    def lost(self, from_ns: int, to_ns: int, count: int, reason: str) -> None:
        """Records a gap: `count` readings (-1: nobody can know how many) with source times from `from_ns` to `to_ns`
        are missing. `reason` names the device. Losses for one reason become one gap until the next seal."""

    @property
    def is_open(self) -> bool:
        """Whether `room` returns at once."""

    async def room(self) -> None:
        """Returns when readings may be taken. Waiting here is how back-pressure reaches a device."""

    async def durable(self) -> None:
        """Returns when everything pushed before the call is committed in the outbox."""


class Collector(Protocol):
    """Speaks one protocol to one device. Never called twice at once; `connect` may follow `close`."""

    @property
    def device(self) -> Device: ...

    counters: dict[str, int]
    """What it counts, by name; kept over reconnects."""

    async def connect(self) -> None:
        """One attempt, with a deadline of its own. Raises NotConnected with the reason."""

    async def read(self) -> None:
        """Waits for the next readings and pushes them. Raises NotConnected when the device is lost: after that only
        `close` is called. May be cancelled at any await; nothing that was pushed is pushed again."""

    async def close(self) -> None:
        """Lets go of the connection within a second or two, whatever state it is in. Raises nothing."""


@dataclass(slots=True)
class DeviceState:
    """How a device is doing, for logs and status."""

    name: str
    connected: bool = False
    since_ns: int = 0
    reconnects: int = 0
    reason: str = "not connected yet"
    counters: dict[str, int] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        reason = "" if self.connected else self.reason
        return {"connected": self.connected, "reconnects": self.reconnects, "reason": reason, **self.counters}


async def supervise(collector: Collector, inlet: Inlet, state: DeviceState) -> None:
    """Keeps one device connected and read, for ever. The only place that retries, pauses and logs about it.

    A device that is lost gives one bad reading for each of its tags, so that its last value does not seem to hold; one
    that keeps its changes for us (`patience`) only after the time that it can.
    """
    device = collector.device
    pause = FIRST_PAUSE
    told = spoken = False
    lost_at = time.monotonic() - device.patience
    begun = 0.0
    while True:
        try:
            await collector.connect()
            state.connected, state.since_ns = True, now_ns()
            facts = {"event": "device_connected", "device": device.name}
            log.info("%s: connected to %s", device.name, collector.device.url, extra=facts)
            told = spoken = False
            begun = time.monotonic()
            while True:
                await inlet.room()
                await collector.read()
        except NotConnected as reason:
            state.reason = str(reason)
        except Exception as reason:
            # A collector's own mistake must not end it: the other devices go on, and this one is tried again.
            log.exception("%s: unexpected error", device.name, extra={"event": "device_error", "device": device.name})
            state.reason = f"{type(reason).__name__}: {reason}"
        finally:
            was_connected, state.connected = state.connected, False
            await _close(collector)
        if was_connected and time.monotonic() - begun > pause:
            pause = FIRST_PAUSE  # one that is lost as soon as it is there counts as never reached
        if not told:
            facts = {"event": "device_lost" if was_connected else "device_unreachable", "device": device.name}
            log.warning("%s: %s; trying again until it is back", device.name, state.reason, extra=facts)
            told = True
            if was_connected:
                lost_at = time.monotonic()
        if not spoken and time.monotonic() - lost_at >= device.patience:
            _push_lost(collector, inlet)
            spoken = True
        state.reconnects += 1
        await asyncio.sleep(random.uniform(0.5, 1.0) * pause)  # noqa: S311
        pause = min(pause * 2, LONGEST_PAUSE)


async def _close(collector: Collector) -> None:
    try:
        await collector.close()
    except Exception:
        device = collector.device.name
        log.exception("%s: could not be closed", device, extra={"event": "device_error", "device": device})


def _push_lost(collector: Collector, inlet: Inlet) -> None:
    now = now_ns()
    inlet.push([(tag.index, now, None, StatusCode.BAD_NOT_CONNECTED) for tag in collector.device.tags])
