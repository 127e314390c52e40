"""OPC UA responses in the core: others' encoders as golden vectors, asyncua's decoder as reference, a live server."""

from __future__ import annotations

import asyncio
import base64
import math
import random
import struct
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asyncua.client.client import Client
from asyncua.common.utils import Buffer as Stream
from asyncua.ua.ua_binary import struct_from_binary

from agent._native import decode, publish_header
from tests.opcua_rig import MISTYPED, buffer_of, decoded
from tests.opcua_vectors import (
    LAST_USABLE,
    RECEIVED_NS,
    SENSOR_FAILURE,
    SERVER,
    SOURCE,
    Vector,
    by_asyncua,
    items,
    load,
    made,
    ns,
    publish,
    read,
    ticks,
    ua,
)
from tests.peers.servers import OPCUA_BAD_STATUS, OPCUA_NAMESPACE, OPCUA_VALUES, NodeOpcUaServer

VECTORS = load()
MISFIT: Any = object()
KINDS = ["bool", "float32", "float64", "string", "bytes"]
KINDS += [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]


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


def test_each_value_of_a_large_body_goes_to_its_tag() -> None:
    values = [b"\x05\x0b" + struct.pack("<dq", at, ticks(SOURCE) + at) for at in range(500)]
    rows = decoded(publish(items(values)), *["float64"] * 500)
    assert rows == [(at, ns(SOURCE) + 100 * at, float(at), 0) for at in range(500)]


def test_what_a_read_gives_has_the_time_of_the_read() -> None:
    """Some servers send source times unasked: a value that rests would come again and again with the same time."""
    value = b"\x0d\x0b" + struct.pack("<dqq", 1.5, ticks(SOURCE), ticks(SERVER))
    buffer, _ = buffer_of("float64")
    buffer.push_read([0], read([value]), RECEIVED_NS)
    assert buffer.latest() == [(0, ns(SERVER), 1.5, 0)]


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
    for _ in range(60):
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


def _plain(value: Any) -> Any:
    """As JSON has it: bytes in base64."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


async def test_what_node_opcua_publishes_and_answers(node_opcua_server: NodeOpcUaServer) -> None:
    """A live server's bodies: the values that it says it has, and each with the times that asyncua reads."""
    kinds = [*(kind for kind, _ in OPCUA_VALUES.values()), "float64", "int32"]
    buffer, _ = buffer_of(*kinds)
    bodies: list[bytes] = []
    reads: list[bytes] = []
    stamps: list[tuple[int, int]] = []
    async with (
        asyncio.timeout(45),
        Client(node_opcua_server.url, timeout=30, watchdog_intervall=30) as client,
    ):
        space = await client.get_namespace_index(OPCUA_NAMESPACE)
        nodes = [client.get_node(f"ns={space};s={name}") for name in (*OPCUA_VALUES, "Bad", "Counter")]
        session: Any = client.uaclient.session
        send = session._send_request

        async def recording(request: Any, *rest: Any, **more: Any) -> Any:
            answer = await send(request, *rest, **more)
            stream = answer.copy()
            if isinstance(request, ua.PublishRequest):
                bodies.append(stream.read(len(stream)))
            # asyncua's watchdog reads as well.
            if isinstance(request, ua.ReadRequest) and len(request.Parameters.NodesToRead) == len(nodes):
                reads.append(stream.read(len(stream)))
            return answer

        session._send_request = recording
        answered = await client.read_attributes(nodes)
        found = buffer.push_read(range(len(nodes)), reads.pop(), RECEIVED_NS)
        rows = buffer.latest()
        assert (found.grew, found.undecoded) == (len(nodes), [])
        assert [_plain(row[2]) for row in rows[:-2]] == [value for _, value in OPCUA_VALUES.values()]
        assert rows[-2][2:] == (None, OPCUA_BAD_STATUS)
        assert {each.ServerTimestamp for each in answered} == {None}  # a source's time may be long past
        assert {row[1] for row in rows} == {RECEIVED_NS}

        class Handler:
            def datachange_notification(self, node: Any, value: Any, whole: Any) -> None:
                stamps.append((nodes.index(node), ns(whole.monitored_item.Value.SourceTimestamp)))

        watched = await client.create_subscription(100, Handler())
        handles: list[Any] = await watched.subscribe_data_change(nodes, queuesize=1000)
        items_of = watched._monitored_items.items()
        pairs = [(handle, handles.index(item.server_handle)) for handle, item in items_of]
        own = buffer.opcua_subscription(pairs)
        while sum(tag == len(nodes) - 1 for tag, _ in stamps) < 5:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        shown = set(stamps)  # what comes while the client says goodbye is not among the bodies below
        buffer.seal()
        for body in bodies[:]:
            if not publish_header(body).keep_alive:
                assert buffer.push_publish(own, body, RECEIVED_NS).unknown_handles == 0
    block = buffer.seal()
    assert block is not None
    pushed = decode(block.data).rows()
    assert {(tag, time_ns // 1000 * 1000) for tag, time_ns, _, _ in pushed} >= shown
    # A counter's change n is 100 ms after the one before, whichever of them the server happened to sample.
    counter: list[tuple[int, Any]] = [(time_ns, value) for tag, time_ns, value, _ in pushed if tag == len(nodes) - 1]
    assert len({time_ns - value * 100_000_000 for time_ns, value in counter}) == 1
