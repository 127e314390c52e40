"""The outbox's file on the disk: its lock, its tables, and how it is opened.

Everything here blocks and is called in a thread, before the outbox's one connection is opened.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import logging
import os
import sqlite3
import struct
import uuid
from dataclasses import astuple
from pathlib import Path

from agent import _native, durable
from agent.entry import TOTALS, Damaged, Totals
from agent.entry import check as check_of
from agent.errors import HeadraceError, unopened

log = logging.getLogger("headrace.outbox")

VERSION = 2
APPLICATION = int.from_bytes(b"HdRc")
PAGE = 4096
SHM_BYTES = 32 * 1024
CHECKED_BYTES = 16 * 1024 * 1024
"""A larger file is not read through when it is opened: opening must not take longer the more waits."""
BROKEN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
UNREADABLE = {sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS}

SCHEMA = """
BEGIN;
CREATE TABLE entry (
    sequence INTEGER PRIMARY KEY, last INTEGER NOT NULL, epoch INTEGER NOT NULL, readings INTEGER NOT NULL,
    first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL, gap INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE TABLE catalog (
    epoch INTEGER PRIMARY KEY, kept INTEGER NOT NULL, until INTEGER, crc INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE TABLE mark (name TEXT PRIMARY KEY, crc INTEGER NOT NULL, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE former (first INTEGER PRIMARY KEY, stream BLOB NOT NULL);
CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1), stream BLOB NOT NULL, inode INTEGER NOT NULL, crc INTEGER NOT NULL,
    {totals}
);
INSERT INTO meta VALUES (1, X'{stream}', 0, {crc}, {values});
PRAGMA application_id = {application};
PRAGMA user_version = {version};
COMMIT;
"""

_TABLES = "SELECT CAST(name AS BLOB), CAST(sql AS BLOB) FROM sqlite_master"
"""As bytes: what was damaged need not be text any more."""
_NOTE = struct.Struct("<16sQ")
_NOTE_AT = 64


class OutboxRefused(HeadraceError):
    """The file can't be opened and must not be touched: another process has it, or a later version wrote it."""


class Lock:
    """The file beside an outbox that says who has it, and how far its stream was given out when that was last noted.

    The note outlives a kill, not a power cut (it is never synced). It tells when the end of the outbox went missing.
    """

    def __init__(self, path: Path) -> None:
        """Takes the lock, and makes the directory. Raises OutboxRefused where another process has it, or its place
        can't be used."""
        beside = path.with_name(f"{path.name}.lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._held = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as reason:
            raise OutboxRefused(unopened(path, reason, "data_dir in [agent]")) from reason
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.pread(self._held, 32, 0).decode(errors="replace").strip(" \0\n") or "unknown"
            os.close(self._held)
            raise OutboxRefused(
                f"{path} is in use by process {owner}; two agents must not share the data directory {path.parent}"
            ) from None
        with contextlib.suppress(OSError):  # it is only for people
            os.pwrite(self._held, f"{os.getpid():<31}\n".encode(), 0)

    def note(self, stream: uuid.UUID, next_sequence: int) -> None:
        note = _NOTE.pack(stream.bytes, next_sequence)
        with contextlib.suppress(OSError):
            os.pwrite(self._held, note + _native.crc32c(note).to_bytes(4, "little"), _NOTE_AT)

    def noted(self) -> tuple[uuid.UUID, int] | None:
        """(stream, next sequence), or None where nothing that can be trusted was noted."""
        with contextlib.suppress(OSError):
            found = os.pread(self._held, _NOTE.size + 4, _NOTE_AT)
            if len(found) == _NOTE.size + 4 and _native.crc32c(found[:-4]) == int.from_bytes(found[-4:], "little"):
                stream, next_sequence = _NOTE.unpack(found[:-4])
                return uuid.UUID(bytes=stream), next_sequence
        return None

    def release(self) -> None:
        os.close(self._held)


def refuse_later(path: Path) -> None:
    """Raises OutboxRefused where a later version wrote the file. Without SQLite, which might write to it."""
    try:
        with path.open("rb") as opened:
            header = opened.read(72)
    except FileNotFoundError:
        return
    version, application = int.from_bytes(header[60:64]), int.from_bytes(header[68:72])
    if header.startswith(b"SQLite format 3\0") and application == APPLICATION and VERSION < version < 1000:
        raise OutboxRefused(
            f"{path} was written by a later version (schema {version}, this one knows {VERSION}); "
            "run that version, or point agent.data_dir elsewhere"
        )


def connect(path: Path) -> sqlite3.Connection:
    """A connection for what is done before the outbox's own one is opened."""
    db = sqlite3.connect(path, isolation_level=None, timeout=1.0)
    try:
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA cell_size_check = ON")
    except BaseException:
        db.close()
        raise
    return db


def check(path: Path) -> None:
    """Makes the file where there is none. Raises Damaged, or sqlite3's own errors, where it is not a whole outbox.

    Afterwards all of it is in the file itself: what a commit that failed left in the log is either gone, or synced.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)  # SQLite gives its sidecar files the same mode
    with contextlib.closing(connect(path)) as db:
        if path.stat().st_size == 0 and not db.execute("SELECT 1 FROM sqlite_master").fetchone():
            # Made before WAL is switched on: the schema is whole in the file itself, or not there at all.
            db.execute(f"PRAGMA page_size = {PAGE}")
            db.executescript(_schema(uuid.uuid4()))
            durable.sync(path.parent)
        if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
            raise Damaged("it is a database of something else")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 1:
            _from_version_1(db)
        elif version != VERSION:
            raise Damaged("its schema is unknown")
        if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise OutboxRefused(f"{path}: this file system can't do write-ahead logging; use a local disk")
        try:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.OperationalError as reason:
            if reason.sqlite_errorcode & 0xFF != sqlite3.SQLITE_FULL:
                raise  # on a full disk it stays in the log, until there is room
        size = path.stat().st_size
        if size <= CHECKED_BYTES and (found := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise Damaged(found)
        load(db)


def load(db: sqlite3.Connection) -> tuple[uuid.UUID, Totals]:
    """What the meta row says. Raises Damaged where it, or a table, is not what it was."""
    try:
        tables = dict(db.execute(_TABLES))
        found = db.execute(f"SELECT stream, crc, {', '.join(TOTALS)} FROM meta WHERE id = 1").fetchone()  # noqa: S608
        db.execute("SELECT sequence, last, gap, body FROM entry ORDER BY sequence LIMIT 1").fetchone()
        db.execute("SELECT epoch, kept, until, crc, body FROM catalog LIMIT 1").fetchone()
        db.execute("SELECT first, stream FROM former LIMIT 1").fetchone()
    except sqlite3.OperationalError as reason:
        if reason.sqlite_errorcode & 0xFF != sqlite3.SQLITE_ERROR:
            raise
        raise Damaged(str(reason)) from reason
    if tables != _tables():
        raise Damaged("its schema is not what was written")
    if found is None:
        raise Damaged("its meta row is missing")
    return checked(found)


def checked(row: tuple[object, ...]) -> tuple[uuid.UUID, Totals]:
    """(stream, totals) from a meta row's (stream, crc, *TOTALS). Raises Damaged."""
    stream, crc, *numbers = row
    if type(stream) is bytes and len(stream) == 16 and all(type(number) is int for number in numbers):
        totals = Totals(*numbers)  # type: ignore[arg-type]
        if check_of(stream, totals) == crc:
            return uuid.UUID(bytes=stream), totals
    raise Damaged("its meta row is damaged")


def save(db: sqlite3.Connection, stream: uuid.UUID, totals: Totals) -> None:
    """Writes the meta row."""
    names = ", ".join(f"{name} = ?" for name in TOTALS)
    values = (stream.bytes, check_of(stream.bytes, totals), *astuple(totals))
    db.execute(f"UPDATE meta SET stream = ?, crc = ?, {names}", values)  # noqa: S608


@functools.cache
def _tables() -> dict[bytes, bytes]:
    """Name -> SQL of every table, as SQLite keeps it: one letter less, and a key is no key any more."""
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.executescript(_schema(uuid.UUID(int=0)))
        return dict(db.execute(_TABLES))


def _schema(stream: uuid.UUID) -> str:
    empty = Totals()
    return SCHEMA.format(
        totals=", ".join(f"{name} INTEGER NOT NULL" for name in TOTALS),
        values=", ".join(map(str, astuple(empty))),
        stream=stream.hex,
        crc=check_of(stream.bytes, empty),
        application=APPLICATION,
        version=VERSION,
    )


def _from_version_1(db: sqlite3.Connection) -> None:
    """Version 1 had one stream for ever, and no checksums."""
    stream, *old = db.execute(
        "SELECT stream, next_sequence, confirmed, sent, entries, readings, bytes, dropped_readings, dropped_entries"
        " FROM meta WHERE id = 1"
    ).fetchone() or (b"",)
    if len(stream) != 16:
        raise Damaged("its meta row is missing")
    catalogs = db.execute("SELECT epoch, kept, until, body FROM catalog").fetchall()
    script = _schema(uuid.UUID(bytes=stream)).split(";\n")
    tables = [line for line in script if line.lstrip().startswith(("CREATE", "INSERT")) and "TABLE entry" not in line]
    db.execute("BEGIN IMMEDIATE")
    db.execute("DROP TABLE catalog")
    db.execute("DROP TABLE meta")
    for statement in tables:
        db.execute(statement)
    db.executemany(
        "INSERT INTO catalog VALUES (?, ?, ?, ?, ?)", [(*row, _native.crc32c(body), body) for *row, body in catalogs]
    )
    save(db, uuid.UUID(bytes=stream), Totals(1, *old))
    db.execute(f"PRAGMA user_version = {VERSION}")
    db.execute("COMMIT")
