"""What the fault proxy does to a line, seen from both of its ends."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from simulators.proxy import Fault, Kind, Proxy, Way

SECONDS = 30.0
"""Of which none is needed on a machine that has time."""
OPEN: list[asyncio.StreamWriter] = []
"""The clients of the test at hand, to be closed after it."""


class Echo:
    """A server that sends back what it gets."""

    def __init__(self) -> None:
        self.heard = b""
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while chunk := await reader.read(65536):
                self.heard += chunk
                writer.write(chunk)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


@pytest.fixture
async def line() -> AsyncIterator[tuple[Proxy, Echo]]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    proxy = Proxy("127.0.0.1", 0, server.sockets[0].getsockname()[:2], seed=1)
    await proxy.open()
    yield proxy, echo
    await proxy.close()
    server.close()
    for writer in (*echo.writers, *OPEN):
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    OPEN.clear()


async def dial(proxy: Proxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    async with asyncio.timeout(SECONDS):
        ends = await asyncio.open_connection(proxy.host, proxy.port)
    OPEN.append(ends[1])
    return ends


async def ask(ends: tuple[asyncio.StreamReader, asyncio.StreamWriter], text: bytes, size: int | None = None) -> bytes:
    reader, writer = ends
    writer.write(text)
    async with asyncio.timeout(SECONDS):
        return await reader.readexactly(len(text) if size is None else size)


async def silent(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(0.3):
            await reader.read(1)
    except TimeoutError:
        return True
    return False


async def test_a_healthy_line_carries_everything(line: tuple[Proxy, Echo]) -> None:
    ends = await dial(line[0])
    text = bytes(range(256)) * 400
    assert await ask(ends, text) == text
    assert (line[0].connections, line[0].carried) == (1, 2 * len(text))


async def test_cut_closes_and_stays_closed_until_it_is_healed(line: tuple[Proxy, Echo]) -> None:
    proxy, _ = line
    ends = await dial(proxy)
    await ask(ends, b"a")
    await proxy.apply(Fault(Kind.CUT))
    async with asyncio.timeout(SECONDS):
        assert await ends[0].read(1) == b""
        assert await (await dial(proxy))[0].read(1) == b""
    await proxy.apply(None)
    assert await ask(await dial(proxy), b"b") == b"b"


async def test_reset_is_a_reset(line: tuple[Proxy, Echo]) -> None:
    proxy, _ = line
    ends = await dial(proxy)
    await ask(ends, b"a")
    await proxy.apply(Fault(Kind.RESET))
    async with asyncio.timeout(SECONDS):
        with pytest.raises(ConnectionResetError):
            await ends[0].read(1)


async def test_refuse_leaves_what_is_open(line: tuple[Proxy, Echo]) -> None:
    proxy, _ = line
    ends = await dial(proxy)
    await ask(ends, b"a")
    await proxy.apply(Fault(Kind.REFUSE))
    assert await ask(ends, b"b") == b"b"
    with pytest.raises(ConnectionRefusedError):
        await dial(proxy)
    await proxy.apply(None)
    assert await ask(await dial(proxy), b"c") == b"c"


@pytest.mark.parametrize("kind", [Kind.STALL, Kind.BLACKHOLE])
async def test_what_a_stopped_line_held_back_arrives_when_it_heals(line: tuple[Proxy, Echo], kind: Kind) -> None:
    proxy, _ = line
    ends = await dial(proxy)
    await ask(ends, b"a")
    await proxy.apply(Fault(kind))
    ends[1].write(b"held")
    assert await silent(ends[0])
    newer = await dial(proxy)
    if kind is Kind.BLACKHOLE:
        newer[1].write(b"new")
        assert await silent(newer[0])
    else:
        assert await ask(newer, b"new") == b"new"
    await proxy.apply(None)
    async with asyncio.timeout(SECONDS):
        assert await ends[0].readexactly(4) == b"held"


async def test_one_way_only(line: tuple[Proxy, Echo]) -> None:
    proxy, echo = line
    ends = await dial(proxy)
    await ask(ends, b"a")
    await proxy.apply(Fault(Kind.BLACKHOLE, Way.DOWN))
    ends[1].write(b"up")
    assert await silent(ends[0])
    assert echo.heard == b"aup"


async def test_a_far_side_that_vanished_loses_bytes_and_resets_when_it_is_back(line: tuple[Proxy, Echo]) -> None:
    proxy, echo = line
    ends = await dial(proxy)
    await ask(ends, b"a")
    await proxy.apply(Fault(Kind.VANISH))
    ends[1].write(b"lost")
    assert await silent(ends[0])
    await proxy.apply(None)
    async with asyncio.timeout(SECONDS):
        with pytest.raises(ConnectionResetError):
            await ends[0].read(1)
    assert echo.heard == b"a"


async def test_delay_and_drip_take_their_time(line: tuple[Proxy, Echo]) -> None:
    proxy, _ = line
    ends = await dial(proxy)
    await proxy.apply(Fault(Kind.DELAY, Way.UP, delay=0.2))
    began = time.monotonic()
    assert await ask(ends, b"x") == b"x"
    assert time.monotonic() - began >= 0.2
    await proxy.apply(Fault(Kind.DRIP, Way.DOWN, rate=100))
    began = time.monotonic()
    assert await ask(ends, b"y" * 40) == b"y" * 40
    assert time.monotonic() - began >= 0.3


async def test_what_garbles(line: tuple[Proxy, Echo]) -> None:
    proxy, echo = line
    ends = await dial(proxy)
    await proxy.apply(Fault(Kind.CORRUPT, Way.UP, probability=1))
    turned = await ask(ends, b"\0\0\0\0")
    assert sum(byte.bit_count() for byte in turned) == 1
    await proxy.apply(Fault(Kind.DOUBLE, Way.UP, probability=1))
    assert await ask(ends, b"ab", 4) == b"abab"
    await proxy.apply(Fault(Kind.SPLIT))
    assert await ask(ends, b"0123456789" * 10) == b"0123456789" * 10
    await proxy.apply(Fault(Kind.LOSE, Way.UP, probability=1))
    ends[1].write(b"gone")
    assert await silent(ends[0])
    await proxy.apply(Fault(Kind.REORDER, Way.UP, probability=1))
    ends[1].write(b"second")
    assert await silent(ends[0])
    assert await ask(ends, b"first", 11) == b"firstsecond"
    await proxy.apply(Fault(Kind.TRUNCATE, Way.UP, probability=1))
    heard = len(echo.heard)
    ends[1].write(b"half")
    async with asyncio.timeout(SECONDS):
        assert await ends[0].read(100) in (b"", b"ha")
    assert echo.heard[heard:] in (b"", b"ha")
