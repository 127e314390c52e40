"""A second decoder of blocks, in plain Python, from docs/block-format.md alone: what the page says is then enough.

Needs zstandard, and pcodec (with numpy) for columns of codec 16. A column that it can't read has no rows and is named
in `problems`; what is wrong with the whole block is a ValueError.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TypeAlias

import zstandard

from tests.block_codecs import Reader, Source, Unreadable, Value, int64, integers, runs, stream, values_of

Row: TypeAlias = tuple[int, int, Value, int]

ZSTD, GAP, UNSYNCHRONIZED, CORRECTION = 1, 2, 4, 8
HAS_QUALITY, HAS_ABSENT, HAS_NOTE = 1, 2, 4
NOTES = {1: "on_change", 2: "deadband", 3: "swinging_door", 4: "grid"}
MOST_READINGS, MOST_COLUMNS, MOST_BODY, MOST_REASON = 1 << 22, 1 << 18, 1 << 28, 1024
MOST_QUALITY = 2**32 - 1


@dataclass(slots=True)
class Decoded:
    """What is in a block. `reason` is None where it is no gap, `corrects` where it is no correction."""

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
    corrects: tuple[bytes, int, int, int] | None = None
    """Stream, first place, last place, ns to add."""
    rows: list[Row] = field(default_factory=list)
    codecs: list[tuple[int, int]] = field(default_factory=list)
    """(time codec, value codec) of every column."""
    notes: list[tuple[str, float] | None] = field(default_factory=list)
    """The lossy filter of every column and its bound."""
    problems: dict[int, str] = field(default_factory=dict)
    """Why the column of a tag can't be read."""


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


def read_note(reader: Reader) -> tuple[str, float] | None:
    kind, bound = struct.unpack("<Bd", reader.take(9))
    return (NOTES[kind], bound) if kind in NOTES else None


def read_body(block: Decoded, soft: bytes, hard: bytes) -> None:
    """The rows by tag and then in order, and what is said of every column."""
    count = block.columns
    reader = Reader(soft)
    distinct = reader.varint(count)
    lengths, time_codecs = reader.array(distinct), reader.array(distinct)
    steps, kinds, flags, places, codecs = (reader.array(count) for _ in range(5))
    reader.take(reader.varint())
    heads = reader.take(reader.varint())
    if max(places, default=0) >= max(distinct, 1) or max(*time_codecs, *kinds, *codecs, 0) > 255:
        raise ValueError("no such time column, or an id past 255")
    readings = [lengths[place] for place in places]
    if max(sum(lengths), sum(readings)) > MOST_READINGS:
        raise ValueError("too many readings")
    block.notes = [read_note(reader) if each & HAS_NOTE else None for each in flags]
    source = Source(Reader(heads), reader, Reader(hard))
    times: list[list[int] | str] = []
    for codec, length in zip(time_codecs, lengths, strict=True):
        try:
            offsets = integers(stream(source, codec), codec, length)
            times.append([int64(block.first_ns + offset) for offset in offsets])
        except Unreadable as why:
            times.append(str(why))
    tag = -1
    for index, step in enumerate(steps):
        tag += 1 + step
        if tag > 2**32 - 1:
            raise ValueError("tag past 2^32")
        length, place = readings[index], times[places[index]]
        block.codecs.append((time_codecs[places[index]], codecs[index]))
        quality = runs(reader, length, MOST_QUALITY) if flags[index] & HAS_QUALITY else [0] * length
        presence = runs(reader, length) if flags[index] & HAS_ABSENT else [1] * length
        try:
            values = iter(values_of(source, kinds[index], codecs[index], sum(presence)))
        except Unreadable as why:
            block.problems[tag] = str(why)
            continue
        if isinstance(place, str):
            block.problems[tag] = place
            continue
        each = zip(place, presence, quality, strict=True)
        block.rows += [(tag, time, next(values) if present else None, code) for time, present, code in each]
    for part in (source.heads, source.soft, source.hard):
        part.end()
    if sum(readings) != block.readings:
        raise ValueError("another number of readings")


def read_correction(reader: Reader) -> tuple[bytes, int, int, int]:
    uuid, first, more, offset = reader.take(16), reader.varint(), reader.varint(), reader.signed()
    reader.end()
    if first + more >= 2**64:
        raise ValueError(f"{more} places after {first}")
    return uuid, first, first + more, offset


def read_block(content: bytes) -> Decoded:
    """Everything in a block. Raises ValueError where it is not one, or not one that this reader knows."""
    if content[:4] != b"HDRC" or crc32c(content[:-4]) != int.from_bytes(content[-4:], "little"):
        raise ValueError("no block, or a damaged one")
    reader = Reader(content[4:-4])
    version = (reader.byte(), reader.byte())
    if version[0] != 1:
        raise ValueError(f"version {version[0]}")
    flags, uuid, epoch, first_ns = struct.unpack("<B16sQq", reader.take(33))
    sequence = reader.varint()
    last_ns = int64(first_ns + reader.varint())
    sealed_ns = int64(last_ns + reader.signed())
    readings, columns, places = reader.varint(), reader.varint(MOST_COLUMNS), reader.varint()
    hard_length, stored = reader.varint(MOST_BODY), reader.varint(MOST_BODY)
    unpacked = reader.varint(MOST_BODY) if flags & ZSTD else stored
    soft, hard = reader.take(stored), reader.take(hard_length)
    reader.end()
    if not places or sequence + places > 2**64 or (places != 1 and not flags & GAP):
        raise ValueError(f"{places} places from {sequence}")
    if flags & GAP and (flags & ZSTD or columns or hard or len(soft) > MOST_REASON):
        raise ValueError("a gap that is more than that")
    reason = soft.decode() if flags & GAP else None
    block = Decoded(version, uuid, sequence, places, epoch, first_ns, last_ns, sealed_ns, not flags & UNSYNCHRONIZED,
                    readings, columns, reason)  # fmt: skip
    if flags & CORRECTION:
        if flags & (GAP | ZSTD) or readings or columns or hard:
            raise ValueError("a correction that is more than that")
        block.corrects = read_correction(Reader(soft))
    elif reason is None:
        if flags & ZSTD:
            soft = zstandard.ZstdDecompressor().decompress(soft, max_output_size=unpacked)
        if len(soft) != unpacked:
            raise ValueError("a soft part of another length")
        read_body(block, soft, hard)
    return block
