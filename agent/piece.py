"""Pieces: how a block passes a broker that takes no message of its size.

The data center puts a block together from its pieces, which stay in memory until the last one is there: what is lost on
the way is sent again whole, because no receipt comes for it. A piece is

    magic "HDRP" | u8 1 | stream, 16 bytes | sequence u64 | number u16 | of how many u16 | bytes of the block u32
    | CRC-32C of the block u32 | the bytes of this piece

All numbers are little-endian. Pieces but the last are of one size. They go over the topic of the blocks.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from dataclasses import dataclass, field
from uuid import UUID

from agent import _native
from agent.errors import Rejected
from agent.wire import MAX_MESSAGE

MAGIC = b"HDRP"
MOST = 4096
"""Pieces of one block."""
_HEAD = struct.Struct("<4sB16sQHHII")
HEAD_BYTES = _HEAD.size


def split(body: bytes, stream: UUID, sequence: int, room: int) -> list[bytes]:
    """The pieces of a block, none longer than `room` bytes. Raises Rejected where that would take too many."""
    size = room - HEAD_BYTES
    count = -(-len(body) // size) if size > 0 else MOST + 1
    if count > MOST:
        raise Rejected(f"a block of {len(body)} bytes does not fit into {MOST} messages of {room} bytes")
    crc = _native.crc32c(body)
    return [
        _HEAD.pack(MAGIC, 1, stream.bytes, sequence, number, count, len(body), crc)
        + body[number * size : (number + 1) * size]
        for number in range(count)
    ]


@dataclass(slots=True)
class _Partial:
    size: int
    parts: dict[int, bytes] = field(default_factory=dict)


class Assembly:
    """Puts blocks together. Bounded in bytes: what has waited longest makes room, and is sent again one day."""

    def __init__(self, max_bytes: int = 4 * MAX_MESSAGE) -> None:
        self.held_bytes = 0
        self.dropped = 0
        """Blocks that were let go before they were whole."""
        self._max_bytes = max_bytes
        self._partial: OrderedDict[tuple[str, bytes, int, int, int, int], _Partial] = OrderedDict()

    def add(self, agent: str, message: bytes) -> bytes | None:
        """Takes one piece. Returns the block that it completes. Raises ValueError for what is no piece."""
        if len(message) <= HEAD_BYTES:
            raise ValueError(f"a piece of {len(message)} bytes")
        _, version, stream, sequence, number, count, total, crc = _HEAD.unpack_from(message)
        part = message[HEAD_BYTES:]
        if version != 1 or not number < count <= MOST or not len(part) <= total <= MAX_MESSAGE:
            raise ValueError(f"piece {number} of {count}, version {version}, of a block of {total} bytes")
        key = (agent, stream, sequence, count, total, crc)
        partial = self._partial.setdefault(key, _Partial(total))
        self._partial.move_to_end(key)
        self.held_bytes += len(part) - len(partial.parts.get(number, b""))
        partial.parts[number] = part
        if len(partial.parts) == count:
            self._forget(key)
            body = b"".join(partial.parts[at] for at in range(count))
            if len(body) != total or _native.crc32c(body) != crc:
                raise ValueError(f"the pieces of block {sequence} do not make it")
            return body
        while self.held_bytes > self._max_bytes:
            self._forget(next(iter(self._partial)))
            self.dropped += 1
        return None

    def _forget(self, key: tuple[str, bytes, int, int, int, int]) -> None:
        self.held_bytes -= sum(map(len, self._partial.pop(key).parts.values()))
