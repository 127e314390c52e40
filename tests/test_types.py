"""Bytes and arrays, from a push to an answer of the data center."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from agent._native import Buffer
from agent.model import StatusCode, ValueType
from tests.native_vectors import BEGIN, PLACE, TAGS, real, tag
from tests.test_native import rows_of


def test_an_array_that_does_not_fit_its_type_is_a_bad_reading() -> None:
    kinds = [ValueType.INT8_ARRAY, ValueType.FLOAT32_ARRAY, ValueType.STRING_ARRAY, ValueType.BYTES]
    small, singles, texts, raw = (PLACE[kind] for kind in kinds)
    buffer = Buffer(TAGS)
    wrong: list[tuple[int, Any]] = [
        (small, [1, 128]), (small, [1, None]), (small, [[1]]), (small, 1), (small, [True]), (small, b"1"), (small, {1}),
        (small, range(3)), (singles, [0.1]), (singles, [1.0, "2"]), (texts, "text"), (texts, ["a", b"a"]),
        (raw, "text"), (raw, [1]), (small, [0] * (2**20 + 1)),
    ]  # fmt: skip
    buffer.push([(index, BEGIN, value, 0) for index, value in wrong])
    right: list[tuple[int, Any]] = [
        (small, (1, -128)),
        (singles, [1, 2.5]),
        (raw, bytearray(b"1")),
        (small, [0] * 2**20),
    ]
    buffer.push([(index, BEGIN + 1, value, 0) for index, value in right])
    assert buffer.stats()["mistyped"] == len(wrong)
    rows = rows_of(buffer)
    assert [row.value for row in rows if row.time_ns == BEGIN] == [None] * len(wrong)
    assert {row.quality for row in rows if row.time_ns == BEGIN} == {StatusCode.BAD_TYPE_MISMATCH}
    good = [(row.tag, row.value) for row in rows if row.time_ns == BEGIN + 1]
    assert good == [(raw, b"1"), (small, [1, -128]), (small, [0] * 2**20), (singles, [1.0, 2.5])]


def test_on_change_of_arrays_and_bytes_sees_every_bit() -> None:
    kinds = (ValueType.FLOAT64_ARRAY, ValueType.BYTES)
    buffer = Buffer([replace(tag(at, kind), filter="on_change; heartbeat=1s") for at, kind in enumerate(kinds)])
    nan = real(0x7FF8_0000_0000_0001)
    steps = [[0.0], [0.0], [-0.0], [nan], [nan], [math.nan], [], [], None, [], [1.0, 2.0], [1.0], [1.0]]
    buffer.push([(0, BEGIN + at, value, 0) for at, value in enumerate(steps)])
    buffer.push([(1, BEGIN + at * 400_000_000, b"x", 0) for at in range(4)])
    rows = rows_of(buffer)
    assert [row.time_ns - BEGIN for row in rows if row.tag == 0] == [0, 2, 3, 5, 6, 8, 9, 10, 11]
    assert [row.time_ns - BEGIN for row in rows if row.tag == 1] == [0, 1_200_000_000]
