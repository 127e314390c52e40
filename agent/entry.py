"""What waits in the outbox: an entry is one row of its file, and the totals are the row that counts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any


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
    """The meta row: changed in the transaction that changes what it counts, so that opening counts nothing."""

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
INSERT = f"INSERT INTO entry ({COLUMNS}, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608


def from_row(row: Sequence[Any]) -> Entry:
    """An entry from COLUMNS and body."""
    sequence, last, epoch, readings, first_ns, last_ns, gap, body = row
    return Entry(sequence, last, unsigned(epoch), readings, first_ns, last_ns, body, bool(gap))


def to_row(entry: Entry) -> tuple[Any, ...]:
    """The values of INSERT."""
    times = entry.first_ns, entry.last_ns
    return (entry.sequence, entry.last, signed(entry.epoch), entry.readings, *times, entry.gap, entry.body)


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


def signed(epoch: int) -> int:
    """SQLite's integers are signed; an epoch is not."""
    return epoch - 2**64 if epoch >= 2**63 else epoch


def unsigned(value: int) -> int:
    return value % 2**64
