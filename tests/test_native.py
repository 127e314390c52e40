"""The Python face of the core: what it takes, what it refuses, and that nothing is lost between threads."""

from __future__ import annotations

import gc
import math
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pytest

from agent._native import Block, Buffer, decode
from agent.model import Reading, StatusCode, ValueType
from tests.native_vectors import BEGIN, PLACE, TAGS, real, tag

if TYPE_CHECKING:
    from agent._native import Field

MISTYPED = StatusCode.BAD_TYPE_MISMATCH
COLUMNS = {
    "tag": pa.uint32(),
    "time": pa.int64(),
    "quality": pa.uint32(),
    "boolean": pa.bool_(),
    "integer": pa.int64(),
    "unsigned": pa.uint64(),
    "real": pa.float64(),
    "text": pa.string(),
    "bytes": pa.binary(),
    "boolean_array": pa.list_(pa.bool_()),
    "integer_array": pa.list_(pa.int64()),
    "unsigned_array": pa.list_(pa.uint64()),
    "real_array": pa.list_(pa.float64()),
    "text_array": pa.list_(pa.string()),
    "bytes_array": pa.list_(pa.binary()),
}


def sealed(buffer: Buffer) -> Block:
    block = buffer.seal()
    assert block is not None
    return block


def rows_of(buffer: Buffer) -> list[Reading]:
    return [Reading(*row) for row in decode(sealed(buffer).data).rows()]


def every_type() -> list[Reading]:
    """Two readings of every type, and a bad one without a value."""
    values: dict[ValueType, tuple[Any, Any]] = {
        ValueType.BOOL: (True, False),
        ValueType.FLOAT32: (1.5, -0.0),
        ValueType.FLOAT64: (math.pi, math.inf),
        ValueType.STRING: ("Träger Ø40", ""),
        ValueType.BYTES: (b"\x00\xff", b""),
        ValueType.INT64: (-(2**63), 2**63 - 1),
        ValueType.UINT64: (0, 2**64 - 1),
    }
    found = []
    for each in TAGS:
        first, second = values.get(each.type.element, (7, 100))
        if each.type.is_array:
            first, second = [first, second, first], []
        found += [
            Reading(each.index, BEGIN, first),
            Reading(each.index, BEGIN + 1, second, 0x4000_0000),
            Reading(each.index, BEGIN + 2, None, StatusCode.BAD_COMMUNICATION_ERROR),
        ]
    return found


def place(kind: ValueType) -> str:
    """The Arrow column that a type's values are in."""
    named = {"bool": "boolean", "string": "text", "bytes": "bytes", "float32": "real", "float64": "real"}
    found = named.get(kind.element) or ("unsigned" if kind.startswith("u") else "integer")
    return f"{found}_array" if kind.is_array else found


def test_a_block_comes_back_as_it_was_and_says_what_it_is() -> None:
    buffer = Buffer(TAGS)
    assert buffer.push(every_type()) == 78
    block = buffer.seal(stream=b"0123456789abcdef", sequence=5, epoch=2**64 - 1, sealed_ns=-1, synchronized=False)
    assert block is not None
    assert (block.sequence, block.readings, block.first_ns, block.last_ns) == (5, 78, BEGIN, BEGIN + 2)
    assert len(block) == len(block.data)
    found = decode(block.data)
    assert found.rows() == every_type()
    assert [type(value) for _, _, value, _ in found.rows()] == [type(each.value) for each in every_type()]
    assert [(each.tag, each.type, each.readings, each.problem) for each in found.columns] == [
        (each.index, each.type, 3, "") for each in TAGS
    ]
    header = found.header
    assert (header.kind, header.version, header.stream, header.reason) == ("readings", (1, 0), b"0123456789abcdef", "")
    assert (header.sequence, header.last_sequence, header.epoch, header.sealed_ns) == (5, 5, 2**64 - 1, -1)
    assert (header.first_ns, header.last_ns, header.synchronized) == (BEGIN, BEGIN + 2, False)
    assert (header.readings, header.columns, len(found)) == (78, 26, 78)


def test_arrow_has_the_schema_the_nulls_and_the_values() -> None:
    buffer = Buffer(TAGS)
    buffer.push(every_type())
    found = decode(sealed(buffer).data)
    table = pa.table(found)
    assert dict(zip(table.schema.names, table.schema.types, strict=True)) == COLUMNS
    assert [field.name for field in table.schema if not field.nullable] == ["tag", "time", "quality"]
    table.validate(full=True)
    for row, reading in zip(table.to_pylist(), every_type(), strict=True):
        assert (row["tag"], row["time"], row["quality"]) == (reading.tag, reading.time_ns, reading.quality)
        own = place(TAGS[reading.tag].type)
        assert row[own] == reading.value
        assert [row[name] for name in list(COLUMNS)[3:] if name != own] == [None] * 11
    assert pa.table(found).equals(table), "it can be read again"


def test_duckdb_reads_a_block_as_a_table() -> None:
    buffer = Buffer(TAGS)
    buffer.push(every_type())
    readings = decode(sealed(buffer).data)
    with duckdb.connect() as connection:
        connection.register("readings", readings)
        counts = connection.sql(
            "select count(*), count(boolean), count(integer), count(unsigned), count(real), count(text), count(bytes)"
            " from readings"
        )
        assert counts.fetchall() == [(78, 2, 8, 8, 4, 2, 2)]
        lists = connection.sql(
            "select count(integer_array), sum(len(integer_array)), max(real_array[2]), max(bytes_array) from readings"
        )
        assert lists.fetchall() == [(8, 12, math.inf, [b"\x00\xff", b"", b"\x00\xff"])]
        rows = connection.sql(f"select unsigned from readings where tag = {PLACE[ValueType.UINT64]} order by time")
        assert rows.fetchall() == [(0,), (2**64 - 1,), (None,)]


def test_arrow_of_a_block_without_a_type_and_of_a_block_without_rows() -> None:
    buffer = Buffer(TAGS)
    buffer.push([(PLACE[ValueType.BOOL], BEGIN, None, 1)])
    table = pa.table(decode(sealed(buffer).data))
    assert dict(zip(table.schema.names, table.schema.types, strict=True)) == COLUMNS
    assert table.to_pylist() == [dict.fromkeys(COLUMNS) | {"tag": 0, "time": BEGIN, "quality": 1}]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("bool", 1),
        ("bool", 0.0),
        ("bool", "true"),
        ("int16", True),
        ("int16", 1.0),
        ("int16", "1"),
        ("int8", 128),
        ("int8", -129),
        ("uint8", 256),
        ("uint16", -1),
        ("int64", 2**63),
        ("int64", -(2**63) - 1),
        ("uint64", 2**64),
        ("uint64", -1),
        ("int32", 10**60),
        ("float32", True),
        ("float32", 0.1),
        ("float32", 1e39),
        ("float32", 2**24 + 1),
        ("float32", "1.5"),
        ("float64", False),
        ("float64", 2**53 + 1),
        ("float64", 2**127 - 1),
        ("float64", 10**60),
        ("float64", b"1"),
        ("string", 1),
        ("string", b"bytes"),
        ("string", "\ud800"),
        ("bool", [True]),
    ],
)
def test_a_value_that_does_not_fit_is_kept_as_a_bad_reading_and_counted(kind: str, value: Any) -> None:
    index = PLACE[ValueType(kind)]
    buffer = Buffer(TAGS)
    assert buffer.push([(index, BEGIN, value, 0)]) == 1
    stats = buffer.stats()
    assert (stats["accepted"], stats["mistyped"], stats["refused"]) == (1, 1, 0)
    assert buffer.latest() == [(index, BEGIN, None, MISTYPED)]
    assert rows_of(buffer) == [(index, BEGIN, None, MISTYPED)]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("float32", 3),
        ("float32", 2**24),
        ("float32", math.nan),
        ("float32", -math.inf),
        ("float64", 2**53),
        ("float64", 2**126),
        ("float64", real(0x7FF8_0000_DEAD_BEEF)),
        ("uint64", 2**64 - 1),
        ("string", "\0"),
    ],
)
def test_a_value_that_fits_stays_what_it_is(kind: str, value: Any) -> None:
    buffer = Buffer(TAGS)
    buffer.push([(PLACE[ValueType(kind)], BEGIN, value, 0)])
    assert buffer.stats()["mistyped"] == 0
    ((_, _, found, quality),) = rows_of(buffer)
    assert quality == 0
    if isinstance(value, float):
        assert isinstance(found, float)
        assert struct.pack(">d", found) == struct.pack(">d", value)
    else:
        assert found == value


def test_an_unknown_tag_keeps_nothing() -> None:
    buffer = Buffer(TAGS)
    with pytest.raises(IndexError, match="no tag 26; there are 26"):
        buffer.push([(0, BEGIN, True, 0), (26, BEGIN, True, 0)])
    for wrong in ([(0, BEGIN, True)], [(0, BEGIN, True, 0, 0)], [(-1, BEGIN, True, 0)], [(0, 2**63, True, 0)], "rows"):
        with pytest.raises((TypeError, ValueError, OverflowError)):
            buffer.push(wrong)  # type: ignore[arg-type]
    assert buffer.push([]) == 0
    assert buffer.stats()["accepted"] == 0
    assert buffer.latest() == []
    assert buffer.seal() is None


def field(index: int, at: int, kind: str, order: str = "ABCD", *, bit: int | None = None, length: int = 0) -> Field:
    return {"tag": index, "at": at, "type": kind, "order": order, "bit": bit, "length": length}


def test_registers_are_decoded_scaled_and_kept_only_whole() -> None:
    scaled = replace(tag(1, ValueType.INT16), scale=0.1, offset=-20.0)
    buffer = Buffer([tag(0, ValueType.FLOAT32), scaled, tag(2, ValueType.BOOL), tag(3, ValueType.STRING)])
    plan = buffer.modbus_plan([
        field(0, 0, "float32", "CDAB"),
        field(1, 2, "int16"),
        field(2, 3, "bool", bit=4),
        field(3, 4, "string", length=4),
    ])  # fmt: skip
    payload = struct.pack(">f", 1.5)[2:] + struct.pack(">f", 1.5)[:2] + struct.pack(">hH", -123, 16)
    for wrong in (b"", payload, payload + b"abcde", payload + b"abc"):
        with pytest.raises(ValueError, match=f"response of {len(wrong)} bytes where 12 were asked for"):
            buffer.push_registers(plan, wrong, BEGIN)
    assert buffer.stats()["accepted"] == 0
    assert buffer.push_registers(plan, payload + b"ab\0\0", BEGIN) == 4
    assert buffer.push_registers(plan, payload + b"a\xff\0\0", BEGIN + 1) == 4
    value = -123.0 * 0.1 + -20.0
    good = [(0, BEGIN, 1.5, 0), (1, BEGIN, value, 0), (2, BEGIN, True, 0), (3, BEGIN, "ab", 0)]
    bad = (3, BEGIN + 1, None, StatusCode.BAD_DECODING_ERROR)
    expected = sorted([*good, *[(index, BEGIN + 1, value, 0) for index, _, value, _ in good[:3]], bad])
    assert rows_of(buffer) == expected
    coils = buffer.modbus_plan([field(2, 9, "bool")], bits=True)
    assert buffer.push_registers(coils, b"\0\2", BEGIN) == 1
    with pytest.raises(IndexError, match="no plan 2; there are 2"):
        buffer.push_registers(2, b"", BEGIN)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([field(0, 0, "int16")], "tag 0 is float32, not int16"),
        ([field(0, 0, "real")], "no type"),
        ([field(0, 0, "float32", "ACDB")], "no byte order"),
        ([field(0, 124, "float32")], "a request of 126; at least 1 and at most 125"),
        ([], "a request of 0"),
        ([{"tag": 0}], "at"),
    ],
)
def test_a_plan_that_can_not_be_is_refused(fields: Sequence[Any], message: str) -> None:
    buffer = Buffer([tag(0, ValueType.FLOAT32)])
    with pytest.raises((ValueError, KeyError, TypeError), match=message):
        buffer.modbus_plan(fields)
    with pytest.raises(IndexError):
        buffer.push_registers(0, b"", BEGIN)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"filter": "swing"}, 'no filter "swing"; write on_change, deadband=0.1, '),
        ({"filter": "deadband=-1"}, "no filter"),
        ({"type": "real"}, 'no type "real"; there are bool'),
        ({"type": ValueType.STRING, "scale": 2.0}, "a tag of type string can't be scaled"),
        ({"type": ValueType.FLOAT32_ARRAY, "offset": 2.0}, r"a tag of type float32\[\] can't be scaled"),
        (
            {"type": ValueType.BYTES, "filter": "grid=1"},
            'no filter "grid=1" for bytes, which has no distance; write on_ch',
        ),
        ({"type": ValueType.INT8_ARRAY, "filter": "deadband=2%", "low": 0.0, "high": 1.0}, "which has no distance"),
    ],
)
def test_a_tag_that_can_not_be_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Buffer([replace(TAGS[0], **wrong)])


def test_filters_hold_back_and_latest_still_sees_everything() -> None:
    buffer = Buffer([replace(tag(0, ValueType.FLOAT64), filter="deadband=0.5"),
                     replace(tag(1, ValueType.STRING), filter="on_change")])  # fmt: skip
    rows = [(0, at, value, 0) for at, value in enumerate([1.0, 1.4, 1.6, 1.2, math.nan, math.nan, 1.6])]
    assert buffer.push(rows) == 4
    assert buffer.push([(1, 7, "a", 0), (1, 8, "a", 0), (1, 9, "a", 1), (1, 10, None, 1)]) == 3
    stats = buffer.stats()
    assert (stats["accepted"], stats["filtered"], stats["pending_readings"]) == (11, 4, 7)
    assert buffer.latest() == [(0, 6, 1.6, 0), (1, 10, None, 1)]
    assert [row[1] for row in rows_of(buffer)] == [0, 2, 4, 6, 7, 9, 10]


def test_a_full_buffer_refuses_and_counts() -> None:
    buffer = Buffer([tag(0, ValueType.INT64)], max_bytes=160)
    assert buffer.push([(0, at, at, 0) for at in range(15)]) == 10
    stats = buffer.stats()
    assert (stats["accepted"], stats["refused"], stats["pending_bytes"]) == (10, 5, 160)
    assert buffer.pending_bytes == 160
    assert buffer.latest() == [(0, 9, 9, 0)]
    assert sealed(buffer).readings == 10
    assert buffer.pending_bytes == 0
    assert buffer.push([(0, 20, 20, 0)]) == 1
    stats = buffer.stats()
    assert (stats["pending_readings"], stats["sealed_readings"], stats["sealed_blocks"]) == (1, 10, 1)
    with pytest.raises(ValueError, match="at most 134217728"):
        Buffer([], max_bytes=2**27 + 1)


def test_a_seal_of_nothing_is_none() -> None:
    buffer = Buffer(TAGS)
    assert buffer.seal() is None
    buffer.push([(0, BEGIN, True, 0)])
    assert sealed(buffer).readings == 1
    assert buffer.seal() is None
    assert buffer.stats()["sealed_blocks"] == 1


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Threads change places often: 20 us instead of 5 ms."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(20e-6)
    yield
    sys.setswitchinterval(before)


def test_seals_in_one_thread_and_pushes_in_others_lose_nothing(eager_threads: None) -> None:
    pushers, wanted = 2, 50
    buffer = Buffer([tag(index, ValueType.UINT32) for index in range(pushers)])
    blocks: list[Block] = []
    pushed = [0] * pushers
    done = threading.Event()
    deadline = time.monotonic() + 20

    def push(index: int) -> None:
        while pushed[index] < 20_000 or (len(blocks) < wanted and time.monotonic() < deadline):
            start = pushed[index]
            buffer.push([(index, at, at, 0) for at in range(start, start + 20)])
            pushed[index] = start + 20

    def seal() -> None:
        while not done.is_set():
            buffer.latest()
            buffer.stats()
            if (block := buffer.seal()) is not None:
                blocks.append(block)

    threads = [threading.Thread(target=push, args=(index,)) for index in range(pushers)]
    sealer = threading.Thread(target=seal)
    for each in (sealer, *threads):
        each.start()
    for each in threads:
        each.join(30)
    done.set()
    sealer.join(30)
    if (last := buffer.seal()) is not None:
        blocks.append(last)
    assert len(blocks) >= wanted
    found = [row for block in blocks for row in decode(block.data).rows()]
    for index in range(pushers):
        assert [value for owner, _, value, _ in found if owner == index] == list(range(pushed[index]))
    stats = buffer.stats()
    assert stats["accepted"] == stats["sealed_readings"] == sum(pushed)
    assert sum(block.readings for block in blocks) == sum(pushed)


def resident() -> int:
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_garbage_that_asks_the_buffer_while_its_latest_readings_are_made_stops_nothing() -> None:
    # In a process of its own: a lock that waits for itself holds the GIL, and so everybody.
    script = """
import gc
from agent._native import Buffer
from agent.model import Tag, ValueType
buffer = Buffer([Tag(0, "d", "t", "hr:0", ValueType.INT32_ARRAY, "x")])
buffer.push([(0, 1, [1, 2, 3], 0)])
class Garbage:
    def __init__(self):
        self.me = self
    def __del__(self):
        assert buffer.pending_bytes
gc.disable()
Garbage()
gc.set_threshold(1)
gc.enable()
assert buffer.latest() == [(0, 1, [1, 2, 3], 0)]
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=20)


def test_memory_does_not_grow_over_many_cycles() -> None:
    buffer = Buffer([*TAGS, tag(26, ValueType.FLOAT32)])
    plan = buffer.modbus_plan([field(26, 2 * at, "float32") for at in range(60)])

    def cycle(turn: int) -> None:
        for at in range(5):
            buffer.push_registers(plan, struct.pack(">60f", *range(turn, turn + 60)), BEGIN + at)
        buffer.push(every_type() * 10)
        buffer.push([(1, BEGIN, "not a number", 0)])
        data = sealed(buffer).data
        found = decode(data)
        pa.table(found).num_rows  # noqa: B018
        found.rows()
        buffer.latest()
        for wrong in (lambda: decode(data[:-1]), lambda: buffer.push([(99, 0, 0, 0)])):
            with pytest.raises((ValueError, IndexError)):
                wrong()

    for turn in range(150):
        cycle(turn)
    gc.collect()
    before = resident()
    for turn in range(600):
        cycle(turn)
    gc.collect()
    assert resident() - before <= 8 * 2**20
