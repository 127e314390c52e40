"""The baseline of `benchmarks.modbus`: pymodbus as its documents show it, with `convert_from_registers`.

`python -m benchmarks.bare PORT DEVICES FLOATS PERIOD SECONDS` reads FLOATS float32 from each of DEVICES, each over a
connection of its own, every PERIOD seconds (0: one request after the other), and prints `readings cpu_seconds`. It
stores nothing and sends nothing.
"""

from __future__ import annotations

import asyncio
import sys
import time

from pymodbus.client import AsyncModbusTcpClient

MOST = 62
"""float32 values of one request."""


class Count:
    """Readings since the start, and whether there shall be more."""

    readings = 0
    running = True


async def _device(port: int, floats: int, period: float, count: Count) -> None:
    client = AsyncModbusTcpClient("127.0.0.1", port=port, timeout=10)
    if not await client.connect():
        raise SystemExit("no connection")
    loop = asyncio.get_running_loop()
    due = loop.time()
    while count.running:
        for first in range(0, floats, MOST):
            some = min(MOST, floats - first)
            response = await client.read_holding_registers(2 * first, count=2 * some, device_id=1)
            values = client.convert_from_registers(response.registers, client.DATATYPE.FLOAT32)
            count.readings += len(values) if isinstance(values, list) else 1
        due = max(due + period, loop.time())
        if period:
            await asyncio.sleep(due - loop.time())
    client.close()


async def _measure(port: int, devices: int, floats: int, period: float, seconds: float) -> tuple[int, float]:
    count = Count()
    tasks = [asyncio.create_task(_device(port, floats, period, count)) for _ in range(devices)]
    await asyncio.sleep(min(1.0, seconds))
    readings, cpu = count.readings, time.process_time()
    await asyncio.sleep(seconds)
    readings, cpu = count.readings - readings, time.process_time() - cpu
    count.running = False  # a cancelled request would leave pymodbus waiting
    await asyncio.gather(*tasks)
    return readings, cpu


if __name__ == "__main__":
    port, devices, floats, period, seconds = sys.argv[1:]
    found = asyncio.run(_measure(int(port), int(devices), int(floats), float(period), float(seconds)))
    print(*found)
