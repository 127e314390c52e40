"""A Modbus line in memory, with a behaviour for each unit, and a collector on it with the core's own buffer."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from agent.collectors.carrier import Ear, Trust
from agent.collectors.line import Line
from agent.collectors.modbus import ModbusCollector
from agent.config import ModbusDevice
from agent.endpoint import Endpoint
from agent.intake import Intake
from agent.model import Tag, ValueType
from tests.hostile import unwrap, wrap

Said: TypeAlias = list[tuple[float, bytes]]
"""(seconds after the request, PDU), or whole frames where they begin with `RAW`."""
Unit: TypeAlias = Callable[[bytes], Said]
RAW = b"raw "


def registers(pdu: bytes) -> bytes:
    """The response of a device whose every register holds its own address."""
    function, first, count = struct.unpack(">BHH", pdu)
    if function in (1, 2):
        return bytes([function, (count + 7) // 8]) + bytes((count + 7) // 8)
    return bytes([function, 2 * count]) + b"".join(struct.pack(">H", first + at) for at in range(count))


def steady(delay: float = 0.005) -> Unit:
    return lambda pdu: [(delay, registers(pdu))]


def dead(pdu: bytes) -> Said:
    return []


class Bus:
    """One endpoint for each host name; `down` are those that refuse connections, `mute` those that never answer."""

    def __init__(self, units: dict[int, Unit]) -> None:
        self.units = units
        self.down: set[str] = set()
        self.mute: set[str] = set()
        self.opened: list[str] = []
        self.open_now = 0
        self.asked: list[tuple[float, int, bytes]] = []
        self.ears: list[Ear] = []

    async def open(self, endpoint: Endpoint, trust: Trust, ear: Ear) -> _Wire:
        if endpoint.host in self.down:
            raise ConnectionRefusedError(111, "refused")
        self.opened.append(endpoint.host)
        self.open_now += 1
        self.ears = [ear]
        return _Wire(self, endpoint, ear)

    def say(self, ear: Ear, what: bytes) -> None:
        if ear in self.ears:
            ear.heard(what)


class _Wire:
    def __init__(self, bus: Bus, endpoint: Endpoint, ear: Ear) -> None:
        self._bus, self._endpoint, self._ear = bus, endpoint, ear

    def send(self, frame: bytes) -> None:
        loop = asyncio.get_running_loop()
        transaction, unit, pdu = unwrap(self._endpoint.framing, frame)
        self._bus.asked.append((loop.time(), unit, pdu))
        if self._endpoint.host in self._bus.mute:
            return
        for delay, said in self._bus.units.get(unit, dead)(pdu):
            whole = said[4:] if said.startswith(RAW) else wrap(self._endpoint.framing, transaction, unit, said)
            loop.call_later(delay, self._bus.say, self._ear, whole)

    def close(self) -> None:
        self._bus.open_now -= 1
        if self._ear in self._bus.ears:
            self._bus.ears.remove(self._ear)


class Recorder(Intake):
    """The core's buffer, which also remembers what it was given, with the loop's time."""

    def __init__(self, tags: Sequence[Tag]) -> None:
        super().__init__(tags, 1 << 20)
        self.good: list[tuple[float, int, bytes]] = []
        self.bad: list[tuple[float, str, int]] = []
        self._tags = tags
        self._unit_of: dict[int, int] = {}

    def of(self, unit: int) -> _OfUnit:
        return _OfUnit(self, unit)


class _OfUnit:
    """The inlet of one unit."""

    def __init__(self, whole: Recorder, unit: int) -> None:
        self._whole, self._unit = whole, unit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)

    def push_registers(self, plan: int, payload: bytes, time_ns: int) -> int:
        self._whole.good.append((asyncio.get_running_loop().time(), self._unit, payload))
        return self._whole.push_registers(plan, payload, time_ns)

    def push(self, rows: Sequence[tuple[int, int, Any, int]]) -> int:
        now = asyncio.get_running_loop().time()
        self._whole.bad += [(now, self._whole._tags[index].name, quality) for index, _, _, quality in rows]
        return self._whole.push(rows)


def tags(device: str, first: int, numbers: Sequence[int]) -> list[Tag]:
    """uint16 tags named after their registers."""
    return [
        Tag(first + at, device, f"{device}.{number}", f"hr:{number}", ValueType.UINT16, f"{device}.{number}")
        for at, number in enumerate(numbers)
    ]


def device(unit: int, mine: Sequence[Tag], url: str = "rtu+tcp://first", **options: Any) -> ModbusDevice:
    raw = {"name": f"unit{unit}", "protocol": "modbus", "url": url, "unit": unit, "tags": "x.csv", **options}
    found = ModbusDevice.model_validate(raw, context={"base": Path("/")})
    found._tags = tuple(mine)
    return found


class Rig:
    """Devices with one URL, their line, and what they pushed."""

    def __init__(self, bus: Bus, numbers: dict[int, Sequence[int]], url: str = "rtu+tcp://first", **options: Any):
        of = {}
        every: list[Tag] = []
        for unit, some in numbers.items():
            of[unit] = tags(f"unit{unit}", len(every), some)
            every += of[unit]
        self.bus = bus
        self.inlet = Recorder(every)
        made = [device(unit, mine, url, **options) for unit, mine in of.items()]
        self.line = Line(made[0].line, bus.open)
        self.collectors = {each.unit: ModbusCollector(each, self.inlet.of(each.unit), self.line) for each in made}
