"""Buffers that decode OPC UA bodies, for the tests of the decoder."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from agent._native import Buffer
from agent.model import StatusCode
from tests.opcua_vectors import RECEIVED_NS, Row, Spec, items, publish

MISTYPED = int(StatusCode.BAD_TYPE_MISMATCH)
NOT_TEXT = int(StatusCode.BAD_DECODING_ERROR)


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
