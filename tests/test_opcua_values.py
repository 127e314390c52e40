"""What an OPC UA value becomes, and what is said of a response besides (docs/opcua-values.md)."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any

import pytest
from asyncua.common.utils import Buffer as Stream
from asyncua.ua.ua_binary import variant_from_binary, variant_to_binary

from agent._native import Buffer, Published, publish_header
from tests.opcua_rig import MISTYPED, NOT_TEXT, buffer_of, decoded, one, text
from tests.opcua_vectors import (
    LAST_USABLE,
    RECEIVED_NS,
    SENSOR_FAILURE,
    SERVER,
    SOURCE,
    Spec,
    array,
    extension,
    items,
    ns,
    opening,
    publish,
    ticks,
    ua,
)


def test_numbers_fit_where_the_type_holds_them_exactly() -> None:
    def int64(value: int) -> bytes:
        return b"\x08" + struct.pack("<q", value)

    def double(value: float) -> bytes:
        return b"\x0b" + struct.pack("<d", value)

    assert one("int8", int64(-128)) == (-128, 0)
    assert one("int8", int64(-129)) == (None, MISTYPED)
    assert one("uint64", int64(-1)) == (None, MISTYPED)
    assert one("float64", int64(2**53)) == (float(2**53), 0)
    assert one("float64", int64(2**53 + 1)) == (None, MISTYPED)
    assert one("float64", int64(2**63 - 1)) == (None, MISTYPED)
    assert one("float64", b"\x09" + b"\xff" * 8) == (None, MISTYPED)
    assert one("float32", double(0.5)) == (0.5, 0)
    assert one("float32", double(0.1)) == (None, MISTYPED)
    assert math.isnan(one("float32", double(math.nan))[0])
    assert one("int32", double(1.0)) == (None, MISTYPED)
    assert one("int32", b"\x01\x01") == (None, MISTYPED)
    assert one("bool", b"\x03\x01") == (None, MISTYPED)
    assert one("bool", b"\x01\x07") == (True, 0)


def test_a_misfit_is_counted_once_and_says_nothing_under_a_bad_status() -> None:
    buffer, subscription = buffer_of("int32", "int32")
    values = [b"\x01\x0c" + text("x"), b"\x03\x0c" + text("x") + struct.pack("<I", SENSOR_FAILURE)]
    found = buffer.push_publish(subscription, publish(items(values)), RECEIVED_NS)
    assert buffer.latest() == [(0, RECEIVED_NS, None, MISTYPED), (1, RECEIVED_NS, None, SENSOR_FAILURE)]
    assert buffer.stats()["mistyped"] == 1
    assert (found.readings, found.grew) == (2, 2)


def test_text_that_is_not_utf_8() -> None:
    assert one("string", b"\x0c" + text(b"a\xff")) == (None, NOT_TEXT)
    assert one("string[]", b"\x8c" + array([text("a"), text(b"\xff")])) == (None, NOT_TEXT)
    assert one("string", b"\x11\x03\x01\x00" + text(b"\xff")) == (None, NOT_TEXT)
    assert one("string", b"\x14\x01\x00" + text(b"\xff")) == (None, NOT_TEXT)
    assert one("bytes", b"\x0f" + text(b"a\xff")) == (b"a\xff", 0)
    assert one("string", b"\x0c\xff\xff\xff\xff") == (None, 0)


def test_the_ends_of_time() -> None:
    def stamped(raw: int, picoseconds: int | None = None) -> int:
        mask, more = (0x05, b"") if picoseconds is None else (0x15, struct.pack("<H", picoseconds))
        body = publish(items([bytes([mask, 1, 1]) + struct.pack("<q", raw) + more]))
        return decoded(body, "bool")[0][1]

    for none in (0, -1, -(2**63), 1, 2**63 - 1):
        assert stamped(none, 77) == RECEIVED_NS
    assert stamped(116_444_736_000_000_000) == 0
    assert stamped(116_444_736_000_000_000 - 5) == -500
    assert stamped(ticks(SOURCE), 9999) == stamped(ticks(SOURCE), 65535) == ns(SOURCE) + 99

    def value(raw: int) -> Any:
        return one("int64", b"\x0d" + struct.pack("<q", raw))[0]

    assert (value(0), value(-1), value(2**63 - 1)) == (-(2**63), -(2**63), 2**63 - 1)
    assert value(ticks(SOURCE) + 3) == ns(SOURCE) + 300


def test_what_others_have_to_decode_comes_with_its_time_and_status() -> None:
    structure = ua.Variant(ua.Argument(Name="speed"), ua.VariantType.ExtensionObject)
    matrix = ua.Variant([[1.5, 2.5], [3.5, 4.5]], ua.VariantType.Double)
    nested = ua.Variant([ua.Variant(1.5), ua.Variant("x")], ua.VariantType.Variant, is_array=True)
    values = ua.Variant(ua.DataValue(ua.Variant(1.5)), ua.VariantType.DataValue)
    encoded = [variant_to_binary(each) for each in (structure, matrix, nested, values)]
    encoded += [b"\x19\x00", b"\x1a" + text(b"later")]
    tail = struct.pack("<IqHqH", LAST_USABLE, ticks(SOURCE), 1200, ticks(SERVER), 5)
    buffer, subscription = buffer_of(*["float64"] * len(encoded))
    found = buffer.push_publish(subscription, publish(items([b"\x3f" + each + tail for each in encoded])), RECEIVED_NS)
    assert found.undecoded == [(tag, ns(SOURCE) + 12, LAST_USABLE, each) for tag, each in enumerate(encoded)]
    assert (found.readings, found.grew, buffer.latest()) == (0, 0, [])
    again = [variant_from_binary(Stream(each)) for *_, each in found.undecoded[:4]]
    assert again[0].Value.Name == "speed"
    assert again[1].Value == [[1.5, 2.5], [3.5, 4.5]]


def test_an_overflow_names_its_tag() -> None:
    statuses = [0x480, 0x4090_0480, 0x080, 0x400, 0x880, 0xC80, 0x8000_0480]
    values = [b"\x03\x01\x01" + struct.pack("<I", status) for status in statuses]
    buffer, subscription = buffer_of(*["bool"] * len(values))
    found = buffer.push_publish(subscription, publish(items(values)), RECEIVED_NS)
    assert found.overflows == [0, 1, 2, 6]
    assert [row[3] for row in buffer.latest()] == statuses


def test_notifications_of_other_kinds() -> None:
    events, change = extension(916, array([])), extension(820, struct.pack("<IB", 0x800A_0000, 0))
    body = publish(items([b"\x01\x01\x01"]), events, change, more=True)
    buffer, subscription = buffer_of("bool")
    found = buffer.push_publish(subscription, body, RECEIVED_NS)
    assert (found.readings, found.others, found.status, found.more) == (1, [events], 0x800A_0000, True)
    assert publish_header(body).status == 0x800A_0000


def test_a_keep_alive_a_republish_and_a_fault() -> None:
    buffer, subscription = buffer_of("bool")
    alive = publish(sequence=6)
    assert publish_header(alive).keep_alive
    assert buffer.push_publish(subscription, alive, RECEIVED_NS).sequence == 6
    republished = opening(835) + struct.pack("<Iq", 3, 0) + array([items([b"\x01\x01\x01"])])
    header = publish_header(republished)
    assert (header.subscription_id, header.sequence, header.keep_alive, header.available) == (0, 3, False, [])
    assert header.publish_time_ns == 0
    assert buffer.push_publish(subscription, republished, RECEIVED_NS).grew == 1
    fault = opening(397, 0x8079_0000)
    assert publish_header(fault).service_result == 0x8079_0000
    assert not publish_header(fault).keep_alive
    calls: list[Callable[[], Published]] = [
        lambda: buffer.push_publish(subscription, fault, RECEIVED_NS),
        lambda: buffer.push_read([0], fault, RECEIVED_NS),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="the server answers with status 0x80790000"):
            call()


def test_handles() -> None:
    buffer = Buffer([Spec("bool"), Spec("bool")])
    pairs = [(4_000_000_000, 1), (7, 0)]
    far, near = buffer.opcua_subscription(pairs), buffer.opcua_subscription([(1, 0)])
    assert (buffer.opcua_subscription(pairs), buffer.opcua_subscription([(1, 0)])) == (far, near)
    handles = (4_000_000_000, 1, 7, 2**32 - 1)
    values = [struct.pack("<IBBB", handle, 1, 1, 1) for handle in handles]
    body = publish(extension(811, array(values) + array([])))
    found = buffer.push_publish(far, body, RECEIVED_NS)
    assert ([row[0] for row in buffer.latest()], found.grew, found.unknown_handles) == ([0, 1], 2, 2)
    found = buffer.push_publish(near, body, RECEIVED_NS)
    assert (found.readings, found.unknown_handles) == (1, 3)
    with pytest.raises(ValueError, match="a client handle that stands for two tags"):
        buffer.opcua_subscription([(1, 0), (1, 1)])
    with pytest.raises(IndexError, match="no tag 2"):
        buffer.opcua_subscription([(1, 2)])
    with pytest.raises(IndexError, match="no subscription 2"):
        buffer.push_publish(2, body, RECEIVED_NS)


def test_filters_and_the_bound_hold_as_for_every_push() -> None:
    buffer, subscription = buffer_of("float64", rule="on_change")
    body = publish(items([b"\x01\x0b" + struct.pack("<d", 1.5)]))
    found = [buffer.push_publish(subscription, body, RECEIVED_NS + at) for at in range(3)]
    assert [each.grew for each in found] == [1, 0, 0]
    assert [each.readings for each in found] == [1, 1, 1]
    full = Buffer([Spec("float64")], 40)
    full.opcua_subscription([(0, 0)])
    found = [full.push_publish(0, body, RECEIVED_NS + at) for at in range(4)]
    assert [(each.grew, each.refused) for each in found] == [(1, 0), (1, 0), (0, 1), (0, 1)]
    scaled = Buffer([Spec("int16", scale=0.5, offset=-1.0)])
    scaled.opcua_subscription([(0, 0)])
    scaled.push_publish(0, publish(items([b"\x01\x04\x07\x00"])), RECEIVED_NS)
    assert scaled.latest() == [(0, RECEIVED_NS, 2.5, 0)]
