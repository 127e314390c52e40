"""Bytes and arrays, from a push to an answer of the data center."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent import taglist
from agent._native import Buffer, to_json
from agent.model import StatusCode, ValueType
from headrace import verify
from simulators.plant import Plant
from tests.native_vectors import BEGIN, PLACE, TAGS, real, single, tag
from tests.test_native import rows_of, sealed
from tests.test_simulators import opcua


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


@pytest.mark.parametrize(
    ("protocol", "cell", "message", "hint"),
    [
        ("modbus", "hr:1,float32[],", "Modbus has no float32[]", "write a tag for each element"),
        ("modbus", "hr:1,bytes,", "Modbus has no bytes", "write string[16], or a number's type"),
        ("opcua", "i=1,float32[],deadband=1", "a float32[] has no deadband", "write on_change, or nothing"),
        ("opcua", "i=1,bytes,grid=1", "a bytes has no grid", "write on_change, or nothing"),
        ("opcua", "i=1,float[],", "'float[]' is not a type", "write float32[]"),
        ("opcua", "i=1,float32[3],", "'float32[3]' is not a type", "write float32[]"),
    ],
)
def test_a_tag_list_says_what_a_protocol_can_carry(
    tmp_path: Path, protocol: str, cell: str, message: str, hint: str
) -> None:
    path = tmp_path / "tags.csv"
    path.write_text(f"name,address,type,filter\na,{cell}\n")
    (problem,) = taglist.read(path, protocol).problems
    assert problem.message.startswith(message)
    assert problem.hint.startswith(hint), problem.hint


def test_a_tag_list_of_an_opc_ua_device_takes_every_type(tmp_path: Path) -> None:
    path = tmp_path / "tags.csv"
    rows = "".join(f"t{at},i={at},{kind},on_change\n" for at, kind in enumerate(ValueType))
    path.write_text(f"name,address,type,filter\n{rows}")
    found = taglist.read(path, "opcua")
    assert not found.problems
    assert [row.traits.type.type for row in found.rows] == list(ValueType)


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


def test_the_plant_has_arrays_and_bytes_that_are_judged_as_they_come_back() -> None:
    tags = [
        replace(tag(at, kind), device="d", address=f"ns=2;i={at}")
        for at, kind in enumerate(kind for kind in ValueType if kind.is_array or kind is ValueType.BYTES)
    ]
    plant = Plant(tags, seed=3)
    buffer = Buffer(tags)
    buffer.push([(each.index, BEGIN, plant.value(each, BEGIN), 0) for each in tags])
    assert buffer.stats()["mistyped"] == 0
    block = sealed(buffer)
    columns = json.loads(to_json(block.data))["columns"]
    for each, column in zip(tags, columns, strict=True):
        ((_, written, _),) = column["readings"]
        found = verify.as_plant(written, each.type)
        if each.type.element is ValueType.FLOAT32:
            assert isinstance(found, tuple)
            found = tuple(single(float(value)) for value in found)  # the JSON form has the short decimal
        assert found == plant.value(each, BEGIN)


async def test_the_simulated_server_serves_arrays_and_bytes() -> None:
    kinds = [kind for kind in ValueType if kind.is_array or kind is ValueType.BYTES]
    tags = [
        replace(tag(at, kind), device="beside", name=f"b{at}", address=f"nsu=urn:beside;i={at + 1}")
        for at, kind in enumerate(kinds)
    ]
    async with opcua(lambda: BEGIN, *tags) as (_, plant, _, client):
        space = await client.get_namespace_index("urn:beside")
        buffer = Buffer(tags)
        for each in tags:
            found = await client.get_node(f"ns={space};i={each.index + 1}").read_value()
            assert (tuple(found) if each.type.is_array else found) == plant.raw(each, BEGIN)
            buffer.push([(each.index, BEGIN, found, 0)])
        assert buffer.stats()["mistyped"] == 0
