"""A block made by hand, in forms that docs/block-format.md allows and the present encoder may never choose."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from agent._native import crc32c
from tests.block_codecs import DELTA, ESCAPE, RICE, STEP

INT64, UINT64 = 4, 8
HAS_NOTE = 4
Note = tuple[int, float]


def varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def zigzag(number: int) -> int:
    return (number << 1 ^ number >> 63) & (1 << 64) - 1


def signed(number: int) -> bytes:
    return varint(zigzag(number))


def array(values: list[int]) -> bytes:
    """The shortest of the three forms."""
    if all(value == values[0] for value in values):
        return b"\0" + varint(values[0])
    if values == list(range(values[0], values[0] + len(values))):
        return b"\1" + varint(values[0])
    return b"\2" + b"".join(map(varint, values))


def rice(values: Iterable[int], k: int) -> bytes:
    bits: list[int] = []
    for value in map(zigzag, values):
        escaped = value >> k >= ESCAPE
        bits += [0] * ESCAPE if escaped else [*[0] * (value >> k), 1]
        bits += [value >> at & 1 for at in range(64 if escaped else k)]
    return bytes(sum(bit << at for at, bit in enumerate(bits[start : start + 8])) for start in range(0, len(bits), 8))


@dataclass(frozen=True)
class Predicted:
    """An integer column in `delta`, or with `k` in `rice`. `unit` is written out unless `exponent` says it."""

    prediction: int
    rest: tuple[int, ...]
    first: int = 0
    base: int | None = None
    exponent: int | None = None
    unit: int = 1
    k: int | None = None
    kind: int = INT64
    note: Note | None = None


@dataclass
class Body:
    heads: bytearray = field(default_factory=bytearray)
    soft: bytearray = field(default_factory=bytearray)
    hard: bytearray = field(default_factory=bytearray)

    def put(self, column: Predicted) -> None:
        exponent = 31 if column.exponent is None else column.exponent
        self.heads.append(exponent | (0 if column.base is None else 32) | column.prediction << 6)
        if column.exponent is None:
            self.soft += signed(column.unit)
        self.soft += signed(column.first)
        if column.base is not None:
            self.soft += signed(column.base)
        if column.k is None:
            self.soft += b"".join(map(signed, column.rest))
        else:
            self.heads.append(column.k)
            self.hard += rice(column.rest, column.k)


def block(columns: list[Predicted], readings: int, first_ns: int, tick: int) -> bytes:
    """Columns of the tags 1, 4, 7 and so on, that share times which tick; of a later minor version."""
    body = Body()
    body.soft += signed(0) + signed(tick)
    for column in columns:
        body.put(column)
    fields = [
        [1, *[2] * (len(columns) - 1)],
        [column.kind for column in columns],
        [0x40 | (HAS_NOTE if column.note else 0) for column in columns],
        [0] * len(columns),
        [DELTA if column.k is None else RICE for column in columns],
    ]
    added = b"from 1.9"
    soft = varint(1) + array([readings]) + array([STEP]) + b"".join(map(array, fields)) + varint(len(added)) + added
    notes = b"".join(struct.pack("<Bd", *column.note) for column in columns if column.note)
    soft += varint(len(body.heads)) + body.heads + notes + body.soft
    content = b"HDRC" + struct.pack("<BBB16sQq", 1, 9, 0x80, bytes(range(16)), 7, first_ns)
    content += varint(41) + varint(tick * (readings - 1)) + signed(-1)
    content += b"".join(map(varint, [readings * len(columns), len(columns), 1, len(body.hard), len(soft)]))
    content += soft + body.hard
    return content + crc32c(content).to_bytes(4, "little")


def every_form(first_ns: int) -> bytes:
    """Each prediction in each form, with extremes; each filter's note, and one that nobody knows."""
    least, most = -(2**63), 2**63 - 1
    rest = (3, -1, 0, 2, least, most, 7)
    small = (3, -1, 0, 2, -20, 19, 0)
    columns = [
        Predicted(0, rest),
        Predicted(0, small, first=-5, base=3, exponent=2, note=(1, 0.0)),
        Predicted(1, rest, first=most, unit=-7, note=(2, 0.5)),
        Predicted(1, small, first=100, base=-4, exponent=0, note=(3, 1e-3)),
        Predicted(2, (0, *rest), first=least, base=least, exponent=18),
        Predicted(2, (1, *small), first=9, base=10, exponent=6, note=(4, 2.5)),
        Predicted(0, rest, k=0, note=(9, 1.0)),
        Predicted(0, small, first=-5, base=3, exponent=2, k=1),
        Predicted(1, rest, first=7, unit=10**9 + 7, k=56),
        Predicted(1, small, base=1, exponent=3, k=3, kind=UINT64),
        Predicted(2, (19, *rest), first=1, exponent=0, k=4),
        Predicted(2, (-9, *small), first=-1, base=-3, exponent=1, k=5),
    ]
    return block(columns, 8, first_ns, 500_000_000)
