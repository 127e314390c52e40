"""What labels and identifiers cost a reading: the same Modbus responses through the core, with and without.

Tagged: every tag has an identifier and a level, and the blocks name their epoch. With three levels each has a block of
its own, which costs what more and smaller blocks cost. In turn, so that the machine's mood is in all of them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from time import perf_counter
from typing import TYPE_CHECKING

from agent._native import Buffer
from agent.model import Tag, ValueType
from benchmarks.result import Result, less

if TYPE_CHECKING:
    from agent._native import Field

TAGS = 62
SCANS = 3000
ROUNDS = 15


def results() -> Iterator[Result]:
    plain, tagged, parted = [], [], []
    for _ in range(ROUNDS):
        plain.append(_seconds(0))
        tagged.append(_seconds(1))
        parted.append(_seconds(3))
    count = TAGS * SCANS / 1e9
    baseline = {"the same without labels": min(plain) / count}
    yield from less("push_registers and seal, tagged and labelled", min(tagged) / count, "ns/reading", **baseline)
    yield from less("the same with 3 levels, a block for each", min(parted) / count, "ns/reading", **baseline)


def _seconds(levels: int) -> float:
    """Seconds of pushing and sealing, a seal each 60 scans; `levels` 0 is without labels."""
    named = levels > 0
    tags = [
        Tag(
            at,
            "d",
            f"t{at}",
            f"hr:{2 * at}",
            ValueType.FLOAT32,
            f"88.118.8/d.t{at}" if named else "",
            level=at % max(1, levels) + 1 if named else None,
        )
        for at in range(TAGS)
    ]
    buffer = Buffer(tags)
    fields: list[Field] = [
        {"tag": at, "at": 2 * at, "type": "float32", "order": "ABCD", "bit": None, "length": 0} for at in range(TAGS)
    ]
    plan = buffer.modbus_plan(fields)
    payload = [struct.pack(f">{TAGS}f", *(20 + at / 8 + scan % 50 / 10 for at in range(TAGS))) for scan in range(60)]
    if named:
        buffer.regroup(bytes(tag.level or 0 for tag in tags))
    begin = perf_counter()
    for scan in range(SCANS):
        buffer.push_registers(plan, payload[scan % 60], 1_700_000_000_000_000_000 + scan * 1_000_000)
        if scan % 60 == 59:
            buffer.cut()
            for group in range(1, levels + 1) if levels > 1 else (None,):
                buffer.seal(sequence=scan, epoch=7, group=group)
    return perf_counter() - begin
