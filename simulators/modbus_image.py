"""What a Modbus device holds: the plant laid out at the addresses of its tags."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from agent import _native
from agent.address import ModbusAddress, ModbusTable, registers
from agent.encoding import Form
from agent.model import Tag
from simulators.plant import Plant
from simulators.registers import encode

log = logging.getLogger("headrace.simulators")


@dataclass(frozen=True, slots=True)
class _Field:
    tag: Tag
    first: int
    count: int
    bit: int | None
    byte: int | None
    """Which byte of its register an 8-bit value is: 0 the high one."""


class _Window:
    """One request's answer, of which only the tags that moved since the last request are laid out anew."""

    __slots__ = ("_bits", "_fields", "_first", "_ks", "_plant", "bytes")

    def __init__(self, plant: Plant, fields: list[_Field], first: int, count: int, bits: bool) -> None:
        self.bytes = bytearray((count + 7) // 8 if bits else 2 * count)
        self._plant = plant
        self._first = first
        self._bits = bits
        self._fields: dict[tuple[int, bool], list[_Field]] = {}
        self._ks: dict[tuple[int, bool], int | None] = {}
        for field in fields:
            pace = plant.step_ns(field.tag), bool(field.tag.form and Form(field.tag.form).moment)
            self._fields.setdefault(pace, []).append(field)
            self._ks[pace] = None

    def at(self, time_ns: int, clock_ns: int) -> bytearray:
        for pace, last_k in self._ks.items():
            step_ns, is_clock = pace
            now = clock_ns if is_clock else time_ns
            k = now // step_ns
            if k != last_k:
                self._ks[pace] = k
                for field in self._fields[pace]:
                    self._lay(field, now)
        return self.bytes

    def _lay(self, field: _Field, time_ns: int) -> None:
        raw = self._plant.raw(field.tag, time_ns)
        place = field.first - self._first
        if self._bits:
            self._bit(place >> 3, place & 7, bool(raw))
        elif field.bit is not None:
            self._bit(2 * place + (field.bit < 8), field.bit & 7, bool(raw))
        elif field.byte is not None:
            self.bytes[2 * place + field.byte] = encode(field.tag, raw)[1]
        else:
            value = encode(field.tag, raw)
            start = 2 * place
            skipped = max(0, -start)  # a request may begin or end within a value
            part = value[skipped : len(self.bytes) - start]
            self.bytes[start + skipped : start + skipped + len(part)] = part

    def _bit(self, at: int, bit: int, on: bool) -> None:
        if on:
            self.bytes[at] |= 1 << bit
        else:
            self.bytes[at] &= ~(1 << bit)


class Image:
    """The four tables of one Modbus device. `device` and its tags' addresses are the config's."""

    def __init__(self, plant: Plant, device: str, tags: Iterable[Tag]) -> None:
        self._plant = plant
        tags = tuple(tags)
        self.identity = _identity(device, len(tags))
        """Objects of its device identification (function 43/14), by id."""
        self._fields: dict[ModbusTable, list[_Field]] = {table: [] for table in ModbusTable}
        self._known: dict[ModbusTable, bytearray] = {table: bytearray(65536) for table in ModbusTable}
        self.window = lru_cache(maxsize=1024)(self._window)
        overlapping = 0
        for tag in tags:
            address = ModbusAddress.parse(tag.address)
            count = registers(tag.type, tag.length, tag.form)
            byte = None if address.byte is None else "hl".index(address.byte)
            field = _Field(tag, address.number, count, address.bit, byte)
            known = self._known[address.table]
            span = slice(field.first, field.first + count)
            # 1 marks a register that holds bits or bytes, which several tags share; 2 one that a single tag fills.
            mark = 2 if address.bit is None and byte is None else 1
            overlapping += any(known[span]) if mark == 2 else 2 in known[span]
            known[span] = bytes([mark]) * len(known[span])
            self._fields[address.table].append(field)
        if overlapping:
            log.warning(
                "Tags of %s lie over each other; a device can hold only one value there, the later tag's.",
                device,
                extra={"event": "tags_overlap", "device": device, "tags": overlapping},
            )

    def read(
        self, table: ModbusTable, first: int, count: int, time_ns: int, clock_ns: int | None = None
    ) -> bytes | None:
        """The response's value bytes, all for the instant `time_ns`; None where an address is not configured.
        `clock_ns` is what the device's clock shows, where it is not right."""
        window = self.window(table, first, count)
        return None if window is None else bytes(window.at(time_ns, time_ns if clock_ns is None else clock_ns))

    def spans(self, table: ModbusTable) -> list[tuple[int, int, list[int]]]:
        """The addresses without a hole between them: first, count, and where each tag of them begins, ascending."""
        known, begins = self._known[table], sorted(field.first for field in self._fields[table])
        found, end = [], 0
        for first in begins:
            if first < end:
                continue
            end = known.find(0, first)
            end = len(known) if end < 0 else end
            found.append((first, end - first, begins[bisect_left(begins, first) : bisect_left(begins, end)]))
        return found

    def _window(self, table: ModbusTable, first: int, count: int) -> _Window | None:
        end = first + count
        if end > 65536 or 0 in self._known[table][first:end]:
            return None
        fields = [field for field in self._fields[table] if field.first < end and field.first + field.count > first]
        return _Window(self._plant, fields, first, count, table.bits)


def _identity(device: str, tags: int) -> dict[int, bytes]:
    """Basic, regular and a few extended objects (V1.1b3, 6.21). One is long, as some devices' are."""
    note = f"{tags} tags of {device}, laid out as its config says. " + "Their values move as a plant's would. " * 8
    told = {
        0x00: "Headrace",
        0x01: "VP-1",
        0x02: _native.__version__,
        0x03: "https://example.com/virtual-plant",
        0x04: "Virtual plant",
        0x05: "Virtual PLC",
        0x06: device,
        0x80: note[:200],
        0x81: f"{tags} tags",
    }
    return {number: text.encode()[:240] for number, text in told.items()}
