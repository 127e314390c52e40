"""The resolver client against answers that are JSON and nonsense, and against a wall clock that goes back."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from agent.identifiers.cache import Cache
from agent.identifiers.dialects import HandleDialect
from agent.identifiers.node import Node
from agent.identifiers.record import read
from agent.identifiers.resolver import Resolver
from agent.identifiers.signature import signatures

ID = "88.118.8/press.temp"
LIES = (
    [{"index": 1, "type": "URL", "data": "x", "references": [{"index": 1}]}],
    [{"index": 1, "type": "URL", "data": "x", "references": [{"handle": "a/b", "index": None}]}],
    [{"index": 1, "type": "URL", "data": "x", "references": [7]}],
    [{"index": 1, "type": "URL", "data": "x", "references": [{"handle": "a/b", "index": 1e300}]}],
)
ODD: tuple[Any, ...] = (None, True, -1, 2**63, 1e300, "", "x", "é", "2026-01-01", [], [[]], {}, {"handle": 1}, [None])


class Oracle:
    """A node of the Handle dialect that answers every question with `values`."""

    def __init__(self) -> None:
        self.values: Any = []
        self.asked = 0

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        async with server:
            host, port = server.sockets[0].getsockname()[:2]
            yield f"http://{host}:{port}"

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            body = orjson.dumps({"responseCode": 1, "handle": ID, "values": self.values})
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
            writer.close()


@contextlib.asynccontextmanager
async def asking(url: str, home: Path, clock: Any = time.time) -> AsyncIterator[tuple[Resolver, asyncio.Task[None]]]:
    resolver = Resolver(
        Node(url, rate=1000, concurrency=2, timeout=5.0), HandleDialect(), Cache(home / "resolver.db", url), clock=clock
    )
    await resolver.load([ID])
    stop = asyncio.Event()
    task = asyncio.create_task(resolver.run(stop))
    try:
        yield resolver, task
    finally:
        stop.set()
        await task


async def until(condition: Any, seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain"
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("values", LIES)
async def test_an_answer_that_makes_no_sense_stops_nobody(tmp_path: Path, values: list[object]) -> None:
    oracle = Oracle()
    oracle.values = values
    async with oracle.open() as url, asking(url, tmp_path) as (resolver, task):
        await until(lambda: resolver.facts()["lies"] or task.done())
        assert not task.done()
        assert resolver.of(ID).state == "refused"


def test_a_record_is_read_or_refused_whatever_it_holds() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    dice = random.Random(seed)
    names = ("index", "type", "data", "ttl", "permissions", "references", "format", "value", "handle", "digests", "alg")

    def thing(depth: int) -> Any:
        if depth == 0 or dice.random() < 0.3:
            return dice.choice(ODD)
        if dice.random() < 0.3:
            return [thing(depth - 1) for _ in range(dice.randrange(3))]
        return {name: thing(depth - 1) for name in dice.sample(names, dice.randrange(5))}

    refused = 0
    for _ in range(20_000):
        value = {"index": 1, "type": dice.choice(("URL", "HS_SIGNATURE")), "data": thing(3)}
        value |= {name: thing(3) for name in dice.sample(names[3:6], dice.randrange(3))}
        if dice.random() < 0.5:
            value["data"] = {"format": dice.choice(("string", "admin", "vlist", "hex", "base64")), "value": thing(3)}
        try:
            record = read(ID, [value])
            record.holds(time.time())
            signatures(record, time.time())
            for each in record.values:
                each.encode()
        except ValueError:
            refused += 1
    assert 0 < refused < 20_000


async def test_a_clock_that_goes_back_does_not_put_the_next_question_off(tmp_path: Path) -> None:
    """A gateway that started in 2099 is set right: what it knows is asked for anew, not in seventy years."""
    oracle, ahead = Oracle(), [73 * 365 * 86400.0]
    oracle.values = [{"index": 1, "type": "unit", "data": "bar"}]
    async with oracle.open() as url, asking(url, tmp_path, lambda: time.time() + ahead[0]) as (resolver, _):
        await until(lambda: resolver.of(ID).state == "resolved")
        asked, ahead[0] = oracle.asked, 0.0
        oracle.values = [{"index": 1, "type": "unit", "data": "mbar"}]
        await until(lambda: oracle.asked > asked)
        await until(lambda: resolver.of(ID).facts.get("unit") == "mbar")
