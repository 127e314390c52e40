"""What carries a line's bytes: TCP, TLS, UDP or a serial port, each behind the same two small faces."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import serial
from serial.rs485 import RS485Settings

from agent.endpoint import Carrier, Endpoint, SerialSettings

CLOSE_SECONDS = 1.0
"""How long a peer may take to let go before its connection is cut."""
MAX_UNSENT = 4096
"""Bytes that a serial port's driver may leave to us. One request is at most 513."""
_PATIENT = ThreadPoolExecutor(64, "carrier")
"""For what may hang: a name server that does not answer, a port that waits for its modem. In the threads that all
share, such waits would keep the sealer from sealing."""


class Ear(Protocol):
    """Who gets the bytes. Called by the event loop, never after `lost`."""

    def heard(self, chunk: bytes) -> None: ...

    def lost(self, reason: str) -> None:
        """The other side, or the port, is gone. Not called after `Wire.close`."""


class Wire(Protocol):
    """An open connection. Neither call blocks or raises."""

    def send(self, frame: bytes) -> None: ...

    def close(self) -> None:
        """The ear hears nothing after this."""


class Trust(Protocol):
    """How a TLS server is known, and how we show who we are."""

    @property
    def ca(self) -> Path | None: ...
    @property
    def cert(self) -> Path | None: ...
    @property
    def key(self) -> Path | None: ...
    @property
    def server_name(self) -> str | None: ...


async def open_wire(endpoint: Endpoint, trust: Trust, ear: Ear) -> Wire:
    """Raises OSError (ssl.SSLError among them) where there is no way through. The caller limits how long it takes."""
    loop = asyncio.get_running_loop()
    match endpoint.carrier:
        case Carrier.SERIAL:
            assert endpoint.serial is not None
            # Opening a port may wait for a modem line, or for a network where its driver is remote.
            opening = loop.run_in_executor(_PATIENT, _open_serial, endpoint.serial)
            try:
                port = await asyncio.shield(opening)
            except asyncio.CancelledError:
                opening.add_done_callback(_let_go)
                raise
            return _Port(loop, port, ear)
        case Carrier.UDP:
            return await _connect(endpoint, lambda address: _datagrams(address, endpoint.port, ear))
        case Carrier.TCP:
            return await _connect(endpoint, lambda address: _stream(address, endpoint.port, ear))
        case Carrier.TLS:
            tls = {
                "ssl": await asyncio.to_thread(_context, trust),
                "server_hostname": trust.server_name or endpoint.host,
            }
            return await _connect(endpoint, lambda address: _stream(address, endpoint.port, ear, **tls))


async def _connect(endpoint: Endpoint, reach: Callable[[str], Awaitable[Wire]]) -> Wire:
    """To the first of its addresses that can be reached."""
    *others, last = await _addresses(endpoint)
    for address in others:
        with contextlib.suppress(OSError):
            return await reach(address)
    return await reach(last)


async def _stream(address: str, port: int, ear: Ear, **tls: Any) -> Wire:
    loop = asyncio.get_running_loop()
    _, stream = await loop.create_connection(lambda: _Bytes(ear), address, port, **tls)
    return stream


async def _datagrams(address: str, port: int, ear: Ear) -> Wire:
    loop = asyncio.get_running_loop()
    _, datagrams = await loop.create_datagram_endpoint(lambda: _Datagrams(ear), remote_addr=(address, port))
    return datagrams


async def _addresses(endpoint: Endpoint) -> list[str]:
    """The addresses of its host, at least one. Raises OSError where the name is not known."""
    try:
        ipaddress.ip_address(endpoint.host)
    except ValueError:
        pass
    else:
        return [endpoint.host]
    kind = socket.SOCK_DGRAM if endpoint.carrier is Carrier.UDP else socket.SOCK_STREAM
    loop = asyncio.get_running_loop()
    found = await loop.run_in_executor(_PATIENT, lambda: socket.getaddrinfo(endpoint.host, endpoint.port, type=kind))
    return [str(address[0]) for *_, address in found]


def _context(trust: Trust) -> ssl.SSLContext:
    """Modbus/TCP Security (MB-TCP-Security V2.1): TLS 1.2 or later, both sides with a certificate."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=trust.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if trust.cert is not None:
        context.load_cert_chain(trust.cert, trust.key)
    return context


class _Bytes(asyncio.Protocol):
    """A TCP or TLS connection."""

    def __init__(self, ear: Ear) -> None:
        self._ear: Ear | None = ear
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no asyncio.Transport by inheritance

    def send(self, frame: bytes) -> None:
        self._transport.write(frame)

    def data_received(self, data: bytes) -> None:
        if self._ear is not None:
            self._ear.heard(data)

    def connection_lost(self, exc: Exception | None) -> None:
        ear, self._ear = self._ear, None
        if ear is not None:
            ear.lost(f"the connection was lost: {exc}" if exc else "the device closed the connection")

    def close(self) -> None:
        self._ear = None
        self._transport.close()
        asyncio.get_running_loop().call_later(CLOSE_SECONDS, self._transport.abort)


class _Datagrams(asyncio.DatagramProtocol):
    """A connected UDP socket: what comes from anywhere else does not arrive."""

    def __init__(self, ear: Ear) -> None:
        self._ear: Ear | None = ear
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: object) -> None:  # noqa: ARG002
        if self._ear is not None:
            self._ear.heard(data)

    def error_received(self, exc: Exception) -> None:  # noqa: ARG002
        # An ICMP message that nobody listens: the request will time out, and be counted as that.
        return

    def connection_lost(self, exc: Exception | None) -> None:
        ear, self._ear = self._ear, None
        if ear is not None:
            ear.lost(f"the socket was lost: {exc}")

    def send(self, frame: bytes) -> None:
        self._transport.sendto(frame)

    def close(self) -> None:
        self._ear = None
        self._transport.close()


def _open_serial(settings: SerialSettings) -> serial.Serial:
    """Raises OSError (serial.SerialException is one); a port that another program holds counts as one too."""
    try:
        port = serial.Serial(
            settings.path,
            baudrate=settings.baudrate,
            bytesize=settings.bytesize,
            parity=settings.parity,
            stopbits=settings.stopbits,
            timeout=0,
            write_timeout=0,
            exclusive=True,
        )
        if (mode := settings.rs485) is not None:
            port.rs485_mode = RS485Settings(
                rts_level_for_tx=mode.rts_on_send,
                rts_level_for_rx=mode.rts_after_send,
                loopback=mode.rx_during_tx,
                delay_before_tx=mode.delay_before,
                delay_before_rx=mode.delay_after,
            )
    except ValueError as reason:  # also how pyserial says that the driver has no RS-485 mode
        raise OSError(f"{settings.path}: {reason}") from reason
    return port


def _let_go(opening: asyncio.Future[serial.Serial]) -> None:
    """Closes a port that nobody waits for any more; it would be held for ever."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


class _Port:
    """A serial port in the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, port: serial.Serial, ear: Ear) -> None:
        self._loop = loop
        self._port = port
        self._file = port.fileno()
        self._ear: Ear | None = ear
        self._unsent = b""
        loop.add_reader(self._file, self._readable)

    def send(self, frame: bytes) -> None:
        if self._ear is None or len(self._unsent) > MAX_UNSENT:
            return  # what is not sent is not answered, and that is counted
        self._unsent += frame
        self._writable()

    def close(self) -> None:
        if self._ear is None:
            return
        self._ear = None
        self._loop.remove_reader(self._file)
        self._loop.remove_writer(self._file)
        self._port.close()

    def _readable(self) -> None:
        try:
            chunk = os.read(self._file, 4096)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as reason:
            self._lose(str(reason))
            return
        if not chunk:
            self._lose("the port is gone")
        elif self._ear is not None:
            self._ear.heard(chunk)

    def _writable(self) -> None:
        try:
            sent = os.write(self._file, self._unsent)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as reason:
            # Told from the loop: `send` is called by whom the loss concerns.
            self._loop.call_soon(self._lose, str(reason))
            return
        self._unsent = self._unsent[sent:]
        if self._unsent:
            self._loop.add_writer(self._file, self._writable)
        else:
            self._loop.remove_writer(self._file)

    def _lose(self, reason: str) -> None:
        ear = self._ear
        self.close()
        if ear is not None:
            ear.lost(f"the serial port was lost: {reason}")
