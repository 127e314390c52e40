"""What resolvers said, over restarts: a SQLite file of its own. It is a cache: lost, it costs questions and no reading.

Everything here blocks and is called in a thread. It is sqlite3 itself: a batch a second needs no queue of aiosqlite's
beside the thread, and its one home stays the outbox.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, TypeAlias

log = logging.getLogger("headrace.resolver")

SCHEMA = """
CREATE TABLE IF NOT EXISTS answer (
    key TEXT PRIMARY KEY, state TEXT NOT NULL, facts TEXT NOT NULL, code INTEGER NOT NULL,
    fetched_at REAL NOT NULL, holds REAL NOT NULL
) WITHOUT ROWID
"""
VERSION = 1


Row: TypeAlias = tuple[str, str, str, int, float, float]


class Known(NamedTuple):
    """One answer. `facts` is JSON; `fetched_at` is in seconds since 1970, `holds` in seconds from then on."""

    key: str
    state: str
    facts: str = "{}"
    code: int = 1
    fetched_at: float = 0.0
    holds: float = 0.0


class Cache:
    """One file, one node: another node's answers are forgotten when it is opened for this one."""

    def __init__(self, path: Path, node: str) -> None:
        """Opens or makes it. A file that can't be used is replaced, and said so. Raises OSError, sqlite3.Error."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._node = path, node
        # A cancelled task leaves its thread at work, and SQLite's connection must not be closed under it.
        self._turn = threading.Lock()
        try:
            self._db = self._open()
        except sqlite3.DatabaseError as reason:
            log.warning(
                "The resolver's cache is damaged (%s); a new one is begun.", reason, extra={"event": "cache_damaged"}
            )
            for tail in ("", "-wal", "-shm"):
                path.with_name(path.name + tail).unlink(missing_ok=True)
            self._db = self._open()

    def read(self) -> list[Row]:
        """All answers, each the fields of a Known: a hundred thousand are read at a start, and few are looked into."""
        with self._turn:
            return self._db.execute("SELECT * FROM answer").fetchall()

    def write(self, answers: Iterable[Known]) -> None:
        """Keeps answers, in one transaction."""
        with self._turn, self._db:
            self._db.executemany("INSERT OR REPLACE INTO answer VALUES (?, ?, ?, ?, ?, ?)", answers)

    def forget(self, keys: Iterable[str]) -> None:
        """Deletes what nobody asks for any more: so the file is bounded by the tags of the config."""
        with self._turn, self._db:
            self._db.executemany("DELETE FROM answer WHERE key = ?", [(key,) for key in keys])

    def close(self) -> None:
        with self._turn:
            self._db.close()

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=1.0, check_same_thread=False)
        with contextlib.ExitStack() as undo:
            undo.callback(db.close)
            self._path.chmod(0o600)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            if db.execute("PRAGMA user_version").fetchone()[0] not in (0, VERSION):
                raise sqlite3.DatabaseError("it was written by another version")
            db.execute(SCHEMA)
            db.execute("CREATE TABLE IF NOT EXISTS node (url TEXT PRIMARY KEY)")
            with db:
                if db.execute("SELECT url FROM node").fetchall() != [(self._node,)]:
                    db.execute("DELETE FROM answer")
                    db.execute("DELETE FROM node")
                    db.execute("INSERT INTO node VALUES (?)", (self._node,))
            db.execute(f"PRAGMA user_version = {VERSION}")
            undo.pop_all()
        return db
