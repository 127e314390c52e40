"""What a reading costs the disk: bytes written, every commit synced, from its poll until its entry is deleted again.

`python -m benchmarks.writes` runs the agent as `benchmarks.modbus` does, with one commit a second, and takes what the
kernel counts for the process (write_bytes of /proc/PID/io): the log, the file that it is folded into, and the rows that
are deleted when the broker has them. What the file system adds for itself (its journal) is not in it. The baseline is
what a store and forward buffer often does: one JSON row a reading in SQLite, each in a commit of its own, as durable.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import orjson

from benchmarks import modbus
from benchmarks.result import Result, less

COMMAND = "python -m benchmarks.writes"
ROWS = "one JSON row in SQLite per commit"
HOME = Path(__file__).parents[1] / "target"
LOADS = {"1,000": ((10, 100, "1s"), 30), "100,000": ((100, 100, "100ms"), 10)}
"""Devices, float32 tags of each and the poll period; and seconds of the measurement."""
COMMITS = 300


def rows(commits: int = COMMITS) -> float:
    """Bytes written for each reading, where each is one row and one commit, and is deleted in another."""
    with tempfile.TemporaryDirectory(dir=HOME) as name, closing(sqlite3.connect(Path(name, "rows.db"))) as db:
        db.isolation_level = None
        for setting in ("journal_mode = WAL", "synchronous = FULL"):
            db.execute(f"PRAGMA {setting}")
        db.execute("CREATE TABLE message(id INTEGER PRIMARY KEY, body BLOB)")
        before = modbus.written(os.getpid())
        for at in range(commits):
            body = {"id": "88.118.8/press1.temp", "time": 1_750_000_000_000 + at, "value": 71.3, "quality": 0}
            db.execute("INSERT INTO message(body) VALUES (?)", (orjson.dumps(body),))
            db.execute("DELETE FROM message WHERE id < ?", (at - 100,))
        return (modbus.written(os.getpid()) - before) / commits


def results() -> Iterator[Result]:
    """A row for each load."""
    baseline = rows()
    if not baseline:
        raise SystemExit(f"{HOME} is not on a disk: nothing that is written there is counted")
    for name, (load, window) in LOADS.items():
        found = modbus.agent(load, bound=False, seal="16 MiB", window=window)
        if found.growth > found.delivered / 5:
            raise SystemExit(f"the outbox grew by {found.growth} readings while {found.delivered} were delivered")
        value = found.written / found.collected
        for each in less(f"written to disk, {name} readings/s", value, "B/reading", **{ROWS: baseline}):
            yield replace(each, command=COMMAND)


def main() -> None:
    for each in results():
        each.print()


if __name__ == "__main__":
    main()
