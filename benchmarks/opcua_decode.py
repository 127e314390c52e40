"""What a value in an OPC UA notification costs: decoded, tagged and kept in the core, and decoded alone by asyncua.

The bodies are PublishResponses of 500 values with a source time each, of a hundred tags, as asyncua encodes them. A
stock subscription does more after that decoding (a task for each value), so the ratio is to the least it could cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any

from asyncua import ua as typed
from asyncua.common.utils import Buffer as Stream
from asyncua.ua.ua_binary import struct_from_binary, struct_to_binary

from agent._native import Buffer, publish_header
from agent.model import Tag, ValueType
from benchmarks.result import Result, less, seconds

ua: Any = typed
VALUES = 500
TAGS = 100
BODIES = 20
"""Pushed before each seal: 10,000 values, as one second of a fast server."""
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)

KINDS: dict[str, tuple[ValueType, Callable[[int], Any]]] = {
    "Double": (ValueType.FLOAT64, lambda at: at * 0.25),
    "Float": (ValueType.FLOAT32, lambda at: at * 0.25),
    "Int32": (ValueType.INT32, lambda at: at * 7),
    "Boolean": (ValueType.BOOL, lambda at: at % 3 == 0),
    "String": (ValueType.STRING, lambda at: f"batch {at}"),
}


def results() -> Iterator[Result]:
    for name in KINDS:
        yield from _values(name)
    body = _body("Double")
    yield from less(
        f"publish_header of {VALUES} values",
        seconds(lambda: publish_header(body)) * 1e9,
        "ns/response",
        **{"asyncua decoding the response": seconds(lambda: _asyncua(body)) * 1e9},
    )


def _values(name: str) -> list[Result]:
    body = _body(name)
    return less(
        f"push_publish, {VALUES} {name} a response",
        _push_seconds(name, body) * 1e9 / (VALUES * BODIES),
        "ns/value",
        **{"asyncua's struct_from_binary of the same body": seconds(lambda: _asyncua(body)) * 1e9 / VALUES},
    )


def _asyncua(body: bytes) -> object:
    return struct_from_binary(ua.PublishResponse, Stream(body))


def _body(name: str) -> bytes:
    """One response: each tag has five values, 200 ms apart."""
    _, value = KINDS[name]
    items = [
        ua.MonitoredItemNotification(
            at % TAGS,
            ua.DataValue(
                ua.Variant(value(at), ua.VariantType[name]),
                SourceTimestamp=BEGIN + timedelta(milliseconds=200 * (at // TAGS), microseconds=at % TAGS),
            ),
        )
        for at in range(VALUES)
    ]
    response = ua.PublishResponse()
    response.Parameters.NotificationMessage.NotificationData = [ua.DataChangeNotification(MonitoredItems=items)]
    body: bytes = struct_to_binary(response)
    return body


def _push_seconds(name: str, body: bytes, turns: int = 60) -> float:
    """The best of some turns of pushing all bodies; the seal that empties the buffer is not counted."""
    kind, _ = KINDS[name]
    buffer = Buffer([Tag(at, "d", f"tag_{at}", f"nsu=urn:x;i={at}", kind, f"id/{at}") for at in range(TAGS)])
    subscription, best = buffer.opcua_subscription([(at, at) for at in range(TAGS)]), float("inf")
    for _ in range(turns):
        start = perf_counter()
        for _ in range(BODIES):
            buffer.push_publish(subscription, body, 0)
        best = min(best, perf_counter() - start)
        buffer.seal()
    return best
