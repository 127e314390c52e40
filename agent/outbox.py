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
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

import aiosqlite

from agent import _native
from agent.contents import Contents
from agent.entry import TOTALS, Entry
from agent.errors import HeadraceError, OutboxFull
from agent.group import Waiting, first
from agent.outbox_file import Lock, OutboxRefused
from agent.renewal import Moved
from agent.session import Connection
from agent.streams import Streams

__all__ = ["MIN_BYTES", "Entry", "Outbox", "OutboxRefused", "WhenFull"]

log = logging.getLogger("headrace.outbox")

T = TypeVar("T")
WhenFull: TypeAlias = Literal["drop_oldest", "stop_collecting"]

SWEEP_SECONDS = 1.0
REPORT_SECONDS = 10.0
MIN_BYTES = 256 * 1024


class Outbox:
    """The queue of one agent. One process opens it; every method may be called from any task of its loop."""

    def __init__(self, path: Path, lock: Lock, *, max_bytes: int, when_full: WhenFull) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.when_full = when_full
        drop_oldest = when_full == "drop_oldest"
        self._contents = Contents(path, lock, max_bytes=max_bytes, drop_oldest=drop_oldest, connect=self._connect)
        self._turn = asyncio.Lock()
        self._waiting: list[Waiting] = []
        self._unreported = 0
        self._reported = -REPORT_SECONDS
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
            await outbox._contents.session.open()
        except BaseException:
            await outbox._contents.session.close()
            raise
        await outbox._compare()
        outbox._sweeper = asyncio.create_task(outbox._sweep(), name="outbox sweeper")
        return outbox

    @property
    def stream(self) -> uuid.UUID:
        """The stream of the next block. It changes where the outbox had to begin a new one."""
        return self._contents.stream

    @property
    def streams(self) -> Streams:
        """All streams that have places here."""
        return self._contents.streams

    def has_moved(self, stream: bytes) -> bool:
        """Whether what this process stored under a stream is under another one now (`renew`)."""
        return stream in self._contents.moved

    @property
    def newest_epoch(self) -> int | None:
        """The epoch whose catalog was kept last."""
        return self._contents.newest_epoch

    @property
    def next_sequence(self) -> int:
        """The place that the next appended block must carry, those that wait for their commit counted."""
        return self._contents.totals.next_sequence + sum(len(each.blocks) for each in self._waiting)

    @property
    def last(self) -> int:
        """The last place that is stored, and not held."""
        return self._contents.last

    def facts(self) -> dict[str, int]:
        """Counters: `entries`, `readings` and `bytes` wait; `dropped_*` are since the outbox was made."""
        found = {name: getattr(self._contents.totals, name) for name in TOTALS if name not in ("first", "sent")}
        return {**found, "disk_bytes": self._contents.quota.disk_bytes}

    async def append(self, block: _native.Block, epoch: int, kept: Mapping[str, bytes] | None = None) -> None:
        """Stores a block, and in the same transaction the collectors' marks; both are durable when this returns.

        Several may wait at once, each with the place after the one before. Raises OutboxFull where there is no room for
        it, or the disk takes no writes (then nothing is stored, nothing dropped for it, and those that wait behind it
        fail as well), and ValueError where the block does not carry `next_sequence`. A block of a stream that has been
        followed by another since it was sealed is stored under the new one.

        Raises TooLarge where no room would ever be enough.
        """
        await self.append_all([block], epoch, kept)

    async def append_all(
        self,
        blocks: Sequence[_native.Block],
        epoch: int,
        kept: Mapping[str, bytes] | None = None,
        *,
        held: bool = False,
    ) -> None:
        """As `append`, for blocks that follow each other: all of them are stored with the marks, or nothing is.

        What is `held` is handed out, and counts as stored, only after `release`; or it is taken back.
        """
        for place, block in enumerate(blocks, self.next_sequence):
            if block.sequence != place and block.data[7:23] not in self._contents.past:
                raise ValueError(f"the block carries sequence {block.sequence}; next is {place}")
        waiting = Waiting(blocks, epoch, kept or {}, held)
        self._waiting.append(waiting)
        await asyncio.shield(self._append(waiting))

    @property
    def held(self) -> bool:
        """Whether anything is held."""
        return self._contents.held

    def release(self) -> None:
        """Holds nothing any more."""
        self._contents.release()

    async def take_back(self, kept: Mapping[str, bytes], first: int = 0) -> bool:
        """Removes what is held, or what an earlier run held from the place `first` on, and stores marks with that.

        Its places are given out anew. False where nothing is held: a new stream has begun since. Raises OutboxFull
        where the disk takes no writes: then it is held as before.
        """
        return await self._alone(lambda: self._contents.take_back(first, kept))

    async def keep_marks(self, kept: Mapping[str, bytes]) -> None:
        """Stores marks that no block goes with. Raises OutboxFull where the disk has no room."""
        await self._alone(lambda: self._contents.keep_marks(kept))

    async def marks(self) -> dict[str, bytes]:
        """The marks that were stored last, by name."""
        return await self._alone(self._contents.marks)

    async def peek(self, after: int, limit: int, max_bytes: int) -> list[Entry]:
        """The entries with a sequence above `after` that are not confirmed, in order.

        At most `limit`, and at most `max_bytes` of bodies; but one where there is one, however large it is. None while
        the disk can't be read.
        """
        with contextlib.suppress(OutboxFull):
            return await self._alone(lambda: self._contents.read(after, limit, max_bytes))
        return []

    async def confirm(self, through: int) -> int:
        """Forgets the entries that end at or before `through`. Returns how many readings they held (a gap: none).

        Raises ValueError for a place that was never given out.
        """
        return await self._alone(lambda: self._contents.forget(through))

    async def mark_delivered(self, spans: Sequence[tuple[int, int]]) -> int:
        """Frees entries above `confirmed` that the other side has; each span is a closed interval of places.

        A gap without readings stays in their place until they are confirmed in order. Returns how many readings they
        held.
        """
        return await self._alone(lambda: self._contents.mark_delivered(spans))

    async def set_aside(self, sequence: int, reason: str, *, only_if_kept: bool = False) -> Path | None:
        """Puts a gap in the place of a block that can't be delivered, and the block into a file. Returns its path.

        None where nothing could be kept; with `only_if_kept` the block then stays where it is.
        """
        return await self._alone(lambda: self._contents.set_aside(sequence, reason, only_if_kept))

    async def keep_catalog(self, epoch: int, body: bytes) -> None:
        """Makes an epoch's catalog durable, and the newest."""
        await self._alone(lambda: self._contents.keep_catalog(epoch, body))

    async def catalog(self, epoch: int) -> bytes | None:
        """The catalog of an epoch that still has entries, or is one of the last few."""
        with contextlib.suppress(OutboxFull):
            return await self._kept_catalog(epoch)
        return None

    async def _kept_catalog(self, epoch: int) -> bytes | None:
        """Raises OutboxFull while the disk can't be read."""
        return await self._alone(lambda: self._contents.catalog(epoch))

    async def flush(self) -> None:
        """Deletes what is confirmed, now."""
        while self._contents.trash:
            await self._alone(self._contents.tidy)

    async def renew(self, why: str) -> None:
        """Begins a new stream: somebody has places of the current one that were never given out here.

        What this process gave out of it moves to the new one, for others stand in its places already; what waited
        before stays where it is.
        """
        await self._alone(lambda: self._contents.renew(why))

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
        # Whoever was cancelled left its work to finish: it has the turn, or waits for it.
        await self._alone(self._contents.session.close)

    async def _alone(self, work: Callable[[], Awaitable[T]]) -> T:
        """Does some work when it is its turn; all of it, also where the caller is cancelled."""

        async def wait() -> T:
            async with self._turn:
                return await work()

        return await asyncio.shield(wait())

    async def _append(self, waiting: Waiting) -> None:
        async with self._turn:
            # Whoever comes first commits for all who wait.
            while not waiting.done:
                group = first(self._waiting, self._contents.quota.group_bytes)
                try:
                    dropped = await self._contents.store(group)
                    self._unreported += dropped
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

    async def _sweep(self) -> None:
        """Deletes confirmed rows while nothing is appended, and reports losses that were held back."""
        quiet = False
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self._report()
            try:
                await asyncio.to_thread(self._contents.session.reserve.hold)
                if time.monotonic() - self._contents.written >= SWEEP_SECONDS:
                    await self.flush()
                quiet = False
            except (HeadraceError, sqlite3.Error, OSError) as reason:
                if not quiet:
                    log.warning("The outbox could not be tidied: %s", reason, extra={"event": "outbox_untidy"})
                quiet = True

    async def _connect(self) -> Connection:
        return await aiosqlite.connect(self.path, isolation_level=None, timeout=1.0)

    async def _compare(self) -> None:
        """Warns where the disk is full before the quota is."""
        try:
            room = await self._contents.session.room()
        except (OSError, Moved):
            return  # whoever appends finds out, and does something about it
        if (most := room.free + room.occupied) < self.max_bytes:
            text = (
                "The disk of %s has %d bytes for the outbox, less than outbox.max_bytes = %d: it is full before that."
            )
            log.warning(text, self.path, most, self.max_bytes, extra={"event": "disk_too_small", "bytes": most})

    def _report(self, *, at_once: bool = False) -> None:
        if not self._unreported or not (at_once or time.monotonic() - self._reported >= REPORT_SECONDS):
            return
        full = f"The outbox is full (outbox.max_bytes = {self.max_bytes})"
        log.error(
            "%s: the oldest %d readings were dropped. A gap stands in their place.",
            f"The disk of {self.path} is full" if self._contents.quota.by_disk else full,
            self._unreported,
            extra={"event": "readings_lost", "lost": self._unreported, "stream": str(self.stream)},
        )
        self._unreported, self._reported = 0, time.monotonic()
