"""The outbox's quota: how much of the disk it may take, and how the oldest blocks make room for new ones."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeAlias

from agent import _native
from agent.disk import Room
from agent.entry import COLUMNS, INSERT, Damaged, Entry, Totals, from_row, is_whole, joined, to_row
from agent.errors import OutboxFull, TooLarge
from agent.outbox_file import PAGE, SHM_BYTES
from agent.streams import Streams

Rows: TypeAlias = Callable[..., Awaitable[list[Any]]]
"""Runs one statement (SQL, values) and returns its rows."""

BATCH = 256
"""Rows that one step deletes or drops at most, so that none takes long."""
LARGE = 4 * 1024 * 1024
"""Up to this size (and to an eighth of the quota) no block takes the outbox past its quota, even for a moment."""
SLACK = 4 * PAGE
"""Bytes that blocks leave free, so that a gap can still say what there was no room for."""
DROPPED = "outbox full: oldest dropped"
ROTTEN = "the disk gave back other bytes than were stored"


class Quota:
    """`max_bytes` is for all the files of the outbox; `kept_bytes` of them are left for the log and the reserve.

    Where the disk has not even that, the quota is `pressed`: then the log has to be emptied after each commit.
    """

    def __init__(
        self, rows: Rows, streams: Streams, max_bytes: int, room: Room, *, log_pages: int, reserve: int
    ) -> None:
        """`log_pages` is after how many the log is emptied; `room` is what the disk has at the start."""
        self.disk_bytes = 0
        self.pressed = False
        self.group_bytes = min(min(max_bytes, room.free + room.occupied) // 8, LARGE)
        """Bytes of bodies that may share one transaction."""
        # The log is emptied only after the commit that goes past that, so it is longer by one transaction. The file
        # itself never shrinks: room for the log of a large block must be left before that block comes.
        kept_bytes = log_pages * (PAGE + 24) + self.group_bytes + SHM_BYTES + reserve + SLACK
        self._rows = rows
        self._streams = streams
        self._max_bytes = max_bytes
        self._reserve = reserve
        self._most_kept = self._kept_bytes = kept_bytes
        self._limit = max_bytes

    @property
    def by_disk(self) -> bool:
        """Whether it is the disk that bounds the outbox, and not `max_bytes`."""
        return self._limit < self._max_bytes

    def measure(self, size: int, room: Room) -> None:
        """To be called before `size` bytes of bodies are stored. Raises OutboxFull where nothing helps."""
        self._kept_bytes = self._most_kept
        if self._kept_bytes + _cost(size) + 8 * PAGE > self._max_bytes:
            raise TooLarge(f"a block of {size} bytes can't fit in outbox.max_bytes = {self._max_bytes}")
        self._limit = min(self._max_bytes, room.occupied + room.free)
        self.pressed = room.free + room.log < self._kept_bytes + _cost(size)
        if self.pressed:
            self._kept_bytes = max(room.log, 2 * _cost(size)) + SHM_BYTES
            # The disk may have the reserve given up for this; up to then it counts like all the other files.
            self._limit = min(self._limit, self._max_bytes - self._reserve)
            if self._kept_bytes + 8 * PAGE > self._limit:
                raise OutboxFull(f"the outbox's disk is full: {room.free} bytes are free")

    async def freeze(self) -> None:
        """The disk said that it is full: up to the next `measure` the file grows no more."""
        self.pressed = True
        [(pages,)] = await self._rows("PRAGMA page_count")
        self._limit = min(self._limit, pages * PAGE + self._kept_bytes)

    async def short(self, size: int) -> int:
        """Bytes missing for a body of `size` bytes; 0 or less where it fits."""
        return await self.used() + self._kept_bytes + _cost(size) - self._limit

    async def used(self) -> int:
        """Bytes of the file that hold something."""
        [(pages,)] = await self._rows(
            "SELECT page_count - freelist_count FROM pragma_page_count(), pragma_freelist_count()"
        )
        self.disk_bytes = pages * PAGE
        return self.disk_bytes

    async def make_room(
        self, now: Totals, size: int, trash: bool, handed: int, *, drop_oldest: bool, gaps: bool = False
    ) -> tuple[Totals, bool]:
        """Within a transaction, deletes and drops until `size` bytes fit; of gaps with the slack. Raises OutboxFull.

        `trash` is whether confirmed rows may be in the file, `handed` is as for `drop`; returns the first anew.
        """
        wanted = 0
        slack = SLACK if gaps and not self.pressed else 0
        while (short := await self.short(size) - slack) > 0:
            if trash:
                trash = await delete(self._rows, now.confirmed)
                continue
            # A row may free less than its size (pages are shared), so every round asks for more than the last.
            wanted = max(short, 2 * wanted)
            after = await self.drop(now, wanted, handed) if drop_oldest else now
            if after is now:
                where = "on its disk" if self.by_disk else f"in outbox.max_bytes = {self._max_bytes}"
                raise OutboxFull(
                    f"the outbox is full: {now.entries} blocks wait; a block of {size} bytes does not fit {where}"
                )
            now = after
        return now, trash

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
            follows = previous and previous.last + 1 == entry.sequence and not self._streams.begins(entry.sequence)
            if previous and follows and previous.sequence > handed:
                runs[-1:] = [joined(previous, entry)]
            else:
                runs.append(entry)
        for run in runs:
            now = await self._replace_by_gap(now, run)
        return now

    async def _replace_by_gap(self, now: Totals, run: Entry) -> Totals:
        block = gap_for(run, self._streams, DROPPED)
        span = (run.sequence, run.last)
        [(rows, blocks, readings, size)] = await self._rows(
            "SELECT count(*), sum(gap = 0), sum(iif(gap, 0, readings)), sum(length(body)) FROM entry "
            "WHERE sequence BETWEEN ? AND ?",
            span,
        )
        await self._rows("DELETE FROM entry WHERE sequence BETWEEN ? AND ?", span)
        await self._rows(f"INSERT {INSERT}", to_row(replace(run, body=block.data, gap=True)))
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


def gap_for(run: Entry, streams: Streams, reason: str) -> _native.Block:
    """The gap that takes an entry's places. Raises Damaged where the entry's numbers can't be."""
    try:
        return _native.gap(
            stream=streams.of(run.sequence).bytes,
            first=1 if streams.begins(run.sequence) else run.sequence,
            last=run.last,
            epoch=run.epoch,
            from_ns=run.first_ns,
            to_ns=run.last_ns,
            readings=run.readings,
            reason=reason,
            sealed_ns=time.time_ns(),
        )
    except (ValueError, OverflowError) as wrong:
        raise Damaged(f"a row of the outbox can't be: {wrong}") from wrong


async def delete(rows: Rows, confirmed: int) -> bool:
    """Within a transaction, deletes one batch of confirmed rows. Returns whether more may be left."""
    beyond = await rows(
        "SELECT sequence FROM entry WHERE sequence <= ? ORDER BY sequence LIMIT 1 OFFSET ?", (confirmed, BATCH)
    )
    await rows("DELETE FROM entry WHERE sequence <= ?", (beyond[0][0] - 1 if beyond else confirmed,))
    return bool(beyond)


def rotten(entries: list[Entry], after: int, confirmed: int, streams: Streams) -> list[Entry]:
    """Of the entries that follow `after`: those that are not what was stored, and gaps for what is missing."""
    place = after if after == confirmed else entries[0].sequence - 1
    wrong = []
    for entry, following in zip(entries, [*entries[1:], None], strict=True):
        if entry.sequence > place + 1 and not streams.begins(entry.sequence):
            hole = (place + 1, entry.sequence - 1, entry.epoch, 0, entry.first_ns, entry.first_ns)
            wrong.append(Entry(*hole, b"", gap=True))
        if not is_whole(entry) or entry.body[7:23] != streams.of(entry.sequence).bytes:
            # Its own numbers may be what was damaged: it ends before the next one at the latest.
            last = min(entry.last, following.sequence - 1) if following else entry.last if entry.gap else entry.sequence
            wrong.append(replace(entry, last=max(last, entry.sequence)))
        place = wrong[-1].last if wrong and wrong[-1].sequence == entry.sequence else entry.last
    return wrong


async def bury(rows: Rows, now: Totals, wrong: list[Entry], streams: Streams) -> Totals:
    """Within a transaction, puts gaps where the disk did not keep what it was given."""
    for entry in wrong:
        body = gap_for(entry, streams, ROTTEN).data
        await rows("DELETE FROM entry WHERE sequence = ?", (entry.sequence,))
        await rows(f"INSERT {INSERT}", to_row(replace(entry, body=body, gap=True)))
    # Whatever is gone was counted: what is there now tells how much that was.
    [(entries, readings, size)] = await rows(
        "SELECT count(*), sum(iif(gap, 0, readings)), sum(length(body)) FROM entry WHERE sequence > ?", (now.confirmed,)
    )
    lost = max(0, now.readings - readings)
    return replace(
        now,
        entries=entries,
        readings=readings,
        bytes=size,
        dropped_readings=now.dropped_readings + lost,
        dropped_entries=now.dropped_entries + len(wrong),
    )


def _cost(size: int) -> int:
    """Bytes of the file that a body of `size` bytes may take, rows that split included."""
    return (size // PAGE + 4) * PAGE
