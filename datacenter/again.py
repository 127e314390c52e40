"""Again: blocks that come for a place that is filled. Most are the very block that is stored; another one is told of.

A machine that was put back to an earlier state gives out places a second time. What it read since must not go in
silence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from agent import _native
from datacenter.corrections import Corrections
from datacenter.store import Store

REASON = "another block is stored at this place: is an old copy of the agent's outbox at work?"


@dataclass(frozen=True, slots=True)
class Came:
    """One block that came again. `id` is the store's number of its stream."""

    id: int
    stream: UUID
    agent: str
    header: _native.Header
    body: bytes


def others(store: Store, corrections: Corrections, came: Sequence[Came]) -> Iterator[Came]:
    """Those that are not what is stored. Within the writer's transaction, after what it stores was flushed.

    An agent may leave out of a block what may no longer leave its plant: then it is the same block, sealed at the same
    time.
    """
    for id_ in {each.id for each in came}:
        places = {each.header.sequence: each for each in came if each.id == id_}
        for sequence, digest, sealed_ns in store.rows(
            "SELECT sequence, sha256, sealed_ns FROM blocks WHERE stream = ? AND sequence BETWEEN ? AND ?"
            " AND list_contains(?, sequence) AND sha256 IS NOT NULL",
            [id_, min(places), max(places), list(places)],
        ):
            found = places[sequence]
            sealed = found.header.sealed_ns + corrections.offset(found.agent, found.stream, sequence)
            if digest != hashlib.sha256(found.body).digest() and sealed != sealed_ns:
                yield found
