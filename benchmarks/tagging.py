"""What labels and identifiers cost a reading: the same Modbus responses through the core, with and without.

With: every tag has an identifier and a level, the readings of three levels go into blocks of their own, and what goes
where was decided when the epoch began. Without: one group, one block. In turn, so that the machine's mood is in both.
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
    with_labels, without = [], []
    for _ in range(ROUNDS):
        without.append(_seconds(levels=1))
        with_labels.append(_seconds(levels=3))
    count = TAGS * SCANS / 1e9
    plain = {"the same without labels, into one block": min(without) / count}
    yield from less("push_registers and seal, labelled with 3 levels", min(with_labels) / count, "ns/reading", **plain)


def _seconds(levels: int) -> float:
    """Seconds of pushing and sealing, a seal each 60 scans."""
    named = levels > 1
    tags = [
        Tag(
            at,
            "d",
            f"t{at}",
            f"hr:{2 * at}",
            ValueType.FLOAT32,
            f"88.118.8/d.t{at}" if named else "",
            level=at % levels + 1 if named else None,
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
            for group in (1, 2, 3) if named else (None,):
                buffer.seal(sequence=scan, epoch=7, group=group)
    return perf_counter() - begin
