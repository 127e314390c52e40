"""`python -m benchmarks.clients`: our resolver client's requests a second beside httpx's, to the same simulated node.

The node runs in a process of its own; both keep eight requests in flight. Figures are of this process's CPU time, the
best of three rounds, so that what else the machine does matters less.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Awaitable, Callable
from dataclasses import replace
from time import process_time
from typing import Any

import httpx

from agent.identifiers.node import Node
from benchmarks.resolving import serve
from benchmarks.result import COMMAND, more

IN_FLIGHT = 8
REQUESTS = 2_000
PATH = "/api/handles/88.118.8/d.t0"


def main() -> None:
    queue: Any = multiprocessing.Queue()
    node = multiprocessing.Process(target=serve, args=(1, queue), daemon=True)
    node.start()
    try:
        ours, other = asyncio.run(_measured(f"http://127.0.0.1:{queue.get(timeout=60)}"))
        name = "requests to a resolver, a second of the client's CPU"
        for result in more(name, ours, "requests/s", httpx=other):
            replace(result, command=f"{COMMAND}.clients").print()
    finally:
        node.terminate()
        node.join()


async def _measured(url: str) -> tuple[float, float]:
    node = Node(url, rate=1e6, concurrency=IN_FLIGHT, timeout=10.0)
    limits = httpx.Limits(max_connections=IN_FLIGHT)
    async with httpx.AsyncClient(base_url=url, limits=limits, trust_env=False, timeout=10.0) as client:

        async def ours() -> bytes:
            return (await node.ask("GET", PATH))[1]

        async def other() -> bytes:
            return (await client.get(PATH)).content

        rates = [(await _rate(ours), await _rate(other)) for _ in range(3)]
    await node.close()
    return max(rate for rate, _ in rates), max(rate for _, rate in rates)


async def _rate(ask: Callable[[], Awaitable[bytes]]) -> float:
    left = iter(range(REQUESTS))

    async def some() -> None:
        for _ in left:
            assert await ask()

    began = process_time()
    await asyncio.gather(*(some() for _ in range(IN_FLIGHT)))
    return REQUESTS / (process_time() - began)


if __name__ == "__main__":
    main()
