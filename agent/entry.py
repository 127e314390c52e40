"""What waits in the outbox: an entry is one row of its file, and the totals are the row that counts them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields, replace
from typing import Any

from agent import _native
from agent.errors import BlockError, HeadraceError


class Damaged(HeadraceError):
    """What the file holds is not what was written to it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One block that waits. It stands for the places `sequence` to `last`; only a gap stands for more than one.

    `readings` of a gap is how many are lost. Times are ns UTC. `body` is the encoded block.
    """

    sequence: int
    last: int
    epoch: int
    readings: int
    first_ns: int
    last_ns: int
    body: bytes
    gap: bool = False


@dataclass(frozen=True, slots=True)
class Totals:
    """The meta row: changed in the transaction that changes what it counts, so that opening counts nothing.

    `first` is where the numbers of the current stream begin: a stream that follows another goes on counting.
    """

    first: int = 1
    next_sequence: int = 1
    confirmed: int = 0
    sent: int = 0
    entries: int = 0
    readings: int = 0
    bytes: int = 0
    dropped_readings: int = 0
    dropped_entries: int = 0


TOTALS = [field.name for field in fields(Totals)]
COLUMNS = "sequence, last, epoch, readings, first_ns, last_ns, gap"
INSERT = f"INTO entry ({COLUMNS}, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


def check(stream: bytes, totals: Totals) -> int:
    """What goes into the meta row's `crc`: SQLite has no checksums of its own."""
    return _native.crc32c(stream + struct.pack(f"<{len(TOTALS)}q", *astuple(totals)))


def from_row(row: Sequence[Any]) -> Entry:
    """An entry from COLUMNS and body. Raises Damaged where they can't be what was stored."""
    *numbers, body = row
    if any(type(number) is not int for number in numbers) or type(body) is not bytes:
        raise Damaged(f"a row of the outbox holds something else: {numbers}")
    sequence, last, epoch, readings, first_ns, last_ns, gap = numbers
    if not 1 <= sequence <= last or not 0 <= readings < 2**62 or gap not in (0, 1):
        raise Damaged(f"a row of the outbox can't be: {numbers}")
    return Entry(sequence, last, unsigned(epoch), readings, first_ns, last_ns, body, bool(gap))


def from_block(body: bytes) -> Entry:
    """The entry of a block of a stream that began at 1. Raises BlockError."""
    header = _native.header(body)
    numbers = header.sequence, header.last_sequence, header.epoch, header.readings, header.first_ns, header.last_ns
    return Entry(*numbers, body, gap=header.kind == "gap")


def to_row(entry: Entry) -> tuple[Any, ...]:
    """The values of INSERT."""
    times = entry.first_ns, entry.last_ns
    return (entry.sequence, entry.last, signed(entry.epoch), entry.readings, *times, entry.gap, entry.body)


def is_whole(entry: Entry) -> bool:
    """Whether a row's body is the block that the row says it is."""
    try:
        found = from_block(entry.body)
    except BlockError:
        return False
    if found.gap and found.last == entry.last:  # the first of a stream stands for the numbers before it as well
        found = replace(found, sequence=entry.sequence)
    return replace(found, epoch=entry.epoch) == entry


def joined(gap: Entry, entry: Entry) -> Entry:
    """What a gap and the entry after it become together, still without a body."""
    return Entry(
        gap.sequence,
        entry.last,
        entry.epoch,
        gap.readings + entry.readings,
        min(gap.first_ns, entry.first_ns),
        max(gap.last_ns, entry.last_ns),
        b"",
        gap=True,
    )


def readdressed(body: bytes, stream: bytes, sequence: int) -> bytes:
    """The same readings at another place: for a block that nobody was given at its old one (docs/block-format.md)."""
    at = 39
    while body[at] >= 0x80:
        at += 1
    place = bytearray()
    while sequence >= 0x80:
        place.append(sequence & 0x7F | 0x80)
        sequence >>= 7
    place.append(sequence)
    moved = body[:7] + stream + body[23:39] + bytes(place) + body[at + 1 : -4]
    return moved + _native.crc32c(moved).to_bytes(4, "little")


def signed(epoch: int) -> int:
    """SQLite's integers are signed; an epoch is not."""
    return epoch - 2**64 if epoch >= 2**63 else epoch


def unsigned(value: int) -> int:
    return value % 2**64
