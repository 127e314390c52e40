"""The golden vectors of the OPC UA decoder: response bodies that others encoded, and the readings in them.

`python -m tests.opcua_vectors` writes tests/opcua_vectors.json anew, with asyncua's and node-opcua's encoders. The
bytes of a vector may change with those; its readings never.
"""

from __future__ import annotations

import json
import math
import struct
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from asyncua import ua as typed
from asyncua.ua.ua_binary import struct_to_binary

from tests.peers.process import program
from tests.peers.servers import FLOAT32, NODE

FILE = Path(__file__).with_suffix(".json")
ua: Any = typed
"""asyncua's types for numbers, texts and times are only annotations: it takes Python's own."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TICKS_1970 = 116_444_736_000_000_000
SOURCE = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
SERVER = datetime(2026, 1, 2, 3, 4, 6, 789_000, tzinfo=UTC)
RECEIVED_NS = 1_767_400_000_123_456_789
SENSOR_FAILURE = 0x808C_0000
LAST_USABLE = 0x4090_0000

Row: TypeAlias = tuple[int, int, Any, int]
"""(tag, time_ns, value, quality)"""


@dataclass(frozen=True, slots=True)
class Spec:
    """What a buffer reads of a tag."""

    type: str
    scale: float | None = None
    offset: float | None = None
    low: float | None = None
    high: float | None = None
    filter: str = ""


class Vector(NamedTuple):
    """One body. Handle i is tag i, and every tag is of `type`."""

    name: str
    type: str
    body: bytes
    rows: list[Row]


def ns(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1) * 1000


SCALARS: dict[str, tuple[Any, str, Any]] = {
    "Boolean": (True, "bool", True),
    "SByte": (-128, "int8", -128),
    "Byte": (255, "uint8", 255),
    "Int16": (-(2**15), "int16", -(2**15)),
    "UInt16": (2**16 - 1, "uint16", 2**16 - 1),
    "Int32": (-(2**31), "int32", -(2**31)),
    "UInt32": (2**32 - 1, "uint32", 2**32 - 1),
    "Int64": (-(2**63), "int64", -(2**63)),
    "UInt64": (2**64 - 1, "uint64", 2**64 - 1),
    "Float": (FLOAT32, "float32", FLOAT32),
    "Double": (math.pi, "float64", math.pi),
    "String": ("press 7 · 压力机", "string", "press 7 · 压力机"),
    "DateTime": (SOURCE, "int64", ns(SOURCE)),
    "Guid": (uuid.UUID("72962B91-FA75-4AE6-8D28-B404DC7DAF63"), "string", "72962b91-fa75-4ae6-8d28-b404dc7daf63"),
    "ByteString": (b"\0\xff\x80", "bytes", b"\0\xff\x80"),
    "XmlElement": (ua.XmlElement("<a>ä</a>"), "string", "<a>ä</a>"),
    "NodeId": (ua.NodeId("Träger", 2), "string", "ns=2;s=Träger"),
    "StatusCode": (ua.StatusCode(ua.UInt32(SENSOR_FAILURE)), "uint32", SENSOR_FAILURE),
    "QualifiedName": (ua.QualifiedName("Träger", 2), "string", "2:Träger"),
    "LocalizedText": (ua.LocalizedText("läuft", "de"), "string", "läuft"),
}
"""Type -> (value for asyncua, type of the tag, value of the reading)."""

NODES: list[tuple[Any, str]] = [
    (ua.NodeId(85, 0, ua.NodeIdType.TwoByte), "i=85"),
    (ua.NodeId(65535, 255, ua.NodeIdType.FourByte), "ns=255;i=65535"),
    (ua.NodeId(2**32 - 1, 65535, ua.NodeIdType.Numeric), "ns=65535;i=4294967295"),
    (ua.NodeId("", 0, ua.NodeIdType.String), "s="),
    (ua.NodeId(SCALARS["Guid"][0], 1), "ns=1;g=72962b91-fa75-4ae6-8d28-b404dc7daf63"),
    (ua.NodeId(b"\0\xff\x80~", 3), "ns=3;b=AP+Afg=="),
    (ua.ExpandedNodeId("a;b", 0, ua.NodeIdType.String, "urn:x;y%z", 4), "svr=4;nsu=urn:x%3By%25z;s=a;b"),
    (ua.ExpandedNodeId(5, 2, ua.NodeIdType.Numeric, None, 1), "svr=1;ns=2;i=5"),
]
"""NodeIds of every form, as (NodeId, text)."""


def ticks(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1) * 10 + TICKS_1970


def array(of: Sequence[bytes]) -> bytes:
    return struct.pack("<i", len(of)) + b"".join(of)


def extension(type_id: int, body: bytes) -> bytes:
    """An ExtensionObject of OPC UA's own namespace."""
    return struct.pack("<BBHBi", 1, 0, type_id, 1, len(body)) + body


def items(values: Sequence[bytes], diagnostics: bytes = array([])) -> bytes:
    """A DataChangeNotification of encoded DataValues; handle i is of value i."""
    return extension(
        811, array([struct.pack("<I", handle) + value for handle, value in enumerate(values)]) + diagnostics
    )


def opening(type_id: int, result: int = 0) -> bytes:
    """A type id and a ResponseHeader."""
    return struct.pack("<BBHqIIBiBBB", 1, 0, type_id, ticks(SERVER), 9, result, 0, 0, 0, 0, 0)


def publish(*notifications: bytes, sequence: int = 5, more: bool = False) -> bytes:
    """A PublishResponse of encoded notifications."""
    message = struct.pack("<Iq", sequence, ticks(SERVER)) + array(notifications)
    around = struct.pack("<I", 7) + array([struct.pack("<I", 5)]) + struct.pack("<?", more)
    return opening(829) + around + message + array([bytes(4)]) + array([])


def read(values: Sequence[bytes]) -> bytes:
    """A ReadResponse of encoded DataValues."""
    return opening(634) + array(values) + array([])


def by_asyncua(*values: Any) -> bytes:
    """A PublishResponse that asyncua encodes."""
    notified = [ua.MonitoredItemNotification(handle, value) for handle, value in enumerate(values)]
    response = ua.PublishResponse()
    response.ResponseHeader.Timestamp = response.Parameters.NotificationMessage.PublishTime = SERVER
    response.Parameters.SubscriptionId = 7
    response.Parameters.AvailableSequenceNumbers = [4, 5]
    response.Parameters.MoreNotifications = True
    response.Parameters.Results = [ua.StatusCode(), ua.StatusCode(ua.UInt32(0x807A_0000))]
    response.Parameters.NotificationMessage.SequenceNumber = 5
    response.Parameters.NotificationMessage.NotificationData = [ua.DataChangeNotification(MonitoredItems=notified)]
    body: bytes = struct_to_binary(response)
    return body


def _scalars() -> Iterator[Vector]:
    for name, (given, kind, value) in SCALARS.items():
        one = ua.DataValue(ua.Variant(given, ua.VariantType[name]), SourceTimestamp=SOURCE)
        yield Vector(f"asyncua {name}", kind, by_asyncua(one), [(0, ns(SOURCE), value, 0)])
    found = [ua.DataValue(ua.Variant(node, ua.VariantType.NodeId), SourceTimestamp=SOURCE) for node, _ in NODES[:6]]
    found += [
        ua.DataValue(ua.Variant(node, ua.VariantType.ExpandedNodeId), SourceTimestamp=SOURCE) for node, _ in NODES[6:]
    ]
    rows: list[Row] = [(tag, ns(SOURCE), text, 0) for tag, (_, text) in enumerate(NODES)]
    yield Vector("asyncua NodeIds", "string", by_asyncua(*found), rows)


def _arrays() -> Iterator[Vector]:
    for name, (given, kind, value) in SCALARS.items():
        variants = [ua.Variant(each, ua.VariantType[name], is_array=True) for each in ([given, given], [], None)]
        values = [ua.DataValue(variant, SourceTimestamp=SOURCE) for variant in variants]
        rows: list[Row] = [(tag, ns(SOURCE), found, 0) for tag, found in enumerate(([value, value], [], None))]
        yield Vector(f"asyncua {name}[]", f"{kind}[]", by_asyncua(*values), rows)
    wide = ua.Variant([1.5, 2.5, 3.5], ua.VariantType.Double, Dimensions=[3])
    only = ua.DataValue(wide, SourceTimestamp=SOURCE)
    yield Vector("asyncua one dimension", "float64[]", by_asyncua(only), [(0, ns(SOURCE), [1.5, 2.5, 3.5], 0)])


def _masks() -> Vector:
    """Every mask of a DataValue, by the words of OPC 10000-6, 5.2.2.17; asyncua has the fields in another order."""
    values, rows = [], []
    for mask in range(64):
        parts = [
            b"\x0b" + struct.pack("<d", mask),
            struct.pack("<I", LAST_USABLE),
            struct.pack("<q", ticks(SOURCE) + 3),
            struct.pack("<H", 1234),
            struct.pack("<q", ticks(SERVER) + 7),
            struct.pack("<H", 5678),
        ]
        bits = (0x01, 0x02, 0x04, 0x10, 0x08, 0x20)
        values.append(bytes([mask]) + b"".join(part for part, bit in zip(parts, bits, strict=True) if mask & bit))
        source = ns(SOURCE) + 300 + (12 if mask & 0x10 else 0)
        server = ns(SERVER) + 700 + (56 if mask & 0x20 else 0)
        time_ns = source if mask & 0x04 else server if mask & 0x08 else RECEIVED_NS
        rows.append((mask, time_ns, float(mask) if mask & 1 else None, LAST_USABLE if mask & 2 else 0))
    return Vector("every mask", "float64", publish(items(values)), rows)


def _by_node() -> Iterator[Vector]:
    ran = subprocess.run(
        [program("node"), str(NODE / "opcua_vectors.js")], check=True, capture_output=True, text=True, timeout=60
    )
    bodies = {name: bytes.fromhex(body) for name, body in json.loads(ran.stdout.splitlines()[0]).items()}
    for name, (_, kind, value) in SCALARS.items():
        yield Vector(f"node-opcua {name}", kind, bodies[name], [(0, ns(SOURCE), value, 0)])
        yield Vector(f"node-opcua {name}[]", f"{kind}[]", bodies[f"{name}[]"], [(0, ns(SOURCE), [value, value], 0)])
    rows: list[Row] = [
        (0, RECEIVED_NS, 1.5, 0),
        (1, ns(SERVER) + 12, 1.5, 0),
        (2, ns(SOURCE) + 12, 1.5, 0),
        (3, ns(SOURCE) + 12, 1.5, LAST_USABLE),
    ]
    yield Vector("node-opcua stamps", "float64", bodies["stamps"], rows)


def made() -> list[Vector]:
    """Every vector, encoded now."""
    return [*_scalars(), *_arrays(), _masks(), *_by_node()]


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _value(plain: Any) -> Any:
    if isinstance(plain, dict):
        return bytes.fromhex(plain["hex"])
    return [_value(each) for each in plain] if isinstance(plain, list) else plain


def load() -> list[Vector]:
    """Every vector, as it was written down."""
    found = []
    for name, kind, body, rows in json.loads(FILE.read_text()):
        held = [(tag, time_ns, _value(value), quality) for tag, time_ns, value, quality in rows]
        found.append(Vector(name, kind, bytes.fromhex(body), held))
    return found


def main() -> None:
    """Writes the file."""
    lines = [
        json.dumps([each.name, each.type, each.body.hex(), _plain(each.rows)], ensure_ascii=False) for each in made()
    ]
    FILE.write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()
