"""Redundant servers of one device: which of them is used, and when another one is better (OPC 10000-4, 6.6.2).

The first of the list that answers is taken. One that says that it is not well (ServiceLevel below 200) is left for one
that says a higher level. A server before it in the list is gone back to when it has been well for `return_after`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace

from asyncua.ua.object_ids import ObjectIds

from agent.collectors.opcua.link import FAULTS, Link, said
from agent.collectors.opcua.memory import Memory
from agent.collectors.opcua.security import Security
from agent.config import OpcUaDevice
from agent.errors import NotConnected

log = logging.getLogger("headrace.collector")

WELL = 200
"""The lowest ServiceLevel of a server that is well (OPC 10000-4, 6.6.2.4.2)."""
SLOWEST_LOOK = 5.0
"""Seconds between two looks at the levels, at most."""


class Poorer(NotConnected):
    """The server answers, and another one is better."""

    def __init__(self, better: int, why: str) -> None:
        super().__init__(why)
        self.better = better


class Standby:
    """The servers of one device by their places in the list: 0 is `url`, the others are `backup`."""

    def __init__(self, device: OpcUaDevice, counters: dict[str, int]) -> None:
        urls = (device.url, *device.backup)
        self.devices = [device.model_copy(update={"url": url}) for url in urls]
        self.securities = [Security(each, counters) for each in self.devices]
        self.current = 0
        self.alone = len(urls) == 1
        self._name = device.name
        self._counters = counters
        self._return_after = device.return_after
        self._wanted: Poorer | None = None
        self._changed: float | None = None
        self._well_since: dict[int, float] = {}
        self._left: dict[int, Memory] = {}
        """What was known of a server when it was left."""

    @property
    def pause(self) -> float:
        """Seconds between looks."""
        return min(SLOWEST_LOOK, self._return_after / 4)

    @property
    def wanted(self) -> str:
        """Why another one is tried first; empty where none is."""
        return "" if self._wanted is None else str(self._wanted)

    def order(self) -> list[int]:
        """Whom to try: the one that is wanted, the last one, because it may still have our subscription, the rest."""
        first = [self.current] if self._wanted is None else [self._wanted.better, self.current]
        return first + [place for place in range(len(self.devices)) if place not in first]

    def recall(self, known: Memory) -> None:
        """Goes on with the server that an earlier run used."""
        self.current = next((at for at, each in enumerate(self.devices) if each.url == known.server), 0)
        self._count()

    def memory(self, place: int, last: Memory) -> Memory:
        """What is known of another server. Its subscription, if it is still there, was not listened to meanwhile: there
        is nothing to resume. What is missing begins where the last server left nothing behind."""
        left = self._left.get(place, Memory(self.devices[place].url))
        return replace(left, items="", sequence=0, bad=[], clean_ns=last.clean_ns)

    def change(self, place: int, last: Memory, why: str) -> None:
        """Notes that another server is used from now on; `last` is what is known of the one before."""
        before, self.current, self._wanted = self.current, place, None
        # A session that was closed can't be resumed; to try is how that is found out.
        self._left[before] = last
        self._left.pop(place, None)
        self._changed = asyncio.get_running_loop().time()
        self._well_since.clear()
        self._counters["failovers"] += 1
        self._count()
        old, new = self.devices[before].url, self.devices[place].url
        facts = {"event": "failed_over", "device": self._name, "from": old, "to": new, "reason": why}
        log.warning("%s: %s is used, not %s: %s", self._name, new, old, why, extra=facts)

    def settle(self) -> None:
        """Notes that the server of before is used again, whatever was wanted."""
        self._wanted = None

    async def better(self, level: int) -> Poorer | None:
        """The best of the others, where the current one has `level`, is not well, and it has a higher one."""
        if level >= WELL:
            return None
        others = [place for place in range(len(self.devices)) if place != self.current]
        levels = {place: await self._ask(place) for place in others}
        best = max(others, key=lambda place: (levels[place], -place))
        if levels[best] <= level:
            return None
        return Poorer(best, f"its ServiceLevel is {level}, the other's is {levels[best]}")

    async def look(self, link: Link) -> Poorer | None:
        """Looks once at the levels while `link` is the connection in use. What it returns is tried first by `order`.
        Raises FAULTS of the link."""
        level = await level_of(link)
        self._counters["service_level"] = level
        now = asyncio.get_running_loop().time()
        found = None
        if self._changed is None or now - self._changed >= self._return_after:
            found = await self.better(level)
        for place in range(self.current):
            if found is not None:
                break
            if await self._ask(place) < WELL:
                self._well_since.pop(place, None)
            elif now - self._well_since.setdefault(place, now) >= self._return_after:
                found = Poorer(place, f"it is before it in the list, and has been well for {self._return_after:g} s")
        self._wanted = found
        return found

    async def _ask(self, place: int) -> int:
        """A server's level; -1 where it can't be reached."""
        device = self.devices[place]
        link = Link(device, self.securities[place], lambda _: None)
        try:
            await opened(link, device)
            await link.begin(Memory())
            level = await level_of(link)
            with contextlib.suppress(*FAULTS):
                await link.leave()
        except (NotConnected, *FAULTS) as reason:
            log.debug("%s: no level of %s: %s", self._name, device.url, said(reason))
            return -1
        finally:
            await link.close()
        return level

    def _count(self) -> None:
        self._counters["server"] = self.current


async def opened(link: Link, device: OpcUaDevice) -> None:
    """Opens a link without the long waits for a server that is not trusted yet: there is another one. Raises FAULTS."""
    seconds = 3 * device.timeout
    try:
        async with asyncio.timeout(seconds):
            await link.open()
    except TimeoutError as reason:
        raise TimeoutError(str(reason) or f"no connection within {seconds:g} s") from reason


async def level_of(link: Link) -> int:
    """A server's ServiceLevel; 255 where it has none. Raises FAULTS."""
    (level,) = await link.numbers([ObjectIds.Server_ServiceLevel])
    return 255 if level is None else int(level)
