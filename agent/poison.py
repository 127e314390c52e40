"""Poison: blocks that arrive as they were sent, and that the data center can't read. Sent again they never end.

The data center says so in its receipts. What it read must be what is here (by the checksum); else the block was
damaged on its way, or is another one by now, and is sent again. Poison goes into quarantine, a gap takes its place, and
delivery goes on. Where the quarantine is full it stays in the outbox, and is passed over until the next connection.
"""

from __future__ import annotations

import logging
from uuid import UUID

from agent.flight import Flight
from agent.outbox import Outbox
from agent.wire import Receipt, Rejection

log = logging.getLogger("headrace.uplink")

MOST = 256
"""Rejections that wait to be looked at. What is more comes again."""


class Poison:
    """`hear` receipts as they come; `settle` does what follows."""

    def __init__(self, outbox: Outbox, flight: Flight) -> None:
        self.set_aside = 0
        """Blocks in quarantine since the start."""
        self.mistaken = 0
        """Rejections of other bytes than are here."""
        self.stuck: set[int] = set()
        """Places of poison for which the quarantine has no room. They go with a connection."""
        self._outbox = outbox
        self._flight = flight
        self._told: dict[tuple[UUID, int], Rejection] = {}

    def hear(self, receipt: Receipt) -> None:
        for each in receipt.rejected:
            if len(self._told) < MOST:
                self._told[receipt.stream, each.sequence] = each

    async def settle(self) -> None:
        while self._told:
            (stream, place), rejection = self._told.popitem()
            outbox = self._outbox
            if not outbox.streams.has(stream) or not outbox.facts()["confirmed"] < place <= outbox.last:
                continue
            entries = await outbox.peek(place - 1, 1, 1)
            if not entries or entries[0].sequence != place or outbox.streams.of(place) != stream:
                continue
            (entry,) = entries
            if int.from_bytes(entry.body[-4:], "little") != rejection.crc:
                self.mistaken += 1
                continue
            reason = f"the data center can't read it: {rejection.reason}"
            if not entry.gap and await outbox.set_aside(place, reason, only_if_kept=True):
                self.set_aside += 1
                self._flight.recall(entry.sequence, entry.last)
            else:
                self._pass_over(entry.sequence, entry.last, reason)

    def _pass_over(self, first: int, last: int, reason: str) -> None:
        self._flight.recall(first, last)
        self._flight.skip(first, last)
        if not self.stuck:
            log.error(
                "Block %d can't be delivered (%s), and the quarantine has no room for it. It stays in the outbox.",
                first,
                reason,
                extra={"event": "entry_stuck", "sequence": first, "lost": 0, "reason": reason},
            )
        self.stuck.add(first)
