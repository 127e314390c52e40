"""A second decoder of blocks, in plain Python, from docs/block-format.md alone: what the page says is then enough.

It refuses by ValueError what it can't read, as a whole: later versions' columns are not its business.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import zstandard

Value: TypeAlias = bool | int | float | str | None
Row: TypeAlias = tuple[int, int, Value, int]

ZSTD, GAP, UNSYNCHRONIZED = 1, 2, 4
HAS_QUALITY, HAS_ABSENT = 1, 2
CONSTANT, RAW, DECIMAL, STEP, DELTA, RUN, BITMAP, DICTIONARY = range(8)
BOOL, FIRST_UNSIGNED, FLOAT32, FLOAT64, STRING = 0, 5, 9, 10, 11
WIDTHS = (1, 1, 2, 4, 8, 1, 2, 4, 8, 4, 8, 0)
MOST_READINGS, MOST_COLUMNS, MOST_BODY = 1 << 22, 1 << 18, 1 << 28


@dataclass(frozen=True, slots=True)
class Decoded:
    """What is in a block. `reason` is None in a block of readings."""

    version: tuple[int, int]
    stream: bytes
    sequence: int
    places: int
    epoch: int
    first_ns: int
    last_ns: int
    sealed_ns: int
    synchronized: bool
    readings: int
    columns: int
    reason: str | None
    rows: list[Row]
    codecs: list[tuple[int, int]]
    """(time codec, value codec) of every column."""


class Reader:
    """The bytes that are left."""

    def __init__(self, content: bytes) -> None:
        self.content, self.at = content, 0

    def take(self, count: int) -> bytes:
        taken = self.content[self.at : self.at + count]
        if len(taken) != count:
            raise ValueError("cut short")
        self.at += count
        return taken

    def byte(self) -> int:
        return self.take(1)[0]

    def varint(self, most: int = 2**64 - 1) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        if value > most or shift > 70:
            raise ValueError(f"{value} where at most {most} may be")
        return value

    def signed(self) -> int:
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def end(self) -> None:
        if self.at != len(self.content):
            raise ValueError("bytes left over")


def int64(value: int) -> int:
    """Modulo 2^64, as a signed number."""
    return (value + 2**63) % 2**64 - 2**63


def crc32c(content: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in content:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _crc_entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC = tuple(_crc_entry(byte) for byte in range(256))


def runs(content: bytes, count: int) -> list[int]:
    reader, values = Reader(content), list[int]()
    while len(values) < count:
        length = reader.varint(count - len(values))
        if length == 0:
            raise ValueError("empty run")
        values += [reader.varint()] * length
    reader.end()
    return values


def integers(codec: int, content: bytes, count: int, width: int = 8, signed: bool = True) -> list[int]:
    """As 64 signed bits; of an unsigned type `signed` is False and they are made unsigned at the end."""
    reader = Reader(content)
    values = list(_integers(reader, codec, count, width, signed)) if count else []
    reader.end()
    return [int64(value) if signed else value % 2**64 for value in values]


def _integers(reader: Reader, codec: int, count: int, width: int, signed: bool) -> Iterator[int]:
    if codec == CONSTANT:
        yield from [reader.signed()] * count
    elif codec == STEP:
        value, step = reader.signed(), reader.signed()
        yield from (value + index * step for index in range(count))
    elif codec == DELTA:
        value, unit, base = reader.signed(), reader.signed(), reader.signed()
        yield value
        for _ in range(count - 1):
            value += (reader.signed() + base) * unit
            yield value
    elif codec == RUN:
        while count:
            length = reader.varint(count)
            if length == 0:
                raise ValueError("empty run")
            yield from [reader.signed()] * length
            count -= length
    elif codec == RAW:
        yield from (int.from_bytes(reader.take(width), "little", signed=signed) for _ in range(count))
    else:
        raise ValueError(f"codec {codec} on integers")


def nested(reader: Reader, count: int) -> list[int]:
    codec = reader.byte()
    return integers(codec, reader.take(reader.varint()), count)


def floats(codec: int, content: bytes, count: int, form: struct.Struct) -> list[float]:
    reader = Reader(content)
    values: list[float] = []

    def one() -> float:
        value: float = form.unpack(reader.take(form.size))[0]
        return value

    if codec == CONSTANT and count:
        values = [one()] * count
    elif codec == RAW:
        values = [one() for _ in range(count)]
    elif codec == DECIMAL and count:
        power, exceptions, index = float(10 ** min(reader.byte(), 23)), [], -1
        if power > 1e22:
            raise ValueError("exponent past 22")
        for _ in range(reader.varint(count)):
            index += 1 + reader.varint()
            exceptions.append((index, one()))
        values = [form.unpack(form.pack(float(digits) / power))[0] for digits in nested(reader, count)]
        for index, value in exceptions:
            values[index] = value
    elif count:
        raise ValueError(f"codec {codec} on floats")
    reader.end()
    return values


def bools(codec: int, content: bytes, count: int) -> list[bool]:
    if count == 0 and not content:
        return []
    if codec == CONSTANT and content in (b"\0", b"\1"):
        return [content == b"\1"] * count
    if codec == RUN:
        return [value != 0 for value in runs(content, count)]
    if codec == BITMAP and len(content) == (count + 7) // 8:
        return [content[index // 8] >> index % 8 & 1 == 1 for index in range(count)]
    raise ValueError(f"codec {codec} on bools")


def strings(codec: int, content: bytes, count: int) -> list[str]:
    reader = Reader(content)

    def one() -> str:
        return reader.take(reader.varint()).decode()

    if codec == CONSTANT:
        return [content.decode()] * count
    if codec == RAW:
        values = [one() for _ in range(count)]
    elif codec == DICTIONARY:
        known = [one() for _ in range(reader.varint(count))]
        values = [known[index] for index in nested(reader, count)]
    else:
        raise ValueError(f"codec {codec} on strings")
    reader.end()
    return values


def values_of(kind: int, codec: int, content: bytes, count: int) -> list[Value]:
    """The values of a column that has `count` of them."""
    if kind == BOOL:
        return [*bools(codec, content, count)]
    if kind < FLOAT32:
        return [*integers(codec, content, count, WIDTHS[kind], kind < FIRST_UNSIGNED)]
    if kind in (FLOAT32, FLOAT64):
        return [*floats(codec, content, count, struct.Struct("<f" if kind == FLOAT32 else "<d"))]
    if kind == STRING:
        return [*strings(codec, content, count)]
    raise ValueError(f"unknown type {kind}")


@dataclass(frozen=True, slots=True)
class Entry:
    """The directory's words about one column. Lengths are None where there is no such stream."""

    tag: int
    kind: int
    time: int
    codec: int
    values: int
    quality: int | None
    presence: int | None

    @classmethod
    def read(cls, reader: Reader, next_tag: int) -> Entry:
        tag, kind, flags = next_tag + reader.varint(), reader.byte(), reader.byte()
        time, codec, values = reader.varint(), reader.byte(), reader.varint()
        quality = reader.varint() if flags & HAS_QUALITY else None
        presence = reader.varint() if flags & HAS_ABSENT else None
        return cls(tag, kind, time, codec, values, quality, presence)


def read_body(body: bytes, columns: int) -> tuple[list[Row], list[tuple[int, int]]]:
    """The rows by tag and then in order, and the codecs of every column."""
    reader = Reader(body)
    heads = [(reader.varint(MOST_READINGS), reader.byte(), reader.varint()) for _ in range(reader.varint(columns))]
    entries: list[Entry] = []
    for _ in range(columns):
        described = Reader(reader.take(reader.varint()))
        entries.append(Entry.read(described, entries[-1].tag + 1 if entries else 0))
    if max(sum(head[0] for head in heads), sum(heads[entry.time][0] for entry in entries)) > MOST_READINGS:
        raise ValueError("too many readings")
    times = [integers(codec, reader.take(length), count) for count, codec, length in heads]
    rows: list[Row] = []
    for entry in entries:
        count, content = len(times[entry.time]), reader.take(entry.values)
        quality = [0] * count if entry.quality is None else runs(reader.take(entry.quality), count)
        presence = [1] * count if entry.presence is None else runs(reader.take(entry.presence), count)
        values = iter(values_of(entry.kind, entry.codec, content, sum(presence)))
        each = zip(times[entry.time], presence, quality, strict=True)
        rows += [(entry.tag, time, next(values) if present else None, code) for time, present, code in each]
    reader.end()
    return rows, [(heads[entry.time][1], entry.codec) for entry in entries]


def read_block(block: bytes) -> Decoded:
    """Everything in a block. Raises ValueError where it is not one, or not one that this reader knows."""
    if block[:4] != b"HDRC" or crc32c(block[:-4]) != int.from_bytes(block[-4:], "little"):
        raise ValueError("no block, or a damaged one")
    reader = Reader(block[4:-4])
    version = (reader.byte(), reader.byte())
    if version[0] != 1:
        raise ValueError(f"version {version[0]}")
    flags, stream, sequence, epoch, first_ns = struct.unpack("<H16sQQq", reader.take(42))
    last_ns = int64(first_ns + reader.varint())
    sealed_ns = int64(last_ns + reader.signed())
    readings, columns, places = reader.varint(), reader.varint(MOST_COLUMNS), reader.varint()
    stored, raw = reader.varint(MOST_BODY), reader.varint(MOST_BODY)
    body = reader.take(stored)
    reader.end()
    rows: list[Row] = []
    codecs: list[tuple[int, int]] = []
    if not flags & GAP:
        if flags & ZSTD:
            body = zstandard.ZstdDecompressor().decompress(body, max_output_size=raw)
        if len(body) != raw:
            raise ValueError("a body of another length")
        rows, codecs = read_body(body, columns)
        if len(rows) != readings:
            raise ValueError("another number of readings")
    reason = body.decode() if flags & GAP else None
    synchronized = not flags & UNSYNCHRONIZED
    return Decoded(version, stream, sequence, places, epoch, first_ns, last_ns, sealed_ns, synchronized, readings,
                   columns, reason, rows, codecs)  # fmt: skip
