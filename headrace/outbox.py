"""`headrace outbox status|export|import|verify CONFIG`: what waits in an outbox, and how it travels without a network.

An outbox that an agent has open is only read: with a connection that can't write, in steps that each last moments, so
that the agent's log is emptied as ever. What changes an outbox (`--confirm`) takes its lock, and says no while an agent
has it.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
from pathlib import Path
from typing import Any

from agent import config, delivered, disk
from agent.entry import Damaged, from_row, is_whole
from headrace import outside
from headrace.facts import moment
from headrace.progress import Progress


def main(options: argparse.Namespace) -> int:
    """Runs one of the four."""
    if options.verb == "import":
        from headrace import bringing

        return bringing.main(options)
    if options.verb == "export":
        from headrace import exporting

        return exporting.main(options)
    return {"status": _status, "verify": _verify}[options.verb](options)


def _place(options: argparse.Namespace) -> tuple[config.Config, Path]:
    found = config.load(options.config)
    return found, outside.path_of(found, options.uplink)


def _status(options: argparse.Namespace) -> int:
    found, path = _place(options)
    with outside.opened(path) as outbox:
        facts = {name: value for name, value in outbox.facts.items() if name not in ("first", "sent")}
        shown: dict[str, Any] = {"path": str(path), "in_use": outbox.in_use, "stream": str(outbox.stream), **facts}
        ends = [outbox.db.execute(f"SELECT first_ns, last_ns FROM entry WHERE sequence > ? ORDER BY sequence {way} LIMIT 1",  # noqa: E501, S608
                                  (facts["confirmed"],)).fetchone() for way in ("ASC", "DESC")]  # fmt: skip
        shown["oldest_ns"] = ends[0][0] if ends[0] else None
        shown["newest_ns"] = ends[1][1] if ends[1] else None
        shown["disk_bytes"] = disk.room(path).occupied
        shown["max_bytes"] = found.outbox.max_bytes
        shown["set_aside"] = [str(each) for each in _aside(path)]
        folder = delivered.quarantine(path)
        kept = [each.stat().st_size for each in folder.glob("block-*.hdr")]
        shown["quarantine"] = {"folder": str(folder), "blocks": len(kept), "bytes": sum(kept)}
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
    if kept:
        print(f"quarantine  {len(kept)} blocks, {sum(kept)} bytes in {folder}: nobody could take them")
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
        with outside.opened(path) as outbox:
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
