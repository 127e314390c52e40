"""A TCP proxy that does to a line what networks do: cut, stall, lose, delay, garble. Stands before any real peer.

Faults act for as long as they are applied; what comes after heals as a real line would: bytes that a stalled line held
back arrive then, bytes that a lossy one swallowed do not. Every choice is taken from a seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum

CHUNK = 16 * 1024
"""The most that is taken from a socket at once."""
CONNECT_SECONDS = 5.0


class Kind(StrEnum):
    """What happens to the line."""

    CUT = "cut"
    """Both sides see the connection closed; new ones are closed at once."""
    RESET = "reset"
    """The same with a TCP reset (RST)."""
    REFUSE = "refuse"
    """Nobody listens: established connections go on, new ones are refused."""
    STALL = "stall"
    """Established connections carry nothing; new ones do."""
    BLACKHOLE = "blackhole"
    """No connection carries anything, new ones included."""
    VANISH = "vanish"
    """The far side is gone without a word, and each byte for it is lost: the connection is half open until it heals."""
    DELAY = "delay"
    """Each chunk arrives `delay` (and up to `jitter` more) later, in order."""
    DRIP = "drip"
    """`rate` bytes a second, in pieces of a few bytes."""
    CORRUPT = "corrupt"
    """One bit of a chunk is turned, with `probability`."""
    LOSE = "lose"
    """A chunk is swallowed, with `probability`."""
    DOUBLE = "double"
    """A chunk comes twice, with `probability`."""
    REORDER = "reorder"
    """A chunk changes places with the one after it, with `probability`."""
    SPLIT = "split"
    """Each chunk arrives in pieces of 1 to 3 bytes, one after the other."""
    TRUNCATE = "truncate"
    """Half a chunk arrives, then the connection is closed, with `probability`."""


class Way(StrEnum):
    """Which direction a fault is in, as the client sees it."""

    BOTH = "both"
    UP = "up"
    """From the client to the server."""
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. Times are in seconds, `rate` in bytes a second."""

    kind: Kind
    way: Way = Way.BOTH
    delay: float = 0.2
    jitter: float = 0.0
    rate: float = 100.0
    probability: float = 0.2


class _Line:
    """One connection through the proxy."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.near = near
        self.far = far

    def drop(self, *, reset: bool) -> None:
        for side in (self.near, self.far):
            if reset:
                _linger_off(side)
                side.transport.abort()
            else:
                side.close()


class Proxy:
    """Listens at one address, and carries each connection to another: open / apply / close."""

    def __init__(self, host: str, port: int, target: tuple[str, int], *, seed: int = 1) -> None:
        """`port` 0 takes a free one, which `port` is after `open`."""
        self.host = host
        self.port = port
        self.target = target
        self.carried = 0
        """Bytes that arrived, of both directions."""
        self._random = random.Random(seed)  # noqa: S311 - a reproducible nuisance, not a secret
        self._fault: Fault | None = None
        self._server: asyncio.Server | None = None
        self._lines: set[_Line] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stalled: set[_Line] = set()
        self._change = asyncio.Event()

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._lines)

    async def open(self) -> None:
        """Listens. Raises OSError where the address can't be listened at."""
        self._server = await asyncio.start_server(self._accept, self.host, self.port, limit=CHUNK)
        self.port = self._server.sockets[0].getsockname()[1]

    async def apply(self, fault: Fault | None) -> None:
        """From here on the line has this fault, instead of any before; None heals it."""
        before, self._fault = self._fault, fault
        changed, self._change = self._change, asyncio.Event()
        changed.set()
        kind = fault.kind if fault else None
        self._stalled = set(self._lines) if kind is Kind.STALL else set()
        if kind in (Kind.CUT, Kind.RESET):
            for line in list(self._lines):
                line.drop(reset=kind is Kind.RESET)
        if before is not None and before.kind is Kind.VANISH:
            # Who comes back is a stranger to what was open before: it is reset, as a restarted peer would do.
            for line in list(self._lines):
                line.drop(reset=True)
        if kind is Kind.REFUSE:
            await self._deafen()
        elif self._server is None:
            await self.open()

    async def close(self) -> None:
        """Cuts every connection and frees the port."""
        self._fault = None
        await self._deafen()
        for line in list(self._lines):
            line.drop(reset=True)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _deafen(self) -> None:
        if self._server is not None:
            # Not `wait_closed`: from Python 3.12 on it waits for the connections that go on.
            self._server.close()
            self._server = None
            await asyncio.sleep(0)

    def _is(self, *kinds: Kind) -> bool:
        return self._fault is not None and self._fault.kind in kinds

    async def _accept(self, reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self._is(Kind.CUT, Kind.RESET):
            if self._is(Kind.RESET):
                _linger_off(near)
            near.close()
            return
        while self._is(Kind.BLACKHOLE, Kind.VANISH):
            await self._change.wait()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                back, far = await asyncio.open_connection(*self.target, limit=CHUNK)
        except (OSError, TimeoutError):
            near.close()
            return
        line = _Line(near, far)
        self._lines.add(line)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(line, Way.UP, reader, far))
                both.create_task(self._carry(line, Way.DOWN, back, near))
        except* OSError:
            pass
        finally:
            self._lines.discard(line)
            line.drop(reset=False)

    async def _carry(self, line: _Line, way: Way, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        held: bytes = b""
        while True:
            await self._moves(line, way)
            chunk = await source.read(CHUNK)
            await self._moves(line, way)
            if not chunk:
                break
            fault = self._fault if self._fault and self._fault.way in (Way.BOTH, way) else None
            if fault is not None and fault.kind is Kind.REORDER and not held and self._happens(fault):
                held = chunk
                continue
            async for piece in self._pieces(line, fault, chunk):
                sink.write(piece)
                self.carried += len(piece)
                await sink.drain()
            if held:
                sink.write(held)
                self.carried += len(held)
                held = b""
                await sink.drain()
        with contextlib.suppress(OSError):
            sink.write_eof()

    async def _moves(self, line: _Line, way: Way) -> None:
        """Returns when the line may carry something in this direction."""
        while (fault := self._fault) is not None and fault.way in (Way.BOTH, way):
            if fault.kind is Kind.BLACKHOLE or (fault.kind is Kind.STALL and line in self._stalled):
                await self._change.wait()
            else:
                return

    async def _pieces(self, line: _Line, fault: Fault | None, chunk: bytes) -> AsyncIterator[bytes]:
        match fault.kind if fault else None:
            case Kind.VANISH:
                return
            case Kind.LOSE if self._happens(fault):
                return
            case Kind.DELAY if fault:
                await asyncio.sleep(fault.delay + self._random.random() * fault.jitter)
                yield chunk
            case Kind.DRIP if fault:
                size = max(1, round(fault.rate / 20))
                for at in range(0, len(chunk), size):
                    if self._fault is fault:
                        await asyncio.sleep(size / fault.rate)
                    yield chunk[at : at + size]
            case Kind.CORRUPT if self._happens(fault):
                at = self._random.randrange(len(chunk))
                yield chunk[:at] + bytes([chunk[at] ^ 1 << self._random.randrange(8)]) + chunk[at + 1 :]
            case Kind.DOUBLE if self._happens(fault):
                yield chunk
                yield chunk
            case Kind.SPLIT:
                at = 0
                while at < len(chunk):
                    size = self._random.randint(1, 3)
                    yield chunk[at : at + size]
                    await asyncio.sleep(0)
                    at += size
            case Kind.TRUNCATE if self._happens(fault):
                yield chunk[: len(chunk) // 2]
                line.drop(reset=False)
            case _:
                yield chunk

    def _happens(self, fault: Fault | None) -> bool:
        return fault is not None and self._random.random() < fault.probability


def _linger_off(side: asyncio.StreamWriter) -> None:
    """A close sends a reset from here on."""
    sock = side.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
