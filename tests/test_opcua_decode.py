"""OPC UA responses in the core: others' encoders as golden vectors, asyncua's decoder as reference, hostile bodies."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import struct
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asyncua.client.client import Client
from asyncua.common.utils import Buffer as Stream
from asyncua.ua.ua_binary import struct_from_binary, variant_from_binary, variant_to_binary

from agent._native import Buffer, Published, decode, publish_header
from agent.model import StatusCode
from tests.opcua_vectors import (
    LAST_USABLE,
    RECEIVED_NS,
    SENSOR_FAILURE,
    SERVER,
    SOURCE,
    Row,
    Spec,
    Vector,
    array,
    by_asyncua,
    extension,
    items,
    load,
    made,
    ns,
    opening,
    publish,
    read,
    ticks,
    ua,
)
from tests.peers.servers import OPCUA_BAD_STATUS, OPCUA_NAMESPACE, OPCUA_VALUES, NodeOpcUaServer

VECTORS = load()
MISTYPED = int(StatusCode.BAD_TYPE_MISMATCH)
NOT_TEXT = int(StatusCode.BAD_DECODING_ERROR)
MISFIT: Any = object()
KINDS = ["bool", "float32", "float64", "string", "bytes"]
KINDS += [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]


def buffer_of(*kinds: str, rule: str = "") -> tuple[Buffer, int]:
    """A buffer with a tag of each type, and a subscription whose handle i is tag i."""
    buffer = Buffer([Spec(kind, filter=rule) for kind in kinds])
    return buffer, buffer.opcua_subscription([(tag, tag) for tag in range(len(kinds))])


def decoded(body: bytes, *kinds: str) -> list[Row]:
    """The last reading of each tag."""
    buffer, subscription = buffer_of(*kinds)
    buffer.push_publish(subscription, body, RECEIVED_NS)
    return buffer.latest()


def one(kind: str, variant: bytes, status: int | None = None) -> tuple[Any, int]:
    """What an encoded Variant is for a tag: its value and quality."""
    head, tail = (b"\x01", b"") if status is None else (b"\x03", struct.pack("<I", status))
    ((_, time_ns, value, quality),) = decoded(publish(items([head + variant + tail])), kind)
    assert time_ns == RECEIVED_NS
    return value, quality


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<i", len(raw)) + raw


def refused(body: bytes, *kinds: str) -> str:
    """Why a body is refused. Nothing of it is kept."""
    buffer, subscription = buffer_of(*(kinds or ["float64"] * 70))
    before = buffer.stats()
    with pytest.raises(ValueError, match=r"not a readable response: .* at byte \d+$") as found:
        buffer.push_publish(subscription, body, RECEIVED_NS)
    assert buffer.latest() == []
    assert buffer.stats() == before
    return str(found.value)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_golden_vectors(vector: Vector) -> None:
    buffer, subscription = buffer_of(*[vector.type] * len(vector.rows))
    found = buffer.push_publish(subscription, vector.body, RECEIVED_NS)
    assert buffer.latest() == vector.rows
    assert (found.readings, found.grew, found.sequence) == (len(vector.rows), len(vector.rows), 5)
    assert (found.undecoded, found.others, found.unknown_handles, found.refused) == ([], [], 0, 0)
    header = publish_header(vector.body)
    assert (header.service_result, header.subscription_id, header.sequence) == (0, 7, 5)
    assert (header.publish_time_ns, header.keep_alive, header.status) == (ns(SERVER), False, None)
    assert header.more == found.more


def test_the_vectors_are_what_the_encoders_give_today() -> None:
    assert [each[::3] for each in made()] == [each[::3] for each in VECTORS], "run python -m tests.opcua_vectors"


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


# What asyncua reads of a body is the reference. Known to differ, and so left out or allowed for: asyncua expects the
# server's time before the source's picoseconds; its times are cut to us; it takes text that is not UTF-8.


def _random_value(source: random.Random, kind: Any) -> Any:
    bits = {"SByte": -8, "Byte": 8, "Int16": -16, "UInt16": 16, "Int32": -32, "UInt32": 32, "Int64": -64, "UInt64": 64}
    name = kind.name
    word = "".join(source.choices("aü压 7;:", k=source.randrange(6)))
    if name in bits:
        width = abs(bits[name])
        low, high = (-(2 ** (width - 1)), 2 ** (width - 1) - 1) if bits[name] < 0 else (0, 2**width - 1)
        return source.choice([low, high, 0, 1, source.randint(low, high), source.randint(0, 127)])
    choices: dict[str, Callable[[], Any]] = {
        "Boolean": lambda: source.random() < 0.5,
        "Float": lambda: struct.unpack("<f", source.randbytes(4))[0],
        "Double": lambda: source.choice([1.5, 0.1, math.inf, struct.unpack("<d", source.randbytes(8))[0]]),
        "String": lambda: source.choice([word, word, None]),
        "DateTime": lambda: datetime(1980, 1, 1, tzinfo=UTC) + timedelta(microseconds=source.randrange(2**60 // 1000)),
        "Guid": lambda: uuid.UUID(bytes=source.randbytes(16)),
        "ByteString": lambda: source.choice([source.randbytes(source.randrange(5)), None]),
        "XmlElement": lambda: ua.XmlElement(word),
        "NodeId": lambda: source.choice(
            [ua.NodeId(word, source.randrange(9)), ua.NodeId(source.randrange(2**32), source.randrange(2**16))]
        ),
        "StatusCode": lambda: ua.StatusCode(ua.UInt32(source.randrange(2**32))),
        "QualifiedName": lambda: ua.QualifiedName(word, source.randrange(3)),
        "LocalizedText": lambda: ua.LocalizedText(source.choice([word, None]), source.choice(["de", None])),
    }
    return choices[name]()


def _random_data_value(source: random.Random) -> Any:
    kind = ua.VariantType(source.choice([*range(1, 18), *range(19, 22)]))
    if source.random() < 0.3:
        several = [_random_value(source, kind) for _ in range(source.randrange(4))]
        variant = ua.Variant(several, kind, is_array=True)
    else:
        variant = ua.Variant(_random_value(source, kind), kind)
    value = ua.DataValue(variant if source.random() < 0.95 else None)
    moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=source.randrange(10**12))
    value.StatusCode = source.choice([None, ua.StatusCode(ua.UInt32(source.choice([LAST_USABLE, SENSOR_FAILURE])))])
    value.SourceTimestamp = source.choice([None, moment])
    value.ServerTimestamp = source.choice([None, moment + timedelta(seconds=1)])
    if value.ServerTimestamp is None:
        value.SourcePicoseconds = source.choice([None, ua.UInt16(source.randrange(2**16))])
    value.ServerPicoseconds = source.choice([None, ua.UInt16(source.randrange(2**16))])
    return value


FORMS: dict[str, Callable[[Any], str | None]] = {
    "String": lambda value: value,
    "XmlElement": lambda value: value.Value,
    "LocalizedText": lambda value: value.Text,
    "Guid": str,
    "NodeId": lambda value: value.to_string(),
    "QualifiedName": lambda value: f"{value.NamespaceIndex}:{value.Name}" if value.NamespaceIndex else value.Name,
}
"""The text forms of the types that have one."""


def _element(kind: str, variant: Any, value: Any) -> Any:
    """What a value that asyncua decoded is for a tag of a scalar type; MISFIT where it does not fit."""
    name, numbers = variant.name, kind not in ("string", "bytes", "bool")
    if kind == "string":
        return FORMS[name](value) if name in FORMS else MISFIT
    if name in ("ByteString", "Boolean") or not numbers:
        return value if (kind, name) in (("bytes", "ByteString"), ("bool", "Boolean")) else MISFIT
    if name == "DateTime":
        return ns(value) if kind == "int64" else MISFIT
    return _number(kind, value.value if name == "StatusCode" else value)


def _number(kind: str, value: Any) -> Any:
    if not isinstance(value, int | float):
        return MISFIT
    if kind.startswith("float"):
        form = "<f" if kind == "float32" else "<d"
        try:
            (same,) = struct.unpack(form, struct.pack(form, value))
        except OverflowError:
            return MISFIT
        return same if same == value or math.isnan(same) else MISFIT
    bits = int(kind.strip("uint"))
    low, high = (0, 2**bits - 1) if kind.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return value if isinstance(value, int) and low <= value <= high else MISFIT


def _reference(kind: str, given: Any) -> tuple[int, Any, int]:
    quality = given.StatusCode.value if given.StatusCode is not None else 0
    time_ns = RECEIVED_NS // 1000 * 1000
    if given.SourceTimestamp is not None:
        time_ns = ns(given.SourceTimestamp)
    elif given.ServerTimestamp is not None:
        time_ns = ns(given.ServerTimestamp)
    variant = given.Value
    if variant is None or variant.VariantType is ua.VariantType.Null:
        return time_ns, None, quality
    if kind.endswith("[]") != variant.is_array:
        value: Any = MISFIT
    elif variant.is_array:
        element, empty = kind[:-2], b"" if kind == "bytes[]" else ""
        value = [_element(element, variant.VariantType, each) for each in variant.Value]
        value = MISFIT if MISFIT in value else [empty if each is None else each for each in value]
    else:
        value = _element(kind, variant.VariantType, variant.Value)
    if value is MISFIT:
        return time_ns, None, quality if quality >> 31 else MISTYPED
    return time_ns, value, quality


def test_random_notifications_as_asyncua_reads_them() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    source = random.Random(seed)
    kinds = [*KINDS, *(f"{kind}[]" for kind in KINDS)]
    seen: set[bool] = set()
    for _ in range(150):
        tags = [source.choice(kinds) for _ in range(40)]
        body = by_asyncua(*(_random_data_value(source) for _ in tags))
        message = struct_from_binary(ua.PublishResponse, Stream(body)).Parameters.NotificationMessage
        (notified,) = message.NotificationData
        found = decoded(body, *tags)
        for kind, item, (tag, time_ns, value, quality) in zip(tags, notified.MonitoredItems, found, strict=True):
            expected = _reference(kind, item.Value)
            assert (tag, repr((time_ns // 1000 * 1000, value, quality))) == (item.ClientHandle, repr(expected)), item
            seen.add(quality == MISTYPED)
    assert seen == {True, False}


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
    assert found.overflows == [0, 1, 6]
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
    start = time.perf_counter()
    assert why in refused(publish(items([fine, value])))
    assert why in refused(publish(items([fine]), items([value])))
    buffer, _ = buffer_of("float64", "float64")
    with pytest.raises(ValueError, match=why):
        buffer.push_read([0, 1], read([fine, value]), RECEIVED_NS)
    assert buffer.latest() == []
    assert time.perf_counter() - start < 1


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
    for _ in range(20_000):
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


def test_each_value_of_a_large_body_goes_to_its_tag() -> None:
    values = [b"\x05\x0b" + struct.pack("<dq", at, ticks(SOURCE) + at) for at in range(500)]
    rows = decoded(publish(items(values)), *["float64"] * 500)
    assert rows == [(at, ns(SOURCE) + 100 * at, float(at), 0) for at in range(500)]


async def test_what_node_opcua_publishes_and_answers(node_opcua_server: NodeOpcUaServer) -> None:
    """A live server's bodies: the values that it says it has, and each with the times that asyncua reads."""
    kinds = [*(kind for kind, _ in OPCUA_VALUES.values()), "float64", "int32"]
    buffer, _ = buffer_of(*kinds)
    bodies: list[bytes] = []
    stamps: list[tuple[int, int]] = []
    async with asyncio.timeout(30), Client(node_opcua_server.url) as client:
        space = await client.get_namespace_index(OPCUA_NAMESPACE)
        nodes = [client.get_node(f"ns={space};s={name}") for name in (*OPCUA_VALUES, "Bad", "Counter")]
        session: Any = client.uaclient.session
        send = session._send_request

        async def recording(request: Any, *rest: Any, **more: Any) -> Any:
            answer = await send(request, *rest, **more)
            if isinstance(request, ua.PublishRequest | ua.ReadRequest):
                stream = answer.copy()
                bodies.append(stream.read(len(stream)))
            return answer

        session._send_request = recording
        answered = await client.read_attributes(nodes)
        found = buffer.push_read(range(len(nodes)), bodies.pop(), RECEIVED_NS)
        rows = buffer.latest()
        assert (found.grew, found.undecoded) == (len(nodes), [])
        assert [row[2] for row in rows[:-2]] == [value for _, value in OPCUA_VALUES.values()]
        assert rows[-2][2:] == (None, OPCUA_BAD_STATUS)
        assert [row[1] // 1000 * 1000 for row in rows] == [ns(each.SourceTimestamp) for each in answered]

        class Handler:
            def datachange_notification(self, node: Any, value: Any, whole: Any) -> None:
                stamps.append((nodes.index(node), ns(whole.monitored_item.Value.SourceTimestamp)))

        watched = await client.create_subscription(100, Handler())
        handles = await watched.subscribe_data_change(nodes)
        items_of = watched._monitored_items.items()
        pairs = [(handle, handles.index(item.server_handle)) for handle, item in items_of]
        own = buffer.opcua_subscription(pairs)
        while sum(tag == len(nodes) - 1 for tag, _ in stamps) < 5:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        buffer.seal()
        for body in bodies[:]:
            if not publish_header(body).keep_alive:
                assert buffer.push_publish(own, body, RECEIVED_NS).unknown_handles == 0
    block = buffer.seal()
    assert block is not None
    pushed = decode(block.data).rows()
    assert {(tag, time_ns // 1000 * 1000) for tag, time_ns, _, _ in pushed} >= set(stamps)
    counted: list[tuple[Any, int]] = [(value, time_ns) for tag, time_ns, value, _ in pushed if tag == len(nodes) - 1]
    assert [value for value, _ in counted] == list(range(counted[0][0], counted[0][0] + len(counted)))
    assert {later[1] - before[1] for before, later in itertools.pairwise(counted)} == {100_000_000}
