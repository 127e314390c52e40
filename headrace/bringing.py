"""`headrace outbox import FILE CONFIG`: gives an exported file to the data center, as if the broker had brought it.

A single block is taken too, as one lies in an agent's quarantine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

from agent import _native, config, export
from agent.errors import ConfigError, Problem
from agent.wire import Catalog, epoch_of
from datacenter.ingest import Ingest
from datacenter.message import Message
from datacenter.store import Store
from headrace.progress import CannotDo, Progress, say

BLOCK = b"HDRC"
"""What a block begins with."""


def main(options: argparse.Namespace) -> int:
    """Exit 0 where the whole file is stored, or was there already; 1 where something of it is not."""
    found = config.load(options.config)
    if found.datacenter is None:
        message, hint = "there is no [datacenter]", "name the data center's config: blocks go into its store"
        raise ConfigError([Problem(str(found.path), "datacenter", message, hint)])
    file = _File(options.file)
    store = Store(found.datacenter.store)
    try:
        if file.is_block:
            file.agent = _owner(store, options.file)
        shown = _bring(file, Ingest(store, found.uplink.root), Progress(options, file.expected, "imported"))
    finally:
        store.close()
    if options.json:
        print(json.dumps(shown))
    else:
        print(f"{options.file}: {shown['stored']} blocks stored, {shown['duplicates']} were there already, "
              f"{shown['quarantined']} can't be read, {shown['parked']} wait for their catalog")  # fmt: skip
    if not shown["whole"]:
        say("the file has no end mark: it was cut short at some block; export it again")
    return 0 if shown["whole"] and not shown["quarantined"] and not shown["refused"] else 1


def _owner(store: Store, path: Path) -> str:
    """Whose stream a single block is of: it does not say so itself."""
    stream = UUID(bytes=_native.header(path.read_bytes()).stream)
    found = store.rows("SELECT agent FROM streams WHERE stream = ?", [stream])
    if not found:
        raise CannotDo(f"{path}: the data center has nothing of its stream {stream} yet; import an exported file first")
    return str(found[0][0])


class _File:
    """An exported file, or a block. It is read twice: first for whose blocks they are."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.whole = False
        self.unreadable = 0
        self.expected = 0
        self._agents: dict[int, str] = {}
        self.agent = ""
        with path.open("rb") as opened:
            self.is_block = opened.read(len(BLOCK)) == BLOCK
        for item in self._items():
            if export.End.is_one(item):
                end = export.End.decode(item)
                self.whole, self.agent, self.expected = True, end.agent, end.blocks
            elif item.startswith(b"{"):
                with contextlib.suppress(ValueError):
                    self._agents[epoch_of(item)] = Catalog.decode(item).agent

    def messages(self) -> Iterator[tuple[str, str, bytes]]:
        """(agent, word, payload) as they would come from the broker."""
        fallback = self.agent or next(iter(self._agents.values()), "unknown")
        self.unreadable = 0
        for item in self._items():
            if export.End.is_one(item):
                continue
            try:
                if item.startswith(b"{"):
                    yield Catalog.decode(item).agent, "catalog", item
                else:
                    yield self._agents.get(_native.header(item).epoch, fallback), "data", item
            except ValueError as reason:
                self.unreadable += 1
                say(f"left out: {reason}")

    def _items(self) -> Iterator[bytes]:
        with self.path.open("rb") as opened:
            if self.is_block:
                self.whole, self.expected = True, 1
                yield opened.read(export.MAX_BLOCK)
                return
            items = export.items(opened)
            first = True
            while True:
                try:
                    item = next(items, None)
                except export.ExportError as reason:
                    if first:
                        raise
                    say(f"{self.path}: {reason}")
                    self.whole = False
                    return
                if item is None:
                    return
                first = False
                yield item


def _bring(file: _File, ingest: Ingest, progress: Progress) -> dict[str, Any]:
    settled: list[None] = []
    offered = 0

    def wait() -> None:
        if ingest.failure is not None:
            raise CannotDo(f"the store could not take it: {ingest.failure}")
        time.sleep(0.01)

    ingest.start(lambda *_: None, lambda: None)
    try:
        for agent, word, payload in file.messages():
            message = Message(agent, word, payload, retained=False, acknowledge=lambda: settled.append(None))
            while not ingest.offer(message):
                wait()
            offered += 1
            progress.step()
        while len(settled) < offered:
            wait()
    finally:
        ingest.stop(30.0)
    counters = ingest.counters
    return {
        "file": str(file.path),
        "whole": file.whole,
        "stored": counters.stored,
        "duplicates": counters.duplicates,
        "quarantined": counters.quarantined + file.unreadable,
        "parked": ingest.parked,
        "refused": counters.refused,
    }
