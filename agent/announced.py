"""Announced: which catalogs the data center was sent on this connection, and which it asks for."""

from __future__ import annotations

import logging

from agent.brokers import Brokers
from agent.errors import Rejected
from agent.outbox import Outbox
from agent.wire import CatalogWanted, Topics

log = logging.getLogger("headrace.uplink")

MOST_WANTED = 64


class Announced:
    """An epoch's catalog goes before its first block, once a connection or when asked for."""

    def __init__(self, brokers: Brokers, topics: Topics, outbox: Outbox) -> None:
        self._brokers = brokers
        self._topic = topics.catalog
        self._outbox = outbox
        self._epochs: set[int] = set()
        self._wanted: set[int] = set()

    async def begin(self) -> None:
        """A new connection: nothing was said on it, and the newest catalog comes first."""
        self._epochs.clear()
        if (newest := self._outbox.newest_epoch) is not None:
            await self.announce(newest)

    async def announce(self, epoch: int) -> None:
        """Sends a catalog; only the newest is retained."""
        if epoch in self._epochs:
            return
        self._epochs.add(epoch)
        catalog = await self._outbox.catalog(epoch)
        if catalog is None:
            log.warning("There is no catalog of epoch %016x.", epoch, extra={"event": "catalog_missing"})
            return
        try:
            self._brokers.current.send(self._topic, catalog, retain=epoch == self._outbox.newest_epoch)
        except Rejected as reason:
            log.error(
                "The catalog of epoch %016x can't be sent: %s.",
                epoch,
                reason,
                extra={"event": "catalog_rejected", "lost": 0},
            )

    def hear(self, command: bytes) -> None:
        """Takes note of what the data center asks for. Raises ValueError for what is no command."""
        epoch = CatalogWanted.decode(command).epoch
        if not 0 <= epoch < 2**64:
            raise ValueError(f"command: {epoch} is not an epoch")
        if len(self._wanted) < MOST_WANTED:
            self._wanted.add(epoch)

    async def answer(self) -> None:
        while self._wanted:
            epoch = self._wanted.pop()
            self._epochs.discard(epoch)
            await self.announce(epoch)
