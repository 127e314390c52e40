"""What a reading costs on its way through the core.

Pushing a Modbus response is compared with `struct.unpack` of the same registers in Python, which makes the numbers but
keeps none of them; pushing rows with making the same rows' tuples in a list, the least that any Python code does.
Sealing and decoding are compared with zstd-3 over the raw columns (8 bytes a time and the value's own width a value)
and with copying them from cache to cache (`bytes(bytearray)`), which no codec can beat.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from time import perf_counter
from typing import TYPE_CHECKING

import pyarrow as pa
import zstandard

from agent._native import Buffer, decode
from agent.model import Tag, ValueType
from benchmarks import signals
from benchmarks.result import Result, less, more, seconds
from benchmarks.signals import BEGIN, SECOND

if TYPE_CHECKING:
    from agent._native import Field

FLOATS = 62
SCANS = 300
FORMS = {
    ValueType.BOOL: "?",
    ValueType.INT16: "h",
    ValueType.UINT32: "I",
    ValueType.FLOAT32: "f",
    ValueType.FLOAT64: "d",
}


def results() -> Iterator[Result]:
    yield from _push_registers()
    yield from _push_rows()
    yield from _seal_and_decode()


def _push_registers() -> list[Result]:
    tags = [Tag(at, "d", f"t{at}", f"hr:{2 * at}", ValueType.FLOAT32, f"id/{at}") for at in range(FLOATS)]
    fields: list[Field] = [
        {"tag": at, "at": 2 * at, "type": "float32", "order": "ABCD", "bit": None, "length": 0} for at in range(FLOATS)
    ]
    payload = struct.pack(f">{FLOATS}f", *(20 + at / 10 for at in range(FLOATS)))
    unpack = struct.Struct(f">{FLOATS}f").unpack
    turns = 2000

    def push() -> None:
        buffer = Buffer(tags)
        plan = buffer.modbus_plan(fields)
        call = buffer.push_registers
        for turn in range(turns):
            call(plan, payload, BEGIN + turn * SECOND)

    def unpack_only() -> None:
        for _ in range(turns):
            unpack(payload)

    each = 1e9 / (turns * FLOATS)
    name = f"push_registers, {FLOATS} float32 a response"
    return less(name, seconds(push) * each, "ns/reading", **{"struct.unpack": seconds(unpack_only) * each})


def _push_rows() -> list[Result]:
    source = signals.simulated()
    rows = source.shared(20)

    def push() -> None:
        buffer = Buffer(source.tags)
        for start in range(0, len(rows), len(source.tags)):
            buffer.push(rows[start : start + len(source.tags)])

    def copy() -> list[tuple[int, int, object, int]]:
        return [(tag, time_ns, value, quality) for tag, time_ns, value, quality in rows]

    each = 1e9 / len(rows)
    name = f"push, {len(source.tags)} rows a call"
    return less(name, seconds(push) * each, "ns/reading", **{"a list of the same tuples": seconds(copy) * each})


def _seal_and_decode() -> Iterator[Result]:
    source = signals.simulated()
    rows = source.shared(SCANS)
    raw = _raw_columns(source, SCANS)
    frame = zstandard.ZstdCompressor(3).compress(raw)
    packs = len(rows) / seconds(lambda: zstandard.ZstdCompressor(3).compress(raw))
    unpacks = len(rows) / seconds(lambda: zstandard.ZstdDecompressor().decompress(frame))
    source_bytes = bytearray(raw)
    copies = len(rows) / seconds(lambda: bytes(source_bytes))
    buffer = Buffer(source.tags)
    buffer.push(rows)
    sealed = buffer.seal()
    assert sealed is not None
    data = sealed.data
    sealing = len(rows) / _seal_seconds(source, SCANS)
    decoding = len(rows) / seconds(lambda: decode(data))
    arrow = len(rows) / seconds(lambda: pa.table(decode(data)))
    what = f"{SCANS} scans of {len(source.tags)} tags"
    packed = {"zstd-3 of the raw columns": packs, "memcpy of the raw columns": copies}
    unpacked = {"zstd-3 of the raw columns": unpacks, "memcpy of the raw columns": copies}
    yield from more(f"seal, {what}", sealing, "readings/s", **packed)
    yield from more(f"decode, {what}", decoding, "readings/s", **unpacked)
    yield from more(f"decode to Arrow, {what}", arrow, "readings/s", **unpacked)
    size = len(data) / len(rows)
    yield from less(f"block, {what}", size, "bytes/reading", **{"zstd-3 of the raw columns": len(frame) / len(rows)})


def _seal_seconds(source: signals.Signals, scans: int) -> float:
    """Of the seal alone: what fills the buffer before each is not counted."""
    rows, buffer, best = source.shared(scans), Buffer(source.tags), float("inf")
    for _ in range(20):
        buffer.push(rows)
        start = perf_counter()
        buffer.seal()
        best = min(best, perf_counter() - start)
    return best


def _raw_columns(source: signals.Signals, scans: int) -> bytes:
    """Times as int64 and values at their width, a tag after the other."""
    times = struct.pack(f"<{scans}q", *(BEGIN + scan * source.step_ns for scan in range(scans)))
    columns = []
    for tag in source.tags:
        values = [row[tag.index] for row in source.rows[:scans]]
        form = FORMS.get(tag.type)
        columns.append(times)
        columns.append(struct.pack(f"<{scans}{form}", *values) if form else "\0".join(map(str, values)).encode())
    return b"".join(columns)
