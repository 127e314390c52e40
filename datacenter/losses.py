"""Losses: the gaps of every stream, which are told by agents or of our own making. For the writer's transactions only.

A gap claims places. Where a block comes for one of them after all it is welcome, and the gap says less from then on.
Whatever waits to be written is written before anything here is called.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from agent import _native
from datacenter.accounts import Stream
from datacenter.corrections import Corrections
from datacenter.places import Places
from datacenter.store import Store


@dataclass(frozen=True, slots=True)
class Loss:
    """Readings that are known to be missing, for the log. `readings` is 0 where nobody can know how many."""

    agent: str
    stream: UUID
    first: int
    last: int
    readings: int
    reason: str
    body: bytes = b""
    """The block that could not be stored whole, to be kept; empty for a gap that the agent told."""


class Losses:
    """The gaps in the store."""

    def __init__(self, store: Store, corrections: Corrections) -> None:
        self._store = store
        self._corrections = corrections

    def only_claimed(self, account: Stream, sequence: int) -> bool:
        """Whether a filled place is only claimed by a gap, and no block is stored there."""
        claimed = self._store.rows(
            "SELECT 1 FROM gaps WHERE stream = ? AND first <= ? AND last >= ? LIMIT 1",
            [account.id, sequence, sequence],
        )
        return bool(claimed) and not self._stored(account.id, sequence, sequence)

    def add(
        self, account: Stream, span: tuple[int, int], header: _native.Header, *, readings: int, reason: str
    ) -> None:
        """Adds a gap over these places, at the times of a block."""
        right = header.synchronized
        offset_ns = 0 if right else self._corrections.offset(account.agent, account.stream, span[0])
        bounds = (header.first_ns + offset_ns, header.last_ns + offset_ns)
        self._store.write(
            "INSERT INTO gaps(stream, first, last, from_ns, to_ns, readings, reason, synchronized)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [account.id, *span, *bounds, readings, reason, right],
        )
        account.gapped = True

    def tell(self, account: Stream, header: _native.Header) -> Loss | None:
        """Takes a gap that an agent tells, as far as it says anything new: what is stored is not missing."""
        first, last = header.sequence, header.last_sequence
        stored = self._stored(account.id, first, last)
        missing = _missing(first, last, stored)
        told = 0
        for claimed_first, claimed_last, readings in self._store.rows(
            "SELECT first, last, readings FROM gaps WHERE stream = ? AND first <= ? AND last >= ?",
            [account.id, last, first],
        ):
            claimed = (claimed_first, claimed_last)
            if missing and claimed_first <= missing[0][0] and missing[-1][1] <= claimed_last:
                missing = []
            elif first <= claimed_first and claimed_last <= last:
                # The agent dropped more since and tells the longer gap: it takes the place of the shorter one.
                told += readings
            else:
                missing = [part for span in missing for part in _outside(span, claimed)]
        if not missing:
            return None
        span = (missing[0][0], missing[-1][1])
        self._store.write("DELETE FROM gaps WHERE stream = ? AND first >= ? AND last <= ?", [account.id, first, last])
        lost = max(0, header.readings - sum(readings for _, readings in stored))
        self.add(account, span, header, readings=lost, reason=header.reason)
        account.places.fill(first, last)
        return Loss(account.agent, account.stream, *span, max(0, lost - told), header.reason)

    def shrink(self, account: Stream, sequence: int, readings: int) -> None:
        """A block with so many readings came after all for a place that a gap claims."""
        for first, last, lost in self._store.rows(
            "SELECT first, last, readings FROM gaps WHERE stream = ? AND first <= ? AND last >= ?",
            [account.id, sequence, sequence],
        ):
            missing = _missing(first, last, self._stored(account.id, first, last))
            where = [account.id, first, last]
            if not missing:
                self._store.write("DELETE FROM gaps WHERE stream = ? AND first = ? AND last = ?", where)
                continue
            self._store.write(
                "UPDATE gaps SET first = ?, last = ?, readings = ? WHERE stream = ? AND first = ? AND last = ?",
                [missing[0][0], missing[-1][1], max(0, lost - readings), *where],
            )

    def _stored(self, stream: int, first: int, last: int) -> list[tuple[int, int]]:
        """(sequence, readings) of the blocks stored between two places."""
        return [
            (sequence, readings)
            for sequence, readings in self._store.rows(
                "SELECT sequence, readings FROM blocks WHERE stream = ? AND sequence BETWEEN ? AND ? ORDER BY sequence",
                [stream, first, last],
            )
        ]


def _missing(first: int, last: int, stored: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return Places(first - 1, ((sequence, sequence) for sequence, _ in stored)).missing(first, last)


def _outside(span: tuple[int, int], other: tuple[int, int]) -> list[tuple[int, int]]:
    """The parts of `span` that `other` does not cover."""
    parts = [(span[0], min(span[1], other[0] - 1)), (max(span[0], other[1] + 1), span[1])]
    return [part for part in parts if part[0] <= part[1]]
