"""Delivery: what leaves the outbox over the uplink, in which order, how often, and when it is done.

What waits is sent in order while it is little. After an outage new blocks go first, and the rest behind them, on a
budget; receipts say which have arrived, whatever their order. What has not arrived is sent again, and nothing else.
That is harmless, because (stream, sequence) names every block.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from time import monotonic
from typing import Any, Literal, Self

from agent import piece, tables
from agent.backlog import Backlog
from agent.brokers import Brokers
from agent.budget import Limit
from agent.config import Config
from agent.entry import Entry
from agent.errors import NotConnected, OutboxFull, Rejected
from agent.flight import Flight, Sent
from agent.outbox import Outbox
from agent.receipts import Receipts
from agent.tls import Credentials
from agent.uplink import HungUp, Uplink
from agent.wire import Broker, CatalogWanted, Receipt, State, Topics

log = logging.getLogger("headrace.uplink")

WINDOW = 256
"""Entries that may be on their way without a receipt."""
FLYING_BYTES = 8 * 1024 * 1024
PEEK_BYTES = 4 * 1024 * 1024
FEW = 32
"""So many entries are no backlog: they go in order, at once."""
KEPT_FREE = 8
"""Of the messages on their way, and of the window's entries, so many eighths are left to live blocks: 1 in 8."""
STATE_SECONDS = 5.0
RESEND_SECONDS = 10.0
NOT_TAKEN = 8
"""So often a block is sent before it is worth an error that the data center does not take it."""
MOST_WANTED = 64


class Delivery:
    """Owns the uplinks: keeps one connected, and sends until told to stop. `state` is asked for every 5 s."""

    def __init__(
        self,
        uplink: Uplink | Sequence[Uplink],
        topics: Topics,
        outbox: Outbox,
        state: Callable[[], State],
        *,
        confirm: Literal["datacenter", "broker"] = "datacenter",
        backlog: Limit | None = None,
        resend_after: float = RESEND_SECONDS,
        window: int = WINDOW,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`uplink` is one or several, the preferred one first. `confirm` says whose word ends an entry: the data
        center's receipt, or the broker's PUBACK. `backlog` is what old blocks may take of the line.

        An entry is sent again when it has no receipt after `resend_after` seconds, which doubles each time. `clock`
        gives seconds, and never goes back.
        """
        self._brokers = Brokers([uplink] if isinstance(uplink, Uplink) else uplink, topics.agent, clock)
        self._topics = topics
        self._outbox = outbox
        self._state = state
        self._confirm = confirm
        self._window = window
        self._clock = clock
        self._flight = Flight(resend_after)
        self._receipts = Receipts(outbox, self._flight, clock)
        self._backlog = Backlog(backlog or Limit(), clock)
        self._awake = asyncio.Event()
        self._progressed = asyncio.Event()
        self._connected = self._heard = False
        self._told_bad = False
        self._head = 0  # places up to this one are no longer live
        self._most_sent = 0
        self._outgoing: deque[tuple[bytes, Sent]] = deque()
        self._in_flight = 0
        self._announced: set[int] = set()
        self._wanted: set[int] = set()
        self._held_back: set[int] = set()
        self._not_taken: set[int] = set()
        self._counts = dict.fromkeys(
            ("connects", "sent", "resent", "bytes", "pieces", "refused", "unreadable", "set_aside"), 0
        )

    @classmethod
    def of(cls, config: Config, outbox: Outbox, state: Callable[[], State], table: tables.Uplink | None = None) -> Self:
        """The delivery that a config describes; to its [uplink] unless another `table` is named."""
        table = table or config.uplink
        uplinks = [
            Uplink(
                broker=Broker.parse(url),
                client_id=f"headrace-{config.agent.id}",
                mqtt=table.mqtt,
                credentials=Credentials(table.ca, table.cert, table.key),
                max_packet=table.max_packet,
                keepalive=round(table.keepalive),
            )
            for url in (table.url, *table.backup)
        ]
        topics = Topics(config.agent.id, table.root)
        return cls(uplinks, topics, outbox, state, confirm=table.confirm, backlog=Limit.parse(table.backlog))

    def wake(self) -> None:
        """To be called after each append."""
        self._awake.set()

    def facts(self) -> dict[str, Any]:
        """Counters since the start, and what is under way.

        `sent`, `resent`, `rejected`, `set_aside` and `in_flight` are entries, `pieces` messages, `confirmed` readings.
        `backlog_bytes` wait behind live blocks, for about `backlog_seconds` more (-1: nobody can know).
        """
        return {
            "connected": self._connected,
            "protocol": self._uplink.protocol,
            "broker": self._brokers.name,
            "in_flight": self._in_flight,
            "unreceipted": len(self._flight.sent),
            "rejected": len(self._held_back),
            "not_taken": len(self._not_taken),
            **self._backlog.facts(),
            **self._counts,
            "confirmed": self._receipts.confirmed,
            "switches": self._brokers.switches,
        }

    async def run(self, stop: asyncio.Event) -> None:
        """Sends until `stop` is set, then says goodbye: at most about 2 s later this returns."""
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                began = self._clock()
                session = asyncio.create_task(self._session(), name="uplink session")
                try:
                    await asyncio.wait([session, stopping], return_when=asyncio.FIRST_COMPLETED)
                    if not session.done():
                        break
                    session.result()
                except NotConnected as reason:
                    await self._find_poison(reason)
                    lasted = self._clock() - began
                    pause = self._brokers.lost(reason, lasted=lasted, was_connected=self._connected)
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
        deadline = self._clock() + seconds
        while self._outbox.facts()["entries"]:
            left = deadline - self._clock()
            if left <= 0:
                return False
            self._progressed.clear()
            await _wait(self._progressed, left)
        return True

    @property
    def _uplink(self) -> Uplink:
        return self._brokers.current

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
            if self._clock() - told_state >= STATE_SECONDS:
                told_state = self._clock()
                self._tell_state()
                await self._uplink.check_credentials()
                await self._brokers.look_back()
            await self._take_receipts()
            await self._answer_commands()
            self._send_again()
            await _wait(self._awake, min(1.0, await self._send_more()))

    def _begin(self) -> None:
        self._connected = True
        self._counts["connects"] += 1
        self._in_flight = self._most_sent = 0
        self._heard = False
        self._outgoing.clear()
        self._announced.clear()
        self._held_back.clear()
        self._flight.begin()
        # The newest few go first, and all that comes from now on.
        self._head = max(self._flight.has.last, self._outbox.last - FEW)
        self._brokers.connected()
        self._backlog.begin()

    async def _send_more(self) -> float:
        """Sends what may be sent now. Returns how many seconds to wait at most before it looks again."""
        flight, outbox, last = self._flight, self._outbox, self._outbox.last
        before = outbox.facts()["confirmed"]
        while True:
            waiting = flight.waiting(before, last)
            self._backlog.note(outbox.facts(), draining=waiting > FEW)
            self._pump()
            room = self._room()
            if not waiting or room <= 0:
                return 1.0
            if waiting <= FEW:
                if not await self._send_span(flight.taken.free(before, last), room, live=True):
                    return 1.0
                continue
            if flight.waiting(self._head, last) > FEW:
                self._head = last - FEW
            if span := flight.taken.free(self._head, last):
                await self._send_span(span, room, live=True)
                continue
            pause = self._backlog.pause(flight.backlog)
            if pause > 0:
                return pause
            if not self._brokers.suspicion.careful:  # else one goes at a time, old or live
                kept = self._window // KEPT_FREE, self._uplink.inflight // KEPT_FREE
                room = min(
                    room - kept[1], self._window - kept[0] - len(flight.sent), int(flight.old_window) - flight.backlog
                )
            # A read for each single one that becomes possible would cost more than the sending.
            if room < min(self._uplink.inflight // 4, waiting) and flight.backlog:
                return 1.0
            if room <= 0 or not await self._send_span(flight.taken.free(before, self._head), room, live=False):
                return 1.0

    def _room(self) -> int:
        """How many more entries may go now."""
        if self._brokers.suspicion.careful:
            return int(self._heard and not self._outgoing and not self._in_flight)
        if self._flight.bytes >= FLYING_BYTES:
            return 0
        waiting = len(self._outgoing) + self._in_flight
        return min(self._uplink.inflight - waiting, self._window - len(self._flight.sent))

    async def _send_span(self, span: tuple[int, int] | None, room: int, *, live: bool) -> bool:
        """Sends up to `room` entries whose places lie in `span`. Returns whether there was anything to do."""
        if span is None:
            return False
        first, last = span
        entries = await self._outbox.peek(first - 1, room, PEEK_BYTES if live else PEEK_BYTES // 4)
        if not entries and self._outbox.last >= last:
            if self._outbox.facts()["entries"]:
                return False  # the disk can't be read now
            self._flight.skip(first, last)
            return True
        for entry in entries:
            if entry.sequence > last:
                break
            if entry.sequence > first:
                self._flight.skip(first, entry.sequence - 1)  # a stream begins there, and stands for those before it
            await self._announce(entry.epoch)
            self._send(entry, live=live)
            first = entry.last + 1
        else:
            return True
        if entries[0].sequence > last:
            self._flight.skip(first, last)
        return True

    def _send(self, entry: Entry, *, live: bool) -> None:
        room = self._uplink.room(self._topics.data)
        if (limit := self._brokers.suspicion.limit) is not None:
            room = min(room, limit)
        bodies = [entry.body]
        if len(entry.body) > room:
            try:
                bodies = piece.split(entry.body, self._outbox.streams.of(entry.sequence), entry.sequence, room)
            except Rejected as reason:
                self._hold_back(entry, reason)
                return
            self._counts["pieces"] += len(bodies)
        now = self._clock()
        sent = self._flight.launch(entry.sequence, entry.last, len(entry.body), now, live=live)
        sent.messages = len(bodies)
        if live:
            self._head = max(self._head, entry.last)
        else:
            self._backlog.spend(len(entry.body))
        self._counts["bytes"] += len(entry.body)
        self._counts["resent" if sent.tries else "sent"] += 1
        if sent.tries >= NOT_TAKEN and entry.sequence not in self._not_taken:
            self._report_not_taken(sent)
        self._outgoing.extend((body, sent) for body in bodies)
        self._pump()

    def _pump(self) -> None:
        most = 1 if self._brokers.suspicion.careful else self._uplink.inflight
        while self._outgoing and self._in_flight < most:
            body, sent = self._outgoing.popleft()
            self._uplink.send(self._topics.data, body, then=lambda refusal, sent=sent: self._puback(sent, refusal))  # type: ignore[misc]
            self._in_flight += 1
            self._most_sent = max(self._most_sent, len(body))

    def _hold_back(self, entry: Entry, reason: Rejected) -> None:
        """Kept in the outbox, and passed over: sending it would only break the connection."""
        self._flight.skip(entry.sequence, entry.last)
        if not self._held_back:
            log.error(
                "Block %d can't be sent: %s. It stays in the outbox.",
                entry.sequence,
                reason,
                extra={"event": "entry_rejected", "sequence": entry.sequence, "bytes": len(entry.body), "lost": 0},
            )
        self._held_back.add(entry.sequence)

    def _report_not_taken(self, sent: Sent) -> None:
        self._not_taken.add(sent.first)
        log.error(
            "Block %d was sent %d times, and the data center has not taken it. The others go on.",
            sent.first,
            sent.tries + 1,
            extra={"event": "entry_not_taken", "sequence": sent.first, "lost": 0},
        )

    def _puback(self, sent: Sent, refusal: Rejected | None) -> None:
        self._in_flight -= 1
        self._heard = True
        self._flight.acknowledge(sent, self._clock(), refused=refusal is not None)
        if refusal is not None:
            self._counts["refused"] += 1
            if self._counts["refused"] == 1:
                log.error("The broker refused a block: %s.", refusal, extra={"event": "entry_refused", "lost": 0})
        elif sent.acknowledged:
            self._brokers.suspicion.acknowledged(sent.first)
            if self._confirm == "broker":
                self._receipts.arrived(sent.first, sent.last)
        if not self._in_flight:
            self._most_sent = 0
        self.wake()

    async def _take_receipts(self) -> None:
        try:
            news, gap = await self._receipts.settle()
        except OutboxFull:
            return  # its disk takes no writes now: what is settled is settled again
        if gap is not None:
            self._uplink.send(self._topics.data, gap.data)
        if news:
            self._not_taken -= {place for place in self._not_taken if place in self._flight.has}
            self._progressed.set()

    def _send_again(self) -> None:
        late = self._flight.overdue(self._clock())
        if not late:
            return
        live = [sent.first for sent in late if sent.live]
        self._head = min(self._head, *(first - 1 for first in live)) if live else self._head
        log.info(
            "%d blocks have no receipt; sending them again.", len(late), extra={"event": "resend", "entries": len(late)}
        )

    async def _find_poison(self, reason: NotConnected) -> None:
        """A block that ends connection after connection all by itself leaves the way."""
        if not self._connected or not isinstance(reason, HungUp):
            return
        on_their_way = [(sent.first, sent.messages) for sent in self._flight.sent.values() if sent.messages]
        poison = self._brokers.suspicion.hung_up(on_their_way, heard=self._heard, size=self._most_sent)
        if poison is not None:
            with suppress(OutboxFull):  # then it ends more connections, until the disk takes writes
                await self._outbox.set_aside(poison, f"the broker at {self._brokers.name} ends each connection on it")
                self._counts["set_aside"] += 1

    def _hear(self, topic: str, body: bytes) -> None:
        try:
            if topic == self._topics.receipts:
                receipt = Receipt.decode(body)
                if self._confirm == "datacenter":
                    self._receipts.hear(receipt)
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

    def _tell_state(self) -> None:
        def heard(_: Rejected | None) -> None:
            self._heard = True
            self.wake()

        with suppress(Rejected):
            self._uplink.send(self._topics.state, self._state().encode(), retain=True, then=heard)

    async def _hang_up(self) -> None:
        self._connected = False
        self._in_flight = 0
        for uplink in self._brokers:
            await uplink.close()

    async def _say_goodbye(self) -> None:
        said = asyncio.Event()
        with suppress(NotConnected, Rejected):  # else the last will says it
            self._uplink.send(self._topics.state, self._offline(), retain=True, then=lambda _: said.set())
            await _wait(said, 1.0)
        await self._hang_up()

    def _offline(self) -> bytes:
        return replace(self._state(), online=False, facts={}).encode()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
