"""Sparkplug B payloads, as small as the protocol lets them be.

Field numbers are those of `sparkplug_b.proto` of Eclipse Tahu. A metric has its alias, its time in ms and its value;
the name and the data type were sent at birth. Good qualities are left out, as the specification allows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from agent.model import Reading, Tag, ValueType

PAYLOAD_TIMESTAMP, PAYLOAD_METRIC, PAYLOAD_SEQ = 1, 2, 3
ALIAS, TIMESTAMP, IS_NULL = 2, 3, 7
INT, LONG, FLOAT, DOUBLE, BOOLEAN, STRING = 10, 11, 12, 13, 14, 15
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MILLISECOND = 1_000_000

_SHORT = {ValueType.INT8, ValueType.INT16, ValueType.INT32, ValueType.UINT8, ValueType.UINT16, ValueType.UINT32}
_LONG = {ValueType.INT64, ValueType.UINT64}


def payload(tags: list[Tag], rows: Iterable[Reading], seq: int, sent_ns: int) -> bytes:
    """One DDATA payload with a metric for every reading; `seq` goes from 0 to 255 and round."""
    out = bytearray(_integer(PAYLOAD_TIMESTAMP, sent_ns // MILLISECOND))
    for tag, time_ns, value, _ in rows:
        metric = _integer(ALIAS, tag) + _integer(TIMESTAMP, time_ns // MILLISECOND) + _value(tags[tag].type, value)
        out += _key(PAYLOAD_METRIC, BYTES) + varint(len(metric)) + metric
    return bytes(out + _integer(PAYLOAD_SEQ, seq % 256))


def varint(number: int) -> bytes:
    """Seven bits a byte, the least first; the top bit says that more follow."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _value(kind: ValueType, value: object) -> bytes:
    match value:
        case None:
            metric = _integer(IS_NULL, 1)
        case bool():
            metric = _integer(BOOLEAN, value)
        case float() if kind == ValueType.FLOAT32:
            metric = _key(FLOAT, FIXED32) + struct.pack("<f", value)
        case float():
            metric = _key(DOUBLE, FIXED64) + struct.pack("<d", value)
        case int() if kind in _SHORT:
            metric = _integer(INT, value & 0xFFFF_FFFF)
        case int() if kind in _LONG:
            metric = _integer(LONG, value & 0xFFFF_FFFF_FFFF_FFFF)
        case str():
            text = value.encode()
            metric = _key(STRING, BYTES) + varint(len(text)) + text
        case _:
            raise TypeError(f"a metric can't hold {value!r} of a tag of type {kind}")
    return metric


def _integer(field: int, number: int) -> bytes:
    return _key(field, VARINT) + varint(number)


def _key(field: int, wire: int) -> bytes:
    return varint(field << 3 | wire)
