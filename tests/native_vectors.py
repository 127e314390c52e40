"""The golden vectors of the block format: blocks, and the readings that have to come out of them for ever.

`python -m tests.native_vectors` writes tests/native_vectors.json anew. That is right only for a new vector: a block in
the field must stay readable, so an old vector's bytes may change with the encoder, but its readings never.
"""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

from agent._native import Buffer, correction, decode, gap
from agent.model import Reading, Tag, Value, ValueType
from tests import block_reader, block_writer

FILE = Path(__file__).with_suffix(".json")
BEGIN = 1_750_000_000_000_000_000
MILLISECOND = 1_000_000
STREAM = bytes(range(16))
Rows: TypeAlias = list[Reading]


def tag(index: int, kind: ValueType) -> Tag:
    return Tag(index, "device", f"tag{index}", f"hr:{index}", kind, f"88.1/device.tag{index}")


TAGS = tuple(tag(index, kind) for index, kind in enumerate(ValueType))
"""One tag of every type. Of the types below 13 its index is the type's id in the format."""
PLACE = {each.type: each.index for each in TAGS}


def real(bits: int) -> float:
    """The float64 of these bits: how a NaN with a payload is written."""
    value: float = struct.unpack(">d", bits.to_bytes(8, "big"))[0]
    return value


def single(value: float) -> float:
    """The nearest float32."""
    rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return rounded


def column(kind: ValueType, values: Sequence[Value], step: int = 500 * MILLISECOND) -> Rows:
    return [Reading(PLACE[kind], BEGIN + at * step, value) for at, value in enumerate(values)]


def _vectors() -> Iterator[tuple[str, Rows]]:
    v = ValueType
    yield "one reading", [Reading(PLACE[v.BOOL], BEGIN, True)]
    yield (
        "a constant of every type",
        column(v.BOOL, [False] * 5)
        + column(v.INT8, [-128] * 5)
        + column(v.INT16, [-2] * 5)
        + column(v.INT32, [70_000] * 5)
        + column(v.INT64, [-(2**63)] * 5)
        + column(v.UINT8, [255] * 5)
        + column(v.UINT16, [0] * 5)
        + column(v.UINT32, [2**32 - 1] * 5)
        + column(v.UINT64, [2**64 - 1] * 5)
        + column(v.FLOAT32, [single(0.1)] * 5)
        + column(v.FLOAT64, [real(0x7FF8_0000_DEAD_BEEF)] * 5)
        + column(v.STRING, ["Träger Ø40"] * 5),
    )
    yield (
        "integers by step, over the end of their range",
        column(v.INT64, [2**63 - 2 + n if n < 2 else -(2**63) + n - 2 for n in range(6)])
        + column(v.UINT64, [2**64 - 30 + 10 * n for n in range(3)])
        + column(v.INT16, [300 - 100 * n for n in range(8)]),
    )
    yield (
        "integers by delta",
        column(v.INT32, [1000 * (n * n * 7 % 90) for n in range(40)])
        + column(v.UINT64, [2**63 + n * n for n in range(30)])
        + column(v.INT64, [0, -(2**63), 2**63 - 1, -1, 1, 0, 2**62, -7, 8]),
    )
    yield (
        "integers by rice",
        column(v.INT32, [_noise(n) % 1000 for n in range(60)])
        + column(v.INT64, [n * n * n * 1_000_000 + _noise(n) % 9_000_000 for n in range(60)])
        + column(v.UINT64, [2**63 + _noise(n) % 5000 if n != 30 else 7 for n in range(60)]),
    )
    yield (
        "integers by hold",
        column(v.INT32, [_held(n) % 10**8 for n in range(100)])
        + column(v.FLOAT64, [_held(n + 7) % 10**8 / 100 for n in range(100)])
        + column(v.UINT64, [2**64 - 1 - _held(n + 3) * 1000 for n in range(100)]),
    )
    yield "integers by run", column(v.UINT32, [_noise(n // 50) for n in range(200)])
    yield "raw integers", column(v.INT8, [-128, 127, -127, 126, -120]) + column(v.UINT32, [2**32 - 1, 1, 4_000_000_000])
    yield (
        "decimals with exceptions",
        column(v.FLOAT32, [single(20 + (n * n % 70) / 10) for n in range(60)])
        + column(v.FLOAT64, [(n * 37 % 500) / 1000 if n % 20 else _EXCEPTIONS[n // 20] for n in range(80)]),
    )
    yield (
        "floats by pcodec",
        column(v.FLOAT64, [math.sin(n / 40) * 100 + _noise(n) % 1000 / 7e6 for n in range(300)])
        + column(v.FLOAT32, [single(math.sin(n / 40) * 100 + _noise(n) % 1000 / 7e4) for n in range(300)])
        + [Reading(PLACE[v.UINT8], BEGIN + n, n * n % 200) for n in range(30)],
    )
    yield "raw floats", column(v.FLOAT32, [single(1 / (n + 3)) for n in range(9)]) + column(v.FLOAT64, _SPECIALS)
    yield (
        "bools by bitmap and by run",
        column(v.BOOL, [n % 3 == 0 for n in range(50)])
        + [Reading(r.tag, r.time_ns + 60_000 * MILLISECOND, r.value) for r in column(v.BOOL, [True])],
    )
    yield "bools by run", column(v.BOOL, [n > 100 for n in range(300)])
    yield (
        "strings by dictionary",
        column(v.STRING, [("Стойка B", "", "冲压件 7", "🏭")[n * n % 4] for n in range(30)]),
    )
    yield "raw strings", column(v.STRING, ["", "a", "Deckel", "\0"])
    yield (
        "absent values and bad qualities",
        [Reading(PLACE[v.INT16], BEGIN + n, None if n % 4 == 3 else n, 0x8005_0000 if n % 4 == 3 else 0)
         for n in range(30)]
        + [Reading(PLACE[v.FLOAT64], BEGIN + n, None, 0xFFFF_FFFF) for n in range(3)]
        + [Reading(PLACE[v.STRING], BEGIN + n, "still", 0x4000_0000) for n in range(2)],
    )  # fmt: skip
    yield (
        "times that jump, repeat and go back",
        [Reading(PLACE[v.UINT8], time, n) for n, time in enumerate([0, -(2**63), 2**63 - 1, 5, 5, 5, -1])]
        + [Reading(PLACE[v.UINT16], BEGIN + n * 500 * MILLISECOND + n * n % 7 * 1000, n) for n in range(50)],
    )
    yield (
        "times that are late now and then, with faults of every kind",
        [
            Reading(
                PLACE[kind], BEGIN + n * 500 * MILLISECOND + _noise(n) % 4 * MILLISECOND, None if bad else value, bad
            )
            for kind, value in ((v.INT16, 5), (v.FLOAT32, 1.5), (v.STRING, "RUN"), (v.BOOL, True))
            for n, bad in ((n, 0x8005_0000 if _noise(n) % 9 == 0 else 0) for n in range(90))
        ],
    )


def _scaled(count: int) -> Iterator[float]:
    """Registers that walk, in tenths by a factor: 3 * 0.1 is not 0.3."""
    raw = 500
    for place in range(count):
        raw += _noise(place) % 31 - 15
        yield raw * 0.1


def _arrays() -> Iterator[tuple[str, Rows]]:
    v = ValueType
    yield "a constant of bytes", column(v.BYTES, [b"\x00\xff"] * 4)
    yield "raw bytes", column(v.BYTES, [b"", b"\xc3\x28", b"\0" * 9])
    yield (
        "bytes by dictionary",
        column(v.BYTES, [(b"\x80\x01", b"", b"telegram \xff\xfe")[n * n % 3] for n in range(40)]),
    )
    yield (
        "an array of every type",
        column(v.BOOL_ARRAY, [[n % 3 == at for at in range(4)] for n in range(9)])
        + column(v.INT8_ARRAY, [[-128, 127 - n] for n in range(9)])
        + column(v.INT16_ARRAY, [[-2, n, n * n] for n in range(9)])
        + column(v.INT32_ARRAY, [[70_000 * n] for n in range(9)])
        + column(v.INT64_ARRAY, [[-(2**63), 2**63 - 1]] * 3)
        + column(v.UINT8_ARRAY, [[255, 0, n] for n in range(9)])
        + column(v.UINT16_ARRAY, [[n] * n for n in range(9)])
        + column(v.UINT32_ARRAY, [[2**32 - 1]] * 2)
        + column(v.UINT64_ARRAY, [[2**64 - 1, n] for n in range(9)])
        + column(v.FLOAT32_ARRAY, [[single(20 + n / 10), single(0.1 * n)] for n in range(30)])
        + column(v.FLOAT64_ARRAY, [[71.3, n / 8, 1 / 3] for n in range(30)])
        + column(v.STRING_ARRAY, [["Träger", "", "🏭"][: n % 4] for n in range(9)])
        + column(v.BYTES_ARRAY, [[b"\xff", b""][: n % 3] for n in range(9)]),
    )
    yield (
        "arrays that are empty, and none",
        [Reading(PLACE[v.FLOAT32_ARRAY], BEGIN + n, *(([], 0) if n % 2 else (None, 0x8005_0000))) for n in range(6)]
        + [Reading(PLACE[v.STRING_ARRAY], BEGIN + n, []) for n in range(3)]
        + [Reading(PLACE[v.INT16_ARRAY], BEGIN + n, None, 0xFFFF_FFFF) for n in range(3)],
    )  # fmt: skip
    waves = [
        [math.sin((32 * n + at) / 40) * 100 + _noise(32 * n + at) % 1000 / 7e6 for at in range(32)] for n in range(12)
    ]
    yield (
        "arrays of long decimals by pcodec, of bits that matter",
        column(v.FLOAT64_ARRAY, waves)
        + column(v.FLOAT32_ARRAY, [[single(1 / (n + 3)), -0.0, math.inf][: n % 4] for n in range(9)])
        + [Reading(PLACE[v.FLOAT64], BEGIN, real(0x7FF8_0000_DEAD_BEEF))],
    )


def _factors() -> Iterator[tuple[str, Rows]]:
    v = ValueType
    yield (
        "floats by a factor, with exceptions",
        column(v.FLOAT64, [*_scaled(90), *_EXCEPTIONS, *_scaled(30)])
        + column(v.FLOAT32, [single(single(value) * (1 + 2**-23)) for value in _scaled(90)]),
    )


def _noise(place: int) -> int:
    """A number of 32 bits that looks random and is the same in every year."""
    return random.Random(place).getrandbits(32)


def _held(place: int) -> int:
    """The same, that changes at every second place or so."""
    while place and _noise(place) & 1 == 0:
        place -= 1
    return _noise(place)


_EXCEPTIONS = [math.inf, -0.0, real(0x7FF8_0000_0000_1234), 1 / 3]
_SPECIALS: list[Value] = [math.pi, math.inf, -math.inf, -0.0, 0.0, 5e-324, 1.7976931348623157e308, 1e22, 0.1]


def blocks() -> Iterator[tuple[str, bytes]]:
    """Every vector, made by the present encoder, but for the last, which is made by hand."""
    for sequence, (name, rows) in enumerate(chain(_vectors(), _arrays(), _factors())):
        buffer = Buffer(TAGS)
        buffer.push(rows)
        clock = BEGIN + 3 * MILLISECOND
        made = buffer.seal(stream=STREAM, sequence=sequence, epoch=2**64 - 1 - sequence, sealed_ns=clock,
                           synchronized=sequence % 2 == 0)  # fmt: skip
        assert made is not None
        yield name, made.data
    yield (
        "a gap",
        gap(stream=STREAM, first=100, last=199, epoch=7, from_ns=BEGIN, to_ns=BEGIN + 1, readings=12_345,
            reason="outbox full: älteste zuerst", sealed_ns=BEGIN + 2).data,
    )  # fmt: skip
    yield (
        "a correction",
        correction(stream=STREAM, sequence=200, epoch=7, corrected=STREAM[::-1], first=3, last=199,
                   offset_ns=-3_600_000_000_123, sealed_ns=BEGIN).data,
    )  # fmt: skip
    yield "made by hand: every prediction, and notes", block_writer.every_form(BEGIN)


def plain(value: Value) -> Any:
    """As JSON; a float that JSON can't say is its bits, and bytes are hex."""
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, float) and (not math.isfinite(value) or (value == 0 and math.copysign(1, value) < 0)):
        return {"float64": struct.pack(">d", value).hex()}
    return value


def describe(name: str, data: bytes) -> dict[str, Any]:
    found = decode(data)
    header = found.header
    return {
        "name": name,
        "header": {
            "version": list(header.version),
            "kind": header.kind,
            "stream": header.stream.hex(),
            "sequence": header.sequence,
            "last_sequence": header.last_sequence,
            "epoch": header.epoch,
            "first_ns": header.first_ns,
            "last_ns": header.last_ns,
            "sealed_ns": header.sealed_ns,
            "synchronized": header.synchronized,
            "readings": header.readings,
            "columns": header.columns,
            "reason": header.reason,
        },
        "columns": [[each.tag, each.type, each.readings, each.time_codec, each.value_codec] for each in found.columns],
        "notes": [note and list(note) for note in block_reader.read_block(data).notes],
        "rows": [[index, time_ns, plain(value), quality] for index, time_ns, value, quality in found.rows()],
        "hex": data.hex(),
    }


if __name__ == "__main__":
    lines = ",\n".join(json.dumps(describe(name, data), ensure_ascii=False) for name, data in blocks())
    FILE.write_text(f"[\n{lines}\n]\n")
