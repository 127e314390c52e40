"""The durable queue between collecting and sending: one row a block, in SQLite (WAL, synchronous=FULL).

`append` returns when the block is on the disk. Places in the stream (sequences) start at 1 and are never used twice.
`confirm` forgets what the other side has; the rows are deleted with the next append, or by themselves a second later.
Where the quota is reached the oldest blocks become gaps in their very places (`drop_oldest`), or `append` says no.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import aiosqlite

from agent import _native, outbox_file
from agent.entry import COLUMNS, INSERT, TOTALS, Entry, Totals, from_row, signed, to_row, unsigned
from agent.errors import HeadraceError, OutboxFull
from agent.outbox_file import PAGE, OutboxRefused
from agent.quota import BATCH, Quota, log_bytes

__all__ = ["MIN_BYTES", "Entry", "Outbox", "OutboxRefused", "WhenFull"]

log = logging.getLogger("headrace.outbox")

WhenFull: TypeAlias = Literal["drop_oldest", "stop_collecting"]

SWEEP_SECONDS = 1.0
REPORT_SECONDS = 10.0
AHEAD = 1024
"""Places that `peek` marks as sent before they are, so that only one peek in many has to write."""
KEPT_CATALOGS = 8
MIN_BYTES = 256 * 1024


class Outbox:
    """The queue of one stream. One process opens it; every method may be called from any task of its loop."""

    def __init__(self, path: Path, db: aiosqlite.Connection, lock: int, *, max_bytes: int, when_full: WhenFull) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.when_full = when_full
        self.stream = uuid.UUID(int=0)
        self.newest_epoch: int | None = None
        self._quota: Quota
        self._db = db
        self._lock = lock
        self._turn = asyncio.Lock()
        self._totals = Totals()
        self._handed = 0  # places up to this one may have been sent: their entries keep their range for ever
        self._trash = True  # confirmed rows may still be in the file
        self._unreported = 0
        self._reported = -REPORT_SECONDS
        self._written = 0.0
        self._sweeper: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, path: Path, *, max_bytes: int, when_full: WhenFull) -> Outbox:
        """Opens the outbox, or makes it. `max_bytes` bounds what it takes on the disk, write-ahead log included.

        A file that is damaged is set aside and a new stream begun. Raises OutboxRefused where another process has it
        or a later version wrote it, and ValueError where `max_bytes` is too small to be of use.
        """
        if max_bytes < MIN_BYTES:
            raise ValueError(f"an outbox needs at least {MIN_BYTES} bytes, not {max_bytes}")
        lock = await asyncio.to_thread(outbox_file.lock, path)
        try:
            await asyncio.to_thread(outbox_file.prepare, path)
            db = await aiosqlite.connect(path, isolation_level=None, timeout=1.0)
        except BaseException:
            os.close(lock)
            raise
        outbox = cls(path, db, lock, max_bytes=max_bytes, when_full=when_full)
        try:
            await outbox._load()
        except BaseException:
            await outbox._release()
            raise
        outbox._sweeper = asyncio.create_task(outbox._sweep(), name="outbox sweeper")
        return outbox

    @property
    def next_sequence(self) -> int:
        """The place that the next appended block must carry."""
        return self._totals.next_sequence

    def facts(self) -> dict[str, int]:
        """Counters: `entries`, `readings` and `bytes` wait; `dropped_*` are since the stream began."""
        found = {name: getattr(self._totals, name) for name in TOTALS if name != "sent"}
        return {**found, "disk_bytes": self._quota.disk_bytes}

    async def append(self, block: _native.Block, epoch: int, marks: Mapping[str, bytes] | None = None) -> None:
        """Stores a block, and in the same transaction the collectors' marks; both are durable when this returns.

        Raises OutboxFull where there is no room for it (then nothing is stored, and nothing dropped for it), and
        ValueError where the block does not carry `next_sequence`.
        """
        await asyncio.shield(self._append(block, epoch, marks or {}))

    async def keep_marks(self, marks: Mapping[str, bytes]) -> None:
        """Stores marks that no block goes with. Raises OutboxFull where the disk has no room."""
        await asyncio.shield(self._keep_marks(marks))

    async def marks(self) -> dict[str, bytes]:
        """The marks that were stored last, by name."""
        return dict(await self._rows("SELECT name, body FROM mark"))

    async def peek(self, after: int, limit: int, max_bytes: int) -> list[Entry]:
        """The entries with a sequence above `after` that are not confirmed, in order.

        At most `limit`, and at most `max_bytes` of bodies; but one where there is one, however large it is.
        """
        return await asyncio.shield(self._peek(after, limit, max_bytes))

    async def confirm(self, through: int) -> int:
        """Forgets the entries that end at or before `through`. Returns how many readings they held (a gap: none).

        Raises ValueError for a place that was never given out.
        """
        return await asyncio.shield(self._confirm(through))

    async def keep_catalog(self, epoch: int, body: bytes) -> None:
        """Makes an epoch's catalog durable, and the newest."""
        await asyncio.shield(self._keep_catalog(epoch, body))

    async def catalog(self, epoch: int) -> bytes | None:
        """The catalog of an epoch that still has entries, or is one of the last few."""
        found = await self._rows("SELECT body FROM catalog WHERE epoch = ?", (signed(epoch),))
        return found[0][0] if found else None

    async def flush(self) -> None:
        """Deletes what is confirmed, now."""
        await asyncio.shield(self._flush())

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
        await self._release()

    async def _keep_marks(self, marks: Mapping[str, bytes]) -> None:
        async with self._turn, self._transaction():
            await self._write_marks(marks)

    async def _write_marks(self, marks: Mapping[str, bytes]) -> None:
        for mark in marks.items():
            await self._rows("INSERT OR REPLACE INTO mark (name, body) VALUES (?, ?)", mark)

    async def _append(self, block: _native.Block, epoch: int, marks: Mapping[str, bytes]) -> None:
        body = block.data
        async with self._turn:
            before = self._totals
            if block.sequence != before.next_sequence:
                raise ValueError(f"the block carries sequence {block.sequence}; next is {before.next_sequence}")
            self._quota.check(len(body), await asyncio.to_thread(outbox_file.free, self.path))
            async with self._transaction():
                if trash := self._trash:
                    trash = await self._delete()
                now, trash = await self._make_room(len(body) + sum(len(mark) for mark in marks.values()), trash)
                entry = Entry(
                    block.sequence, block.sequence, epoch, block.readings, block.first_ns, block.last_ns, body
                )
                await self._rows(INSERT, to_row(entry))
                await self._write_marks(marks)
                now = replace(
                    now,
                    next_sequence=now.next_sequence + 1,
                    entries=now.entries + 1,
                    readings=now.readings + entry.readings,
                    bytes=now.bytes + len(body),
                )
                await self._save(now)
            self._totals, self._trash, self._written = now, trash, time.monotonic()
            self._unreported += now.dropped_readings - before.dropped_readings
        self._report()

    async def _peek(self, after: int, limit: int, max_bytes: int) -> list[Entry]:
        async with self._turn:
            start = max(after, self._totals.confirmed)
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
            if last > self._totals.sent:
                await self._mark_sent(last + AHEAD)
            self._handed = max(self._handed, last)
            found = await self._rows(
                f"SELECT {COLUMNS}, body FROM entry WHERE sequence > ? AND sequence <= ? ORDER BY sequence",  # noqa: S608
                (start, through),
            )
        return [from_row(row) for row in found]

    async def _mark_sent(self, through: int) -> None:
        now = replace(self._totals, sent=through)
        # On a full disk sending goes on all the same: it is what makes room.
        with contextlib.suppress(OutboxFull):
            async with self._transaction():
                await self._save(now)
            self._totals = now

    async def _confirm(self, through: int) -> int:
        async with self._turn:
            before = self._totals
            if through >= before.next_sequence:
                raise ValueError(f"{through} can't be confirmed: the last sequence is {before.next_sequence - 1}")
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

    async def _keep_catalog(self, epoch: int, body: bytes) -> None:
        async with self._turn:
            if epoch == self.newest_epoch:
                return
            totals, key = self._totals, signed(epoch)
            async with self._transaction():
                await self._rows(
                    "UPDATE catalog SET until = ? WHERE until IS NULL AND epoch != ?", (totals.next_sequence - 1, key)
                )
                await self._rows(
                    "INSERT OR REPLACE INTO catalog (epoch, kept, until, body) "
                    "SELECT ?, coalesce(max(kept), 0) + 1, NULL, ? FROM catalog",
                    (key, body),
                )
                await self._rows(
                    "DELETE FROM catalog WHERE until <= ? AND kept <= (SELECT max(kept) FROM catalog) - ?",
                    (totals.confirmed, KEPT_CATALOGS),
                )
            self.newest_epoch = epoch

    async def _flush(self) -> None:
        while self._trash:
            async with self._turn:
                async with self._transaction():
                    trash = await self._delete()
                    await self._save(self._totals)
                self._trash, self._written = trash, time.monotonic()

    async def _sweep(self) -> None:
        """Deletes confirmed rows while nothing is appended, and reports losses that were held back."""
        quiet = False
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self._report()
            if time.monotonic() - self._written < SWEEP_SECONDS:
                continue
            try:
                await self.flush()
                quiet = False
            except (HeadraceError, sqlite3.Error) as reason:
                if not quiet:
                    log.warning("The outbox could not be tidied: %s", reason, extra={"event": "outbox_untidy"})
                quiet = True

    async def _delete(self) -> bool:
        """Deletes one batch of confirmed rows. Returns whether more may be left."""
        confirmed = self._totals.confirmed
        beyond = await self._rows(
            "SELECT sequence FROM entry WHERE sequence <= ? ORDER BY sequence LIMIT 1 OFFSET ?", (confirmed, BATCH)
        )
        await self._rows("DELETE FROM entry WHERE sequence <= ?", (beyond[0][0] - 1 if beyond else confirmed,))
        return bool(beyond)

    async def _make_room(self, size: int, trash: bool) -> tuple[Totals, bool]:
        """Within a transaction, deletes and drops until a body of `size` bytes fits. Raises OutboxFull."""
        now, wanted = self._totals, 0
        while (short := await self._quota.short(size)) > 0:
            if trash:
                trash = await self._delete()
                continue
            # A row may free less than its size (pages are shared), so every round asks for more than the last.
            wanted = max(short, 2 * wanted)
            after = await self._quota.drop(now, wanted, self._handed) if self.when_full == "drop_oldest" else now
            if after is now:
                raise OutboxFull(
                    f"the outbox {self.path} is full: {now.entries} blocks wait; "
                    f"a block of {size} bytes does not fit in outbox.max_bytes = {self.max_bytes}"
                )
            now = after
        return now, trash

    async def _save(self, now: Totals) -> None:
        await self._rows(f"UPDATE meta SET {' = ?, '.join(TOTALS)} = ?", astuple(now))  # noqa: S608

    async def _load(self) -> None:
        capacity = min(self.max_bytes, await asyncio.to_thread(outbox_file.capacity, self.path))
        log_pages = max(8, min(1000, capacity // 16 // PAGE))
        for setting in (
            "synchronous = FULL",
            "secure_delete = OFF",  # Debian's SQLite has it on: twice the bytes written
            f"wal_autocheckpoint = {log_pages}",
            f"journal_size_limit = {log_pages * PAGE}",
        ):
            await self._rows(f"PRAGMA {setting}")
        if await self._rows("PRAGMA synchronous") != [(2,)]:
            raise OutboxRefused(f"{self.path}: SQLite does not keep synchronous = FULL, so nothing would be durable")
        # Files of earlier versions have no marks.
        await self._rows("CREATE TABLE IF NOT EXISTS mark (name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID")
        [(stream, *totals)] = await self._rows(f"SELECT stream, {', '.join(TOTALS)} FROM meta")  # noqa: S608
        self.stream = uuid.UUID(bytes=stream)
        self._totals = Totals(*totals)
        self._handed = max(self._totals.sent, self._totals.confirmed)
        newest = await self._rows("SELECT epoch FROM catalog ORDER BY kept DESC LIMIT 1")
        self.newest_epoch = unsigned(newest[0][0]) if newest else None
        self._quota = Quota(self._rows, self.stream, self.max_bytes, log_bytes(log_pages, capacity))
        await self._quota.used()

    async def _release(self) -> None:
        try:
            await self._db.close()
        finally:
            os.close(self._lock)

    def _report(self, *, at_once: bool = False) -> None:
        if not self._unreported or not (at_once or time.monotonic() - self._reported >= REPORT_SECONDS):
            return
        log.error(
            "The outbox is full: the oldest %d readings were dropped. A gap stands in their place.",
            self._unreported,
            extra={"event": "readings_lost", "lost": self._unreported, "stream": str(self.stream)},
        )
        self._unreported, self._reported = 0, time.monotonic()

    async def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        return list(await self._db.execute_fetchall(sql, values))

    @contextlib.asynccontextmanager
    async def _transaction(self) -> AsyncIterator[None]:
        try:
            await self._rows("BEGIN IMMEDIATE")
            try:
                yield
                await self._rows("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # SQLite may have rolled back by itself
                    await self._rows("ROLLBACK")
                raise
        except sqlite3.OperationalError as reason:
            if reason.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL:
                raise OutboxFull(f"the disk under {self.path.parent} is full") from reason
            raise
