"""What one core takes when no server holds it up: recorded PublishResponses, decoded, sealed and committed on disk.

The bodies are those of the compiled load server, as they came. `python -m benchmarks.opcua_replay ITEMS BODIES` reads
them from the file BODIES, each behind its length, and prints `values cpu_seconds`.
"""

from __future__ import annotations

import asyncio
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from agent._native import publish_header
from agent.intake import Intake
from agent.model import Tag, ValueType
from agent.outbox import Outbox
from benchmarks.result import Result, more
from tests.opcua_collector import Rig, running, until

BODIES = 400
SEAL_BYTES = 1 << 20


def results(load: tuple[int, int, int]) -> Iterator[Result]:
    """The row of `make bench`."""
    from benchmarks.opcua import TARGET, load_server  # noqa: PLC0415  (which has this one's row in its table)

    items, period_ms, _ = load
    with tempfile.TemporaryDirectory(dir=TARGET) as home:
        path = Path(home) / "bodies"
        with load_server(Path(home), items, period_ms, os.sched_getaffinity(0)) as port:
            path.write_bytes(b"".join(asyncio.run(_record(port, items, period_ms))))
        command = [sys.executable, "-m", "benchmarks.opcua_replay", str(items), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=90)
    values, cpu = done.stdout.split()
    name = f"OPC UA from recorded responses of {items} values to the disk, for each second of one core"
    yield from more(name, int(values) / float(cpu), "values/s", asked=5e5)


async def _record(port: int, items: int, period_ms: int) -> list[bytes]:
    addresses = [(f"nsu=urn:headrace:test;s={item}", ValueType.FLOAT64, "") for item in range(items)]
    rig = Rig(f"opc.tcp://127.0.0.1:{port}", *addresses, publish=f"{period_ms}ms", sampling="every change")
    found: list[bytes] = []
    push = rig.intake.push_publish

    def keep(subscription: int, body: bytes, received_ns: int) -> object:
        found.append(struct.pack("<I", len(body)) + body)
        return push(subscription, body, received_ns)

    rig.intake.push_publish = keep  # type: ignore[assignment, method-assign]

    async def work() -> None:
        async def sealed() -> None:
            while True:
                rig.take()
                rig.rows.clear()
                await asyncio.sleep(0.2)

        sealing = asyncio.create_task(sealed())
        await until(lambda: len(found) >= BODIES, 40)
        sealing.cancel()

    await running(rig, work)
    return found[2:BODIES]  # the first are of the items' making


async def _replay(items: int, bodies: list[bytes]) -> tuple[int, float]:
    tags = [Tag(at, "d", f"v{at}", f"i={at}", ValueType.FLOAT64, f"x/{at}") for at in range(items)]
    intake = Intake(tags, SEAL_BYTES)
    subscription = intake.opcua_subscription([(at, at) for at in range(items)])
    with tempfile.TemporaryDirectory() as home:
        outbox = await Outbox.open(Path(home) / "outbox.db", max_bytes=1 << 30, when_full="drop_oldest")
        values, begun = 0, time.process_time()
        for at, body in enumerate(bodies):
            publish_header(body)
            values += intake.push_publish(subscription, body, 0).readings
            if intake.ripe.is_set() or at == len(bodies) - 1:
                intake.ripe.clear()
                place = {"stream": outbox.stream.bytes, "sequence": outbox.next_sequence}
                block = await asyncio.to_thread(intake.buffer.seal, **place)  # type: ignore[arg-type]
                if block is not None:
                    await outbox.append(block, 0)
        took = time.process_time() - begun
        await outbox.close()
    return values, took


def main() -> None:
    """Prints `values cpu_seconds`, on one core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    raw, bodies = Path(sys.argv[2]).read_bytes(), []
    while raw:
        (size,) = struct.unpack_from("<I", raw)
        bodies.append(raw[4 : 4 + size])
        raw = raw[4 + size :]
    print(*asyncio.run(_replay(int(sys.argv[1]), bodies)))


if __name__ == "__main__":
    main()
