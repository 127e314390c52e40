"""Receipts: what the data center says it has, as places of the outbox, and what is done when it says something odd."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import time_ns

from agent._native import Block, gap
from agent.delivered import DELIVERED
from agent.flight import Flight
from agent.outbox import Outbox
from agent.ranges import Ranges
from agent.wire import Receipt

log = logging.getLogger("headrace.uplink")

FREE_SECONDS = 5.0
FREE_PLACES = 256
"""Entries that were delivered out of order are freed this often, or when there are so many of them."""
RENEW_SECONDS = 60.0
"""A new stream is begun at most so often, whatever a data center claims to have."""
FILL_SECONDS = 2.0
"""So long a data center must stand still behind what was confirmed: one that is only slower than another one that has
the same blocks, or whose receipt was late, goes on."""


@dataclass(frozen=True, slots=True)
class _Behind:
    """A data center that lacks what was confirmed: how far it is, how far it should be, from when on there are entries
    (ns UTC), and since when it stands there."""

    committed: int
    last: int
    until_ns: int
    since: float


class Receipts:
    """`hear` takes receipts as they come; `settle` brings outbox and flight up to date with them."""

    def __init__(self, outbox: Outbox, flight: Flight, clock: Callable[[], float]) -> None:
        self.confirmed = 0
        """Readings whose entries left the outbox since the start."""
        self._outbox = outbox
        self._flight = flight
        self._clock = clock
        self._last: Receipt | None = None  # of the current stream, since it was last settled
        self._news = False
        self._freed = Ranges()  # places beyond `confirmed` whose entries are gone
        self._freed_at = clock()
        self._behind: _Behind | None = None
        self._lagging = False  # whether that was the last word
        self._renewed = -RENEW_SECONDS
        self._known_stream = outbox.stream

    def hear(self, receipt: Receipt) -> None:
        """Takes note of a receipt, within the places of its stream."""
        outbox = self._outbox
        if not outbox.streams.has(receipt.stream):
            return
        spans = [(1, receipt.committed), *receipt.beyond]
        if receipt.stream == outbox.stream:
            self._last = receipt
            if spans[-1][1] > outbox.last:
                return  # it is about blocks that are not ours: see `settle`
        begin = next(first for first, each in outbox.streams if each == receipt.stream)
        end = next((last for each, last in outbox.streams.spans(0, outbox.last) if each == receipt.stream), 0)
        now, news = self._clock(), 0
        for first, last in spans:
            news += self._flight.arrive(max(first, begin), min(last, end), now)
        self._news |= bool(news)
        if not news:
            self._flight.nothing_new(now)

    def arrived(self, first: int, last: int) -> None:
        """The broker has it, and its word is enough."""
        self._news |= bool(self._flight.arrive(first, last, self._clock()))

    async def settle(self, *, last: bool = False) -> tuple[bool, Block | None]:
        """Returns whether anything was news, and a gap to be sent where the data center has lost its memory.

        The `last` time also frees what was delivered out of order, so that the next start does not send it again.
        """
        outbox, flight = self._outbox, self._flight
        receipt, self._last = self._last, None
        news, self._news = self._news, False
        if outbox.stream != self._known_stream:
            # The outbox began a new one by itself, and may have put its blocks at other places.
            self._known_stream = outbox.stream
            self._behind, self._lagging = None, False
            flight.forget(outbox.facts()["confirmed"])
        before = outbox.facts()["confirmed"]
        flight.arrive(1, before, self._clock())
        lost = None
        if receipt is not None and receipt.stream == outbox.stream:
            furthest = max(receipt.committed, *(last for _, last in receipt.beyond), 0)
            if furthest > outbox.last:
                await self._renew(furthest)
                return True, None
            self._lagging = outbox.streams.of(before) == outbox.stream and receipt.committed < before
            if self._lagging and (self._behind is None or receipt.committed != self._behind.committed):
                held = await outbox.peek(before, 1, 1)
                until_ns = held[0].first_ns if held else time_ns()
                self._behind = _Behind(receipt.committed, before, until_ns, self._clock())
        if self._lagging and self._behind and self._clock() - self._behind.since >= FILL_SECONDS:
            lost = self._forgotten(self._behind)
            self._behind, self._lagging = None, False
        await self._confirm(before, every=last)
        return news, lost

    async def _confirm(self, before: int, *, every: bool) -> None:
        outbox, has = self._outbox, self._flight.has
        free = has.free(before, outbox.last)
        through = outbox.last if free is None else free[0] - 1
        if through > before:
            self.confirmed += await outbox.confirm(through)
        beyond = [span for span in has if span[0] > through]
        now = self._clock()
        fresh = sum(last - first + 1 - self._freed.count(first, last) for first, last in beyond)
        soon = fresh < FREE_PLACES and now - self._freed_at < FREE_SECONDS
        if not fresh or (soon and not every):
            return
        self._freed_at = now
        self.confirmed += await outbox.mark_delivered(beyond)
        self._freed = has.copy()

    def _forgotten(self, behind: _Behind) -> Block:
        """A data center whose store is new waits for places that were confirmed long ago: it is told that they are
        gone, or it could confirm nothing more. One that has them after all takes no notice of such a gap."""
        outbox, first = self._outbox, behind.committed + 1
        log.warning(
            "The data center no longer has blocks %d to %d, which it confirmed: is its store a new one?",
            first,
            behind.last,
            extra={"event": "store_forgot", "stream": str(outbox.stream), "first": first, "last": behind.last},
        )
        self._flight.forget(outbox.facts()["confirmed"])
        self._freed = self._flight.has.copy()
        return gap(
            stream=outbox.stream.bytes,
            first=first,
            last=behind.last,
            epoch=outbox.newest_epoch or 0,
            from_ns=0,
            to_ns=behind.until_ns,
            readings=0,
            reason=DELIVERED,
            sealed_ns=time_ns(),
        )

    async def _renew(self, through: int) -> None:
        """The data center has places that were never given out here: an old copy of the outbox was put back."""
        now, outbox = self._clock(), self._outbox
        if now - self._renewed < RENEW_SECONDS:
            return
        self._renewed = now
        stream, last = outbox.stream, outbox.last
        log.error(
            "The data center has block %d of stream %s, but the last one given out is %d: was an old copy of the "
            "outbox put back? A new stream begins.",
            through,
            stream,
            last,
            extra={"event": "receipt_ahead", "stream": str(stream), "committed": through, "lost": 0},
        )
        await outbox.renew(f"the data center had {through} blocks of it, this outbox gave out {last}")
        self._known_stream = outbox.stream
        self._flight.forget(outbox.facts()["confirmed"])
