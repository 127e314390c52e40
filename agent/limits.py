"""What one Modbus device lets itself be asked, and the tags that can't be read within it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from agent.address import ModbusAddress, ModbusTable, registers
from agent.model import Tag

MAX_REGISTERS = 125
MAX_BITS = 2000
"""The most a response can hold (MODBUS Application Protocol V1.1b3, 6.1 to 6.4)."""
MAX_GAP = 10
"""Registers: about what one more request costs on a line (its frames and silences are some 20 bytes)."""
_SPAN = re.compile(r"([A-Za-z]+):([0-9]{1,5})(?:-([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Addresses `first` to `last` of a table, both included: `hr:200-299`, `co:7`."""

    table: ModbusTable
    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> Span:
        """Raises ValueError that says what to write."""
        found = _SPAN.fullmatch(text.strip())
        if not found or found[1].lower() not in tuple(ModbusTable):
            raise ValueError(f'{text[:40]!r} is not a range of addresses; write "hr:200-299", or "co:7" for one')
        first = int(found[2])
        last = int(found[3]) if found[3] else first
        if not first <= last <= 65535:
            raise ValueError(f'{text!r} ends before it begins, or past 65535; write "hr:200-299"')
        return cls(ModbusTable(found[1].lower()), first, last)

    @property
    def text(self) -> str:
        """The form that `parse` takes back."""
        return f"{self.table.value}:{self.first}" + (f"-{self.last}" if self.last != self.first else "")


@dataclass(frozen=True, slots=True)
class Limits:
    """One device's limits. `max_gap` is registers that nobody asked for, read to save a request; of coils and discrete
    inputs 16 times as many, which take the same bytes."""

    max_registers: int = MAX_REGISTERS
    max_bits: int = MAX_BITS
    max_gap: int = MAX_GAP
    forbidden: tuple[Span, ...] = ()
    """Never read, not even to fill a gap."""
    alone: tuple[Span, ...] = ()
    """A tag that begins in one of these is read in a request of its own, like one with `alone` in the tag list."""

    def most(self, table: ModbusTable) -> int:
        """Registers or bits of one request."""
        return self.max_bits if table.bits else self.max_registers

    def gap(self, table: ModbusTable) -> int:
        """Registers or bits that may be read for nothing."""
        return self.max_gap * 16 if table.bits else self.max_gap

    def forbids(self, table: ModbusTable, first: int, end: int) -> Span | None:
        """A forbidden range that has an address from `first` to before `end`."""
        return next((s for s in self.forbidden if s.table is table and s.first < end and s.last >= first), None)

    def isolates(self, tag: Tag, place: ModbusAddress) -> bool:
        """Whether the tag is to be read by itself."""
        return tag.alone or any(s.table is place.table and s.first <= place.number <= s.last for s in self.alone)


def unreadable(tags: Iterable[Tag], limits: Limits, poll: float) -> Iterator[tuple[Tag, str, str]]:
    """Tags that no request within the limits can read: (tag, column of the tag list, "what is wrong; write ...")."""
    groups: dict[str, list[tuple[Tag, ModbusAddress, int]]] = {}
    for tag in tags:
        place = ModbusAddress.parse(tag.address)
        width = registers(tag.type, tag.length, tag.form)
        most = limits.most(place.table)
        if span := limits.forbids(place.table, place.number, place.number + width):
            yield tag, "address", f"it lies in {span.text}, which the device's forbidden has; write another address"
        elif width > most:
            text = f"it takes {width} registers, and the device's max_registers is {most}; write a shorter type"
            yield tag, "type", text
        if tag.together:
            if limits.isolates(tag, place):
                yield tag, "together", "the device's alone has this address; write nothing in this column"
            groups.setdefault(tag.together, []).append((tag, place, width))
    for word, members in groups.items():
        yield from _torn(word, members, limits, poll)


def _torn(
    word: str, members: list[tuple[Tag, ModbusAddress, int]], limits: Limits, poll: float
) -> Iterator[tuple[Tag, str, str]]:
    """Why a group can't be read in one request, if it can't."""
    one, place, _ = members[0]
    table = place.table
    for tag, other, _ in members:
        if other.table is not table:
            text = f"{word} has {one.address} too, which lies in another table; write a word for each table"
            yield tag, "together", text
            return
        if (tag.poll or poll) != (one.poll or poll):
            text = f"{word} is read every {one.poll or poll:g} s ({one.name}); write the same poll for all of it"
            yield tag, "poll", text
            return
    first = min(place.number for _, place, _ in members)
    tag, place, width = max(members, key=lambda member: member[1].number + member[2])
    end = place.number + width
    if end - first > limits.most(table):
        noun = "bits" if table.bits else "registers"
        text = (
            f"{word} reaches from {table.value}:{first} to {table.value}:{end - 1}, {end - first} {noun}, and one "
            f"request has at most {limits.most(table)}; write several words, or one for tags that lie nearer"
        )
        yield tag, "together", text
    elif span := limits.forbids(table, first, end):
        text = f"{word} reaches over {span.text}, which the device's forbidden has; write a word for each side of it"
        yield tag, "together", text
