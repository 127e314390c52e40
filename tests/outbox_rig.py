"""The oracle of every rig that fails the outbox's disk or process: what was acknowledged is there, once, in order and
byte for byte; places have no holes; or a gap says so. `python -m tests.outbox_soak` runs the rigs at length (see
docs/reliability.md).
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from agent import _native
from agent.model import Tag, ValueType
from agent.outbox import Entry, Outbox, WhenFull

TAG = Tag(0, "press1", "temp", "hr:0", ValueType.FLOAT64, "88.118.8/press1.temp")
NOISE = [(0, 1_000_000 + n, random.Random(n).random(), 0) for n in range(4000)]
QUOTA = 8 << 20


def block(outbox: Outbox, readings: int, ahead: int = 0) -> _native.Block:
    buffer = _native.Buffer([TAG])
    buffer.push(NOISE[:readings])
    sealed = buffer.seal(stream=outbox.stream.bytes, sequence=outbox.next_sequence + ahead, epoch=7)
    assert sealed is not None
    return sealed


@dataclass
class Ledger:
    """What was acknowledged: (stream, place) -> readings. `confirmed` is the furthest place that was confirmed."""

    stored: dict[tuple[bytes, int], int] = field(default_factory=dict)
    checksums: dict[tuple[bytes, int], int] = field(default_factory=dict)
    confirmed: int = 0

    def take(self, one: _native.Block) -> None:
        key = (one.data[7:23], one.sequence)
        assert key not in self.stored, f"place {one.sequence} was given out twice"
        self.stored[key], self.checksums[key] = one.readings, zlib.crc32(one.data)


async def judge(outbox: Outbox, ledger: Ledger, *, gaps: bool = False, strict: bool = True) -> None:
    """Raises AssertionError where the outbox does not hold what the ledger says. `gaps`: may places be gaps?

    Not `strict`: blocks may be lost as long as the stream that follows begins with a gap that says so.
    """
    found = await outbox.peek(0, 1_000_000, 1 << 40)
    facts = outbox.facts()
    assert facts["confirmed"] <= ledger.confirmed or not strict, (facts, ledger.confirmed)
    place = found[0].sequence - 1 if found else outbox.last
    assert place == facts["confirmed"] or not strict
    held: dict[tuple[bytes, int], Entry] = {}
    claimed: list[Entry] = []
    for entry in found:
        assert entry.sequence == place + 1, f"a hole before {entry.sequence}"
        place = entry.last
        if entry.gap:
            claimed.append(entry)
        else:
            held[entry.body[7:23], entry.sequence] = entry
    assert place == outbox.last
    told = any(outbox.streams.begins(entry.sequence) for entry in claimed if entry.sequence > 1)
    for (stream, sequence), checksum in ledger.checksums.items():
        entry_ = held.get((stream, sequence))
        if entry_ is not None:
            assert zlib.crc32(entry_.body) == checksum, f"other bytes at {sequence}"
        elif sequence > facts["confirmed"] or not strict:
            is_gap = any(gap.sequence <= sequence <= gap.last for gap in claimed)
            gone = sequence <= ledger.confirmed
            assert (gaps and is_gap) or (not strict and (told or gone)), f"block {sequence} is missing"
    assert facts["readings"] == sum(entry.readings for entry in held.values()) or not strict
    assert facts["entries"] == len(found) or not strict


async def opened(path: Path, *, when_full: WhenFull = "drop_oldest", max_bytes: int = QUOTA) -> Outbox:
    return await Outbox.open(path, max_bytes=max_bytes, when_full=when_full)


def rest(ledger: Ledger, outbox: Outbox) -> Ledger:
    """What can still be asked for: the rest is confirmed and gone."""
    after = outbox.facts()["confirmed"]
    kept = {key for key in ledger.stored if key[1] > after}
    return Ledger(
        {key: ledger.stored[key] for key in kept}, {key: ledger.checksums[key] for key in kept}, ledger.confirmed
    )
