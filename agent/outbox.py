"""The durable queue between collecting and sending: one row a block, in SQLite (WAL, synchronous=FULL).

`append` returns when the block is on the disk; appends that wait for each other share one commit. Places in the
stream (sequences) start at 1 and are never used twice. `confirm` forgets what the other side has; the rows are deleted
with the next append, or by themselves a second later. Where the quota is reached the oldest blocks become gaps in their
very places (`drop_oldest`), or `append` says no.

What the disk does: where it is full, or takes no writes, `append` says no as well, and nothing else stops. Where it
gives back other bytes than it was given, that block becomes a gap; where the file itself is damaged it is set aside,
what can be read is saved, and a new stream begins (docs/reliability.md).
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
from typing import Literal, TypeAlias

import aiosqlite

from agent import _native, catalogs, delivered, disk, marks, outbox_file, quota, renewal
from agent.entry import (
    COLUMNS,
    INSERT,
    TOTALS,
    Damaged,
    Entry,
    Totals,
    check,
    from_row,
    to_row,
)
from agent.errors import HeadraceError, OutboxFull
from agent.group import Waiting, addressed, first
from agent.outbox_file import Lock, OutboxRefused
from agent.quota import Quota
from agent.session import Connection, Session
from agent.streams import Streams

__all__ = ["MIN_BYTES", "Entry", "Outbox", "OutboxRefused", "WhenFull"]

log = logging.getLogger("headrace.outbox")

WhenFull: TypeAlias = Literal["drop_oldest", "stop_collecting"]

SWEEP_SECONDS = 1.0
REPORT_SECONDS = 10.0
AHEAD = 1024
"""Places that `peek` marks as sent before they are, so that only one peek in many has to write."""
BURIALS = 3
"""So often in one read gaps may have to take the place of what can't be read."""
MIN_BYTES = 256 * 1024


class Outbox:
    """The queue of one agent. One process opens it; every method may be called from any task of its loop."""

    def __init__(self, path: Path, lock: Lock, *, max_bytes: int, when_full: WhenFull) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.when_full = when_full
        self.streams = Streams([(1, uuid.UUID(int=0))])
        self.newest_epoch: int | None = None
        self._quota: Quota
        self._session = Session(path, lock, max_bytes, connect=self._connect, known=self._known, load=self._load)
        self._rows = self._session.rows
        self._turn = asyncio.Lock()
        self._waiting: list[Waiting] = []
        self._totals = Totals()
        self._opened_at = 0  # places from here on were given out by this process
        self._past: set[bytes] = set()  # streams that this process wrote to before the current one
        self._handed = 0  # places up to this one may have been sent: their entries keep their range for ever
        self._trash = True  # confirmed rows may still be in the file
        self._unreported = 0
        self._reported = -REPORT_SECONDS
        self._written = 0.0
        self._sweeper: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, path: Path, *, max_bytes: int, when_full: WhenFull) -> Outbox:
        """Opens the outbox, or makes it. `max_bytes` bounds what it takes on the disk, log and reserve included.

        A file that is damaged is set aside and a new stream begun. Raises OutboxRefused where another process has it,
        a later version wrote it, or the disk does not let it be opened, and ValueError where `max_bytes` is too small
        to be of use.
        """
        if max_bytes < MIN_BYTES:
            raise ValueError(f"an outbox needs at least {MIN_BYTES} bytes, not {max_bytes}")
        outbox = cls(path, await asyncio.to_thread(Lock, path), max_bytes=max_bytes, when_full=when_full)
        try:
            await outbox._session.open()
        except BaseException:
            await outbox._session.close()
            raise
        outbox._sweeper = asyncio.create_task(outbox._sweep(), name="outbox sweeper")
        return outbox

    @property
    def stream(self) -> uuid.UUID:
        """The stream of the next block. It changes where the outbox had to begin a new one."""
        return self.streams.current

    @property
    def next_sequence(self) -> int:
        """The place that the next appended block must carry, those that wait for their commit counted."""
        return self._totals.next_sequence + len(self._waiting)

    @property
    def last(self) -> int:
        """The last place that is stored."""
        return self._totals.next_sequence - 1

    def facts(self) -> dict[str, int]:
        """Counters: `entries`, `readings` and `bytes` wait; `dropped_*` are since the outbox was made."""
        found = {name: getattr(self._totals, name) for name in TOTALS if name not in ("first", "sent")}
        return {**found, "disk_bytes": self._quota.disk_bytes}

    async def append(self, block: _native.Block, epoch: int, kept: Mapping[str, bytes] | None = None) -> None:
        """Stores a block, and in the same transaction the collectors' marks; both are durable when this returns.

        Several may wait at once, each with the place after the one before. Raises OutboxFull where there is no room for
        it, or the disk takes no writes (then nothing is stored, nothing dropped for it, and those that wait behind it
        fail as well), and ValueError where the block does not carry `next_sequence`. A block of a stream that has been
        followed by another since it was sealed is stored under the new one.
        """
        if block.sequence != self.next_sequence and block.data[7:23] not in self._past:
            raise ValueError(f"the block carries sequence {block.sequence}; next is {self.next_sequence}")
        waiting = Waiting(block, epoch, kept or {})
        self._waiting.append(waiting)
        await asyncio.shield(self._append(waiting))

    async def keep_marks(self, kept: Mapping[str, bytes]) -> None:
        """Stores marks that no block goes with. Raises OutboxFull where the disk has no room."""
        await asyncio.shield(self._keep_marks(kept))

    async def marks(self) -> dict[str, bytes]:
        """The marks that were stored last, by name."""
        async with self._turn:
            return await self._session.guard(lambda: marks.read(self._rows))

    async def peek(self, after: int, limit: int, max_bytes: int) -> list[Entry]:
        """The entries with a sequence above `after` that are not confirmed, in order.

        At most `limit`, and at most `max_bytes` of bodies; but one where there is one, however large it is. None while
        the disk can't be read.
        """
        return await asyncio.shield(self._peek(after, limit, max_bytes))

    async def confirm(self, through: int) -> int:
        """Forgets the entries that end at or before `through`. Returns how many readings they held (a gap: none).

        Raises ValueError for a place that was never given out.
        """
        return await asyncio.shield(self._confirm(through))

    async def mark_delivered(self, spans: Sequence[tuple[int, int]]) -> int:
        """Frees entries above `confirmed` that the other side has; each span is a closed interval of places.

        A gap without readings stays in their place until they are confirmed in order. Returns how many readings they
        held.
        """
        return await asyncio.shield(self._mark_delivered(spans))

    async def set_aside(self, sequence: int, reason: str, *, only_if_kept: bool = False) -> Path | None:
        """Puts a gap in the place of a block that can't be delivered, and the block into a file. Returns its path.

        None where nothing could be kept; with `only_if_kept` the block then stays where it is.
        """
        return await asyncio.shield(self._set_aside(sequence, reason, only_if_kept))

    async def keep_catalog(self, epoch: int, body: bytes) -> None:
        """Makes an epoch's catalog durable, and the newest."""
        await asyncio.shield(self._keep_catalog(epoch, body))

    async def catalog(self, epoch: int) -> bytes | None:
        """The catalog of an epoch that still has entries, or is one of the last few."""
        async with self._turn:
            try:
                return await self._session.guard(lambda: catalogs.read(self._rows, epoch))
            except OutboxFull:
                return None

    async def flush(self) -> None:
        """Deletes what is confirmed, now."""
        await asyncio.shield(self._flush())

    async def renew(self, why: str) -> None:
        """Begins a new stream: somebody has places of the current one that were never given out here.

        What this process gave out of it moves to the new one, for others stand in its places already; what waited
        before stays where it is.
        """
        await asyncio.shield(self._renew(why))

    async def close(self) -> None:
        """Deletes what is confirmed and closes the file. Harmless the second time."""
        if self._sweeper is None:
            return
        sweeper, self._sweeper = self._sweeper, None
        sweeper.cancel()
        await asyncio.gather(sweeper, return_exceptions=True)
        try:
            await self.flush()
        except (HeadraceError, sqlite3.Error) as reason:
            log.warning("The outbox could not be tidied: %s", reason, extra={"event": "outbox_untidy"})
        self._report(at_once=True)
        await self._session.close()

    async def _keep_marks(self, kept: Mapping[str, bytes]) -> None:
        async def keep() -> None:
            async with self._session.transaction():
                await marks.keep(self._rows, kept)

        async with self._turn:
            await self._session.guard(keep)

    async def _append(self, waiting: Waiting) -> None:
        async with self._turn:
            # Whoever comes first commits for all who wait.
            while not waiting.done:
                group = first(self._waiting, self._quota.group_bytes)
                try:
                    await self._session.guard(lambda group=group: self._store(group))  # type: ignore[misc]
                except BaseException as reason:
                    group = self._waiting  # those behind carry places that can't be reached now
                    for each in group:
                        each.refusal = reason
                for each in group:
                    each.done = True
                self._waiting = [each for each in self._waiting if not each.done]
        self._report()
        if waiting.refusal is not None:
            raise waiting.refusal

    async def _store(self, group: list[Waiting]) -> None:
        """One transaction for all of a group."""
        before = self._totals
        entries = await addressed(group, self._rows, before.next_sequence, self.stream)
        bodies = sum(len(entry.body) for entry in entries)
        size = bodies + sum(len(mark) for each in group for mark in each.marks.values())
        self._quota.measure(size, await asyncio.to_thread(disk.room, self.path))
        async with self._session.transaction():
            trash = self._trash and await quota.delete(self._rows, before.confirmed)
            drop_oldest = self.when_full == "drop_oldest"
            now, trash = await self._quota.make_room(before, size, trash, self._handed, drop_oldest=drop_oldest)
            for entry in entries:
                await self._rows(f"INSERT {INSERT}", to_row(entry))
            for each in group:
                await marks.keep(self._rows, each.marks)
            now = replace(
                now,
                next_sequence=now.next_sequence + len(entries),
                entries=now.entries + len(entries),
                readings=now.readings + sum(0 if entry.gap else entry.readings for entry in entries),
                bytes=now.bytes + bodies,
            )
            await self._save(now)
        self._totals, self._trash, self._written = now, trash, time.monotonic()
        self._unreported += now.dropped_readings - before.dropped_readings
        await asyncio.to_thread(self._session.lock.note, self.stream, now.next_sequence)
        if self._quota.pressed or size > self._quota.group_bytes:
            await self._session.empty_log()

    async def _peek(self, after: int, limit: int, max_bytes: int) -> list[Entry]:
        async with self._turn:
            with contextlib.suppress(OutboxFull):
                return await self._session.guard(lambda: self._read(after, limit, max_bytes))
        return []

    async def _read(self, after: int, limit: int, max_bytes: int) -> list[Entry]:
        start = max(after, self._totals.confirmed)
        for _ in range(BURIALS):
            sizes = await self._rows(
                "SELECT sequence, length(body), last FROM entry WHERE sequence > ? ORDER BY sequence LIMIT ?",
                (start, limit),
            )
            if not sizes:
                return []
            (through, total, last), *more = sizes
            for sequence, size, end in more:
                total += size
                if total > max_bytes:
                    break
                through, last = sequence, end
            found = await self._rows(
                f"SELECT {COLUMNS}, body FROM entry WHERE sequence > ? AND sequence <= ? ORDER BY sequence",  # noqa: S608
                (start, through),
            )
            entries = [from_row(row) for row in found]
            if last >= self._totals.next_sequence:
                raise Damaged(f"there is a place {last}, and the last one given out is {self.last}")
            if wrong := quota.rotten(entries, start, self._totals.confirmed, self.streams):
                await self._bury(wrong)
                continue
            if last > self._totals.sent:
                await self._mark_sent(last + AHEAD)
            self._handed = max(self._handed, last)
            return entries
        raise Damaged("what was replaced by gaps can't be read either")

    async def _bury(self, wrong: list[Entry]) -> None:
        before = self._totals
        async with self._session.transaction():
            now = await quota.bury(self._rows, before, wrong, self.streams)
            await self._save(now)
        self._totals = now
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
        now = replace(self._totals, sent=through)
        try:
            async with self._session.transaction():
                await self._save(now)
        except sqlite3.OperationalError as reason:
            if renewal.is_damage(reason):
                raise
            return  # on a full disk sending goes on all the same: it is what makes room
        self._totals = now

    async def _confirm(self, through: int) -> int:
        async with self._turn:
            return await self._session.guard(lambda: self._forget(through))

    async def _forget(self, through: int) -> int:
        before = self._totals
        if through >= before.next_sequence:
            raise ValueError(f"{through} can't be confirmed: the last sequence is {self.last}")
        [(entries, readings, size, last)] = await self._rows(
            "SELECT count(*), sum(iif(gap, 0, readings)), sum(length(body)), max(last) FROM entry "
            "WHERE sequence > ? AND sequence <= ? AND last <= ?",
            (before.confirmed, through, through),
        )
        if not entries:
            return 0
        self._trash, self._handed = True, max(self._handed, last)
        self._totals = replace(
            before,
            confirmed=last,
            entries=before.entries - entries,
            readings=before.readings - readings,
            bytes=before.bytes - size,
        )
        return int(readings)

    async def _mark_delivered(self, spans: Sequence[tuple[int, int]]) -> int:
        async def mark() -> int:
            now, readings = self._totals, 0
            async with self._session.transaction():
                for first, last in spans:
                    now, held = await delivered.mark(self._rows, now, first, min(last, self.last), self.streams)
                    readings += held
                await self._save(now)
            self._totals = now
            return readings

        async with self._turn:
            return await self._session.guard(mark)

    async def _set_aside(self, sequence: int, reason: str, only_if_kept: bool) -> Path | None:
        async def bury() -> Path | None:
            found = await self._rows(
                f"SELECT {COLUMNS}, body FROM entry WHERE sequence = ? AND gap = 0",  # noqa: S608
                (sequence,),
            )
            if not found or sequence <= self._totals.confirmed:
                return None
            entry = from_row(found[0])
            kept = await asyncio.to_thread(delivered.keep_aside, self.path, entry)
            if kept is None and only_if_kept:
                return None
            async with self._session.transaction():
                now = await delivered.bury(self._rows, self._totals, entry, reason, self.streams)
                await self._save(now)
            self._totals = now
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

        async with self._turn:
            return await self._session.guard(bury)

    async def _keep_catalog(self, epoch: int, body: bytes) -> None:
        async def keep() -> None:
            if epoch == self.newest_epoch and await catalogs.read(self._rows, epoch) == body:
                return
            async with self._session.transaction():
                await catalogs.keep(self._rows, epoch, body, confirmed=self._totals.confirmed, last=self.last)
            self.newest_epoch = epoch

        async with self._turn:
            await self._session.guard(keep)

    async def _flush(self) -> None:
        async def tidy() -> None:
            async with self._session.transaction():
                trash = await quota.delete(self._rows, self._totals.confirmed)
                await self._save(self._totals)
            self._trash, self._written = trash, time.monotonic()

        while self._trash:
            async with self._turn:
                await self._session.guard(tidy)

    async def _sweep(self) -> None:
        """Deletes confirmed rows while nothing is appended, and reports losses that were held back."""
        quiet = False
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self._report()
            await asyncio.to_thread(self._session.reserve.hold)
            if time.monotonic() - self._written < SWEEP_SECONDS:
                continue
            try:
                await self.flush()
                quiet = False
            except (HeadraceError, sqlite3.Error, OSError) as reason:
                if not quiet:
                    log.warning("The outbox could not be tidied: %s", reason, extra={"event": "outbox_untidy"})
                quiet = True

    async def _save(self, now: Totals) -> None:
        crc = check(self.stream.bytes, now)
        await self._rows(f"UPDATE meta SET crc = ?, {' = ?, '.join(TOTALS)} = ?", (crc, *astuple(now)))  # noqa: S608

    async def _renew(self, why: str) -> None:
        def surgery() -> None:
            with contextlib.closing(outbox_file.connect(self.path)) as db:
                outbox_file.save(db, self.stream, self._totals)  # what is confirmed is not in the file yet
                renewal.renew(db, self._session.lock, why, moved_from=max(self._opened_at, self._totals.first))

        async with self._turn:
            await self._session.guard(lambda: self._session.apart(surgery))

    async def _connect(self) -> Connection:
        return await aiosqlite.connect(self.path, isolation_level=None, timeout=1.0)

    def _known(self) -> renewal.Found:
        """What this process knows better than a damaged file."""
        if not self._opened_at:
            return renewal.Found()
        return renewal.Found(self.stream, self._totals, self._totals.next_sequence)

    async def _load(self) -> None:
        before = self.stream
        [(stream, _, *totals)] = await self._rows(f"SELECT stream, crc, {', '.join(TOTALS)} FROM meta")  # noqa: S608
        self._totals = Totals(*totals)
        former = await self._rows("SELECT first, stream FROM former")
        self.streams = renewal.streams(former, self._totals, uuid.UUID(bytes=stream))
        if self._opened_at and before != self.stream:
            self._past.add(before.bytes)
        self._opened_at = self._opened_at or self._totals.next_sequence
        self._handed = max(self._totals.sent, self._totals.confirmed)
        self._trash = True
        self.newest_epoch = await catalogs.newest(self._rows)
        room = await asyncio.to_thread(disk.room, self.path)
        self._quota = Quota(
            self._rows,
            self.streams,
            self.max_bytes,
            room,
            log_pages=self._session.log_pages,
            reserve=self._session.reserve.size,
        )
        await self._quota.used()
        await asyncio.to_thread(self._session.lock.note, self.stream, self._totals.next_sequence)

    def _report(self, *, at_once: bool = False) -> None:
        if not self._unreported or not (at_once or time.monotonic() - self._reported >= REPORT_SECONDS):
            return
        log.error(
            "The outbox is full: the oldest %d readings were dropped. A gap stands in their place.",
            self._unreported,
            extra={"event": "readings_lost", "lost": self._unreported, "stream": str(self.stream)},
        )
        self._unreported, self._reported = 0, time.monotonic()
