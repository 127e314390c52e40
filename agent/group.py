"""Appends that wait for each other, and share one commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from agent import _native
from agent.entry import Entry, from_block, readdressed
from agent.quota import Rows

MOST = 64
"""Appends that one commit takes at most."""


@dataclass(slots=True, eq=False)
class Waiting:
    """An append until its commit. Its blocks are stored together, or not at all; `held` are given to nobody yet."""

    blocks: Sequence[_native.Block]
    epoch: int
    marks: Mapping[str, bytes]
    held: bool = False
    done: bool = False
    refusal: BaseException | None = None


def first(waiting: Sequence[Waiting], most_bytes: int) -> list[Waiting]:
    """Those that the next commit takes: one at least, and no more than `most_bytes` of bodies."""
    size = 0
    group: list[Waiting] = []
    for each in waiting[:MOST]:
        size += sum(map(len, each.blocks))
        if group and size > most_bytes:
            break
        group.append(each)
    return group


async def addressed(group: Sequence[Waiting], rows: Rows, place: int, stream: UUID) -> list[Entry]:
    """The group's entries at the places that they get from `place` on: their own, unless a new stream has begun."""
    entries = []
    for epoch, block in ((each.epoch, block) for each in group for block in each.blocks):
        body, at = block.data, block.sequence
        if at < place and await rows("SELECT 1 FROM entry WHERE sequence = ? AND body = ?", (at, body)):
            continue  # its commit was reported as failed, and had reached the disk all the same
        if at != place or body[7:23] != stream.bytes:
            body = readdressed(body, stream.bytes, place)
        entries.append(replace(from_block(body), epoch=epoch))
        place += 1
    return entries
