"""The connection of a line: one wire at a time, to its first endpoint or to its backup."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

from agent.collectors.carrier import Ear, Trust, Wire, open_wire
from agent.collectors.ways import Ways
from agent.endpoint import Carrier, Endpoint, LineSettings
from agent.errors import NotConnected, spoken

log = logging.getLogger("headrace.collector")

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0
"""Seconds in which a line that could not be opened is not opened again, whichever of its devices asks."""
Opener: TypeAlias = Callable[[Endpoint, Trust, Ear], Awaitable[Wire]]


class Owner(Protocol):
    """Who a connection is for. All calls come from the event loop."""

    def opened(self) -> None:
        """A new wire is there, and nothing was heard on it yet."""

    def unreachable(self, reason: str) -> None:
        """No endpoint could be connected to; `open` may be called again."""

    def heard(self, chunk: bytes) -> None: ...

    def lost(self, reason: str) -> None:
        """The wire ended by itself."""


class _Ear:
    """Hears for one wire. What is left of a wire that was given up reaches nobody."""

    def __init__(self, connection: Connection, owner: Owner) -> None:
        self._connection = connection
        self._owner = owner
        self.ended = ""

    def heard(self, chunk: bytes) -> None:
        if self is self._connection._ear:
            self._owner.heard(chunk)

    def lost(self, reason: str) -> None:
        self.ended = reason
        self._connection._lost(self)


class Connection:
    """Opened when it is asked to be, never by itself, except for the way back from a backup.

    While the backup serves, the first endpoint is connected to in the background every now and then (`Ways`). Its wire
    is taken between two requests (`swap`), and is on trial until a valid answer came.
    """

    def __init__(self, settings: LineSettings, owner: Owner, opener: Opener = open_wire) -> None:
        self.wire: Wire | None = None
        self.trial = False
        self._settings = settings
        self._owner = owner
        self._opener = opener
        self._serial = any(each.carrier is Carrier.SERIAL for each in settings.endpoints)
        self._ways = Ways(len(settings.endpoints))
        self._ear: _Ear | None = None
        self._spare: tuple[Wire, _Ear] | None = None
        self._opening: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._unproved = True
        self._again_at = 0.0
        self._pause = FIRST_PAUSE
        self._why = ""

    @property
    def endpoint(self) -> Endpoint:
        """The one in use, or used last."""
        return self._settings.endpoints[self._ways.at]

    def travel(self, octets: int) -> float:
        """As `Endpoint.travel` of the one in use."""
        return self.endpoint.travel(octets) if self._serial else 0.0

    @property
    def datagrams(self) -> bool:
        return self.endpoint.carrier is Carrier.UDP

    def open(self, patience: float, *, patiently: bool = False) -> None:
        """Begins to connect, for up to `patience` seconds an endpoint. The owner is told how it ended.

        `patiently`: soon after it was in vain it still is.
        """
        if self._opening is not None or self.wire is not None:
            return
        if patiently and asyncio.get_running_loop().time() < self._again_at:
            self._owner.unreachable(self._why)
        else:
            self._opening = asyncio.create_task(self._open(patience), name="line")

    def close(self) -> None:
        """Lets go of everything at once. The owner is told nothing."""
        for task in (self._opening, self._looking):
            if task is not None:
                task.cancel()
        self._opening = self._looking = None
        self.drop()
        if self._spare is not None:
            self._spare[0].close()
            self._spare = None

    def drop(self) -> None:
        """Closes the wire; what was begun elsewhere goes on."""
        wire, self.wire, self._ear, self.trial = self.wire, None, None, False
        if wire is not None:
            wire.close()

    def answered(self) -> None:
        """A valid answer came."""
        if self._unproved:
            self._unproved = self.trial = False
            self._ways.answered()

    async def _open(self, patience: float) -> None:
        loop = asyncio.get_running_loop()
        reasons = []
        for at in self._ways.order():
            try:
                wire, ear = await self._reach(at, patience)
            except NotConnected as reason:
                reasons.append(str(reason))
                continue
            self._opening, self._pause = None, FIRST_PAUSE
            self._ways.opened(at, loop.time())
            self._take(wire, ear)
            return
        self._opening, self._why = None, "; ".join(reasons)
        self._again_at = loop.time() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._owner.unreachable(self._why)

    async def _reach(self, at: int, patience: float) -> tuple[Wire, _Ear]:
        endpoint = self._settings.endpoints[at]
        ear = _Ear(self, self._owner)
        try:
            async with asyncio.timeout(patience):
                return await self._opener(endpoint, self._settings, ear), ear
        except TimeoutError:
            raise NotConnected(f"no connection to {endpoint.place} within {patience:g} s") from None
        except OSError as reason:
            raise NotConnected(f"no connection to {endpoint.place}: {spoken(reason)}") from reason
        except Exception as reason:
            # Whatever it is, the devices on the line have to learn that they have none.
            log.exception("%s can't be opened", endpoint.place, extra={"event": "device_error"})
            raise NotConnected(f"{endpoint.place}: {type(reason).__name__}: {reason}") from reason

    def _take(self, wire: Wire, ear: _Ear) -> None:
        self.wire, self._ear, self._unproved = wire, ear, True
        if ear.ended:
            self._owner.lost(ear.ended)
        else:
            self._owner.opened()

    def look_back(self, patience: float) -> None:
        """Connects to the first endpoint in the background, where it is time to."""
        if not self._ways.at or self._looking is not None or self._spare is not None:
            return
        if self._ways.due_back(asyncio.get_running_loop().time()):
            self._looking = asyncio.create_task(self._look_back(patience), name="first endpoint")

    async def _look_back(self, patience: float) -> None:
        try:
            self._spare = await self._reach(0, patience)
        except NotConnected:
            self._ways.in_vain(asyncio.get_running_loop().time())
        self._looking = None

    @property
    def spare(self) -> bool:
        """Whether the first endpoint waits to be taken by `swap`."""
        return self._spare is not None

    def swap(self) -> None:
        """Changes to the first endpoint. Only while nothing is under way."""
        assert self._spare is not None
        (wire, ear), self._spare = self._spare, None
        now = asyncio.get_running_loop().time()
        if ear.ended:
            self._ways.in_vain(now)
            return
        self.drop()
        self.trial = True
        self._ways.opened(0, now)
        self._take(wire, ear)

    def return_to_backup(self, patience: float) -> None:
        """The first endpoint was on trial, and failed."""
        self.drop()
        self._ways.in_vain(asyncio.get_running_loop().time())
        self.open(patience)

    def _lost(self, ear: _Ear) -> None:
        if ear is self._ear:
            self._owner.lost(ear.ended)
