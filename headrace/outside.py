"""An outbox seen from outside of its agent: read, while an agent has it, with a connection that can't write."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from agent import _native, moment, outbox_file
from agent.config import Config
from agent.entry import COLUMNS, TOTALS, Damaged
from agent.lanes import place, ways
from headrace.progress import CannotDo, Misused

_BEYOND = (1 << 63) - 1
STEP = 64
"""Rows that are read at a time from an outbox that may be in use."""


@dataclass(slots=True)
class Outside:
    """An outbox seen from outside of its agent."""

    path: Path
    db: sqlite3.Connection
    in_use: bool
    stream: UUID
    facts: dict[str, int]
    former: list[tuple[int, UUID]] = field(default_factory=list)
    end: int = 0
    """What stands from this place on is not read; 0 where all is."""

    def kept(self) -> moment.Kept:
        """What is said of moments that two outboxes share."""
        found = self.db.execute("SELECT name, crc, body FROM mark").fetchall()
        whole = {name: body for name, crc, body in found if type(body) is bytes and _native.crc32c(body) == crc}
        return moment.Kept(self.stream.bytes, self.facts["next_sequence"], whole)

    def entries(self) -> Iterator[tuple[Any, ...]]:
        """(COLUMNS..., body) of what waits, in order."""
        after = self.facts["confirmed"]
        while rows := self.db.execute(
            f"SELECT {COLUMNS}, body FROM entry WHERE sequence > ? AND sequence < ? ORDER BY sequence LIMIT ?",  # noqa: S608
            (after, self.end or _BEYOND, STEP),
        ).fetchall():
            yield from rows
            after = rows[-1][0]

    def catalogs(self) -> list[bytes]:
        return [body for body, crc in self.db.execute("SELECT body, crc FROM catalog ORDER BY kept")
                if type(body) is bytes and _native.crc32c(body) == crc]  # fmt: skip


@contextlib.contextmanager
def opened(path: Path, *, alone: bool = False) -> Iterator[Outside]:
    """Opens an outbox; `alone` where it will be changed. Raises CannotDo, OutboxRefused, Damaged."""
    if not path.exists():
        raise CannotDo(f"{path}: there is no outbox here; `headrace run` makes one")
    outbox_file.refuse_later(path)
    lock: outbox_file.Lock | None = None
    try:
        lock = outbox_file.Lock(path)
    except outbox_file.OutboxRefused:
        if alone:
            raise
    try:
        # Where no agent has it, what is still in the log is taken in; otherwise nothing may be written.
        db = outbox_file.connect(path) if lock else sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        with contextlib.closing(db):
            try:
                stream, totals = outbox_file.load(db)
                former = db.execute("SELECT first, stream FROM former ORDER BY first").fetchall()
            except sqlite3.DatabaseError as reason:
                raise Damaged(str(reason)) from reason
            facts = {name: getattr(totals, name) for name in TOTALS}
            known = [(first, UUID(bytes=each)) for first, each in former if first < totals.first]
            yield Outside(path, db, lock is None, stream, facts, [*known, (totals.first, stream)])
    finally:
        if lock:
            lock.release()


def path_of(config: Config, uplink: str) -> Path:
    """Where the outbox of an uplink lies. Raises Misused where the config has no such uplink."""
    if uplink not in ways(config):
        raise Misused(f"{config.path} has no uplink {uplink}: there is no [egress.{uplink}]; write --uplink main")
    return place(config.agent.data_dir, uplink)
