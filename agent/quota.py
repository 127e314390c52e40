"""The outbox's quota: how much of the disk it may take, and how the oldest blocks make room for new ones."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeAlias
from uuid import UUID

from agent import _native
from agent.entry import COLUMNS, INSERT, Entry, Totals, from_row, joined, to_row
from agent.errors import OutboxFull
from agent.outbox_file import PAGE, SHM_BYTES

Rows: TypeAlias = Callable[..., Awaitable[list[Any]]]
"""Runs one statement (SQL, values) and returns its rows."""

BATCH = 256
"""Rows that one step deletes or drops at most, so that none takes long."""
LARGE = 4 * 1024 * 1024
"""Up to this size (and to an eighth of the quota) no block takes the outbox past its quota, even for a moment."""
DROPPED = "outbox full: oldest dropped"


class Quota:
    """`max_bytes` is for the file and its write-ahead log together; `log_bytes` of them are left for the log."""

    def __init__(self, rows: Rows, stream: UUID, max_bytes: int, log_bytes: int) -> None:
        self.disk_bytes = 0
        self._rows = rows
        self._stream = stream
        self._max_bytes = max_bytes
        self._log_bytes = log_bytes

    def check(self, size: int, free: int) -> None:
        """Raises OutboxFull where a body of `size` bytes could not be stored whatever were dropped for it.

        `free` is what the disk has left. The log's share of it is not touched: deleting needs it too.
        """
        needed = self._log_bytes + _cost(size)
        if needed + 8 * PAGE > self._max_bytes:
            raise OutboxFull(f"a block of {size} bytes can't fit in outbox.max_bytes = {self._max_bytes}")
        if needed > free:
            raise OutboxFull(f"the outbox's disk is full: {free} bytes are free")

    async def short(self, size: int) -> int:
        """Bytes missing for a body of `size` bytes; 0 or less where it fits."""
        return await self.used() + self._log_bytes + _cost(size) - self._max_bytes

    async def used(self) -> int:
        """Bytes of the file that hold something."""
        [(pages,)] = await self._rows(
            "SELECT page_count - freelist_count FROM pragma_page_count(), pragma_freelist_count()"
        )
        self.disk_bytes = pages * PAGE
        return self.disk_bytes

    async def drop(self, now: Totals, wanted: int, handed: int) -> Totals:
        """Turns the oldest blocks into gaps, to free about `wanted` bytes. Returns `now` itself where there is none.

        What may have been sent (places up to `handed`) becomes one gap for each block, what was not one gap for all.
        """
        rows = await self._rows(
            f"SELECT {COLUMNS}, length(body) FROM entry WHERE gap = 0 AND sequence > ? ORDER BY sequence LIMIT ?",  # noqa: S608
            (now.confirmed, BATCH),
        )
        runs: list[Entry] = []
        freed = 0
        for *columns, size in rows:
            if freed >= wanted:
                break
            freed += size
            entry = from_row((*columns, b""))
            previous = runs[-1] if runs else await self._gap_before(entry.sequence)
            # What may have been sent keeps its range, so that no place ever arrives with two meanings.
            if previous and previous.sequence > handed and previous.last + 1 == entry.sequence:
                runs[-1:] = [joined(previous, entry)]
            else:
                runs.append(entry)
        for run in runs:
            now = await self._replace_by_gap(now, run)
        return now

    async def _replace_by_gap(self, now: Totals, run: Entry) -> Totals:
        block = _native.gap(
            stream=self._stream.bytes,
            first=run.sequence,
            last=run.last,
            epoch=run.epoch,
            from_ns=run.first_ns,
            to_ns=run.last_ns,
            readings=run.readings,
            reason=DROPPED,
            sealed_ns=time.time_ns(),
        )
        span = (run.sequence, run.last)
        [(rows, blocks, readings, size)] = await self._rows(
            "SELECT count(*), sum(gap = 0), sum(iif(gap, 0, readings)), sum(length(body)) FROM entry "
            "WHERE sequence BETWEEN ? AND ?",
            span,
        )
        await self._rows("DELETE FROM entry WHERE sequence BETWEEN ? AND ?", span)
        await self._rows(INSERT, to_row(replace(run, body=block.data, gap=True)))
        return replace(
            now,
            entries=now.entries - rows + 1,
            readings=now.readings - readings,
            bytes=now.bytes - size + len(block.data),
            dropped_readings=now.dropped_readings + readings,
            dropped_entries=now.dropped_entries + blocks,
        )

    async def _gap_before(self, sequence: int) -> Entry | None:
        found = await self._rows(
            f"SELECT {COLUMNS}, x'' FROM entry WHERE sequence < ? ORDER BY sequence DESC LIMIT 1",  # noqa: S608
            (sequence,),
        )
        return from_row(found[0]) if found and found[0][6] else None


def log_bytes(log_pages: int, capacity: int) -> int:
    """What the write-ahead log may come to take, when it is emptied after `log_pages` pages.

    It is emptied only after the commit that goes past that, so it is longer by one transaction. The file itself never
    shrinks: room for the log of a large block must be left before that block comes.
    """
    return log_pages * (PAGE + 24) + min(capacity // 8, LARGE) + SHM_BYTES


def _cost(size: int) -> int:
    """Bytes of the file that a body of `size` bytes may take, rows that split included."""
    return (size // PAGE + 4) * PAGE
