"""How a new stream begins in an outbox whose numbers can't be trusted: the file was damaged, or an old copy put back.

A damaged file is set aside; every block that still has its checksum goes into a new file, at its old place in its old
stream. Places that are missing become gaps. New blocks belong to a new stream, which begins with a gap that says why:
no place of the old stream is ever given out a second time. All of it takes seconds, however large the file was; what
there was no time for stays in the file that was set aside, and `headrace outbox export` reads it.

Everything here blocks and is called in a thread, while the outbox's own connection is closed.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from agent import _native, disk, durable, outbox_file, salvage
from agent.entry import COLUMNS, INSERT, TOTALS, Damaged, Entry, Totals, from_block, from_row, readdressed, to_row
from agent.errors import BlockError
from agent.outbox_file import BROKEN, UNREADABLE, Lock
from agent.streams import Streams

log = logging.getLogger("headrace.outbox")

SALVAGE_SECONDS = 3.0
KEPT_ASIDE = 3
"""Damaged files that are kept. Older ones are removed, or a disk that goes bad would fill up with them."""
FAILURES = (sqlite3.DatabaseError, Damaged, UnicodeDecodeError)
"""What a damaged file raises; the last where it is a name in the schema that SQLite complains about."""
STOOD_HERE = "the outbox was damaged: the block of this place is lost"


class Moved(Damaged):
    """The outbox's file is no longer at its place; the one that is open is whole."""


@dataclass(slots=True)
class Found:
    """What is known of a damaged outbox: from its meta row, the lock file's note, or the agent that has it open."""

    stream: uuid.UUID | None = None
    totals: Totals | None = None
    next_sequence: int = 1


def prepare(path: Path, lock: Lock, max_bytes: int) -> None:
    """Makes an outbox ready to be opened, whatever happened to it. Raises OutboxRefused, OSError, sqlite3.Error."""
    outbox_file.refuse_later(path)
    adopt(path)
    try:
        outbox_file.check(path)
    except FAILURES as reason:
        # Locked, read-only or no space: the file may be whole, so it stays where it is.
        if not is_damage(reason):
            raise
        rebuild(path, lock, max_bytes, str(reason))
        return
    with contextlib.closing(outbox_file.connect(path)) as db:
        stream, totals = outbox_file.load(db)
        [(known,)] = db.execute("SELECT inode FROM meta")
        inode = disk.inode(path)
        why = ""
        following = totals.next_sequence
        if (noted := lock.noted()) is not None and noted != (stream, totals.next_sequence):
            if noted[0] != stream:
                why = f"this is not the outbox that was here before (stream {noted[0]})"
            elif noted[1] > totals.next_sequence:
                following = noted[1]
                why = f"its end is missing: blocks {totals.next_sequence} to {following - 1} had been stored"
        if not why and known and inode and inode != known:
            why = "the file is a copy, perhaps an old one"
        if why:
            renew(db, lock, why, following=following)
        db.execute("UPDATE meta SET inode = ?", (inode,))


def is_damage(reason: BaseException) -> bool:
    """Whether an error says that the file is no longer what was written, rather than that it can't be used now."""
    if isinstance(reason, sqlite3.DatabaseError):
        # Without a code it is Python's: a blob that has become a text which is none.
        code: int = getattr(reason, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
        return code & 0xFF in BROKEN or code in UNREADABLE
    return isinstance(reason, FAILURES)


def renew(
    db: sqlite3.Connection, lock: Lock, why: str, *, following: int = 0, moved_from: int = 0, damaged: bool = False
) -> None:
    """Begins a new stream. What waits stays in its own; `following` is a place that was given out up to.

    Entries from `moved_from` on were given out under places that others have already: they move to the new stream.
    """
    stream, before = outbox_file.load(db)
    new = uuid.uuid4()
    db.execute("BEGIN IMMEDIATE")
    moved = _take_out(db, moved_from) if moved_from else []
    following = max(following, before.next_sequence)
    now = replace(before, first=following, next_sequence=following + 1, entries=before.entries + 1)
    db.execute("INSERT OR REPLACE INTO former VALUES (?, ?)", (before.first, stream.bytes))
    db.execute(
        "DELETE FROM former WHERE first < (SELECT max(first) FROM former WHERE first <= ?)", (now.confirmed + 1,)
    )
    missing = following - before.next_sequence
    if missing:
        _insert_gap(db, stream, before.next_sequence, following - 1, STOOD_HERE if damaged else why)
        now = replace(now, entries=now.entries + 1)
    size = _insert_gap(db, new, following, following, f"a new stream follows {stream}: {why}", begins=True)
    now = replace(now, bytes=now.bytes + size)
    for entry in moved:
        body = readdressed(entry.body, new.bytes, now.next_sequence)
        place = now.next_sequence
        db.execute(f"INSERT {INSERT}", to_row(replace(entry, sequence=place, last=place, body=body)))
        now = replace(now, next_sequence=place + 1, bytes=now.bytes + len(body) - len(entry.body))
    outbox_file.save(db, new, now)
    db.execute("COMMIT")
    lock.note(new, now.next_sequence)
    log.error(
        "The outbox begins a new stream %s after %s: %s.",
        new,
        stream,
        why,
        extra={"event": "stream_renewed", "stream": str(new), "former": str(stream), "lost": -1 if missing else 0},
    )


def rebuild(path: Path, lock: Lock, max_bytes: int, why: str, known: Found | None = None) -> Path:
    """Sets a damaged outbox aside and begins a new one with what can be read of it. Returns where it was put.

    The new file is whole and synced before the damaged one is moved; a crash in between leaves one of the two.
    """
    deadline = time.monotonic() + SALVAGE_SECONDS
    found = known or Found()
    if (noted := lock.noted()) is not None:
        found.stream = found.stream or noted[0]
        found.next_sequence = max(found.next_sequence, noted[1])
    room = min(max_bytes * 3 // 4, disk.free(path) // 2)
    made = _new(path)
    try:
        built = _build(made, path, found, why, room=room, deadline=deadline)
    except sqlite3.OperationalError as reason:
        if reason.sqlite_errorcode & 0xFF != sqlite3.SQLITE_FULL:
            raise
        # Collecting again is worth more than what is saved.
        built = _build(made, path, found, why, room=0, deadline=deadline)
    durable.sync(made)
    aside = set_aside(path)
    made.rename(path)
    durable.sync(path.parent)
    lock.note(built.stream, built.next_sequence)
    log.error(
        "The outbox is damaged (%s). It was set aside as %s%s. %d readings were saved from it; a new stream begins.",
        why,
        aside,
        "" if built.whole else ", and read only in part: `headrace outbox export` gets the rest",
        built.saved,
        extra={
            "event": "outbox_damaged",
            "lost": built.lost,
            "saved": built.saved,
            "set_aside": str(aside),
            "reason": why,
            "stream": str(built.stream),
        },
    )
    return aside


@dataclass(frozen=True, slots=True)
class _Built:
    stream: uuid.UUID
    next_sequence: int
    saved: int
    lost: int
    whole: bool


def _build(made: Path, damaged: Path, found: Found, why: str, *, room: int, deadline: float) -> _Built:
    cleared(damaged)
    outbox_file.check(made)
    with contextlib.closing(outbox_file.connect(made)) as db:
        db.execute("PRAGMA journal_mode = MEMORY")  # nobody opens this file before it is whole
        db.execute("PRAGMA synchronous = OFF")
        db.execute("BEGIN IMMEDIATE")
        whole = _copy(db, damaged, found, room, deadline)
        _copy_marks(db, damaged, found)
        now = _settle(db, found)
        held = found.totals.readings if found.totals else -1
        lost = max(0, held - now.readings) if held >= 0 else -1
        new, place = uuid.uuid4(), now.next_sequence
        reason = f"the outbox was damaged ({why}): {'some' if lost < 0 else lost} readings that waited in it are lost"
        size = _insert_gap(db, new, place, place, reason, readings=max(lost, 0), begins=True)
        saved = now.readings
        now = replace(now, first=place, next_sequence=place + 1, entries=now.entries + 1, bytes=now.bytes + size)
        outbox_file.save(db, new, now)
        db.execute("UPDATE meta SET inode = ?", (disk.inode(made),))
        db.execute("COMMIT")
    return _Built(new, now.next_sequence, saved, lost, whole)


def cleared(path: Path) -> Path:
    """Where a new file is made, with nothing there."""
    made = _new(path)
    for tail in ("", "-wal", "-shm", "-journal"):
        made.with_name(made.name + tail).unlink(missing_ok=True)
    return made


def put_back(path: Path, why: str, known: Found) -> None:
    """Puts the new file, which holds all of the outbox, in its place; what is there now is set aside."""
    made = _new(path)
    with contextlib.closing(outbox_file.connect(made)) as db:
        if known.stream and known.totals:
            outbox_file.save(db, known.stream, known.totals)  # what is confirmed is not in the file yet
        db.execute("UPDATE meta SET inode = ?", (disk.inode(made),))
    durable.sync(made)
    aside = set_aside(path) if path.exists() else None
    for tail in ("-wal", "-shm", "-journal"):  # SQLite leaves the log of a file that it misses
        path.with_name(path.name + tail).unlink(missing_ok=True)
    made.rename(path)
    durable.sync(path.parent)
    log.error(
        "%s. All that was in it is put back there%s.",
        why,
        f"; what was there now is {aside}" if aside else "",
        extra={"event": "outbox_moved", "lost": 0, "reason": why, "set_aside": str(aside or "")},
    )


def adopt(path: Path) -> None:
    """Finishes a `rebuild` that was interrupted after the damaged file was moved; removes one interrupted earlier."""
    made = _new(path)
    if path.exists():
        made.unlink(missing_ok=True)
    elif made.exists():
        for tail in ("-wal", "-shm", "-journal"):
            path.with_name(path.name + tail).unlink(missing_ok=True)
        made.rename(path)
        durable.sync(path.parent)


def _new(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")


def set_aside(path: Path) -> Path:
    """Renames a damaged outbox; returns its new path. The oldest of too many are removed."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = path.with_name(f"{path.name}.corrupt-{stamp}")
    number = 0
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.corrupt-{stamp}-{number}")
    for tail in ("", "-wal", "-journal"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + tail).rename(aside.with_name(aside.name + tail))
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
    kept = [each for each in path.parent.glob(f"{path.name}.corrupt-*") if not each.name.endswith(("-wal", "-journal"))]
    for old in sorted(kept, key=lambda each: (each.stat().st_mtime_ns, each.name))[:-KEPT_ASIDE]:
        log.warning("%s is removed: %d later ones are kept.", old, KEPT_ASIDE, extra={"event": "aside_removed"})
        for tail in ("", "-wal", "-journal"):
            old.with_name(old.name + tail).unlink(missing_ok=True)
    return aside


def _copy(db: sqlite3.Connection, aside: Path, found: Found, room: int, deadline: float) -> bool:
    """Copies what has its checksum; notes the best meta row. False where time or room ran out."""
    used = 0
    for row, values in salvage.rows(aside):
        if time.monotonic() > deadline or used > room:
            return False
        body = values[-1] if values else None
        if len(values) == 8 and type(body) is bytes:
            with contextlib.suppress(BlockError, sqlite3.IntegrityError, OverflowError):
                entry = from_block(body)
                if entry.gap and entry.sequence == 1 < row <= entry.last:
                    entry = replace(entry, sequence=row)
                used += len(body)
                db.execute(f"INSERT OR IGNORE {INSERT}", to_row(entry))
        elif len(values) == 5 and type(body) is bytes and _native.crc32c(body) == values[3]:
            with contextlib.suppress(sqlite3.IntegrityError, sqlite3.OperationalError):
                used += len(body)
                db.execute("INSERT OR REPLACE INTO catalog VALUES (?, ?, ?, ?, ?)", (row_id(row), *values[1:]))
        elif len(values) == 4 + len(TOTALS):
            with contextlib.suppress(Damaged):
                stream, totals = outbox_file.checked((values[1], *values[3:]))
                if found.totals is None or totals.next_sequence >= found.totals.next_sequence:
                    found.stream, found.totals = stream, totals
                    found.next_sequence = max(found.next_sequence, totals.next_sequence)
    return True


def _copy_marks(db: sqlite3.Connection, damaged: Path, found: Found) -> None:
    """Copies the marks, for without them no collector goes on where it was: as far as SQLite can read them, and where
    they are of the last commit. With older ones what is stored already would be asked for again."""
    marks = []
    with contextlib.suppress(*FAILURES), contextlib.closing(outbox_file.connect(damaged)) as old:
        row = old.execute(f"SELECT stream, crc, {', '.join(TOTALS)} FROM meta WHERE id = 1").fetchone()  # noqa: S608
        _, totals = outbox_file.checked(row or (b"", 0))
        if totals.next_sequence >= found.next_sequence:
            marks = old.execute("SELECT name, crc, body FROM mark").fetchall()
    for name, crc, body in marks:
        if type(name) is str and type(body) is bytes and _native.crc32c(body) == crc:
            db.execute("INSERT OR REPLACE INTO mark VALUES (?, ?, ?)", (name, crc, body))


def row_id(value: int) -> int:
    """A row id as SQLite means it: signed."""
    return value - 2**64 if value >= 2**63 else value


def _settle(db: sqlite3.Connection, found: Found) -> Totals:
    """Puts what was copied in order: nothing confirmed, nothing twice, and a gap where there is a hole."""
    confirmed = found.totals.confirmed if found.totals else 0
    db.execute("DELETE FROM entry WHERE last <= ?", (confirmed,))
    streams: dict[uuid.UUID, int] = {}
    stream: uuid.UUID | None = None
    place, entries, readings, size = confirmed, 0, 0, 0
    for entry, of in _entries(db):
        if entry.last <= place:  # a gap came before that stands for it
            db.execute("DELETE FROM entry WHERE sequence = ?", (entry.sequence,))
            continue
        if not entries and found.totals is None:
            place = entry.sequence - 1  # what came before was confirmed, as far as anybody knows
        if entry.sequence > place + 1:
            size += _insert_gap(db, stream or of, place + 1, entry.sequence - 1, STOOD_HERE)
            entries += 1
            streams.setdefault(stream or of, place + 1)
        streams.setdefault(of, entry.sequence)
        stream, place = of, entry.last
        entries, size = entries + 1, size + len(entry.body)
        readings += 0 if entry.gap else entry.readings
    stream = stream or found.stream
    following = max(place + 1, found.next_sequence)
    if following > place + 1 and stream is not None and (entries or found.totals):
        size += _insert_gap(db, stream, place + 1, following - 1, STOOD_HERE)
        entries += 1
        streams.setdefault(stream, place + 1)
    for each, first in streams.items():
        db.execute("INSERT OR REPLACE INTO former VALUES (?, ?)", (first, each.bytes))
    totals = found.totals or Totals()
    [(first,)] = db.execute("SELECT min(sequence) FROM entry")
    return replace(
        totals,
        next_sequence=following,
        confirmed=int(following if first is None else first) - 1,
        sent=following,
        entries=entries,
        readings=readings,
        bytes=size,
    )


def _entries(db: sqlite3.Connection) -> Iterator[tuple[Entry, uuid.UUID]]:
    """Every entry and its stream, in order; rows that are made meanwhile are before the next."""
    place = 0
    while rows := db.execute(
        f"SELECT {COLUMNS}, body FROM entry WHERE sequence > ? ORDER BY sequence LIMIT 64",  # noqa: S608
        (place,),
    ).fetchall():
        for row in rows:
            entry = from_row(row)
            yield entry, uuid.UUID(bytes=_native.header(entry.body).stream)
            place = entry.sequence


def _take_out(db: sqlite3.Connection, first: int) -> list[Entry]:
    rows = db.execute(f"SELECT {COLUMNS}, body FROM entry WHERE sequence >= ? AND gap = 0 ORDER BY sequence", (first,))  # noqa: S608
    found = [from_row(row) for row in rows.fetchall()]
    db.execute("DELETE FROM entry WHERE sequence >= ? AND gap = 0", (first,))
    return found


def _insert_gap(
    db: sqlite3.Connection,
    stream: uuid.UUID,
    first: int,
    last: int,
    reason: str,
    *,
    readings: int = 0,
    begins: bool = False,
) -> int:
    """Stores a gap; returns the size of its body. One that begins a stream stands for the numbers before it as well."""
    before = db.execute("SELECT last_ns FROM entry WHERE sequence < ? ORDER BY sequence DESC LIMIT 1", (first,))
    after = db.execute("SELECT first_ns FROM entry WHERE sequence > ? ORDER BY sequence LIMIT 1", (last,))
    now = time.time_ns()
    to_ns = (after.fetchone() or (now,))[0]
    body = _native.gap(
        stream=stream.bytes,
        first=1 if begins else first,
        last=last,
        epoch=0,
        from_ns=min(to_ns, (before.fetchone() or (to_ns,))[0]),
        to_ns=to_ns,
        readings=readings,
        reason=reason[:300],
        sealed_ns=now,
    ).data
    entry = replace(from_block(body), sequence=first)
    db.execute(f"INSERT {INSERT}", to_row(entry))
    return len(body)


def streams(db_rows: list[tuple[int, bytes]], totals: Totals, current: uuid.UUID) -> Streams:
    """The streams of an outbox from its former ones and its meta row."""
    found = [(first, uuid.UUID(bytes=stream)) for first, stream in db_rows if first < totals.first]
    return Streams([*found, (totals.first, current)])
