"""The resolver within a running agent: what it knows becomes the catalog of the next epoch.

A change is taken up when there has been none for a second, or after ten: so a thousand answers make one epoch.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from agent.config import Config
from agent.identifiers.facts import Refusal, Resolved, bound, refusals
from agent.wire import Catalog

log = logging.getLogger("headrace.resolver")

QUIET, LONGEST = 1.0, 10.0


class Source(Protocol):
    """A resolver, as far as it is asked here."""

    def of(self, text: str) -> Resolved: ...
    def facts(self) -> dict[str, Any]: ...
    async def load(self, identifiers: list[str]) -> None: ...
    async def run(self, stop: asyncio.Event) -> None: ...
    async def settle(self, seconds: float) -> None: ...


class Lookup:
    """Of one agent; without [resolver] it hands the catalog through."""

    def __init__(self, config: Config, record: Callable[[str, dict[str, Any]], None]) -> None:
        """`record` gets what a record says and is not done, for the ledger."""
        self._record = record
        self._table = config.resolver if config.resolver and config.resolver.mode != "static" else None
        self._source: Source | None = None
        self._changed = asyncio.Event()
        self._refused: set[Refusal] = set()
        self._counts: Counter[str] = Counter()

    @property
    def is_on(self) -> bool:
        return self._table is not None

    async def open(self, config: Config) -> None:
        """Reads the cache. Raises ValueError, OSError where the resolver can't be used as it is configured."""
        table = self._table
        if table is None:
            return
        self._source = await asyncio.to_thread(_source, config, self._changed.set)
        await self._source.load([tag.identifier for tag in config.tags])

    async def load(self, config: Config) -> None:
        """Takes the identifiers of a changed config."""
        if self._source:
            try:
                await self._source.load([tag.identifier for tag in config.tags])
            except (sqlite3.Error, OSError) as reason:
                text = "the resolver's cache can't be used (%s): new identifiers stay unresolved until the next change"
                log.error(text, reason, extra={"event": "cache_unusable", "lost": 0})

    def catalog(self, base: Catalog) -> Catalog:
        """The catalog with what is known; takes long where there are many tags, so it is called in a thread."""
        source = self._source
        if source is None:
            return base
        tags = []
        for tag in base.tags:
            known = source.of(tag.identifier)
            tags.append(bound(tag, known))
            for refusal in refusals(tag, known):
                self._note(refusal)
        return replace(base, tags=tuple(tags))

    async def run(self, stop: asyncio.Event, rebind: Callable[[], None]) -> None:
        """Asks in the background until `stop` is set; calls `rebind` where there is something new."""
        if self._source is None:
            return
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(self._source.run(stop), name="resolver")
            telling = group.create_task(self._tell(rebind), name="resolver changes")
            await asking
            telling.cancel()

    async def settle(self) -> None:
        """Mode strict waits here until everything has been resolved at some time. Raises Unresolved."""
        if self._source and self._table and self._table.mode == "strict":
            await self._source.settle(self._table.startup)

    def facts(self) -> dict[str, Any]:
        return {**self._source.facts(), **self._counts} if self._source else {}

    async def _tell(self, rebind: Callable[[], None]) -> None:
        while True:
            await self._changed.wait()
            deadline = time.monotonic() + LONGEST
            while self._changed.is_set() and time.monotonic() < deadline:
                self._changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(QUIET):
                        await self._changed.wait()
            self._changed.clear()
            rebind()

    def _note(self, refusal: Refusal) -> None:
        if refusal in self._refused:
            return
        self._refused.add(refusal)
        self._counts[refusal.word] += 1
        facts = {"event": refusal.word, "identifier": refusal.identifier}
        log.warning("%s: %s", refusal.identifier, refusal.text, extra=facts)
        self._record(refusal.word, {"identifier": refusal.identifier, "text": refusal.text})


def _source(config: Config, told: Callable[[], None]) -> Source:
    """Only a config with a resolver loads its libraries: `pip install headrace[resolver]`."""
    from agent.identifiers.resolver import of_config  # noqa: PLC0415

    return of_config(config, told)
