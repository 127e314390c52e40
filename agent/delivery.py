"""Delivery: what leaves the outbox over the uplink, in which order, how often, and when it is done.

Entries go out in order, a bounded number ahead of what is confirmed. Whatever goes wrong is answered in one way: start
again after the last confirmed entry. That is harmless, because (stream, sequence) names every block.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import takewhile
from time import monotonic, time_ns
from typing import Any, Literal, Self
from uuid import UUID

from agent._native import gap
from agent.config import Config
from agent.entry import Entry
from agent.errors import NotConnected, Rejected
from agent.outbox import Outbox
from agent.uplink import TakenOver, Uplink
from agent.wire import Broker, CatalogWanted, Receipt, State, Topics

log = logging.getLogger("headrace.uplink")

WINDOW = 256
"""Entries that may be sent beyond the last confirmed one."""
PEEK_BYTES = 4 * 1024 * 1024
STATE_SECONDS = 5.0
RESEND_SECONDS = 10.0
LONGEST_RESEND = 300.0
LONGEST_PAUSE = 15.0
TAKEN_OVER_PAUSE = 60.0
SUSPICIOUS = 3
"""So many short connections in a row, with no failed attempt between them, are worth an error."""
SETTLED_SECONDS = 10.0
"""A connection that lasted so long ends a series of failures."""
QUIET_SECONDS = 2.0
"""So long after its last sign the data center's "no further than that" means that something was lost on the way."""
MOST_WANTED = 64
RENEW_SECONDS = 60.0
"""A new stream is begun at most so often, whatever a data center claims to have."""


@dataclass(slots=True)
class _Sent:
    last: int
    acknowledged: bool = False


class Delivery:
    """Owns the uplink: keeps it connected, and sends until told to stop. `state` is asked for every 5 s."""

    def __init__(
        self,
        uplink: Uplink,
        topics: Topics,
        outbox: Outbox,
        state: Callable[[], State],
        *,
        confirm: Literal["datacenter", "broker"] = "datacenter",
        resend_after: float = RESEND_SECONDS,
        window: int = WINDOW,
    ) -> None:
        """`confirm` says whose word ends an entry: the data center's receipt, or the broker's PUBACK.

        `resend_after` is how many seconds without progress pass before entries are sent again; it doubles each time.
        """
        self._uplink = uplink
        self._topics = topics
        self._outbox = outbox
        self._state = state
        self._confirm = confirm
        self._resend_after = resend_after
        self._window = window
        self._short_lived = 0
        self._awake = asyncio.Event()
        self._progressed = asyncio.Event()
        self._connected = False
        self._told_lost = self._told_taken = self._told_bad = False
        self._cursor = 0  # the last place that was sent
        self._sent: deque[_Sent] = deque()
        self._in_flight = 0
        self._announced: set[int] = set()
        self._committed: dict[UUID, int] = {}  # the furthest receipt of each stream
        self._renewed = -RENEW_SECONDS
        self._answered = False
        self._wanted: set[int] = set()
        self._newest_receipt = 0
        self._patience = resend_after
        self._moved = 0.0  # when something was last confirmed, or first sent, or sent again
        self._acknowledged = 0.0
        self._furthest = 0
        self._filled = -QUIET_SECONDS
        self._rejected: set[int] = set()
        self._counts = dict.fromkeys(("connects", "sent", "resent", "bytes", "confirmed", "refused", "unreadable"), 0)

    @classmethod
    def of(cls, config: Config, outbox: Outbox, state: Callable[[], State]) -> Self:
        """The delivery that a config describes."""
        uplink = Uplink(
            broker=Broker.parse(config.uplink.url),
            client_id=f"headrace-{config.agent.id}",
            mqtt=config.uplink.mqtt,
            ca=str(config.uplink.ca) if config.uplink.ca else None,
        )
        return cls(uplink, Topics(config.agent.id, config.uplink.root), outbox, state, confirm=config.uplink.confirm)

    def wake(self) -> None:
        """To be called after each append."""
        self._awake.set()

    def facts(self) -> dict[str, Any]:
        """Counters since the start. `sent`, `resent`, `rejected` and `in_flight` are entries, `confirmed` readings."""
        return {
            "connected": self._connected,
            "protocol": self._uplink.protocol,
            "in_flight": self._in_flight,
            "rejected": len(self._rejected),
            **self._counts,
        }

    async def run(self, stop: asyncio.Event) -> None:
        """Sends until `stop` is set, then says goodbye: at most about 2 s later this returns."""
        stopping = asyncio.create_task(stop.wait())
        failures = 0
        try:
            while not stop.is_set():
                began = monotonic()
                session = asyncio.create_task(self._session(), name="uplink session")
                try:
                    await asyncio.wait([session, stopping], return_when=asyncio.FIRST_COMPLETED)
                    if not session.done():
                        break
                    session.result()
                except NotConnected as reason:
                    lasted = monotonic() - began
                    failures = 0 if lasted > SETTLED_SECONDS else failures + 1
                    pause = self._report_lost(reason, lasted, failures)
                    await self._hang_up()
                    await asyncio.wait([stopping], timeout=pause)
                finally:
                    session.cancel()
                    await asyncio.gather(session, return_exceptions=True)
        finally:
            stopping.cancel()
            await self._say_goodbye()

    async def drain(self, seconds: float) -> bool:
        """Waits until everything is confirmed, for so many seconds at most. Returns whether it is."""
        deadline = monotonic() + seconds
        while self._outbox.facts()["entries"]:
            left = deadline - monotonic()
            if left <= 0:
                return False
            self._progressed.clear()
            await _wait(self._progressed, left)
        return True

    async def _session(self) -> None:
        """One connection, until it is lost: ends by raising NotConnected."""
        topics = self._topics
        await self._uplink.connect(
            will=(topics.state, self._offline()),
            subscribe=[topics.receipts, topics.commands],
            hear=self._hear,
            wake=self.wake,
        )
        self._begin()
        if (newest := self._outbox.newest_epoch) is not None:
            await self._announce(newest)
        told_state = -STATE_SECONDS
        while True:
            self._awake.clear()
            self._uplink.check()
            if monotonic() - told_state >= STATE_SECONDS:
                told_state = monotonic()
                self._uplink.send(topics.state, self._state().encode(), retain=True)
            await self._take_confirmations()
            await self._answer_commands()
            self._go_back_if_stuck()
            await self._send_more()
            await _wait(self._awake, 1.0)

    def _begin(self) -> None:
        self._connected = True
        self._counts["connects"] += 1
        self._cursor = self._in_flight = 0
        self._sent.clear()
        self._announced.clear()
        self._moved = monotonic()
        broker = f"{self._uplink.broker.host}:{self._uplink.broker.port}"
        log.info(
            "Connected to the broker at %s with MQTT %s.",
            broker,
            self._uplink.protocol,
            extra={"event": "uplink_connected", "broker": broker, "protocol": self._uplink.protocol},
        )
        self._told_lost = False

    async def _send_more(self) -> None:
        while True:
            room = min(self._uplink.inflight - self._in_flight, self._window - len(self._sent))
            if room <= 0 or self._cursor >= self._outbox.last:
                return
            entries = await self._outbox.peek(self._cursor, room, PEEK_BYTES)
            if not entries:
                self._cursor = self._outbox.facts()["confirmed"]
                return
            for entry in entries:
                await self._announce(entry.epoch)
                self._send(entry)
                self._cursor = entry.last

    def _send(self, entry: Entry) -> None:
        sent = _Sent(entry.last)
        try:
            self._uplink.send(self._topics.data, entry.body, then=lambda refusal: self._puback(sent, refusal))
        except Rejected as reason:
            self._reject(entry, reason)
            return
        if not self._sent:
            self._moved = monotonic()
        self._sent.append(sent)
        self._in_flight += 1
        self._counts["bytes"] += len(entry.body)
        self._counts["resent" if entry.last <= self._furthest else "sent"] += 1
        self._furthest = max(self._furthest, entry.last)

    def _reject(self, entry: Entry, reason: Rejected) -> None:
        """Kept in the outbox, and passed over: sending it again would only break the connection again."""
        if entry.sequence not in self._rejected:
            self._rejected.add(entry.sequence)
            log.error(
                "Block %d can't be sent: %s. It stays in the outbox.",
                entry.sequence,
                reason,
                extra={"event": "entry_rejected", "sequence": entry.sequence, "bytes": len(entry.body), "lost": 0},
            )

    def _puback(self, sent: _Sent, refusal: Rejected | None) -> None:
        self._in_flight -= 1
        self._acknowledged = monotonic()
        sent.acknowledged = refusal is None
        if refusal is not None:
            self._counts["refused"] += 1
            if self._counts["refused"] == 1:
                log.error("The broker refused a block: %s.", refusal, extra={"event": "entry_refused", "lost": 0})
        self.wake()

    async def _take_confirmations(self) -> None:
        answered, self._answered = self._answered, False
        through = self._delivered()
        if self._confirm == "broker":
            # In order: one that was refused, or not sent, holds back those after it.
            beyond = min(self._rejected, default=1 << 63)
            done = takewhile(lambda sent: sent.acknowledged and sent.last < beyond, self._sent)
            through = max((sent.last for sent in done), default=0)
        before = self._outbox.facts()["confirmed"]
        mine = self._outbox.streams.of(before) == self._outbox.stream
        if answered and mine and self._newest_receipt < before:
            await self._fill_forgotten(self._newest_receipt + 1, before)
        if through > self._outbox.last:
            await self._answer_ahead(through)
            return
        if through > before:
            self._counts["confirmed"] += await self._outbox.confirm(through)
        now = self._outbox.facts()["confirmed"]
        if now > before:
            while self._sent and self._sent[0].last <= now:
                self._sent.popleft()
            self._cursor = max(self._cursor, now)
            self._rejected = {sequence for sequence in self._rejected if sequence > now}
            self._patience, self._moved = self._resend_after, monotonic()
            self._progressed.set()
        elif answered and self._sent and not self._in_flight:
            # The data center is there and does not have them. Each time without progress this waits twice as long.
            quiet = monotonic() - max(self._acknowledged, self._moved)
            if quiet > max(QUIET_SECONDS, self._patience / 10):
                self._go_back()

    async def _fill_forgotten(self, first: int, last: int) -> None:
        """A data center whose store is new waits for places that were confirmed long ago: it is told that they are
        gone, or it could confirm nothing more. One that has them after all takes no notice of such a gap."""
        if monotonic() - self._filled < QUIET_SECONDS:
            return
        self._filled = monotonic()
        held = await self._outbox.peek(last, 1, PEEK_BYTES)
        block = gap(
            stream=self._outbox.stream.bytes,
            first=first,
            last=last,
            epoch=self._outbox.newest_epoch or 0,
            from_ns=0,
            to_ns=held[0].first_ns if held else time_ns(),
            readings=0,
            reason="delivered before, to a store that this one does not know",
            sealed_ns=time_ns(),
        )
        self._uplink.send(self._topics.data, block.data)
        log.warning(
            "The data center no longer has blocks %d to %d, which it confirmed: is its store a new one?",
            first,
            last,
            extra={"event": "store_forgot", "stream": str(self._outbox.stream), "first": first, "last": last},
        )

    def _go_back_if_stuck(self) -> None:
        if self._sent and monotonic() - self._moved > self._patience:
            self._go_back()

    def _go_back(self) -> None:
        log.info(
            "%d blocks are not confirmed after %.0f s; sending them again.",
            len(self._sent),
            monotonic() - self._moved,
            extra={"event": "resend", "entries": len(self._sent)},
        )
        self._sent.clear()
        self._cursor = 0
        self._moved = monotonic()
        self._patience = min(2 * self._patience, LONGEST_RESEND)

    def _hear(self, topic: str, body: bytes) -> None:
        try:
            if topic == self._topics.receipts:
                receipt = Receipt.decode(body)
                if self._outbox.streams.has(receipt.stream):
                    known = self._committed.get(receipt.stream, 0)
                    self._committed[receipt.stream] = max(known, receipt.committed)
                    if receipt.stream == self._outbox.stream:
                        self._newest_receipt = receipt.committed
                    self._answered = True
            else:
                epoch = CatalogWanted.decode(body).epoch
                if not 0 <= epoch < 2**64:
                    raise ValueError(f"command: {epoch} is not an epoch")
                if len(self._wanted) < MOST_WANTED:
                    self._wanted.add(epoch)
        except ValueError as reason:
            self._counts["unreadable"] += 1
            if not self._told_bad:
                self._told_bad = True
                log.warning(
                    "Ignored a message on %s: %s.", topic, reason, extra={"event": "message_unreadable", "topic": topic}
                )
        self.wake()

    async def _answer_commands(self) -> None:
        while self._wanted:
            epoch = self._wanted.pop()
            self._announced.discard(epoch)
            await self._announce(epoch)

    async def _announce(self, epoch: int) -> None:
        """Sends an epoch's catalog, once a connection or when asked for; only the newest is retained."""
        if epoch in self._announced:
            return
        self._announced.add(epoch)
        catalog = await self._outbox.catalog(epoch)
        if catalog is None:
            log.warning("There is no catalog of epoch %016x.", epoch, extra={"event": "catalog_missing"})
            return
        try:
            self._uplink.send(self._topics.catalog, catalog, retain=epoch == self._outbox.newest_epoch)
        except Rejected as reason:
            log.error(
                "The catalog of epoch %016x can't be sent: %s.",
                epoch,
                reason,
                extra={"event": "catalog_rejected", "lost": 0},
            )

    async def _hang_up(self) -> None:
        self._connected = False
        self._in_flight = 0
        await self._uplink.close()

    async def _say_goodbye(self) -> None:
        said = asyncio.Event()
        with suppress(NotConnected, Rejected):  # else the last will says it
            self._uplink.send(self._topics.state, self._offline(), retain=True, then=lambda _: said.set())
            await _wait(said, 1.0)
        await self._hang_up()

    def _offline(self) -> bytes:
        return replace(self._state(), online=False, facts={}).encode()

    def _report_lost(self, reason: NotConnected, lasted: float, failures: int) -> float:
        """Says so once. Returns how long to wait before the next attempt, in seconds."""
        broker = f"{self._uplink.broker.host}:{self._uplink.broker.port}"
        taken = isinstance(reason, TakenOver)
        # Not every broker says it: then it looks like one that hangs up again and again, and is there at once.
        short = self._connected and lasted < TAKEN_OVER_PAUSE
        self._short_lived = self._short_lived + 1 if short else 0
        if taken or self._short_lived >= SUSPICIOUS:
            if not self._told_taken:
                log.error(
                    "The broker at %s ends each connection soon (%s): do two agents share the id %r?",
                    broker,
                    reason,
                    self._topics.agent,
                    extra={"event": "uplink_taken_over", "broker": broker, "lost": 0},
                )
            self._told_taken = True
        elif not short:
            self._told_taken = False
        if taken:
            return TAKEN_OVER_PAUSE
        if not self._told_lost:
            self._told_lost = True
            log.warning(
                "No connection to the broker at %s: %s. Readings wait in the outbox; trying again.",
                broker,
                reason,
                extra={"event": "uplink_lost", "broker": broker},
            )
        longest: float = min(LONGEST_PAUSE, 0.2 * 2 ** min(failures, 10))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 -- only so that a thousand agents don't come at once

    def _delivered(self) -> int:
        """How far the receipts go without a hole, over the streams that wait one after another."""
        spans = self._outbox.streams.spans(self._outbox.facts()["confirmed"], self._outbox.last)
        through = 0
        for index, (stream, end) in enumerate(spans):
            committed = self._committed.get(stream, 0)
            through = max(through, committed if index == len(spans) - 1 else min(committed, end))
            if committed < end:
                break
        return through

    async def _answer_ahead(self, through: int) -> None:
        """The data center has places that were never given out here: an old copy of the outbox was put back."""
        stream, last = self._outbox.stream, self._outbox.last
        if monotonic() - self._renewed < RENEW_SECONDS:
            return
        self._renewed = monotonic()
        log.error(
            "The data center has block %d of stream %s, but the last one given out is %d: was an old copy of the "
            "outbox put back? A new stream begins.",
            through,
            stream,
            last,
            extra={"event": "receipt_ahead", "stream": str(stream), "committed": through, "lost": 0},
        )
        await self._outbox.renew(f"the data center had {through} blocks of it, this outbox gave out {last}")
        self._newest_receipt = self._outbox.last
        self._go_back()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
