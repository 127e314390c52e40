"""Grants: who may read what at the data center, up to which level, in which form, until when.

They are in a small SQLite file of their own in the store's folder, because the store itself belongs to one process:
`headrace grant` writes it while the data center runs, which reads it anew for every question. So a grant counts, and a
revoked one counts no more, from the next question on.

A token is 256 random bits and is shown once; only its SHA-256 is kept (no slow hash is needed for what can't be
guessed).
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from agent.errors import HeadraceError
from datacenter.identity import lookup, starts

Form: TypeAlias = Literal["raw", "aggregate"]
UNLABELLED = 3
"""The level of a tag that names none: what nobody has judged is treated as the most sensitive."""
LEAST_READINGS = 5
"""Where only aggregates are granted, a window with fewer good readings than this has no min, max and mean."""
_TABLES = """
CREATE TABLE IF NOT EXISTS grants(
    id TEXT PRIMARY KEY, who TEXT NOT NULL, token BLOB NOT NULL UNIQUE, patterns TEXT NOT NULL, level INTEGER NOT NULL,
    form TEXT NOT NULL, window_ns INTEGER NOT NULL, purpose TEXT NOT NULL, created_ns INTEGER NOT NULL,
    until_ns INTEGER, revoked_ns INTEGER) STRICT;
CREATE TABLE IF NOT EXISTS metering(
    who TEXT NOT NULL, month TEXT NOT NULL, queries INTEGER NOT NULL, refused INTEGER NOT NULL,
    readings INTEGER NOT NULL, bytes INTEGER NOT NULL, PRIMARY KEY(who, month)) STRICT;
CREATE TABLE IF NOT EXISTS metered(upto INTEGER NOT NULL) STRICT;
"""


class GrantError(HeadraceError):
    """The grants can't be read or written, or the one that is named is not there."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What one token may. A pattern is an identifier, or the beginning of one with `*` behind it. Times are ns UTC."""

    id: str
    who: str
    patterns: tuple[str, ...]
    level: int
    form: Form
    window_ns: int
    """Where the form is aggregate: windows are multiples of it."""
    purpose: str
    created_ns: int
    until_ns: int | None
    revoked_ns: int | None

    def live(self, now_ns: int) -> bool:
        return self.revoked_ns is None and (self.until_ns is None or now_ns < self.until_ns)

    def covers(self, identifier: str, level: int | None) -> bool:
        """Whether it allows this identifier of this level."""
        if (UNLABELLED if level is None else level) > self.level:
            return False
        return any(_matches(pattern, identifier) for pattern in self.patterns)

    def as_dict(self) -> dict[str, Any]:
        """For ledgers and people; there is no token in it."""
        return {
            "grant": self.id,
            "who": self.who,
            "patterns": list(self.patterns),
            "level": self.level,
            "form": self.form,
            "window_ns": self.window_ns,
            "purpose": self.purpose,
            "created_ns": self.created_ns,
            "until_ns": self.until_ns,
            "revoked_ns": self.revoked_ns,
        }


def _matches(pattern: str, identifier: str) -> bool:
    if not pattern.endswith("*"):
        return lookup(pattern) == lookup(identifier)
    prefix = pattern[:-1]
    begin = starts(prefix)
    return identifier.startswith(prefix) or bool(begin and lookup(identifier).startswith(begin))


class Grants:
    """The grants of a store's folder. Every call opens the file for itself, so any thread and process may."""

    def __init__(self, folder: Path) -> None:
        """Makes the file where there is none. Raises GrantError."""
        self.path = folder / "grants.db"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as reason:
            raise GrantError(f"{folder} can't be made: {reason.strerror}") from reason
        with self._open() as base:
            base.executescript(_TABLES)
        self.path.chmod(0o600)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            # Without a write-ahead log: two processes write, seldom, and SQLite's log has had a fault with just that.
            with closing(sqlite3.connect(self.path, timeout=5.0, isolation_level=None)) as base:
                base.execute("PRAGMA synchronous = FULL")
                yield base
        except sqlite3.Error as reason:
            raise GrantError(f"the grants {self.path} can't be used: {reason}") from reason

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all or nothing."""
        with self._open() as base:
            base.execute("BEGIN IMMEDIATE")
            try:
                yield base
            except BaseException:
                base.execute("ROLLBACK")
                raise
            base.execute("COMMIT")

    def of(self, token: str) -> Grant | None:
        """The grant of a token, live or not; None where there is none."""
        with self._open() as base:
            return _one(base, "token = ?", hashlib.sha256(token.encode()).digest())

    def get(self, grant: str) -> Grant | None:
        with self._open() as base:
            return _one(base, "id = ?", grant)

    def all(self) -> list[Grant]:
        with self._open() as base:
            return [_grant(row) for row in base.execute(f"{_SELECT} ORDER BY created_ns, id")]

    @staticmethod
    def add(
        base: sqlite3.Connection,
        *,
        who: str,
        patterns: tuple[str, ...],
        level: int,
        form: Form,
        window_ns: int,
        purpose: str,
        until_ns: int | None,
    ) -> tuple[Grant, str]:
        """Within `changing`. The grant and its token, which can't be seen again."""
        id_ = secrets.token_hex(4)
        token = f"hr_{id_}_{secrets.token_urlsafe(32)}"
        grant = Grant(id_, who, patterns, level, form, window_ns, purpose, time.time_ns(), until_ns, None)
        base.execute(
            "INSERT INTO grants VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
            [
                *(id_, who, hashlib.sha256(token.encode()).digest(), json.dumps(patterns), level, form, window_ns),
                *(purpose, grant.created_ns, until_ns),
            ],
        )
        return grant, token

    @staticmethod
    def revoke(base: sqlite3.Connection, grant: str) -> Grant:
        """Within `changing`. Raises GrantError where there is no such grant, or it is revoked already."""
        found = _one(base, "id = ?", grant)
        if found is None or found.revoked_ns is not None:
            why = "there is no such grant" if found is None else "it is revoked already"
            raise GrantError(f"{grant}: {why}; `headrace grant list` shows them all")
        base.execute("UPDATE grants SET revoked_ns = ? WHERE id = ?", [time.time_ns(), grant])
        return found

    def metering(self, who: str | None = None) -> list[dict[str, Any]]:
        """What each grantee has asked for, by month (UTC)."""
        names = ("who", "month", "queries", "refused", "readings", "bytes")
        with self._open() as base:
            rows = base.execute(
                f"SELECT {', '.join(names)} FROM metering WHERE ? IS NULL OR who = ? ORDER BY who, month",  # noqa: S608
                [who, who],
            ).fetchall()
        return [dict(zip(names, row, strict=True)) for row in rows]


_NAMES = "id, who, patterns, level, form, window_ns, purpose, created_ns, until_ns, revoked_ns"
_SELECT = f"SELECT {_NAMES} FROM grants"  # noqa: S608 - names of our own


def _one(base: sqlite3.Connection, where: str, value: object) -> Grant | None:
    row = base.execute(f"{_SELECT} WHERE {where}", [value]).fetchone()
    return _grant(row) if row else None


def _grant(row: tuple[Any, ...]) -> Grant:
    id_, who, patterns, *rest = row
    return Grant(id_, who, tuple(json.loads(patterns)), *rest)
