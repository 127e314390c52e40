"""The outbox's one connection to its file, and what is done when the disk fails it.

| what SQLite says | what is done |
| --- | --- |
| the disk is full | the reserve is given up and the work tried once more; then OutboxFull, until there is room |
| it takes no writes (I/O error) | OutboxFull, until it does. The connection stays: it knows what was committed |
| the file is damaged, or can't be read | set aside, saved what can be, begun anew, and the work is done on that |
| the file was removed, or replaced (`room`) | copied from the open one, which can still be read, to where it belongs |
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

from agent import disk, outbox_file, renewal
from agent.errors import OutboxFull, unopened
from agent.outbox_file import Lock, OutboxRefused
from agent.quota import LARGE
from agent.renewal import Found

log = logging.getLogger("headrace.outbox")

T = TypeVar("T")
REBUILDS = 3
"""So often in `REBUILD_SECONDS` a file may turn out damaged; then the disk is given up, and with it the agent's run."""
REBUILD_SECONDS = 60.0


class Connection(Protocol):
    """What is used of an aiosqlite connection."""

    @property
    def in_transaction(self) -> bool: ...
    async def execute_fetchall(self, sql: str, parameters: Sequence[Any] = ...) -> Any: ...
    async def close(self) -> None: ...


Connect: TypeAlias = Callable[[], Awaitable[Connection]]


class Session:
    """One at a time: whoever calls has the outbox's turn."""

    def __init__(
        self,
        path: Path,
        lock: Lock,
        max_bytes: int,
        *,
        connect: Connect,
        known: Callable[[], Found],
        load: Callable[[], Awaitable[None]],
    ) -> None:
        """`known` is asked what the outbox held when its file is damaged; `load` is called whenever it is opened."""
        self.path = path
        self.lock = lock
        self.max_bytes = max_bytes
        self.reserve = disk.Reserve(path)
        self.log_pages = 0
        self._connect = connect
        self._known = known
        self._load = load
        self._db: Connection | None = None
        self._inode = 0
        self._refused = False
        self._rebuilt: list[float] = []
        self._reread = -REBUILD_SECONDS

    async def open(self) -> None:
        """Raises OutboxRefused where it can't be opened now."""
        try:
            if doubt := await asyncio.to_thread(disk.doubts, self.path.parent):
                log.warning("%s: %s", self.path.parent, doubt, extra={"event": "disk_doubtful", "reason": doubt})
            try:
                await self._prepare()
            except sqlite3.OperationalError:
                await asyncio.to_thread(self.reserve.give_up)
                await self._prepare()
        except (*renewal.FAILURES, OSError) as reason:
            raise OutboxRefused(unopened(self.path, reason, "data_dir in [agent]")) from reason
        await asyncio.to_thread(self.reserve.hold)

    async def close(self) -> None:
        try:
            await self._disconnect()
        finally:
            self.lock.release()

    async def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """Runs one statement."""
        if self._db is None:
            raise OutboxFull(f"the outbox {self.path} is not open: its disk fails")
        return list(await self._db.execute_fetchall(sql, values))

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        await self.rows("BEGIN IMMEDIATE")
        try:
            yield
            await self.rows("COMMIT")
        except BaseException:
            if self._db is not None and self._db.in_transaction:  # SQLite may have rolled back by itself
                with contextlib.suppress(sqlite3.Error):
                    await self.rows("ROLLBACK")
            raise

    async def room(self) -> disk.Room:
        """What the disk has for the outbox. Raises Moved where its file is no longer the one that is open."""
        return await asyncio.to_thread(self._room)

    def _room(self) -> disk.Room:
        try:
            inode = self.path.stat().st_ino
        except FileNotFoundError:
            raise renewal.Moved(f"{self.path} was removed while the agent had it open") from None
        if self._inode and inode != self._inode:
            raise renewal.Moved(f"{self.path} was replaced by another file while the agent had it open")
        return disk.room(self.path)

    async def empty_log(self) -> None:
        """Takes what is in the log into the file, so that the next transaction begins at the log's start."""
        with contextlib.suppress(sqlite3.OperationalError):
            await self.rows("PRAGMA wal_checkpoint(RESTART)")

    async def guard(self, work: Callable[[], Awaitable[T]]) -> T:
        """Does some work, again where that helps. Raises OutboxFull where the disk does not take it now."""
        tried = False
        while True:
            try:
                if self._db is None:
                    await self._prepare()
                found = await work()
            except renewal.FAILURES as reason:
                if renewal.is_damage(reason):
                    await self._rebuild(reason)
                    continue
                if not isinstance(reason, sqlite3.OperationalError):
                    raise
                full = reason.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL
                if full and not tried:
                    tried = True
                    await asyncio.to_thread(self.reserve.give_up)
                    await self.empty_log()
                    continue
                raise self._refusal(reason, full=full) from reason
            except OSError as reason:
                raise self._refusal(reason, full=False) from reason
            self._welcome()
            return found

    async def apart(self, surgery: Callable[[], None]) -> None:
        """Does something to the file while it is closed."""
        await self._disconnect()
        await asyncio.to_thread(surgery)
        await self._prepare()

    async def _prepare(self) -> None:
        await asyncio.to_thread(renewal.prepare, self.path, self.lock, self.max_bytes)
        self._db = await self._connect()
        try:
            self._inode = await asyncio.to_thread(disk.inode, self.path)
            room = await self.room()
            capacity = min(self.max_bytes, room.free + room.occupied)
            self.log_pages = max(8, min(1000, capacity // 16 // outbox_file.PAGE))
            # Enough for what is in the log and not yet in the file: then the log can be emptied, and used anew.
            self.reserve.size = self.log_pages * outbox_file.PAGE + min(capacity // 16, LARGE)
            for setting in (
                "synchronous = FULL",
                "secure_delete = OFF",  # Debian's SQLite has it on: twice the bytes written
                "cell_size_check = ON",
                f"wal_autocheckpoint = {self.log_pages}",
                f"journal_size_limit = {self.log_pages * outbox_file.PAGE}",
            ):
                await self.rows(f"PRAGMA {setting}")
            if await self.rows("PRAGMA synchronous") != [(2,)]:
                raise OutboxRefused(f"{self.path}: SQLite does not keep synchronous = FULL: nothing would be durable")
            await self._load()
        except BaseException:
            await self._disconnect()
            raise

    async def _disconnect(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                await db.close()

    async def _rebuild(self, reason: Exception) -> None:
        if isinstance(reason, renewal.Moved) and not await asyncio.to_thread(self.path.parent.exists):
            raise self._refusal(reason, full=False) from reason  # what is open is all there is: it stays open
        now = time.monotonic()
        code = getattr(reason, "sqlite_errorcode", 0)
        if code in outbox_file.UNREADABLE and now - self._reread > REBUILD_SECONDS:
            self._reread = now  # once it may be the disk's mood: what is read again then is still the file
            await self._disconnect()
            return
        self._rebuilt = [at for at in self._rebuilt if now - at < REBUILD_SECONDS]
        if len(self._rebuilt) >= REBUILDS:
            raise OutboxRefused(f"{self.path} was damaged {REBUILDS} times in a minute: its disk fails ({reason})")
        known = self._known()
        try:
            saved = isinstance(reason, renewal.Moved) and await self._saved()
            await self._disconnect()
            if saved:
                await asyncio.to_thread(renewal.put_back, self.path, str(reason), known)
                await self._prepare()
                return
            await asyncio.to_thread(renewal.rebuild, self.path, self.lock, self.max_bytes, str(reason), known)
            await self._prepare()
        except (sqlite3.OperationalError, OSError) as wrong:
            raise self._refusal(wrong, full=False) from wrong
        self._rebuilt.append(now)

    async def _saved(self) -> bool:
        """Copies what is open to a new file. False where there is no room for it."""
        try:
            made = await asyncio.to_thread(renewal.cleared, self.path)
            await self.rows("VACUUM INTO ?", (str(made),))
        except (sqlite3.Error, OutboxFull):
            return False
        return True

    def _refusal(self, reason: Exception, *, full: bool) -> OutboxFull:
        """Says once that nothing can be written now."""
        if full:
            return OutboxFull(f"the disk under {self.path.parent} is full")
        if not self._refused:
            self._refused = True
            log.error(
                "The disk under %s does not take writes (%s); trying again.",
                self.path.parent,
                reason,
                extra={"event": "outbox_unwritable", "lost": 0, "reason": str(reason)},
            )
        return OutboxFull(f"the disk under {self.path.parent} does not take writes: {reason}")

    def _welcome(self) -> None:
        if self._refused:
            self._refused = False
            log.warning("The disk under %s takes writes again.", self.path.parent, extra={"event": "outbox_writable"})
