"""What a reading costs on its way through the core, on one thread.

The signals are the simulated plant's: 62 float32 tags, 300 scans, once with a time for a whole scan and once with a
time for every reading. All of it is called from Python as the agent does, so the calls are in the figures.

The baselines are the raw columns of the same readings (12 bytes a reading: an int64 time and a float32): copying them
within the processor's cache, which no codec can beat, and zstd level 3 over them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from time import perf_counter
from typing import TYPE_CHECKING

import pyarrow as pa
import zstandard

from agent._native import Buffer, decode
from agent.model import Reading, Tag, ValueType
from benchmarks.result import Result, less, more, seconds
from benchmarks.signals import BEGIN, SECOND, Signals
from simulators.plant import Plant

if TYPE_CHECKING:
    from agent._native import Field

FLOATS = 62
SCANS = 300
DEADBAND = "deadband=0.001"
"""Looks at every reading and lets most of them pass."""

_WORDS = ("temp", "pressure", "position", "flow")


def results() -> Iterator[Result]:
    yield from _push_registers()
    yield from _push_rows()
    yield from _through(plant().shared(SCANS), "shared times", _registers)
    yield from _through(plant().own(SCANS), "own times", _rows)


@cache
def plant() -> Signals:
    """62 float32 tags, once a second."""
    tags = _tags("")
    signals = Plant(tags, seed=1)
    times = [BEGIN + scan * SECOND for scan in range(SCANS)]
    return Signals("simulated floats", tags, [[signals.value(tag, at) for tag in tags] for at in times], times)


def _tags(rule: str) -> list[Tag]:
    return [
        Tag(at, "d", f"{_WORDS[at % 4]}_{at}", f"hr:{2 * at}", ValueType.FLOAT32, f"id/{at}", filter=rule)
        for at in range(FLOATS)
    ]


@cache
def _payloads() -> list[bytes]:
    return [struct.pack(f">{FLOATS}f", *row) for row in plant().rows]


def _fields() -> list[Field]:
    return [
        {"tag": at, "at": 2 * at, "type": "float32", "order": "ABCD", "bit": None, "length": 0} for at in range(FLOATS)
    ]


def _registers(tags: list[Tag]) -> tuple[Buffer, Callable[[], None]]:
    """A buffer, and what pushes every scan to it as a Modbus response."""
    buffer = Buffer(tags)
    plan, responses = buffer.modbus_plan(_fields()), list(zip(_payloads(), plant().times, strict=True))

    def push() -> None:
        call = buffer.push_registers
        for payload, time_ns in responses:
            call(plan, payload, time_ns)

    return buffer, push


def _rows(tags: list[Tag]) -> tuple[Buffer, Callable[[], None]]:
    """A buffer, and what pushes every reading to it with its own time, a scan a call."""
    buffer, rows = Buffer(tags), plant().own(SCANS)
    scans = [rows[first : first + FLOATS] for first in range(0, len(rows), FLOATS)]

    def push() -> None:
        for scan in scans:
            buffer.push(scan)

    return buffer, push


def _push_registers() -> list[Result]:
    unpack = struct.Struct(f">{FLOATS}f").unpack

    def unpack_only() -> None:
        for payload in _payloads():
            unpack(payload)

    return less(
        f"push_registers, {FLOATS} float32 a response",
        _push_seconds(_registers) * 1e9 / (SCANS * FLOATS),
        "ns/reading",
        **{"struct.unpack of the same registers": seconds(unpack_only) * 1e9 / (SCANS * FLOATS)},
    )


def _push_rows() -> list[Result]:
    rows = plant().own(SCANS)

    def copy() -> list[tuple[int, int, object, int]]:
        return [(tag, time_ns, value, quality) for tag, time_ns, value, quality in rows]

    return less(
        f"push, {FLOATS} rows a call",
        _push_seconds(_rows) * 1e9 / len(rows),
        "ns/reading",
        **{"a list of the same tuples": seconds(copy) * 1e9 / len(rows)},
    )


@dataclass(slots=True)
class Baselines:
    """Readings/s of the raw columns."""

    copy: float
    pack: float
    unpack: float

    @classmethod
    def of(cls, rows: list[Reading]) -> Baselines:
        raw = _raw_columns(rows)
        frame, target = zstandard.compress(raw, 3), memoryview(bytearray(len(raw)))
        compressor, decompressor = zstandard.ZstdCompressor(3), zstandard.ZstdDecompressor()

        def copy() -> None:
            target[:] = raw

        count = len(rows)
        return cls(
            count / seconds(copy),
            count / seconds(lambda: compressor.compress(raw)),
            count / seconds(lambda: decompressor.decompress(frame)),
        )

    def packed(self) -> dict[str, float]:
        return {"memcpy of the raw columns": self.copy, "zstd-3 of the raw columns": self.pack}

    def unpacked(self) -> dict[str, float]:
        return {"memcpy of the raw columns": self.copy, "zstd-3 of the raw columns, back": self.unpack}


Filling = Callable[[list[Tag]], tuple[Buffer, Callable[[], None]]]


def _through(rows: list[Reading], times: str, fill: Filling) -> Iterator[Result]:
    count, baselines = len(rows), Baselines.of(rows)
    what = "push_registers" if fill is _registers else "push"
    for rule, said in (("", "no filter"), (DEADBAND, "deadband")):
        whole, _ = _encode_seconds(fill, rule)
        yield from more(f"{what} to sealed block, {said}, {times}", count / whole, "readings/s", **baselines.packed())
    _, sealing = _encode_seconds(fill, "")
    yield from more(f"seal alone, {times}", count / sealing, "readings/s", **baselines.packed())
    buffer, push = fill(_tags(""))
    push()
    sealed = buffer.seal()
    assert sealed is not None
    block = sealed.data
    decoding = count / seconds(lambda: decode(block))
    arrow = count / seconds(lambda: pa.table(decode(block)))
    yield from more(f"decode, {times}", decoding, "readings/s", **baselines.unpacked())
    yield from more(f"decode to Arrow, {times}", arrow, "readings/s", **baselines.unpacked())


def _encode_seconds(fill: Filling, rule: str, turns: int = 30) -> tuple[float, float]:
    """The best of some turns: seconds from the first push to the sealed block, and of the seal alone."""
    buffer, push = fill(_tags(rule))
    whole = sealing = float("inf")
    for _ in range(turns):
        start = perf_counter()
        push()
        pushed = perf_counter()
        buffer.seal()
        done = perf_counter()
        whole, sealing = min(whole, done - start), min(sealing, done - pushed)
    return whole, sealing


def _push_seconds(fill: Filling, turns: int = 30) -> float:
    """The best of some turns of pushing everything; the seal that empties the buffer is not counted."""
    buffer, push = fill(_tags(""))
    best = float("inf")
    for _ in range(turns):
        start = perf_counter()
        push()
        best = min(best, perf_counter() - start)
        buffer.seal()
    return best


def _raw_columns(rows: list[Reading]) -> bytes:
    """Times as int64 and values as float32, a tag after the other."""
    columns: list[bytes] = []
    for tag in range(FLOATS):
        mine = rows[tag::FLOATS]
        columns.append(struct.pack(f"<{len(mine)}q", *(row.time_ns for row in mine)))
        columns.append(struct.pack(f"<{len(mine)}f", *(row.value for row in mine)))
    return b"".join(columns)
