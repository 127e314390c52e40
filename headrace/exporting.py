"""`headrace outbox export CONFIG FILE`: writes what waits into a file, as far as the egress policy lets it out.

An exported file is a way out like an uplink (`agent.policy`, EXPORT). A block with readings that may not go is held
back whole, for a data center takes a place only once; it stays in the outbox, also with `--confirm`. What was written,
and what was held back, is recorded in the ledger `export` before the file has its name.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent import _native, config, durable, export, moment, salvage, verdict
from agent.audit_file import AuditFile
from agent.config import Config
from agent.entry import Entry, from_block, from_row, is_whole
from agent.errors import BlockError, HeadraceError
from agent.policy import MAIN, Policy
from agent.ranges import Ranges
from agent.verdict import Verdicts
from agent.wire import Catalog, CatalogTag, epoch_of
from headrace import outside
from headrace.outside import Outside
from headrace.progress import CannotDo, Misused, Progress, say


def main(options: argparse.Namespace) -> int:
    """Exit 0 where the file is written, whatever was held back of it."""
    found = config.load(options.config)
    path = outside.path_of(found, options.uplink)
    if options.output.exists():
        raise CannotDo(f"{options.output} exists; name a file that does not")
    if options.file is not None:
        if options.confirm:
            raise Misused("--confirm is for the agent's own outbox; a file that was set aside is of no more use")
        if not options.file.is_file():
            raise Misused(f"there is no file {options.file}; `headrace outbox status` names those that were set aside")
        catalogs, entries = _salvaged(options.file), _blocks(options.file)
        written = _Written(_Gate(found, options.uplink, [*catalogs, *_known(path)]))
        return _tell(options, _write(options, written, entries, found))
    with outside.opened(path, alone=options.confirm) as outbox:
        outbox.end = _unfinished(outbox, found, options.uplink)
        written = _Written(_Gate(found, options.uplink, outbox.catalogs()))
        shown = _write(options, written, _entries(outbox), found, outbox.facts["entries"])
    if options.confirm and written.places:
        asyncio.run(_confirm(path, found, written.places))
        shown["confirmed"] = True
    return _tell(options, shown)


def _unfinished(outbox: Outside, found: Config, uplink: str) -> int:
    """From where on the agent may take back what its outbox for level 3 has (`agent.moment`); 0 where nothing is so."""
    if uplink == MAIN:
        return 0
    kept = outbox.kept()
    with contextlib.suppress(HeadraceError), outside.opened(outside.path_of(found, MAIN)) as main:
        return moment.unfinished(kept, main.kept())
    return 0


class _Gate:
    """The policy of an exported file, and the catalogs by which blocks are judged."""

    def __init__(self, found: Config, uplink: str, catalogs: Iterable[bytes]) -> None:
        """`catalogs` are in the order in which they were kept."""
        policy = Policy(found.egress, found.uplink)
        kept = list(catalogs)
        bodies = {epoch_of(body): body for body in kept}
        # A record of the resolver may have raised a level: the newest catalog knows, the config does not.
        newest = Catalog.decode(kept[-1]).tags if kept else ()
        tags: list[CatalogTag] = [*found.catalog().tags, *newest]
        self._verdicts = Verdicts(lambda tag: policy.export_refusal(tag, uplink), tags, everything=policy.open)
        for epoch, body in bodies.items():
            self._verdicts.learn(epoch, body)
        self.catalogs = [body for epoch, body in bodies.items() if self._verdicts.of(epoch) is None]
        self.catalogs += self._verdicts.catalogs.values()

    def judge(self, entry: Entry) -> tuple[Entry, str]:
        """The entry as it may leave, or why it may not."""
        if entry.gap:
            return entry, ""
        if entry.epoch not in self._verdicts:
            self._verdicts.learn(entry.epoch, None)
        judged = self._verdicts.of(entry.epoch)
        if judged is None:
            return entry, ""
        rest, out = verdict.rest(entry, judged)
        return rest, ", ".join(judged.reasons) if out else ""


@dataclass(slots=True)
class _Written:
    """What goes into the file, counted as it goes; times are ns UTC."""

    gate: _Gate
    blocks: int = 0
    readings: int = 0
    catalogs: int = 0
    size: int = 0
    first_ns: int = 0
    last_ns: int = 0
    held_back: Counter[str] = field(default_factory=Counter)
    held_readings: int = 0
    places: Ranges = field(default_factory=Ranges)

    def items(self, entries: Iterable[Entry], progress: Progress) -> Iterator[bytes]:
        """Catalogs, then blocks, as far as they may leave."""
        for body in self.gate.catalogs:
            self.catalogs += 1
            yield body
        for entry in entries:
            progress.step()
            allowed, reason = self.gate.judge(entry)
            if reason:
                self.held_back[reason] += 1
                self.held_readings += entry.readings
                continue
            self.first_ns = min(self.first_ns, entry.first_ns) if self.blocks else entry.first_ns
            self.last_ns = max(self.last_ns, entry.last_ns)
            self.blocks += 1
            self.size += len(allowed.body)
            self.readings += 0 if allowed.gap else allowed.readings
            self.places.add(entry.sequence, entry.last)
            yield allowed.body

    def facts(self) -> dict[str, Any]:
        held = {"blocks": self.held_back.total(), "readings": self.held_readings, "why": dict(self.held_back)}
        counts = {"blocks": self.blocks, "readings": self.readings, "catalogs": self.catalogs}
        return {**counts, "held_back": held}

    def record(self, found: Config, uplink: str, target: Path) -> None:
        """Raises AuditError where it can't be recorded: then nothing leaves."""
        facts = {"uplink": uplink, "file": str(target.absolute()), "first_ns": self.first_ns, "last_ns": self.last_ns}
        counts = {"blocks": self.blocks, "readings": self.readings, "bytes": self.size}
        records: list[tuple[str, dict[str, Any]]] = [("exported", {**facts, **counts})]
        if self.held_back:
            records.append(("withheld", {**facts, **self.facts()["held_back"]}))
        rules = found.audit
        folder = found.agent.data_dir / "audit"
        ledger = AuditFile(folder, "export", keep_days=rules.keep / 86400, max_bytes=rules.max_bytes)
        with contextlib.closing(ledger):
            ledger.append(records)


def _entries(outbox: Outside) -> Iterator[Entry]:
    for row in outbox.entries():
        entry = from_row(row)
        if is_whole(entry):
            yield entry
        else:
            say(f"block {entry.sequence} is not what was stored, and is left out")


def _known(path: Path) -> list[bytes]:
    """The catalogs of the outbox that took the place of a damaged one, where there is one."""
    with contextlib.suppress(HeadraceError), outside.opened(path) as outbox:
        return outbox.catalogs()
    return []


def _salvaged(file: Path) -> list[bytes]:
    """The catalogs that can be read of a damaged file, as they were kept."""
    rows = [values for _, values in salvage.rows(file) if len(values) == 5 and type(values[-1]) is bytes]
    whole = [values for values in rows if _native.crc32c(values[-1]) == values[3] and values[-1].startswith(b"{")]
    return list(dict.fromkeys(values[-1] for values in sorted(whole, key=lambda values: values[1] or 0)))


def _blocks(file: Path) -> Iterator[Entry]:
    """The blocks that can be read of a damaged file, each once."""
    seen: set[bytes] = set()
    for _, values in salvage.rows(file):
        body = values[-1] if len(values) == 8 else None
        if type(body) is not bytes:
            continue
        with contextlib.suppress(BlockError):
            entry = from_block(body)
            key = bytes(body[7:23]) + entry.sequence.to_bytes(8) + entry.last.to_bytes(8)
            if key not in seen:
                seen.add(key)
                yield entry


def _write(
    options: argparse.Namespace, written: _Written, entries: Iterable[Entry], found: Config, total: int = 0
) -> dict[str, Any]:
    """Writes, syncs and reads back the file; it has its name only when it is whole. Raises OSError, CannotDo."""
    target: Path = options.output
    made = target.with_name(f"{target.name}.part")
    digest = 0

    def bodies() -> Iterator[bytes]:
        nonlocal digest
        for body in written.items(entries, Progress(options, total, "exported")):
            digest = _native.crc32c(digest.to_bytes(4, "little") + body[-64:])
            yield body
        yield export.End(found.agent.id, written.blocks, written.catalogs).encode()

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
        written.record(found, options.uplink, target)
        made.rename(target)
        durable.sync(target.parent)
    except BaseException:
        made.unlink(missing_ok=True)
        raise
    return {"file": str(target), **written.facts(), "bytes": target.stat().st_size}


def _tell(options: argparse.Namespace, written: dict[str, Any]) -> int:
    shown = {"confirmed": False, **written}
    if options.json:
        print(json.dumps(shown))
        return 0
    marked = "; they count as delivered now" if shown["confirmed"] else ""
    print(f"{shown['file']}: {shown['blocks']} blocks, {shown['readings']} readings, {shown['bytes']} bytes{marked}")
    held = shown["held_back"]
    if held["blocks"]:
        print(f"held back by the egress policy: {held['blocks']} blocks, {held['readings']} readings")
        for reason, blocks in held["why"].items():
            print(f"  {blocks} blocks: {reason}")
    return 0


async def _confirm(path: Path, found: Config, places: Ranges) -> None:
    """What is in the file counts as delivered; what was held back or left out stays."""
    from agent.outbox import Outbox

    outbox = await Outbox.open(path, max_bytes=found.outbox.max_bytes, when_full=found.outbox.when_full)
    try:
        before = outbox.facts()["confirmed"]
        free = places.free(before, outbox.last)
        through = outbox.last if free is None else free[0] - 1
        if through > before:
            await outbox.confirm(through)
        if beyond := [span for span in places if span[0] > through]:
            await outbox.mark_delivered(beyond)
    finally:
        await outbox.close()
