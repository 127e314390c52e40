"""The contents of an outbox: its blocks, catalogs and marks, and the totals that say how much of them there is.

What changes here changes in one transaction, totals included; what is in memory follows after the commit. One call at
a time: whoever calls has the outbox's turn. A call does its work again where a failing disk makes that of use
(`Session`), and raises OutboxFull where the disk does not take it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace
from pathlib import Path

from agent import catalogs, delivered, marks, outbox_file, quota, renewal
from agent.entry import COLUMNS, INSERT, TOTALS, Damaged, Entry, Totals, check, from_row, to_row
from agent.group import Waiting, addressed
from agent.outbox_file import Lock
from agent.quota import Quota
from agent.session import Connect, Session
from agent.streams import Streams

log = logging.getLogger("headrace.outbox")

AHEAD = 1024
"""Places that `read` marks as sent before they are, so that only one in many has to write."""
_BEYOND = (1 << 63) - 1
BURIALS = 3
"""So often in one read gaps may have to take the place of what can't be read."""


class Contents:
    """`session.open` before anything else; it calls `_load` whenever the file is opened anew."""

    def __init__(self, path: Path, lock: Lock, *, max_bytes: int, drop_oldest: bool, connect: Connect) -> None:
        self.session = Session(path, lock, max_bytes, connect=connect, known=self._known, load=self._load)
        self.rows = self.session.rows
        self.streams = Streams([(1, uuid.UUID(int=0))])
        self.newest_epoch: int | None = None
        self.totals = Totals()
        self.quota: Quota
        self.past: set[bytes] = set()
        """Streams that this process wrote to before the current one."""
        self.moved: set[bytes] = set()
        """Those of them whose blocks are in another stream now."""
        self.trash = True
        """Whether confirmed rows may still be in the file."""
        self.written = 0.0
        """When something was last stored or deleted; monotonic seconds."""
        self._path = path
        self._max_bytes = max_bytes
        self._drop_oldest = drop_oldest
        self._opened_at = 0  # places from here on were given out by this process
        self._handed = 0  # places up to this one may have been sent: their entries keep their range for ever
        self._held = 0  # places from this one on are given to nobody yet; 0 where none is held

    @property
    def stream(self) -> uuid.UUID:
        return self.streams.current

    @property
    def last(self) -> int:
        """The last place that is stored, and not held."""
        return (self._held or self.totals.next_sequence) - 1

    async def store(self, group: list[Waiting]) -> int:
        """Blocks and marks, in one transaction. Returns how many readings were dropped to make room."""
        return await self.session.guard(lambda: self._store(group))

    async def read(self, after: int, limit: int, max_bytes: int) -> list[Entry]:
        """As `Outbox.peek`."""
        return await self.session.guard(lambda: self._read(after, limit, max_bytes))

    async def forget(self, through: int) -> int:
        """As `Outbox.confirm`."""
        return await self.session.guard(lambda: self._forget(through))

    async def mark_delivered(self, spans: Sequence[tuple[int, int]]) -> int:
        return await self.session.guard(lambda: self._mark_delivered(spans))

    async def set_aside(self, sequence: int, reason: str, only_if_kept: bool) -> Path | None:
        return await self.session.guard(lambda: self._set_aside(sequence, reason, only_if_kept))

    async def catalog(self, epoch: int) -> bytes | None:
        return await self.session.guard(lambda: catalogs.read(self.rows, epoch))

    async def keep_catalog(self, epoch: int, body: bytes) -> None:
        await self.session.guard(lambda: self._keep_catalog(epoch, body))

    async def marks(self) -> dict[str, bytes]:
        return await self.session.guard(lambda: marks.read(self.rows))

    async def keep_marks(self, kept: Mapping[str, bytes]) -> None:
        await self.session.guard(lambda: self._keep_marks(kept))

    def release(self) -> None:
        """As `Outbox.release`."""
        self._held = 0

    async def take_back(self, first: int, kept: Mapping[str, bytes]) -> bool:
        return await self.session.guard(lambda: self._take_back(first or self._held, kept))

    async def tidy(self) -> None:
        """Deletes one batch of what is confirmed; `trash` says whether there may be more."""
        await self.session.guard(self._tidy)

    async def renew(self, why: str) -> None:
        """As `Outbox.renew`."""

        def surgery() -> None:
            with contextlib.closing(outbox_file.connect(self._path)) as db:
                outbox_file.save(db, self.stream, self.totals)  # what is confirmed is not in the file yet
                renewal.renew(db, self.session.lock, why, moved_from=max(self._opened_at, self.totals.first))

        self.moved.add(self.stream.bytes)
        await self.session.guard(lambda: self.session.apart(surgery))

    async def _store(self, group: list[Waiting]) -> int:
        before = self.totals
        if (
            group[0].held and not self._held
        ):  # before the commit: one that is reported as failed may have reached the disk
            self._held = before.next_sequence
        entries = await addressed(group, self.rows, before.next_sequence, self.stream)
        bodies = sum(len(entry.body) for entry in entries)
        size = bodies + sum(len(mark) for each in group for mark in each.marks.values())
        self.quota.measure(size, await self.session.room())
        async with self.session.transaction():
            trash = self.trash and await quota.delete(self.rows, before.confirmed)
            gaps = all(entry.gap for entry in entries)
            now, trash = await self.quota.make_room(
                before, size, trash, self._handed, drop_oldest=self._drop_oldest, gaps=gaps
            )
            for entry in entries:
                await self.rows(f"INSERT {INSERT}", to_row(entry))
            for each in group:
                await marks.keep(self.rows, each.marks)
            now = replace(
                now,
                next_sequence=now.next_sequence + len(entries),
                entries=now.entries + len(entries),
                readings=now.readings + sum(0 if entry.gap else entry.readings for entry in entries),
                bytes=now.bytes + bodies,
            )
            await self._save(now)
        self.totals, self.trash, self.written = now, trash, time.monotonic()
        await asyncio.to_thread(self.session.lock.note, self.stream, now.next_sequence)
        if self.quota.pressed or size > self.quota.group_bytes:
            await self.session.empty_log()
        return now.dropped_readings - before.dropped_readings

    async def _read(self, after: int, limit: int, max_bytes: int) -> list[Entry]:
        start = max(after, self.totals.confirmed)
        for _ in range(BURIALS):
            sizes = await self.rows(
                "SELECT sequence, length(body), last FROM entry WHERE sequence > ? AND sequence < ? "
                "ORDER BY sequence LIMIT ?",
                (start, self._held or _BEYOND, limit),
            )
            if not sizes:
                return []
            (through, total, last), *more = sizes
            for sequence, size, end in more:
                total += size
                if total > max_bytes:
                    break
                through, last = sequence, end
            found = await self.rows(
                f"SELECT {COLUMNS}, body FROM entry WHERE sequence > ? AND sequence <= ? ORDER BY sequence",  # noqa: S608
                (start, through),
            )
            entries = [from_row(row) for row in found]
            if last >= self.totals.next_sequence:
                raise Damaged(f"there is a place {last}, and the last one given out is {self.last}")
            if wrong := quota.rotten(entries, start, self.totals.confirmed, self.streams):
                await self._bury(wrong)
                continue
            if last > self.totals.sent:
                await self._mark_sent(last + AHEAD)
            self._handed = max(self._handed, last)
            return entries
        raise Damaged("what was replaced by gaps can't be read either")

    async def _bury(self, wrong: list[Entry]) -> None:
        before = self.totals
        async with self.session.transaction():
            now = await quota.bury(self.rows, before, wrong, self.streams)
            await self._save(now)
        self.totals = now
        log.error(
            "Blocks %d to %d can't be read: %s. Gaps stand in their places.",
            wrong[0].sequence,
            wrong[-1].last,
            quota.ROTTEN,
            extra={
                "event": "readings_lost",
                "lost": now.dropped_readings - before.dropped_readings,
                "stream": str(self.stream),
                "reason": quota.ROTTEN,
            },
        )

    async def _mark_sent(self, through: int) -> None:
        now = replace(self.totals, sent=through)
        try:
            async with self.session.transaction():
                await self._save(now)
        except sqlite3.OperationalError as reason:
            if renewal.is_damage(reason):
                raise
            return  # on a full disk sending goes on all the same: it is what makes room
        self.totals = now

    async def _forget(self, through: int) -> int:
        before = self.totals
        if through >= before.next_sequence:
            raise ValueError(f"{through} can't be confirmed: the last sequence is {self.last}")
        [(entries, readings, size, last)] = await self.rows(
            "SELECT count(*), sum(iif(gap, 0, readings)), sum(length(body)), max(last) FROM entry "
            "WHERE sequence > ? AND sequence <= ? AND last <= ?",
            (before.confirmed, through, through),
        )
        if not entries:
            return 0
        self.trash, self._handed = True, max(self._handed, last)
        self.totals = replace(
            before,
            confirmed=last,
            entries=before.entries - entries,
            readings=before.readings - readings,
            bytes=before.bytes - size,
        )
        return int(readings)

    async def _mark_delivered(self, spans: Sequence[tuple[int, int]]) -> int:
        now, readings = self.totals, 0
        async with self.session.transaction():
            for first, last in spans:
                now, held = await delivered.mark(self.rows, now, first, min(last, self.last), self.streams)
                readings += held
            await self._save(now)
        self.totals = now
        return readings

    async def _set_aside(self, sequence: int, reason: str, only_if_kept: bool) -> Path | None:
        found = await self.rows(
            f"SELECT {COLUMNS}, body FROM entry WHERE sequence = ? AND gap = 0",  # noqa: S608
            (sequence,),
        )
        if not found or sequence <= self.totals.confirmed:
            return None
        entry = from_row(found[0])
        kept = await asyncio.to_thread(delivered.keep_aside, self._path, entry)
        if kept is None and only_if_kept:
            return None
        async with self.session.transaction():
            now = await delivered.bury(self.rows, self.totals, entry, reason, self.streams)
            await self._save(now)
        self.totals = now
        log.error(
            "Block %d can't be delivered, and a gap stands in its place: %s. %s",
            sequence,
            reason,
            f"It is kept as {kept}." if kept else "There was no room to keep it.",
            extra={
                "event": "readings_lost",
                "lost": entry.readings,
                "stream": str(self.stream),
                "sequence": sequence,
                "reason": reason,
            },
        )
        return kept

    async def _keep_catalog(self, epoch: int, body: bytes) -> None:
        if epoch == self.newest_epoch and await catalogs.read(self.rows, epoch) == body:
            return
        async with self.session.transaction():
            await catalogs.keep(
                self.rows, epoch, body, confirmed=self.totals.confirmed, last=self.totals.next_sequence - 1
            )
        self.newest_epoch = epoch

    async def _keep_marks(self, kept: Mapping[str, bytes]) -> None:
        async with self.session.transaction():
            await marks.keep(self.rows, kept)

    async def _take_back(self, first: int, kept: Mapping[str, bytes]) -> bool:
        before = self.totals
        if not first:
            return False
        # A gap that took the place of the first of them stays.
        [(end,)] = await self.rows("SELECT max(last) FROM entry WHERE sequence < ?", (first,))
        first = max(first, before.confirmed + 1, (end or 0) + 1)
        [(entries, readings, size)] = await self.rows(
            "SELECT count(*), total(iif(gap, 0, readings)), total(length(body)) FROM entry WHERE sequence >= ?",
            (first,),
        )
        now = replace(
            before,
            next_sequence=first,
            entries=before.entries - entries,
            readings=before.readings - int(readings),
            bytes=before.bytes - int(size),
        )
        # The note first: one that is ahead of the file says that the file's end is missing.
        await asyncio.to_thread(self.session.lock.note, self.stream, first)
        async with self.session.transaction():
            await self.rows("DELETE FROM entry WHERE sequence >= ?", (first,))
            await marks.keep(self.rows, kept)
            await self._save(now)
        self.totals, self._held = now, 0
        self._opened_at = min(self._opened_at, first)
        return True

    async def _tidy(self) -> None:
        async with self.session.transaction():
            trash = await quota.delete(self.rows, self.totals.confirmed)
            await self._save(self.totals)
        self.trash, self.written = trash, time.monotonic()

    async def _save(self, now: Totals) -> None:
        crc = check(self.stream.bytes, now)
        await self.rows(f"UPDATE meta SET crc = ?, {' = ?, '.join(TOTALS)} = ?", (crc, *astuple(now)))  # noqa: S608

    def _known(self) -> renewal.Found:
        """What this process knows better than a damaged file."""
        if not self._opened_at:
            return renewal.Found()
        return renewal.Found(self.stream, self.totals, self.totals.next_sequence)

    async def _load(self) -> None:
        before = self.stream
        [(stream, _, *totals)] = await self.rows(f"SELECT stream, crc, {', '.join(TOTALS)} FROM meta")  # noqa: S608
        self.totals = Totals(*totals)
        former = await self.rows("SELECT first, stream FROM former")
        self.streams = renewal.streams(former, self.totals, uuid.UUID(bytes=stream))
        if self._opened_at and before != self.stream:
            self.past.add(before.bytes)
            self._held = 0  # others are at its places now
        self._opened_at = self._opened_at or self.totals.next_sequence
        self._handed = max(self.totals.sent, self.totals.confirmed)
        self.trash = True
        self.newest_epoch = await catalogs.newest(self.rows)
        room = await self.session.room()
        self.quota = Quota(
            self.rows,
            self.streams,
            self._max_bytes,
            room,
            log_pages=self.session.log_pages,
            reserve=self.session.reserve.size,
        )
        await self.quota.used()
        await asyncio.to_thread(self.session.lock.note, self.stream, self.totals.next_sequence)
