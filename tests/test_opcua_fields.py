"""Fields of structures in the core: optional ones, unions, what is another structure, and what no structure can be."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from agent._native import Buffer
from tests.opcua_vectors import RECEIVED_NS, Spec, items, publish

MISTYPED = 0x80740000
ENCODING = b"\x01\x01" + struct.pack("<H", 5000)  # ns=1;i=5000
FLOAT, INT32, STRING, DOUBLE, DATE = 10, 6, 12, 11, 13


def variant(body: bytes, encoding: bytes = ENCODING) -> bytes:
    return b"\x16" + encoding + b"\x01" + struct.pack("<i", len(body)) + body


def read(types: Any, fields: Any, kinds: tuple[str, ...], value: bytes) -> list[tuple[Any, int]]:
    """The tags' readings of one value; the first tag is the node's."""
    buffer = Buffer([Spec(kind) for kind in kinds])
    buffer.opcua_structure(0, types=types, encoding=ENCODING, fields=fields)
    subscription = buffer.opcua_subscription([(0, 0)])
    published = buffer.push_publish(subscription, publish(items([value])), RECEIVED_NS)
    assert published.readings == len(fields)
    assert published.undecoded == []
    return [(each, quality) for _, _, each, quality in buffer.latest()]


PLAIN = [("plain", [(INT32, False, False), (STRING, False, False), (FLOAT, True, False)])]
THREE = ("int32", "string", "float32[]")
WHOLE = struct.pack("<ii", 7, 2) + b"ab" + struct.pack("<i2f", 2, 0.5, 1.5)


def test_each_field_is_a_reading_of_its_tag() -> None:
    fields = [(0, [0]), (1, [1]), (2, [2])]
    assert read(PLAIN, fields, THREE, b"\x01" + variant(WHOLE)) == [(7, 0), ("ab", 0), ([0.5, 1.5], 0)]
    # One that stands for the node and is the last of its fields.
    assert read(PLAIN, [(0, [2])], ("float32[]",), b"\x01" + variant(WHOLE)) == [([0.5, 1.5], 0)]


@pytest.mark.parametrize(("mask", "body", "found"), [
    (0, b"", [(9, 0), (None, 0), (None, 0)]),
    (1, struct.pack("<f", 0.5), [(9, 0), (0.5, 0), (None, 0)]),
    (2, struct.pack("<d", 2.5), [(9, 0), (None, 0), (2.5, 0)]),
    (3, struct.pack("<fd", 0.5, 2.5), [(9, 0), (0.5, 0), (2.5, 0)]),
])  # fmt: skip
def test_optional_fields_that_are_not_there_are_null(mask: int, body: bytes, found: list[tuple[Any, int]]) -> None:
    types = [("optional", [(INT32, False, False), (FLOAT, False, True), (DOUBLE, False, True)])]
    fields = [(0, [0]), (1, [1]), (2, [2])]
    value = b"\x01" + variant(struct.pack("<Ii", mask, 9) + body)
    assert read(types, fields, ("int32", "float32", "float64"), value) == found


@pytest.mark.parametrize(("switch", "body", "found"), [
    (0, b"", [(None, 0), (None, 0)]),
    (1, struct.pack("<i", 9), [(9, 0), (None, 0)]),
    (2, struct.pack("<d", 2.5), [(None, 0), (2.5, 0)]),
])  # fmt: skip
def test_of_a_union_one_field_is_there(switch: int, body: bytes, found: list[tuple[Any, int]]) -> None:
    types = [("union", [(INT32, False, False), (DOUBLE, False, False)])]
    value = b"\x01" + variant(struct.pack("<I", switch) + body)
    assert read(types, [(0, [0]), (1, [1])], ("int32", "float64"), value) == found


def test_nested_structures_and_arrays_of_them_are_passed_through() -> None:
    point = ("plain", [(DOUBLE, False, False), (DOUBLE, False, False)])
    types = [point, ("plain", [(-1, True, False), (-1, False, False), (INT32, False, False)])]
    body = struct.pack("<i4d", 2, 1.0, 2.0, 3.0, 4.0) + struct.pack("<2di", 5.0, 6.0, 7)
    found = read(types, [(0, [1, 1]), (1, [2]), (2, [0])], ("float64", "int32", "int32"), b"\x01" + variant(body))
    assert found == [(6.0, 0), (7, 0), (None, MISTYPED)]


@pytest.mark.parametrize("value", [
    b"\x01" + variant(WHOLE, b"\x01\x01" + struct.pack("<H", 5001)),  # another structure
    b"\x01" + variant(WHOLE[:-1]),
    b"\x01" + variant(struct.pack("<ii", 7, 2**31 - 1)),
    b"\x01" + variant(WHOLE[:10] + struct.pack("<i", 2**30)),
    b"\x01\x06" + struct.pack("<i", 7),  # no structure at all
])  # fmt: skip
def test_what_is_not_the_structure_is_mistyped(value: bytes) -> None:
    fields = [(0, [0]), (1, [1]), (2, [2])]
    assert read(PLAIN, fields, THREE, value) == [(None, MISTYPED)] * 3


def test_a_bad_status_is_that_of_every_field() -> None:
    bad = 0x808C0000
    for value in (b"\x02", b"\x03\x00", b"\x03" + variant(WHOLE[:-1])):
        found = read(PLAIN, [(0, [0]), (1, [1])], ("int32", "string"), value + struct.pack("<I", bad))
        assert found == [(None, bad)] * 2


@pytest.mark.parametrize(("types", "path", "why"), [
    ([], [0], "no types"),
    ([("plain", [(-1, False, False)])], [0, 0], "not before its own"),
    ([("plain", [(26, False, False)])], [0], "no built-in type"),
    ([("plain", [(INT32, False, False)])], [1], "leads to no field"),
    ([("plain", [(INT32, False, False)])], [0, 0], "leads to no field"),
    ([("plain", [(INT32, False, False)])], [], "leads to no field"),
    ([("plain", [(INT32, False, False)]), ("plain", [(-1, False, False)])], [0], "leads to no field"),
    ([("odd", [])], [0], "no form"),
    ([("plain", [(INT32, False, False)] * 257)], [0], "too many fields"),
    ([("plain", [(INT32, False, False)]), *(("plain", [(-1 - at, False, False)]) for at in range(17))], [0], "deep"),
])  # fmt: skip
def test_what_no_structure_can_be_is_refused(types: Any, path: list[int], why: str) -> None:
    buffer = Buffer([Spec("int32")])
    with pytest.raises(ValueError, match=why):
        buffer.opcua_structure(0, types=types, encoding=ENCODING, fields=[(0, path)])
    with pytest.raises(IndexError):
        buffer.opcua_structure(1, types=PLAIN, encoding=ENCODING, fields=[(0, [0])])


def test_an_array_of_structures_without_fields_is_no_bomb() -> None:
    types = [("plain", []), ("plain", [(-1, True, False), (INT32, False, False)])]
    body = struct.pack("<i", 1 << 20) + bytes(1 << 20)
    assert read(types, [(0, [1])], ("int32",), b"\x01" + variant(body)) == [(None, MISTYPED)]


def test_structures_of_no_bytes_that_double_with_each_level_end() -> None:
    types = [("plain", []), *(("plain", [(-1 - at, False, False)] * 200) for at in range(14))]
    types.append(("plain", [(-15, False, False), (INT32, False, False)]))
    assert read(types, [(0, [1])], ("int32",), b"\x01" + variant(struct.pack("<i", 7))) == [(None, MISTYPED)]
