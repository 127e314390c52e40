"""The units behind one Modbus address, and how they answer a PDU: functions 1 to 4, device identification, exceptions.

MODBUS Application Protocol V1.1b3: 6.1 to 6.4 (reads), 6.21 (function 43/14), 7 (exceptions).
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agent.address import ModbusTable
from simulators.modbus_image import Image
from simulators.mood import Mood, Wrong
from simulators.profiles import Profile

ILLEGAL_FUNCTION = 0x01
ILLEGAL_ADDRESS = 0x02
ILLEGAL_VALUE = 0x03
NO_SUCH_UNIT = 0x0B
"""Gateway target device failed to respond: what a gateway says of a unit that is not on its bus."""

MAX_PDU = 253
_MAX_REGISTERS = 125
_MAX_BITS = 2000
_TABLES = {1: ModbusTable.CO, 2: ModbusTable.DI, 3: ModbusTable.HR, 4: ModbusTable.IR}
_READ = struct.Struct(">BHH")
_IDENTIFY, _MEI = 0x2B, 0x0E
_LEVELS = {1: range(3), 2: range(7), 3: range(256)}
"""Which objects each read code streams: basic, regular, extended. Code 4 asks for one object."""
_CONFORMITY = 0x83
"""Extended identification, by stream and by object."""


@dataclass(slots=True)
class Served:
    """Counters of one server since it was made."""

    requests: int = 0
    exceptions: int = 0
    clients: int = 0
    """Connected now; 0 where there are no connections (UDP, serial)."""


class Units:
    """Answers for the images of one or more units. `clock` gives ns UTC, once per request."""

    def __init__(self, units: Mapping[int, Image], clock: Callable[[], int] = time.time_ns) -> None:
        self.served = Served()
        self.moods: dict[int, tuple[Mood, ...]] = {}
        """Of the devices that are a unit, where anything may be wrong with them."""
        self.limits: Profile | None = None
        self._units = dict(units)
        self._clock = clock

    def __contains__(self, unit: int) -> bool:
        return unit in self._units

    def answer(self, unit: int, request: bytes) -> bytes:
        """The PDU that answers the PDU `request` (1 byte or more)."""
        self.served.requests += 1
        code = self._answer(unit, request)
        if isinstance(code, bytes):
            return self._garbled(unit, code)
        self.served.exceptions += 1
        return bytes((request[0] | 0x80, code))

    def away(self, unit: int | None = None) -> bool:
        """Whether this unit is away, or all of them are."""
        units = self._units if unit is None else (unit,)
        return all(any(mood.away for mood in self.moods.get(each, ())) for each in units)

    @property
    def delay(self) -> float:
        """Seconds that answers wait: units behind one address wait for each other."""
        cycle = self.limits.cycle if self.limits else 0.0
        return max((mood.delay for moods in self.moods.values() for mood in moods), default=0.0) + cycle

    @property
    def most_clients(self) -> int | None:
        alone = any(mood.has(Wrong.ONE_CLIENT) for moods in self.moods.values() for mood in moods)
        return 1 if alone else self.limits.clients if self.limits else None

    def _garbled(self, unit: int, response: bytes) -> bytes:
        if not any(mood.has(Wrong.GARBLED) for mood in self.moods.get(unit, ())):
            return response
        if self.served.requests % 2:
            return bytes((response[0] ^ 1,)) + response[1:]
        return response[:-1]

    def _answer(self, unit: int, request: bytes) -> bytes | int:
        """A response, or an exception code."""
        image = self._units.get(unit)
        if image is None:
            return NO_SUCH_UNIT
        if request[0] == _IDENTIFY:
            return _identify(image, request)
        return self._read(unit, image, request)

    def _read(self, unit: int, image: Image, request: bytes) -> bytes | int:
        table = _TABLES.get(request[0])
        if table is None:
            return ILLEGAL_FUNCTION
        if len(request) != _READ.size:
            return ILLEGAL_VALUE
        _, first, count = _READ.unpack(request)
        most = (_MAX_BITS, _MAX_REGISTERS) if self.limits is None else (self.limits.bits, self.limits.registers)
        if not 1 <= count <= most[not table.bits]:
            return ILLEGAL_VALUE
        now = self._clock()
        for mood in self.moods.get(unit, ()):
            if (refusal := mood.refusal(table, first, count)) is not None:
                return refusal
            now = min(now, mood.frozen_ns or now)
        clock = max(
            (mood.shown_ns(now) for mood in self.moods.get(unit, ())), default=now, key=lambda at: abs(at - now)
        )
        values = image.read(table, first, count, now, clock)
        return ILLEGAL_ADDRESS if values is None else bytes((request[0], len(values))) + values


def _identify(image: Image, request: bytes) -> bytes | int:
    """Function 43/14. What does not fit into one response is told by "more follows" and the next object's id."""
    if len(request) < 2 or request[1] != _MEI:
        return ILLEGAL_FUNCTION
    if len(request) != 4:
        return ILLEGAL_VALUE
    code, first = request[2:]
    objects = image.identity
    if code == 4:
        if first not in objects:
            return ILLEGAL_ADDRESS
        wanted = [first]
    elif code in _LEVELS:
        level = _LEVELS[code]
        start = first if first in objects and first in level else 0
        wanted = [each for each in sorted(objects) if each in level and each >= start]
    else:
        return ILLEGAL_VALUE
    listed, count, more = bytearray(), 0, 0
    for each in wanted:
        value = objects[each]
        if 7 + len(listed) + 2 + len(value) > MAX_PDU:
            more = each
            break
        listed += bytes((each, len(value))) + value
        count += 1
    return bytes((_IDENTIFY, _MEI, code, _CONFORMITY, 0xFF if more else 0, more, count)) + listed
