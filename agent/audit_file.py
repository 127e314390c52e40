"""A ledger that is written: append, fsync, one file after another, and what is old enough is deleted.

One process writes a ledger at a time. Every call blocks: `agent.audit_queue` is for those who may not wait.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from agent import audit, durable
from agent.audit import AuditError, Ends, Head

log = logging.getLogger("headrace.audit")

Entry: TypeAlias = tuple[str, Mapping[str, Any]]
"""A record that is to be: (kind, facts)."""

DAY_NS = 24 * 3600 * 10**9
LEAST_DAYS = 180
"""No younger record is ever deleted, whatever the quota."""
LEAP_NS = 10 * DAY_NS
"""Time between two files counts up to this much: a clock that is years ahead for a while makes nothing years old."""
FILE_BYTES = 8 * 1024 * 1024
FILE_NS = DAY_NS
"""A file is closed for the next one when it is so large, or its first record so old, or of the future."""


class AuditFile:
    """The ledger `name` of a folder.

    After a crash it goes on behind what the disk holds: a line that was cut off is taken away, and a record says so.
    Where records that the head names are gone it goes on behind the head, so that the hole stays to be found.
    """

    def __init__(self, folder: Path, name: str, *, keep_days: float = 200.0, max_bytes: int = 1024**3) -> None:
        """Raises AuditError where the ledger is in use or can't be opened, ValueError for less than 180 days."""
        if keep_days < LEAST_DAYS:
            raise ValueError(f"a ledger is kept for {LEAST_DAYS} days or longer, not {keep_days:g}")
        self.folder, self.name = folder, name
        self._keep_ns = int(keep_days * DAY_NS)
        self._max_bytes = max_bytes
        self._file: BinaryIO | None = None
        self._file_bytes = 0
        self._file_since_ns = 0
        self._warned = False
        self._base = self._head = Head()
        self._closed_bytes = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / f"{name}.lock").open("ab")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise AuditError(f"the ledger {folder / name} is in use by another process") from None
        except OSError as reason:
            raise AuditError(f"the ledger {folder / name} can't be opened: {reason.strerror or reason}") from reason
        try:
            self._recover()
        except OSError as reason:
            self._lock.close()
            raise AuditError(f"the ledger {folder / name} can't be read: {reason.strerror or reason}") from reason

    @property
    def head(self) -> Head:
        """The newest record."""
        return self._head

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return self._closed_bytes + self._file_bytes

    def append(self, entries: Iterable[Entry]) -> Head:
        """Writes records and waits until they are on the disk. Raises AuditError: then none of them counts."""
        lines, head = [], self._head
        now = time.time_ns()
        for kind, facts in entries:
            text, head = audit.line(head, kind, now, facts)
            lines.append(text)
        body = b"".join(lines)
        if not body:
            return head
        if self.size + len(body) > self._max_bytes:
            with suppress(OSError):
                self.prune(now)
        if self.size + len(body) > self._max_bytes:
            raise AuditError(
                f"the ledger {self.folder / self.name} has reached its {self._max_bytes} bytes, and nothing in it is"
                " old enough to be deleted; raise [audit] max_bytes"
            )
        try:
            self._write(body, now)
        except OSError as reason:
            raise AuditError(f"the ledger {self.folder / self.name} can't be written: {reason.strerror}") from reason
        self._head = head
        self._tell_head()
        self._warn()
        return head

    def prune(self, now_ns: int) -> int:
        """Deletes the files whose every record is older than the ledger is kept; returns how many."""
        found = audit.files(self.folder, self.name)
        ages = _ages([_first_ns(path) for _, path in found], now_ns)
        gone = 0
        # The newest record of a file is older than the first of the next one.
        for at, ((_, path), (next_first, following)) in enumerate(pairwise(found), 1):
            if ages[at] < self._keep_ns:
                break
            record = _first(following)
            assert record is not None
            self._base = Head(next_first - 1, record.prev)
            self._tell_head()
            self._closed_bytes -= path.stat().st_size
            path.unlink()
            gone += 1
        return gone

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._lock.close()

    def _write(self, body: bytes, now: int) -> None:
        # A clock that was ahead when the file began would have it open for as long.
        fresh = 0 <= now - self._file_since_ns < FILE_NS
        if self._file is not None and (self._file_bytes >= FILE_BYTES or not fresh):
            self._file.close()
            self._file = None
            self._closed_bytes += self._file_bytes
            self._file_bytes = 0
            self.prune(now)
        if self._file is None:
            path = self.folder / f"{self.name}-{self._head.n + 1:012d}.jsonl"
            self._file = path.open("ab", buffering=0)
            self._file_bytes, self._file_since_ns = 0, now
            durable.sync(self.folder)
        try:
            written = 0
            while written < len(body):
                written += self._file.write(body[written:])
            os.fdatasync(self._file.fileno())
        except OSError:
            # What is in the file beyond its length may or may not be on the disk: it was never said to be.
            with suppress(OSError):
                self._file.truncate(self._file_bytes)
            raise
        self._file_bytes += len(body)

    def _tell_head(self) -> None:
        # Not synced: after a power cut the head may be an older one, and then protects that much less of the end.
        path = self.folder / f"{self.name}.head"
        fresh = path.with_suffix(".head.new")
        with suppress(OSError):
            fresh.write_bytes(Ends(self._base, self._head).encode())
            fresh.replace(path)

    def _warn(self) -> None:
        full = self.size > self._max_bytes * 0.8
        if full and not self._warned:
            log.warning(
                "the ledger %s has used %d of its %d bytes; raise [audit] max_bytes",
                self.name,
                self.size,
                self._max_bytes,
                extra={"event": "audit_nearly_full", "ledger": self.name, "bytes": self.size},
            )
        self._warned = full

    def _recover(self) -> None:
        found = audit.files(self.folder, self.name)
        self._closed_bytes = sum(path.stat().st_size for _, path in found)
        facts: dict[str, Any] = {}
        if found:
            cut, self._head = _mend(found[-1][1])
            self._closed_bytes -= cut
            if cut:
                facts["cut_bytes"] = cut
        try:
            ends = audit.read_ends(self.folder, self.name)
        except ValueError:
            ends = None
        if ends is not None:
            self._base = ends.base
            facts |= self._compare(ends.last, [path for _, path in found])
        elif found:
            record = _first(found[0][1])
            self._base = Head(found[0][0] - 1, record.prev if record else audit.ORIGIN)
            facts["head_missing"] = True
        if audit.SUSPECT & facts.keys():
            log.error(
                "the ledger %s was changed while nobody wrote it; `headrace audit verify` says where",
                self.name,
                extra={"event": "audit_broken", "ledger": self.name, **facts},
            )
        elif found and found[-1][1].stat().st_size < FILE_BYTES:
            self._file = found[-1][1].open("ab", buffering=0)
            self._file_bytes = found[-1][1].stat().st_size
            self._file_since_ns = _first_ns(found[-1][1]) or 0
            self._closed_bytes -= self._file_bytes
        if facts:
            self.append([("recovered", facts)])

    def _compare(self, told: Head, paths: list[Path]) -> dict[str, Any]:
        """What does not fit the head, which stays the end to go on from: so the break is there for ever."""
        if self._head.n < told.n:
            facts = {"ends_at": self._head.n, "head": told.n}
        elif told.n and not any(audit.holds(path, told) for path in reversed(paths)):
            facts = {"head_mismatch": told.n}
            if self._head.n > told.n:
                return facts
        else:
            return {}
        self._head = told
        return facts


def _mend(path: Path) -> tuple[int, Head]:
    """Takes away a line without end; returns how many bytes it had, and the last record."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 2 * audit.MAX_LINE))
        tail = file.read()
        kept, _, torn = tail.rpartition(b"\n")
        if torn:
            file.truncate(size - len(torn))
            os.fdatasync(file.fileno())
    last = Head(int(path.stem.rpartition("-")[2]) - 1, audit.ORIGIN)
    with suppress(ValueError):
        record = audit.Record.parse(kept.rpartition(b"\n")[2])
        last = Head(record.n, record.hash)
    return len(torn), last


def _ages(since: list[int | None], now_ns: int) -> list[int]:
    """How long ago each of these times was at least, in ns: where the clock leapt between two of them, so much did not
    pass. Of a time that nobody knows that is nothing."""
    ages, age, later = [], 0, now_ns
    for time_ns in reversed(since):
        if time_ns is not None:
            age += min(max(0, later - time_ns), LEAP_NS)
            later = time_ns
        ages.append(0 if time_ns is None else age)
    return ages[::-1]


def _first(path: Path) -> audit.Record | None:
    with path.open("rb") as file, suppress(ValueError):
        return audit.Record.parse(file.readline(audit.MAX_LINE).removesuffix(b"\n"))
    return None


def _first_ns(path: Path) -> int | None:
    record = _first(path)
    return record.time_ns if record else None
