"""`headrace outbox status|export|import|verify CONFIG`: what waits in an outbox, and how it travels without a network.

An outbox that an agent has open is only read: with a connection that can't write, in steps that each last moments, so
that the agent's log is emptied as ever. What changes an outbox (`--confirm`) takes its lock, and says no while an agent
has it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from agent import _native, config, disk, export, outbox_file, salvage
from agent.entry import COLUMNS, TOTALS, Damaged, from_row, is_whole
from agent.errors import BlockError
from headrace.facts import moment
from headrace.progress import CannotDo, Progress, say

STEP = 64
"""Rows that are read at a time from an outbox that may be in use."""


def main(options: argparse.Namespace) -> int:
    """Runs one of the four."""
    if options.verb == "import":
        from headrace import bringing

        return bringing.main(options)
    return {"status": _status, "export": _export, "verify": _verify}[options.verb](options)


@dataclass(slots=True)
class Outside:
    """An outbox seen from outside of its agent."""

    path: Path
    db: sqlite3.Connection
    in_use: bool
    stream: UUID
    facts: dict[str, int]
    former: list[tuple[int, UUID]] = field(default_factory=list)

    def entries(self) -> Iterator[tuple[Any, ...]]:
        """(COLUMNS..., body) of what waits, in order."""
        place = self.facts["confirmed"]
        while rows := self.db.execute(
            f"SELECT {COLUMNS}, body FROM entry WHERE sequence > ? ORDER BY sequence LIMIT ?",  # noqa: S608
            (place, STEP),
        ).fetchall():
            yield from rows
            place = rows[-1][0]

    def catalogs(self) -> list[bytes]:
        return [body for body, crc in self.db.execute("SELECT body, crc FROM catalog ORDER BY kept")
                if type(body) is bytes and _native.crc32c(body) == crc]  # fmt: skip


@contextlib.contextmanager
def _outside(path: Path, *, alone: bool = False) -> Iterator[Outside]:
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


def _place(options: argparse.Namespace) -> tuple[config.Config, Path]:
    found = config.load(options.config)
    return found, found.agent.data_dir / "outbox.db"


def _status(options: argparse.Namespace) -> int:
    found, path = _place(options)
    with _outside(path) as outbox:
        facts = {name: value for name, value in outbox.facts.items() if name not in ("first", "sent")}
        shown: dict[str, Any] = {"path": str(path), "in_use": outbox.in_use, "stream": str(outbox.stream), **facts}
        ends = [outbox.db.execute(f"SELECT first_ns, last_ns FROM entry WHERE sequence > ? ORDER BY sequence {way} LIMIT 1",  # noqa: E501, S608
                                  (facts["confirmed"],)).fetchone() for way in ("ASC", "DESC")]  # fmt: skip
        shown["oldest_ns"] = ends[0][0] if ends[0] else None
        shown["newest_ns"] = ends[1][1] if ends[1] else None
        shown["disk_bytes"] = disk.room(path).occupied
        shown["max_bytes"] = found.outbox.max_bytes
        shown["set_aside"] = [str(each) for each in _aside(path)]
    if options.json:
        print(json.dumps(shown))
        return 0
    print(f"{path}{' (in use by an agent)' if shown['in_use'] else ''}")
    print(f"stream      {shown['stream']}, next place {shown['next_sequence']}")
    print(f"waiting     {shown['entries']} blocks, {shown['readings']} readings, {shown['bytes']} bytes")
    if shown["oldest_ns"] is not None:
        print(f"from        {moment(shown['oldest_ns'])} to {moment(shown['newest_ns'])}")
    print(f"dropped     {shown['dropped_entries']} blocks, {shown['dropped_readings']} readings since it was made")
    print(f"on disk     {shown['disk_bytes']} of {shown['max_bytes']} bytes")
    for each in shown["set_aside"]:
        print(f"set aside   {each}: damaged; `headrace outbox export --file` reads what is left of it")
    return 0


def _aside(path: Path) -> list[Path]:
    found = path.parent.glob(f"{path.name}.corrupt-*")
    return sorted(each for each in found if not each.name.endswith(("-wal", "-journal")))


def _verify(options: argparse.Namespace) -> int:
    """Every checksum, the order of the places, and SQLite's own check. Exit 1 where something is wrong."""
    _, path = _place(options)
    problems: list[str] = []
    blocks = readings = 0
    try:
        with _outside(path) as outbox:
            place, progress = outbox.facts["confirmed"], Progress(options, outbox.facts["entries"], "verified")
            if not outbox.in_use:
                problems += [
                    f"SQLite: {text}" for (text,) in outbox.db.execute("PRAGMA integrity_check") if text != "ok"
                ]
            for row in outbox.entries():
                entry = from_row(row)
                begins = any(first == entry.sequence for first, _ in outbox.former)
                if entry.sequence != place + 1 and not begins and not (outbox.in_use and blocks == 0):
                    problems.append(f"places {place + 1} to {entry.sequence - 1} are missing")
                if not is_whole(entry):
                    problems.append(f"block {entry.sequence} is not what was stored")
                place, blocks, readings = entry.last, blocks + 1, readings + entry.readings * (not entry.gap)
                progress.step()
            if not outbox.in_use and (blocks, readings) != (outbox.facts["entries"], outbox.facts["readings"]):
                problems.append(f"{outbox.facts['entries']} blocks are counted, and {blocks} are there")
    except (Damaged, sqlite3.DatabaseError) as reason:
        problems.append(str(reason))
    if options.json:
        print(json.dumps({"ok": not problems, "blocks": blocks, "readings": readings, "problems": problems}))
    else:
        for each in problems:
            print(f"problem: {each}")
        print(f"{path}: {blocks} blocks, {readings} readings, {len(problems)} problem{'s' * (len(problems) != 1)}")
    return 1 if problems else 0


def _export(options: argparse.Namespace) -> int:
    found, path = _place(options)
    if options.file is not None:
        if options.confirm:
            raise CannotDo("--confirm is for the agent's own outbox; a file that was set aside is of no more use")
        return _tell(options, _write(options, _salvaged(options.file), found.agent.id))
    with _outside(path, alone=options.confirm) as outbox:
        total = outbox.facts["entries"]
        written = _write(options, _items(outbox), found.agent.id, total)
    if options.confirm and written["last"]:
        asyncio.run(_confirm(path, found, written["last"]))
        written["confirmed"] = True
    return _tell(options, written)


def _items(outbox: Outside) -> Iterator[tuple[int, bytes]]:
    yield from ((0, body) for body in outbox.catalogs())
    for row in outbox.entries():
        entry = from_row(row)
        if not is_whole(entry):
            say(f"block {entry.sequence} is not what was stored, and is left out")
            continue
        yield entry.last, entry.body


def _salvaged(file: Path) -> Iterator[tuple[int, bytes]]:
    """What can be read of a damaged file: catalogs, then blocks, each once."""
    seen: set[bytes] = set()
    for wanted in (5, 8):
        for _, values in salvage.rows(file):
            body = values[-1] if len(values) == wanted else None
            if type(body) is not bytes:
                continue
            if wanted == 5:
                if _native.crc32c(body) == values[3] and body.startswith(b"{"):
                    yield 0, body
                continue
            with contextlib.suppress(BlockError):
                header = _native.header(body)
                key = header.stream + header.sequence.to_bytes(8) + header.last_sequence.to_bytes(8)
                if key not in seen:
                    seen.add(key)
                    yield header.last_sequence, body


def _write(
    options: argparse.Namespace, items: Iterator[tuple[int, bytes]], agent: str, total: int = 0
) -> dict[str, Any]:
    """Writes, syncs and reads back the file; it has its name only when it is whole. Raises OSError, CannotDo."""
    target: Path = options.output
    if target.exists():
        raise CannotDo(f"{target} exists; name a file that does not")
    made = target.with_name(f"{target.name}.part")
    counts: dict[str, Any] = {"file": str(target), "blocks": 0, "readings": 0, "catalogs": 0, "last": 0}
    progress = Progress(options, total, "exported")
    digest = 0

    def bodies() -> Iterator[bytes]:
        nonlocal digest
        for last, body in items:
            if body.startswith(b"{"):
                counts["catalogs"] += 1
            else:
                header = _native.header(body)
                counts["blocks"] += 1
                counts["readings"] += header.readings if header.kind == "readings" else 0
                counts["last"] = max(counts["last"], last)
            digest = _native.crc32c(digest.to_bytes(4, "little") + body[-64:])
            progress.step()
            yield body
        yield export.End(agent, counts["blocks"], counts["catalogs"]).encode()

    try:
        with made.open("xb") as file:
            export.write(file, bodies())
            file.flush()
            os.fsync(file.fileno())
        read = 0
        with made.open("rb") as again:
            for item in export.items(again):
                if not item.startswith(b"{"):
                    _native.header(item)
                if not export.End.is_one(item):
                    read = _native.crc32c(read.to_bytes(4, "little") + item[-64:])
        if read != digest:
            raise CannotDo(f"{made} reads back as something else than was written: is the medium failing?")
        made.rename(target)
        disk.sync_directory(target.parent)
    except BaseException:
        made.unlink(missing_ok=True)
        raise
    counts["bytes"] = target.stat().st_size
    return counts


def _tell(options: argparse.Namespace, written: dict[str, Any]) -> int:
    shown = {"confirmed": False, **written}
    del shown["last"]
    if options.json:
        print(json.dumps(shown))
    else:
        marked = "; they count as delivered now" if shown["confirmed"] else ""
        print(
            f"{shown['file']}: {shown['blocks']} blocks, {shown['readings']} readings, {shown['bytes']} bytes{marked}"
        )
    return 0


async def _confirm(path: Path, found: config.Config, through: int) -> None:
    from agent.outbox import Outbox

    outbox = await Outbox.open(path, max_bytes=found.outbox.max_bytes, when_full=found.outbox.when_full)
    try:
        await outbox.confirm(min(through, outbox.last))
    finally:
        await outbox.close()
