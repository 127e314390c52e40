"""OPC UA responses that are cut short, damaged or made to harm: refused, and nothing of them kept."""

from __future__ import annotations

import random
import struct
import time

import pytest

from agent._native import publish_header
from tests.opcua_rig import buffer_of, refused, text
from tests.opcua_vectors import RECEIVED_NS, Vector, array, extension, items, load, opening, publish, read

VECTORS = load()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_every_prefix_is_refused(vector: Vector) -> None:
    buffer, subscription = buffer_of(*[vector.type] * len(vector.rows))
    for end in range(len(vector.body)):
        with pytest.raises(ValueError, match=r"at byte \d+$"):
            buffer.push_publish(subscription, vector.body[:end], RECEIVED_NS)
        with pytest.raises(ValueError, match=r"at byte \d+$"):
            publish_header(vector.body[:end])
    assert "more than a response at byte" in refused(vector.body + b"\0")
    assert buffer.latest() == []
    assert buffer.seal() is None


def test_every_prefix_of_a_read_is_refused() -> None:
    values = [b"\x01\x0b" + struct.pack("<d", 1.5), b"\x01\x0c" + text("ü"), b"\x00", b"\x05\x06\1\0\0\0" + bytes(8)]
    body = read(values)
    buffer, _ = buffer_of("float64", "string", "float64", "int32")
    for end in range(len(body)):
        with pytest.raises(ValueError, match=r"at byte \d+$"):
            buffer.push_read([0, 1, 2, 3], body[:end], RECEIVED_NS)
    assert buffer.latest() == []
    found = buffer.push_read([0, 1, 2, 3], body, RECEIVED_NS)
    assert (found.readings, found.grew, found.sequence, found.more) == (4, 4, 0, False)
    assert buffer.latest() == [(tag, RECEIVED_NS, value, 0) for tag, value in enumerate((1.5, "ü", None, 1))]
    for tags in ([0, 1, 2], [0, 1, 2, 3, 0]):
        with pytest.raises(ValueError, match="not as many results as tags"):
            buffer.push_read(tags, body, RECEIVED_NS)
    with pytest.raises(IndexError, match="no tag 4"):
        buffer.push_read([0, 1, 2, 4], body, RECEIVED_NS)


def _within(levels: int, wrap: bytes, core: bytes) -> bytes:
    return wrap * levels + core


HUGE = struct.pack("<i", 2**31 - 1)
BOMBS: dict[str, tuple[bytes, str]] = {
    "an array of 2^31 Nulls": (b"\x01\x80" + HUGE, "an array past the end"),
    "an array of one Null": (b"\x01\x80\x01\0\0\0", "an array"),
    "an array of 2^31 Doubles": (b"\x01\x8b" + HUGE, "an array past the end"),
    "an array of 2^31 LocalizedTexts": (b"\x01\x95" + HUGE, "an array past the end"),
    "an array of 2^31 Variants": (b"\x01\x98" + HUGE, "an array past the end"),
    "an array of an array of Nulls": (b"\x01\x98\x01\0\0\0\x80" + HUGE, "an array past the end"),
    "a negative array": (b"\x01\x8b\xfe\xff\xff\xff", "a negative length"),
    "a String of 2 GiB": (b"\x01\x0c" + HUGE, "a length past the end"),
    "a negative ByteString": (b"\x01\x0f\x00\x00\x00\x80", "a negative length"),
    "dimensions of 2^31": (b"\x01\xcb\0\0\0\0" + HUGE, "an array past the end"),
    "dimensions of no array": (b"\x01\x4b" + bytes(8), "dimensions of no array"),
    "Variants in Variants": (b"\x01" + _within(10_000, b"\x18", b"\x01\x01"), "nested too deep"),
    "arrays of Variants in each other": (b"\x01" + _within(10_000, b"\x98\x01\0\0\0", b"\x01\x01"), "nested too deep"),
    "DataValues in DataValues": (_within(10_000, b"\x01\x17", b"\x00"), "nested too deep"),
    "DiagnosticInfos in each other": (b"\x01\x19" + _within(10_000, b"\x40", b"\x00"), "nested too deep"),
    "a type that does not exist": (b"\x01\x20" + bytes(8), "no such built-in type"),
    "a mask that does not exist": (b"\x40\x01\x01", "no such DataValue"),
    "an ExtensionObject of 2 GiB": (b"\x01\x16\0\0\x01" + HUGE, "an array past the end"),
    "an ExtensionObject of kind 3": (b"\x01\x16\0\0\x03" + bytes(4), "no such encoding"),
    "a NodeId of kind 9": (b"\x01\x11\x09" + bytes(8), "no such kind of NodeId"),
    "a LocalizedText of kind 4": (b"\x01\x15\x04", "no such LocalizedText"),
}


@pytest.mark.parametrize(("value", "why"), BOMBS.values(), ids=list(BOMBS))
def test_a_hostile_value_is_refused_with_all_that_came_beside_it(value: bytes, why: str) -> None:
    fine = b"\x01\x0b" + struct.pack("<d", 1.5)
    start = time.thread_time()
    assert why in refused(publish(items([fine, value])))
    assert why in refused(publish(items([fine]), items([value])))
    buffer, _ = buffer_of("float64", "float64")
    with pytest.raises(ValueError, match=why):
        buffer.push_read([0, 1], read([fine, value]), RECEIVED_NS)
    assert buffer.latest() == []
    assert time.thread_time() - start < 1


def test_a_hundred_levels_are_taken() -> None:
    for levels, wrap, core in ((100, b"\x18", b"\x01\x01"), (100, b"\x98\x01\0\0\0", b"\x01\x01")):
        body = publish(items([b"\x01" + _within(levels, wrap, core)]))
        buffer, subscription = buffer_of("bool")
        assert len(buffer.push_publish(subscription, body, RECEIVED_NS).undecoded) == 1
        assert "nested too deep" in refused(publish(items([b"\x01" + _within(levels + 1, wrap, core)])))


@pytest.mark.parametrize(
    "body",
    [
        publish(extension(811, HUGE)),
        publish(extension(811, struct.pack("<i", 7) + bytes(34))),
        publish(items([], diagnostics=HUGE)),
        publish(items([], diagnostics=array([b"\x40" * 200 + b"\0"]))),
        publish(items([]) + b"\0"),
        publish(extension(811, array([]) + array([]) + b"\0")),
        publish(extension(820, bytes(6))),
        publish(extension(820, bytes(4))),
        opening(829) + struct.pack("<I", 7) + HUGE + bytes(40),
        opening(829) + struct.pack("<Ii?Iq", 7, 0, False, 5, 0) + HUGE + bytes(40),
        opening(829)[:20] + HUGE,
        opening(634) + HUGE,
        opening(1234),
        b"\x03\0\0" + text("PublishResponse") + bytes(30),
        b"",
    ],
)
def test_a_hostile_body_is_refused(body: bytes) -> None:
    refused(body)


def test_a_fifth_of_a_body_is_the_most_readings_that_it_can_hold() -> None:
    count = 200_000
    body = publish(extension(811, array([bytes(5)] * count) + array([])))
    buffer, subscription = buffer_of("bool")
    found = buffer.push_publish(subscription, body, RECEIVED_NS)
    assert found.readings == count <= len(body) / 5


def _flipped(source: random.Random, body: bytes) -> bytes:
    raw = bytearray(body)
    for _ in range(source.choice([1, 1, 2, 5])):
        raw[source.randrange(len(raw))] = source.choice([0, 1, 0x7F, 0x80, 0xFF, source.randrange(256)])
    return bytes(raw)


def test_damaged_bodies_are_kept_whole_or_not_at_all() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    source = random.Random(seed)
    outcomes: set[bool] = set()
    for _ in range(5_000):
        vector = source.choice(VECTORS)
        buffer, subscription = buffer_of(*[vector.type] * 3)
        body = _flipped(source, vector.body)
        try:
            found = buffer.push_publish(subscription, body, RECEIVED_NS)
        except ValueError:
            assert buffer.latest() == []
            outcomes.add(False)
        else:
            assert found.grew == found.readings == buffer.stats()["pending_readings"]
            assert found.readings + found.unknown_handles + len(found.undecoded) <= len(body) / 5
            outcomes.add(True)
    assert outcomes == {True, False}
