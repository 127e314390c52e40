"""The outbox's file on the disk: its lock, its tables, and what to do with one that is damaged.

Everything here blocks and is called in a thread, before the outbox's one connection is opened.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import time
import uuid
from pathlib import Path

from agent.errors import HeadraceError

log = logging.getLogger("headrace.outbox")

VERSION = 1
APPLICATION = int.from_bytes(b"HdRc")
PAGE = 4096
SHM_BYTES = 32 * 1024
CHECKED_BYTES = 16 * 1024 * 1024
"""A larger file is not read through when it is opened: opening must not take longer the more waits."""

SCHEMA = """
BEGIN;
CREATE TABLE entry (
    sequence INTEGER PRIMARY KEY, last INTEGER NOT NULL, epoch INTEGER NOT NULL, readings INTEGER NOT NULL,
    first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL, gap INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE TABLE catalog (epoch INTEGER PRIMARY KEY, kept INTEGER NOT NULL, until INTEGER, body BLOB NOT NULL);
CREATE TABLE mark (name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1), stream BLOB NOT NULL,
    next_sequence INTEGER NOT NULL DEFAULT 1, confirmed INTEGER NOT NULL DEFAULT 0, sent INTEGER NOT NULL DEFAULT 0,
    entries INTEGER NOT NULL DEFAULT 0, readings INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0,
    dropped_readings INTEGER NOT NULL DEFAULT 0, dropped_entries INTEGER NOT NULL DEFAULT 0
);
INSERT INTO meta (id, stream) VALUES (1, X'{stream}');
PRAGMA application_id = {application};
PRAGMA user_version = {version};
COMMIT;
"""


class OutboxRefused(HeadraceError):
    """The file can't be opened and must not be touched: another process has it, or a later version wrote it."""


class Damaged(Exception):
    """What is there is not an outbox, or not a whole one."""


def lock(path: Path) -> int:
    """Takes the lock file beside `path`; returns its descriptor, to be closed at the end. Makes the directory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.lock")
    held = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.read(held, 32).decode(errors="replace").strip() or "unknown"
        os.close(held)
        raise OutboxRefused(
            f"{path} is in use by process {owner}; two agents must not share the data directory {path.parent}"
        ) from None
    os.ftruncate(held, 0)
    os.write(held, b"%d\n" % os.getpid())
    return held


def free(path: Path) -> int:
    """Bytes that an ordinary user may still write on the disk of `path`."""
    found = os.statvfs(path.parent)
    return found.f_bavail * found.f_frsize


def capacity(path: Path) -> int:
    """Bytes that the outbox has or could get on its disk."""
    return free(path) + (path.stat().st_size if path.exists() else 0)


def prepare(path: Path) -> None:
    """Makes the file where there is none, and sets one aside that is damaged. Raises OutboxRefused."""
    _refuse_later(path)
    try:
        _check(path)
    except sqlite3.DatabaseError as reason:
        # Locked, read-only or no space: the file may be whole, so it stays where it is.
        if reason.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise
        _set_aside(path, str(reason))
    except Damaged as reason:
        _set_aside(path, str(reason))
    else:
        return
    _check(path)


def _refuse_later(path: Path) -> None:
    """Reads the file's header without SQLite, which might write to it."""
    try:
        with path.open("rb") as opened:
            header = opened.read(72)
    except FileNotFoundError:
        return
    version, application = int.from_bytes(header[60:64]), int.from_bytes(header[68:72])
    if header.startswith(b"SQLite format 3\0") and application == APPLICATION and version > VERSION:
        raise OutboxRefused(
            f"{path} was written by a later version (schema {version}, this one knows {VERSION}); "
            "run that version, or point agent.data_dir elsewhere"
        )


def _check(path: Path) -> None:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)  # SQLite gives its sidecar files the same mode
    size = path.stat().st_size
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=1.0)) as db:
        if size == 0 and not db.execute("SELECT 1 FROM sqlite_master").fetchone():
            # Made before WAL is switched on: the schema is whole in the file itself, or not there at all.
            db.execute(f"PRAGMA page_size = {PAGE}")
            db.execute("PRAGMA synchronous = FULL")
            db.executescript(SCHEMA.format(stream=uuid.uuid4().hex, application=APPLICATION, version=VERSION))
        if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
            raise Damaged("it is a database of something else")
        if db.execute("PRAGMA user_version").fetchone()[0] != VERSION:
            raise Damaged("its schema is unknown")
        if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise OutboxRefused(f"{path}: this file system can't do write-ahead logging; use a local disk")
        if size <= CHECKED_BYTES and (found := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise Damaged(found)
        try:
            whole = db.execute("SELECT count(*) FROM meta WHERE id = 1 AND length(stream) = 16").fetchone()[0]
            db.execute("SELECT sequence, last, gap, body FROM entry ORDER BY sequence LIMIT 1").fetchone()
            db.execute("SELECT epoch, kept, until, body FROM catalog LIMIT 1").fetchone()
        except sqlite3.OperationalError as reason:
            raise Damaged(str(reason)) from reason
        if not whole:
            raise Damaged("its meta row is missing")


def _set_aside(path: Path, why: str) -> None:
    lost = _waiting(path)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    number = 0
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{stamp}-{number}")
    for tail in ("-wal", "-shm", "-journal", ""):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + tail).rename(aside.with_name(aside.name + tail))
    log.error(
        "The outbox is damaged (%s). It was set aside as %s, and a new one begun.",
        why,
        aside,
        extra={"event": "outbox_damaged", "lost": lost, "set_aside": str(aside), "reason": why},
    )


def _waiting(path: Path) -> int:
    """Readings that waited in a damaged file; -1 where it can't say."""
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=1.0)) as db:
            return int(db.execute("SELECT readings FROM meta WHERE id = 1").fetchone()[0])
    except (sqlite3.Error, TypeError, ValueError):
        return -1
