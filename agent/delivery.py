"""Delivery: what leaves the outbox over the uplink, and when it is done.

What waits is sent in order while it is little. After an outage new blocks go first, and the rest behind them, on a
budget; receipts say which have arrived, whatever their order. What has not arrived is sent again, and nothing else.
That is harmless, because (stream, sequence) names every block.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from time import monotonic
from typing import Any, Literal, Self

from agent import tables
from agent.announced import Announced
from agent.backlog import Backlog
from agent.brokers import Brokers
from agent.budget import Limit
from agent.config import Config
from agent.errors import NotConnected, OutboxFull, Rejected
from agent.flight import Flight, Sent
from agent.outbox import Outbox
from agent.poison import Poison
from agent.receipts import Receipts
from agent.tls import Credentials
from agent.traffic import WINDOW, Traffic
from agent.uplink import HungUp, Uplink
from agent.wire import Broker, Receipt, State, Topics

log = logging.getLogger("headrace.uplink")

STATE_SECONDS = 5.0
RESEND_SECONDS = 10.0


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
        self._clock = clock
        self._flight = Flight(resend_after)
        self._receipts = Receipts(outbox, self._flight, clock)
        self._poison = Poison(outbox, self._flight)
        self._announced = Announced(self._brokers, topics, outbox)
        self._traffic = Traffic(
            self._brokers,
            topics,
            outbox,
            self._flight,
            backlog=Backlog(backlog or Limit(), clock),
            announced=self._announced,
            acknowledged=self._acknowledged,
            wake=self.wake,
            window=window,
            clock=clock,
        )
        self._awake = asyncio.Event()
        self._progressed = asyncio.Event()
        self._connected = False
        self._told_bad = False
        self._counts = dict.fromkeys(("connects", "unreadable", "set_aside"), 0)

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
        traffic = self._traffic.facts()
        return {
            "connected": self._connected,
            "protocol": self._uplink.protocol,
            "broker": self._brokers.name,
            **traffic,
            **self._counts,
            "rejected": traffic["rejected"] + len(self._poison.stuck),
            "set_aside": self._counts["set_aside"] + self._poison.set_aside,
            "mistaken": self._poison.mistaken,
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
                except NotConnected as lost:
                    reason = await self._uplink.last_word(lost)
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
            with suppress(OutboxFull, TimeoutError):  # then the next start sends again what has arrived
                async with asyncio.timeout(1.0):
                    await self._receipts.settle(last=True)
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
        await self._announced.begin()
        told_state = -STATE_SECONDS
        while True:
            self._awake.clear()
            self._uplink.check()
            if self._clock() - told_state >= STATE_SECONDS:
                told_state = self._clock()
                self._tell_state()
                await self._uplink.check_credentials()
                await self._brokers.look_back()
            with suppress(OutboxFull):  # the outbox has said it, and the next receipt says the same again
                await self._take_receipts()
            await self._announced.answer()
            self._traffic.send_again()
            await _wait(self._awake, min(1.0, await self._traffic.send_more()))

    def _begin(self) -> None:
        self._connected = True
        self._counts["connects"] += 1
        self._poison.stuck.clear()
        self._traffic.begin()
        self._brokers.connected()

    def _acknowledged(self, sent: Sent) -> None:
        if self._confirm == "broker":
            self._receipts.arrived(sent.first, sent.last)

    async def _take_receipts(self) -> None:
        try:
            news, gap = await self._receipts.settle()
        except OutboxFull:
            return  # its disk takes no writes now: what is settled is settled again
        if gap is not None:
            self._uplink.send(self._topics.data, gap.data)
        with suppress(OutboxFull):  # the data center says it again
            await self._poison.settle()
        if news:
            self._traffic.settled()
            self._progressed.set()

    async def _find_poison(self, reason: NotConnected) -> None:
        """A block that ends connection after connection all by itself leaves the way."""
        if not self._connected or not isinstance(reason, HungUp):
            return
        on_their_way = [(sent.first, sent.messages) for sent in self._flight.sent.values() if sent.messages]
        poison = self._brokers.suspicion.hung_up(on_their_way, heard=self._traffic.heard, size=self._traffic.most_sent)
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
                    self._poison.hear(receipt)
            else:
                self._announced.hear(body)
        except ValueError as reason:
            self._counts["unreadable"] += 1
            if not self._told_bad:
                self._told_bad = True
                log.warning(
                    "Ignored a message on %s: %s.", topic, reason, extra={"event": "message_unreadable", "topic": topic}
                )
        self.wake()

    def _tell_state(self) -> None:
        def heard(_: Rejected | None) -> None:
            self._traffic.heard = True
            self.wake()

        with suppress(Rejected):
            self._uplink.send(self._topics.state, self._state().encode(), retain=True, then=heard)

    async def _hang_up(self) -> None:
        self._connected = False
        self._traffic.end()
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
        async with asyncio.timeout(seconds):
            await event.wait()
