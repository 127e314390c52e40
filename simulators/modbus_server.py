"""A Modbus TCP server of the virtual plant: function codes 1 to 4, and the exceptions that a real device gives."""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from agent.address import ModbusTable
from simulators.modbus_image import Image

log = logging.getLogger("headrace.simulators")

ILLEGAL_FUNCTION = 0x01
ILLEGAL_ADDRESS = 0x02
ILLEGAL_VALUE = 0x03
NO_SUCH_UNIT = 0x0B
"""Gateway target device failed to respond: what a gateway says of a unit that is not on its bus."""

MAX_FRAME = 260
"""Bytes of a Modbus TCP frame, header and all."""
MAX_CLIENTS = 32
_MAX_REGISTERS = 125
_MAX_BITS = 2000
_TABLES = {1: ModbusTable.CO, 2: ModbusTable.DI, 3: ModbusTable.HR, 4: ModbusTable.IR}
_HEADER = struct.Struct(">HHHB")
_READ = struct.Struct(">BHH")


@dataclass(slots=True)
class Served:
    """Counters of one server since it was made."""

    requests: int = 0
    exceptions: int = 0
    clients: int = 0
    """Connected now."""


class ModbusServer:
    """Serves the images of one or more units at one host and port. `clock` gives ns UTC, once per request."""

    def __init__(
        self, host: str, port: int, units: Mapping[int, Image], clock: Callable[[], int] = time.time_ns
    ) -> None:
        self.host = host
        self.port = port
        self.served = Served()
        self._units = dict(units)
        self._clock = clock
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    async def start(self) -> None:
        """Listens; port 0 becomes the port that the system chose. Raises OSError where the port is taken."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

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

    def answer(self, unit: int, request: bytes) -> bytes:
        """The PDU that answers the PDU `request` (1 byte or more)."""
        self.served.requests += 1
        code = self._read(unit, request)
        if isinstance(code, bytes):
            return code
        self.served.exceptions += 1
        return bytes((request[0] | 0x80, code))

    def _read(self, unit: int, request: bytes) -> bytes | int:
        """A response, or an exception code."""
        image = self._units.get(unit)
        if image is None:
            return NO_SUCH_UNIT
        table = _TABLES.get(request[0])
        if table is None:
            return ILLEGAL_FUNCTION
        if len(request) != _READ.size:
            return ILLEGAL_VALUE
        _, first, count = _READ.unpack(request)
        if not 1 <= count <= (_MAX_BITS if table.bits else _MAX_REGISTERS):
            return ILLEGAL_VALUE
        values = image.read(table, first, count, self._clock())
        return ILLEGAL_ADDRESS if values is None else bytes((request[0], len(values))) + values


class _Connection(asyncio.Protocol):
    """One client. What is not a Modbus frame closes it: there is no way to find the next one."""

    def __init__(self, server: ModbusServer) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        if len(self._server._connections) >= MAX_CLIENTS:
            self._transport.abort()
            return
        self._server._connections.add(self)
        self._server.served.clients = len(self._server._connections)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._transport = None
        self._server._connections.discard(self)
        self._server.served.clients = len(self._server._connections)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while self._transport is not None and not self._transport.is_closing():
            if len(self._received) < _HEADER.size:
                return
            transaction, protocol, length, unit = _HEADER.unpack_from(self._received)
            end = 6 + length
            if protocol != 0 or length < 2 or end > MAX_FRAME:
                self._transport.abort()
                return
            if len(self._received) < end:
                return
            request = bytes(self._received[_HEADER.size : end])
            del self._received[:end]
            response = self._server.answer(unit, request)
            self._transport.write(_HEADER.pack(transaction, 0, len(response) + 1, unit) + response)

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
