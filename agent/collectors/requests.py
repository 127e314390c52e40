"""Which Modbus requests read a device's tags. Pure: it knows addresses and limits, and no connection."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.address import ModbusAddress, ModbusTable, registers
from agent.model import Tag

if TYPE_CHECKING:
    from agent._native import Field

FUNCTIONS = {ModbusTable.CO: 1, ModbusTable.DI: 2, ModbusTable.HR: 3, ModbusTable.IR: 4}
MAX_REGISTERS = 125
MAX_BITS = 2000
"""The most a response can hold (MODBUS Application Protocol V1.1b3, 6.1 to 6.4)."""


@dataclass(frozen=True, slots=True)
class Request:
    """One read: `count` registers or bits from `address`, and the tags that lie in them."""

    function: int
    address: int
    count: int
    tags: tuple[Tag, ...]

    @property
    def bits(self) -> bool:
        return self.function < FUNCTIONS[ModbusTable.HR]

    @property
    def size(self) -> int:
        """Bytes of register or bit values in its response."""
        return (self.count + 7) // 8 if self.bits else self.count * 2

    def fields(self) -> list[Field]:
        """Where each tag lies in the response, for the core's `modbus_plan`."""
        return [
            {
                "tag": tag.index,
                "at": place.number - self.address,
                "type": tag.type,
                "order": tag.order,
                "bit": place.bit,
                "length": tag.length,
            }
            for tag in self.tags
            for place in (ModbusAddress.parse(tag.address),)
        ]

    def split(self) -> tuple[Request, ...]:
        """One request for each place that it reads: what is left to ask where a device refuses the whole."""
        return tuple(requests(self.tags, merge=False))


def requests(tags: Iterable[Tag], *, merge: bool = True) -> list[Request]:
    """The requests for `tags`, in address order. Tags that touch or overlap share one, up to the protocol's limit.

    With `merge=False` only tags that lie at the very same place (bits of one register) share one.
    """
    placed = sorted(
        (FUNCTIONS[place.table], place.number, registers(tag.type, tag.length), tag.index, tag)
        for tag in tags
        for place in (ModbusAddress.parse(tag.address),)
    )
    found: list[Request] = []
    for function, start, width, _, tag in placed:
        last = found[-1] if found else None
        if last is not None and last.function == function:
            end = max(last.address + last.count, start + width)
            most = MAX_BITS if last.bits else MAX_REGISTERS
            touches = start <= last.address + last.count if merge else (start, width) == (last.address, last.count)
            if touches and end - last.address <= most:
                found[-1] = Request(function, last.address, end - last.address, (*last.tags, tag))
                continue
        found.append(Request(function, start, width, (tag,)))
    return found
