"""Modbus servers of the virtual plant: over TCP and TLS, over UDP, and on a pseudo-terminal in place of a serial port.

All answer by `Units`. They differ in what carries the bytes, and in the framing (`modbus_frames`).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import cast

from simulators.modbus_frames import BROADCAST, Frames, Mbap, NotModbus
from simulators.modbus_image import Image
from simulators.modbus_units import Served, Units

log = logging.getLogger("headrace.simulators")

MAX_CLIENTS = 256
NOBODY = -1
"""No unit has this id: a gateway answers for it as for any unit that is not on its bus."""


class Server(ABC):
    """Serves some units at one place. `start`, then `stop`, which frees the place. `start` raises OSError."""

    def __init__(self, units: Mapping[int, Image], clock: Callable[[], int], framing: Callable[[], Frames]) -> None:
        self.units = Units(units, clock)
        self.framing = framing

    @property
    def served(self) -> Served:
        return self.units.served

    @property
    @abstractmethod
    def place(self) -> str:
        """Where it listens, for people."""

    @abstractmethod
    async def start(self) -> None: ...

    @abstractmethod
    async def stop(self) -> None: ...

    def replies(self, frames: Frames, received: bytes) -> bytes:
        """The answers to all requests that `received` completes. Raises NotModbus, also where nobody is there."""
        if self.units.moods and self.units.away():
            raise NotModbus("the device is away")
        found = []
        for asked in frames.feed(received, time.monotonic()):
            there = asked.unit in self.units and not self.units.away(asked.unit)
            if not frames.gateway and (asked.unit == BROADCAST or not there):
                continue
            found.append(frames.wrap(asked, self.units.answer(asked.unit if there else NOBODY, asked.pdu)))
        return b"".join(found)

    def answer(self, frames: Frames, received: bytes, send: Callable[[bytes], None]) -> None:
        """Sends the replies, later where a unit of the line is slow. Raises NotModbus."""
        if not (replies := self.replies(frames, received)):
            return
        if delay := self.units.delay:
            asyncio.get_running_loop().call_later(delay, send, replies)
        else:
            send(replies)


class ModbusServer(Server):
    """TCP, and TLS where there is a `context`; RTU or ASCII frames over either by `framing`."""

    def __init__(
        self,
        host: str,
        port: int,
        units: Mapping[int, Image],
        clock: Callable[[], int] = time.time_ns,
        *,
        framing: Callable[[], Frames] = Mbap,
        context: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(units, clock, framing)
        self.host = host
        self.port = port
        self._context = context
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    @property
    def place(self) -> str:
        return f"port {self.port} of {self.host}"

    async def start(self) -> None:
        """Listens; port 0 becomes the port that the system chose. Raises OSError where the port is taken."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), self.host, self.port, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def listen_behind(self) -> tuple[str, int]:
        """`start` at a free port in place of its own: something else is to listen there. Returns where."""
        self.port = 0
        await self.start()
        return self.host, self.port

    async def stop(self) -> None:
        """Cuts every client and frees the port."""
        if self._server is None:
            return
        self._server.close()
        for connection in tuple(self._connections):
            connection.cut()
        await asyncio.sleep(0)  # the turn of the loop in which the connections are lost
        try:
            async with asyncio.timeout(0.5):
                await self._server.wait_closed()
        except TimeoutError:
            log.warning("A Modbus client did not let go.", extra={"event": "slow_stop", "port": self.port})
        self._server = None


class _Connection(asyncio.Protocol):
    """One client. What is not a Modbus TCP frame closes it: there is no way to find the next one."""

    def __init__(self, server: ModbusServer) -> None:
        self._server = server
        self._frames = server.framing()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        if len(self._server._connections) >= (self._server.units.most_clients or MAX_CLIENTS):
            self._transport.abort()
            return
        self._server._connections.add(self)
        self._server.served.clients = len(self._server._connections)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._transport = None
        self._server._connections.discard(self)
        self._server.served.clients = len(self._server._connections)

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        try:
            self._server.answer(self._frames, data, self._send)
        except NotModbus:
            self._transport.abort()

    def _send(self, answers: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(answers)

    def pause_writing(self) -> None:
        """The client does not read its answers: it gets no further question in."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def cut(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class UdpServer(Server):
    """Modbus in datagrams: each holds one whole frame or nothing that counts."""

    def __init__(
        self, host: str, port: int, units: Mapping[int, Image], clock: Callable[[], int] = time.time_ns
    ) -> None:
        super().__init__(units, clock, Mbap)
        self.host = host
        self.port = port
        self._transport: asyncio.DatagramTransport | None = None

    @property
    def place(self) -> str:
        return f"UDP port {self.port} of {self.host}"

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self), local_addr=(self.host, self.port)
        )
        self.port = self._transport.get_extra_info("sockname")[1]

    async def stop(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            await asyncio.sleep(0)
            self._transport = None


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: UdpServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        with suppress(NotModbus):
            self._server.answer(self._server.framing(), data, partial(self._send, addr))

    def _send(self, addr: tuple[str, int], answers: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(answers, addr)
