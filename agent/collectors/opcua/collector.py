"""The collector of one OPC UA server: connecting, and recovering what the server kept in the meantime.

After a lost connection, or a kill -9 of the agent (OPC 10000-4, 6.7): a new channel; ActivateSession on the old
session; Republish from the next notification on; then Publish. Only where the session is gone a new one, and the
subscription transferred into it; only where that is gone as well a fresh one, and a gap. Where the server can't be
reached, another one (`standby`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from dataclasses import replace
from typing import Any

from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import variant_from_binary
from asyncua.ua.uaerrors import UaError

from agent._native import Published
from agent.collectors.base import Inlet, Row
from agent.collectors.opcua.history import History, history_of
from agent.collectors.opcua.items import AT_ONCE, Items, Server
from agent.collectors.opcua.link import FAULTS, Link, lost, said, within
from agent.collectors.opcua.memory import Memory
from agent.collectors.opcua.polling import Poller
from agent.collectors.opcua.publishing import Publisher, SubscriptionLost, is_unsupported, mark_of, place_of
from agent.collectors.opcua.reads import chunks
from agent.collectors.opcua.standby import Poorer, Standby, level_of, opened
from agent.config import OpcUaDevice
from agent.errors import NotConnected
from agent.model import StatusCode

log = logging.getLogger("headrace.collector")

RETRY_BAD = 60.0
"""Seconds between attempts at the nodes that the server refused."""
COUNTERS = (
    "publishes",
    "republished",
    "repeated",
    "repeated_values",
    "missing",
    "too_large",
    "overflows",
    "strangers",
    "withheld",
    "resumed",
    "transferred",
    "renewed",
    "polls",
    "bad_nodes",
    "covered_seconds",
    "failovers",
    "undecoded_dropped",
    "history_readings",
    "holes_filled",
)


class OpcUaCollector:
    """Subscribes to all tags of one OPC UA server, or polls them."""

    def __init__(self, device: OpcUaDevice, inlet: Inlet) -> None:
        self.counters: dict[str, int] = dict.fromkeys(COUNTERS, 0)
        self._inlet = inlet
        self._memory = Memory(device.url)
        self._recalled = False
        self._device = device
        self._standby = Standby(device, self.counters)
        self._items = Items(device, inlet, self._memory, self.counters)
        self._history = History(device, inlet, self._items, self.counters) if device.history == "fill" else None
        self._publisher = Publisher(device, inlet, self._memory, self.counters, self._leftover, history=self._history)
        self._filling: asyncio.Task[None] | None = None
        self._publishing: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._poller: Poller | None = None
        self._due = 0.0
        self._link: Link | None = None
        self._server: Server
        self._fault: asyncio.Future[str]
        self._away_since = math.inf
        """When the connection was lost: inf while there is one, -inf where the first attempt failed."""
        self._leaving = False
        """Whether the connection ends because another server is better."""

    @property
    def device(self) -> OpcUaDevice:
        """With the url of the server that is used, or was last."""
        return self._standby.devices[self._standby.current]

    async def connect(self) -> None:
        self._recall()
        places, reasons = self._standby.order(), list[str]()
        while places:
            place = places.pop(0)
            try:
                await self._attempt(place, "; ".join(reasons))
            except (NotConnected, *FAULTS) as reason:
                if self._away_since is math.inf:
                    self._away_since = -math.inf
                if self._standby.alone:
                    raise reason if isinstance(reason, NotConnected) else lost(reason) from reason
                self._leaving = isinstance(reason, Poorer)
                await self.close()
                reasons.append(f"{self._standby.devices[place].url}: {said(reason)}")
                if isinstance(reason, Poorer):
                    places = [reason.better]
            else:
                self._away_since = math.inf
                return
        raise NotConnected("; ".join(reasons))

    async def read(self) -> None:
        """Values arrive by themselves (`Publisher`), or are polled; bad nodes are tried again from time to time."""
        if self._link is None:
            raise NotConnected("the connection was closed")
        try:
            if self._poller is not None:
                await self._poll(self._poller)
            else:
                await asyncio.wait([self._fault], timeout=RETRY_BAD)
            if self._fault.done():
                raise NotConnected(self._fault.result())
            if self._items.bad and self._poller is None:
                await self._retry(self._link)
        except FAULTS as reason:
            raise lost(reason) from reason

    async def _retry(self, link: Link) -> None:
        """Tries the bad nodes again. While items are being made, and the answer may get lost, nobody knows whether they
        are there: a second one would give each value twice. So such a subscription is not one to resume, also after a
        kill -9."""
        self._server = await self._items.look(link)
        there = await self._items.there(link, self._server, self._items.bad)
        if not there:
            return
        self._memory.items = ""
        self._note()
        noted = asyncio.create_task(self._inlet.durable(), name=f"opc ua note {self._device.name}")
        either: list[asyncio.Future[Any]] = [noted, self._fault]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._whole()
            raise
        if not self._fault.done():
            await self._items.monitor(link, self._server, there)
        self._whole()

    def _whole(self) -> None:
        self._memory.items = self._items.fingerprint
        self._note()

    async def close(self) -> None:
        """The session stays with the server: whoever connects next, also after a restart, resumes it."""
        watching, self._watching = self._watching, None
        publishing, self._publishing = self._publishing, None
        filling, self._filling = self._filling, None
        for task in (watching, publishing, filling):
            if task is not None:
                task.cancel()
        if self._history is not None:
            self._history.release()
        link, self._link = self._link, None
        self._poller = None
        if link is None:
            return
        if self._away_since is math.inf and publishing is not None:
            self._away_since = asyncio.get_running_loop().time()
        leaving, self._leaving = self._leaving, False
        if leaving:
            with contextlib.suppress(*FAULTS):
                await within(1.0, link.leave())
        await link.close()

    def _recall(self) -> None:
        if self._recalled:
            return
        self._recalled = True
        body, place = self._inlet.marked(mark_of(self._device)), self._inlet.marked(place_of(self._device))
        known = [Memory.decode(body, place, each.url) for each in self._standby.devices]
        self._memory.become(next((each for each in known if each != Memory(each.server)), known[0]))
        self._standby.recall(self._memory)
        if self._history is not None:
            self._history.recall()
        elif self._inlet.marked(history_of(self._device)):
            forgone = History(self._device, self._inlet, self._items, self.counters)
            forgone.recall()
            forgone.leave("the config does not ask for it any more")

    async def _attempt(self, place: int, why: str) -> None:
        """Connects to one of the servers; `why` not to those before it."""
        standby, before = self._standby, replace(self._memory)
        other, wanted = place != standby.current, standby.wanted
        if other:
            self._memory.become(standby.memory(place, before))
        self._fault = asyncio.get_running_loop().create_future()
        security = standby.securities[place]
        link = self._link = Link(standby.devices[place], security, lambda reason: self._fail(link, reason))
        try:
            await self._open(link)
        except BaseException:
            if other:
                self._memory.become(before)
            raise
        if other:
            standby.change(place, before, why or wanted)
            if self._history is not None:
                self._history.leave(f"{self.device.url} is used now")
        else:
            standby.settle()
        if not standby.alone:
            self._watching = asyncio.create_task(self._watch(link), name=f"opc ua levels {self._device.name}")

    async def _watch(self, link: Link) -> None:
        """Ends the connection when another server is better."""
        while True:
            with contextlib.suppress(*FAULTS):  # of this connection: whoever publishes or polls finds out
                if (found := await self._standby.look(link)) is not None:
                    self._leaving = True
                    self._fail(link, str(found))
                    return
            await asyncio.sleep(self._standby.pause)

    async def _open(self, link: Link) -> None:
        memory = self._memory
        if self._standby.alone:
            await link.open()
        else:
            await opened(link, self._device)
        resumed = await link.resume(memory)
        if not resumed:
            memory.forget_session()
            await link.begin(memory)
        nothing_waits = not memory.subscription and memory.server == self.device.url
        if nothing_waits and not self._standby.alone and (found := await self._standby.better(await level_of(link))):
            raise found
        self._server = await self._items.look(link)
        if self._device.mode == "poll" or not await self._subscribed(link, resumed=resumed):
            self._poller = Poller(self._inlet, self._items, self._leftover)
            self._items.filtering(subscribed=False)
            await self._poller.begin(link, self._server, self._device.tags)
            self._due = asyncio.get_running_loop().time()
            return
        self._note()
        self._publishing = asyncio.create_task(self._publish(link), name=f"opc ua publish {self._device.name}")
        if self._history is not None:
            work = self._history.run(link, self._server)
            self._filling = asyncio.create_task(work, name=f"opc ua history {self._device.name}")

    def _note(self) -> None:
        self._inlet.mark(mark_of(self._device), self._memory.encode())
        self._inlet.mark(place_of(self._device), self._memory.place)

    async def _subscribed(self, link: Link, *, resumed: bool) -> bool:
        """Whether there is a subscription to publish: the old one, or a fresh one. False where the server has no
        subscriptions at all."""
        memory, items = self._memory, self._items
        core = self._inlet.opcua_subscription(items.handles)
        self._publisher.begin(link, core)
        if memory.subscription:
            await items.measure(link, self._server)
            items.filtering(subscribed=True)
        if await self._recovered(link, resumed=resumed):
            self._inlet.opcua_resumed(core)
            if self._spoken_for():
                await self._say_again(link)
            return True
        since, old = memory.clean_ns, memory.subscription
        if old and resumed:
            await self._delete(link, old)
        asked = time.monotonic_ns()
        try:
            begun = await items.subscribe(link, self._server)
        except UaError as reason:
            if self._device.mode == "auto" and is_unsupported(reason):
                facts = {"event": "no_subscriptions", "device": self._device.name}
                log.warning("%s: the server has no subscriptions; polling instead", self._device.name, extra=facts)
                return False
            raise
        self._publisher.forget()  # only now: another server may still have what is not acknowledged
        if since:
            until = begun + time.monotonic_ns() - asked  # the last of the items may have been created only now
            other = memory.server != self.device.url
            why = f"{memory.server} is used now" if other else "the server did not keep the subscription"
            why = f"{self._device.name}: {why}"
            # Another server's history has other times for the same values, if it has them.
            if self._history is not None and not other:
                good = self._items.carriers.difference(memory.bad)
                self._history.begin(min(since, until), until, why, good)
            else:
                self._inlet.lost(min(since, until), until, -1, why)
        memory.clean_ns = begun
        self._inlet.opcua_renewed(core, since, spans=self._history is not None)
        self.counters["renewed"] += 1
        return True

    async def _recovered(self, link: Link, *, resumed: bool) -> bool:
        """Whether the remembered subscription goes on, with everything that was missed."""
        memory = self._memory
        if not memory.subscription or memory.items != self._items.fingerprint:
            return False
        if memory.started_ns != self._server.started_ns and memory.started_ns and self._server.started_ns:
            # A server that was started since may have given the number to another client, whose handles are ours too.
            memory.forget_subscription()
            return False
        if not resumed and not await self._transferred(link):
            return False
        before = self.counters["republished"]
        try:
            await self._publisher.catch_up()
        except SubscriptionLost:
            return False
        self.counters["resumed" if resumed else "transferred"] += 1
        facts = {
            "event": "resumed",
            "device": self._device.name,
            "session": "old" if resumed else "new",
            "republished": self.counters["republished"] - before,
        }
        log.info("%s: the subscription goes on", self._device.name, extra=facts)
        return True

    async def _transferred(self, link: Link) -> bool:
        request = ua.TransferSubscriptionsRequest()
        request.Parameters.SubscriptionIds = [self._memory.subscription]
        request.Parameters.SendInitialValues = False
        try:
            results = (await link.ask(request, ua.TransferSubscriptionsResponse)).Parameters.Results
        except UaError:
            return False
        return bool(results and results[0].StatusCode.is_good())

    async def _delete(self, link: Link, subscription: int) -> None:
        request = ua.DeleteSubscriptionsRequest()
        request.Parameters.SubscriptionIds = [subscription]
        with contextlib.suppress(UaError):  # it may be gone already
            await link.ask(request, ua.DeleteSubscriptionsResponse)

    def _spoken_for(self) -> bool:
        """Whether the supervisor may have told that the tags are bad, which only a new value would end."""
        return asyncio.get_running_loop().time() - self._away_since >= self._device.patience

    async def _say_again(self, link: Link) -> None:
        """Reads every value once: those that did not change are not published again."""
        bad = {tag.index for tag in self._items.bad}
        for some in chunks([tag for tag in self._device.tags if tag.index not in bad], AT_ONCE):
            once = Poller(self._inlet, self._items, self._leftover)
            await once.begin(link, self._server, some, register=False)
            await once.read()

    async def _publish(self, link: Link) -> None:
        try:
            await self._publisher.run()
        except SubscriptionLost as reason:
            self._memory.forget_subscription()
            self._fail(link, str(reason))
        except (NotConnected, *FAULTS) as reason:
            self._fail(link, said(reason))
        except Exception as reason:
            log.exception("%s: unexpected error", self._device.name, extra={"event": "device_error"})
            self._fail(link, said(reason))

    async def _poll(self, poller: Poller) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.wait([self._fault], timeout=max(0.0, self._due - loop.time()))
        if not self._fault.done():
            await poller.read()
            self.counters["polls"] += 1
            # A poll that took longer than its period leaves out those that it missed.
            period = self._device.sampling or self._device.publish
            late = max(0.0, loop.time() - self._due)
            self._due += period * (1 + late // period)

    def _fail(self, link: Link, reason: str) -> None:
        if self._link is link and not self._fault.done():
            self._fault.set_result(reason)

    def _leftover(self, found: Published, received_ns: int) -> None:
        """What the core leaves to asyncua's decoder: rare types, as far as a reading can hold them."""
        self.counters["strangers"] += found.unknown_handles + len(found.others)
        rows: list[Row] = []
        for tag, time_ns, status, body in found.undecoded:
            try:
                value = variant_from_binary(Buffer(body)).Value
            except Exception:  # whatever asyncua's decoder stumbles over
                value = None
            fits = isinstance(value, bool | int | float | str)
            rows.append((tag, time_ns or received_ns, value if fits else None, status if fits else _bad(status)))
        if rows:
            self._inlet.push(rows)


def _bad(status: int) -> int:
    return status if status & 0x8000_0000 else int(StatusCode.BAD_DECODING_ERROR)
