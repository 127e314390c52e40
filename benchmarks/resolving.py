"""`python -m benchmarks.resolving [TAGS]`: a cold and a warm start with 100,000 identifiers, beside a collecting loop.

The simulated resolver runs in a process of its own. While identifiers are asked for, a task pushes a Modbus response
into the core each 20 ms, as a collector does; how late it is compared with the same loop without a resolver says what
resolution costs collection. One JSON line for each figure.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import struct
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter, process_time, time_ns
from typing import Any

import orjson

from agent._native import Buffer
from agent.identifiers.cache import Cache
from agent.identifiers.dialects import HandleDialect
from agent.identifiers.node import Node
from agent.identifiers.resolver import Resolver
from agent.model import Tag, ValueType
from simulators.records import of_tags
from simulators.resolver import ResolverServer

EVERY = 0.02
RATE = 1_250.0
"""Requests a second that the client may make: what a plant would configure to be done with 100,000 in 80 s."""


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    queue: Any = multiprocessing.Queue()
    node = multiprocessing.Process(target=serve, args=(count, queue), daemon=True)
    node.start()
    try:
        for figure in asyncio.run(measure(count, queue.get(timeout=60))):
            sys.stdout.write(orjson.dumps(figure).decode() + "\n")
    finally:
        node.terminate()
        node.join()


async def measure(count: int, port: int) -> list[dict[str, Any]]:
    """Figures of one cold and one warm start."""
    identifiers = [tag.identifier for tag in _tags(count)]
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "resolver.db")
        idle = await _lateness(asyncio.sleep(3.0))
        resolver = _resolver(port, path)
        begin, cold_cpu = perf_counter(), process_time()
        await resolver.load(identifiers)
        async with _running(resolver):
            late = await _lateness(_all(resolver, count))
            took, cold_cpu = perf_counter() - begin, process_time() - cold_cpu
        warm_begin, cpu_begin = perf_counter(), process_time()
        offline = _resolver(1, path, port)
        await offline.load(identifiers)
        warm, cpu = perf_counter() - warm_begin, process_time() - cpu_begin
        of_begin = process_time()
        assert all(offline.of(identifier).state == "resolved" for identifier in identifiers)
        of = process_time() - of_begin
        states = offline.facts()["states"]
        await offline.close()
    return [
        {"name": "resolved from a cold cache", "value": round(count / took), "unit": "identifiers/s",
         "for a second of CPU": round(count / cold_cpu)},
        {"name": "a reading's lateness meanwhile, p99", "value": round(late * 1e3, 2), "unit": "ms",
         "baseline": round(idle * 1e3, 2)},
        {"name": f"offline start from a warm cache, {states}", "value": round(warm, 3), "unit": "s",
         "cpu": round(cpu, 3), "cpu of looking each of them up": round(of, 3),
         "load": round(os.getloadavg()[0])},
    ]  # fmt: skip


async def _lateness(work: Any) -> float:
    """The 99th percentile, in seconds, of how late a collecting loop is while `work` runs."""
    tag = Tag(0, "d", "t", "hr:0", ValueType.FLOAT32, "x")
    buffer = Buffer([tag])
    plan = buffer.modbus_plan([{"tag": 0, "at": 0, "type": "float32", "order": "ABCD", "bit": None, "length": 0}])
    task = asyncio.ensure_future(work)
    found = []
    due = perf_counter()
    while not task.done():
        due += EVERY
        await asyncio.sleep(due - perf_counter())
        buffer.push_registers(plan, struct.pack(">f", 1.5), time_ns())
        found.append(max(0.0, perf_counter() - due))
        due = max(due, perf_counter() - EVERY)
    await task
    return sorted(found)[int(len(found) * 0.99)]


async def _all(resolver: Resolver, count: int) -> None:
    while resolver.facts()["answers"] < count:  # noqa: ASYNC110 - what is measured beside it must not be woken by it
        await asyncio.sleep(0.2)


@asynccontextmanager
async def _running(resolver: Resolver) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(resolver.run(stop))
    try:
        yield
    finally:
        stop.set()
        await task


def _resolver(port: int, path: Path, known_as: int | None = None) -> Resolver:
    node = Node(f"http://127.0.0.1:{port}", rate=RATE, concurrency=8, timeout=5.0)
    cache = Cache(path, str(known_as or port))
    return Resolver(node, HandleDialect(), cache, concurrency=8)


def _tags(count: int) -> list[Tag]:
    kinds = {"type": ValueType.FLOAT32, "unit": "°C", "level": 1}
    return [
        Tag(at, "d", f"t{at}", f"hr:{at}", identifier=f"88.118.8/d.t{at}", **kinds)  # type: ignore[arg-type]
        for at in range(count)
    ]


def serve(count: int, queue: Any) -> None:
    async def serve() -> None:
        server = ResolverServer(of_tags(_tags(count)))
        await server.open()
        queue.put(server.port)
        await asyncio.Event().wait()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
