"""An exported file: blocks one after another, each behind its length, so that one damaged block costs only itself.

```
magic      b"HDRX\\x01"
per item   u32 length, little-endian | a block (docs/block-format.md), a catalog, or the end mark
```

A block begins with "HDRC"; an item that begins with "{" is JSON: the catalog of an epoch, before the blocks, or the end
mark behind everything, `{"format": "headrace-export/1", "agent", "blocks", "catalogs"}`. A file without an end mark was
cut short, or written before there was one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import orjson

from agent.errors import HeadraceError

MAGIC = b"HDRX\x01"
"""The first bytes of an exported file; the last of them is its version."""

MAX_BLOCK = (256 << 20) + 4096
"""Bytes: the most of a block's body, and more than its header and checksum can take."""

FORMAT = "headrace-export/1"
_LENGTH = struct.Struct("<I")
_STEP = 1 << 20


class ExportError(HeadraceError):
    """The bytes are not an exported file, or from here on can't be told apart into blocks."""


@dataclass(frozen=True, slots=True)
class End:
    """The end mark: whose outbox it was, and how much the file holds before it."""

    agent: str
    blocks: int
    catalogs: int

    def encode(self) -> bytes:
        return orjson.dumps({"format": FORMAT, "agent": self.agent, "blocks": self.blocks, "catalogs": self.catalogs})

    @staticmethod
    def is_one(item: bytes) -> bool:
        return item.startswith(b'{"format":"' + FORMAT.encode() + b'"')

    @classmethod
    def decode(cls, item: bytes) -> End:
        """Raises ExportError."""
        try:
            found = orjson.loads(item)
            return cls(str(found["agent"]), int(found["blocks"]), int(found["catalogs"]))
        except (ValueError, KeyError, TypeError) as reason:
            raise ExportError(f"the end mark is damaged: {reason}") from reason


def write(file: BinaryIO, blocks: Iterable[bytes]) -> int:
    """Writes an exported file to a file open for writing; returns how many blocks. Raises ExportError, OSError."""
    file.write(MAGIC)
    count = 0
    for count, block in enumerate(blocks, 1):
        if not 0 < len(block) <= MAX_BLOCK:
            raise ExportError(f"block {count} has {len(block)} bytes; a block has 1 to {MAX_BLOCK}")
        file.write(_LENGTH.pack(len(block)))
        file.write(block)
    return count


def read(file: BinaryIO) -> Iterator[bytes]:
    """The blocks of an exported file, unverified, one in memory at a time. Raises ExportError, OSError."""
    yield from (item for item in items(file) if not item.startswith(b"{"))


def items(file: BinaryIO) -> Iterator[bytes]:
    """As `read`, with catalogs and the end mark."""
    magic = take(file, len(MAGIC))
    if magic != MAGIC:
        raise ExportError(f"not an exported file: it begins with {magic.hex(' ') or 'nothing'}")
    yield from _items(file)


def read_blocks(file: BinaryIO) -> Iterator[bytes]:
    """As `read`, from behind the magic."""
    yield from (item for item in _items(file) if not item.startswith(b"{"))


def _items(file: BinaryIO) -> Iterator[bytes]:
    count = 1
    while head := take(file, _LENGTH.size):
        if len(head) < _LENGTH.size:
            raise ExportError(f"cut short in the length of block {count}")
        (length,) = _LENGTH.unpack(head)
        if not 0 < length <= MAX_BLOCK:
            raise ExportError(f"block {count} can't have {length} bytes: its length is damaged, the rest is unreadable")
        block = take(file, length)
        if len(block) < length:
            raise ExportError(f"cut short: block {count} has {len(block)} of its {length} bytes")
        yield block
        count += 1


def take(file: BinaryIO, count: int) -> bytes:
    """The next `count` bytes, fewer only at the end; a length that lies costs no memory that the file does not fill."""
    parts = bytearray()
    while len(parts) < count and (part := file.read(min(count - len(parts), _STEP))):
        parts += part
    return bytes(parts)
