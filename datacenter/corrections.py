"""Corrections: an agent says that times which it gave itself were off, and by how much (docs/block-format.md).

Each is applied once to every reading that it is about: to what is stored in the transaction that stores it, and to what
comes later when that is stored. Times that a device gave are left alone.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from agent import _native
from agent.errors import BlockError
from datacenter.kinds import kinds_of
from datacenter.store import Snapshot, Store
from datacenter.tables import arrived, settled

STAMPED = frozenset({"modbus"})
"""Protocols without times of their own: the gateway stamps what it reads by them."""
_FLAGS, _CORRECTION = 6, 8
"""Where a block has its flags, and which one says that it is a correction (docs/block-format.md)."""
MOST_NS = 2**62
"""146 years: a correction by more is none."""


def is_correction(body: bytes) -> bool:
    """Whether a block changes what is stored already: told by its flags, before anything of it is believed."""
    return body[:4] == b"HDRC" and len(body) > _FLAGS and bool(body[_FLAGS] & _CORRECTION)


class Corrections:
    """What was corrected, of every stream. For the writer's transactions only."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._highest: dict[UUID, int] = {}
        """The last place of each stream that has a correction: most blocks lie behind it."""
        self.reload()

    def reload(self) -> None:
        """Reads from the store what was committed."""
        self._highest = dict(self._store.rows("SELECT stream, max(last) FROM corrections GROUP BY stream"))

    def learn(self, agent: str, header: _native.Header, id_: int | None) -> None:
        """Keeps a correction, and applies it to what is stored of the stream with this id. Raises BlockError."""
        stream, first, last, offset_ns = _said(header)
        self._store.write(
            "INSERT INTO corrections VALUES (?, ?, ?, ?, ?, ?, ?)",
            [stream, first, last, offset_ns, agent, UUID(bytes=header.stream), header.sequence],
        )
        self._highest[stream] = max(last, self._highest.get(stream, 0))
        if id_ is None:
            return
        blocks = [id_, first, last]
        stamped = self._stamped(agent)
        for kind in kinds_of(stamped.values()):
            for table in (arrived(kind), settled(kind)):
                self._store.write(
                    f"UPDATE {table} SET time = time + ? WHERE stream = ? AND sequence BETWEEN ? AND ?"  # noqa: S608
                    " AND list_contains(?, key)",
                    [offset_ns, *blocks, list(stamped)],
                )
        self._store.write(
            "UPDATE blocks SET first_ns = r.first_ns, last_ns = r.last_ns, sealed_ns = sealed_ns + ? FROM"
            " (SELECT sequence, min(time) AS first_ns, max(time) AS last_ns FROM every"
            " WHERE stream = ? AND sequence BETWEEN ? AND ? GROUP BY sequence) r"
            " WHERE blocks.stream = ? AND blocks.sequence = r.sequence",
            [offset_ns, *blocks, id_],
        )
        self._store.write(
            "UPDATE gaps SET from_ns = from_ns + ?, to_ns = to_ns + ?"
            " WHERE stream = ? AND first >= ? AND last <= ? AND NOT synchronized",
            [offset_ns, offset_ns, *blocks],
        )

    def offset(self, agent: str, stream: UUID, sequence: int) -> int:
        """By how much the gateway's times in a block that comes now are off; ns to add."""
        if sequence > self._highest.get(stream, 0):
            return 0
        [(found,)] = self._store.rows(
            "SELECT coalesce(sum(offset_ns), 0)::BIGINT FROM corrections"
            " WHERE stream = ? AND agent = ? AND first <= ? AND last >= ?",
            [stream, agent, sequence, sequence],
        )
        return int(found)

    def corrected(self, agent: str, keys: pa.ChunkedArray, times: pa.ChunkedArray, offset_ns: int) -> pa.ChunkedArray:
        """The times of readings with these tag keys."""
        ours = pc.is_in(keys, value_set=pa.array(list(self._stamped(agent)), pa.int32()))
        try:
            return pc.if_else(ours, pc.add_checked(times, pc.if_else(ours, offset_ns, 0)), times)
        except pa.ArrowInvalid:
            # Times at the end of all numbers are nobody's: they stay as they were told.
            return times

    def _stamped(self, agent: str) -> dict[int, str]:
        """Tag key -> type of the agent's tags that have the gateway's times."""
        rows = self._store.rows("SELECT key, type, source FROM tags WHERE agent = ?", [agent])
        return {key: type_ for key, type_, source in rows if orjson.loads(source).get("protocol") in STAMPED}


def of(view: Snapshot, stream: UUID) -> list[dict[str, Any]]:
    """What was corrected of a stream, for `/v1/completeness`."""
    names = ("first", "last", "offset_ns")
    rows = view.rows(f"SELECT {', '.join(names)} FROM corrections WHERE stream = ? ORDER BY ALL", [stream])  # noqa: S608
    return [dict(zip(names, row, strict=True)) for row in rows]


def in_doubt(view: Snapshot, id_: int, stream: UUID, from_ns: int, to_ns: int) -> int:
    """Readings between two times in blocks of a clock that was not known to be right, and that nothing corrected."""
    [(found,)] = view.rows(
        "SELECT coalesce(sum(b.readings), 0)::BIGINT FROM blocks b WHERE b.stream = ? AND NOT b.synchronized"
        " AND b.first_ns <= ? AND b.last_ns >= ? AND NOT EXISTS"
        " (SELECT 1 FROM corrections c WHERE c.stream = ? AND b.sequence BETWEEN c.first AND c.last)",
        [id_, to_ns, from_ns, stream],
    )
    return int(found)


def _said(header: _native.Header) -> tuple[UUID, int, int, int]:
    if header.corrects is None:
        raise BlockError("no correction")
    stream, first, last, offset_ns = header.corrects
    if not 1 <= first <= last < 2**63 or abs(offset_ns) > MOST_NS:
        raise BlockError(f"a correction of blocks {first} to {last} by {offset_ns} ns")
    return UUID(bytes=stream), first, last, offset_ns
