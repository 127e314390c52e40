"""What a virtual plant of many tags costs, and whether it keeps time: `python -m benchmarks.plant [--minutes 3]`.

`headrace simulate` of 50 Modbus devices with 200 float32 tags each, in one process; all 10,000 values are new every
second. A client reads all of them every second, and one register pair of three devices every 20 ms: when a new value is
seen first is compared with when the plan says that it begins, and the value with `value(tag, t)`. The CPU of the
simulator is from /proc; the clock times depend on what else runs on the machine. `--load` asks the compiled server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from agent import config as configs
from agent.model import Tag
from benchmarks.modbus import cpu_seconds, peak_mb, process
from simulators.load_plan import Times
from simulators.plant import Plant
from tests.peers.process import free_port

Json: TypeAlias = dict[str, Any]
REGISTERS = 100
"""Of a request: 50 float32."""
WATCHED = 3
LOOK = 0.02
_ASK = struct.Struct(">HHHBBHH")


def write(home: Path, devices: int, tags: int) -> Path:
    rows = [f"v{at},hr:{2 * at},float32,ABCD" for at in range(tags)]
    (home / "tags.csv").write_text("\n".join(["name,address,type,order", *rows]) + "\n")
    text = [f'[agent]\nid = "bench"\ndata_dir = "{home}/agent"\n[uplink]\nurl = "mqtt://127.0.0.1:1"']
    text.append('[[simulation.signal]]\ntags = "*"\nshape = "noise"\nlow = 0\nhigh = 400\nevery = "1s"')
    for at in range(devices):
        url = f"tcp://127.0.0.1:{free_port()}"
        text.append(f'[[device]]\nname = "d{at}"\nprotocol = "modbus"\nurl = "{url}"\npoll = "1s"\ntags = "tags.csv"')
    path = home / "plant.toml"
    path.write_text("\n".join(text) + "\n")
    return path


class Line:
    """A connection to one device, which answers one request at a time."""

    def __init__(self, url: str) -> None:
        self._port = int(url.rpartition(":")[2])

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    async def close(self) -> None:
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()

    async def read(self, first: int, count: int) -> bytes:
        self._writer.write(_ASK.pack(1, 0, 6, 1, 3, first, count))
        head = await self._reader.readexactly(9)
        if head[7] != 3:
            raise SystemExit(f"the device answers {first} with exception {head[8]}")
        return await self._reader.readexactly(head[8])


class Clock:
    """When the values of one tag were first seen, against when they begin."""

    def __init__(self, plant: Plant, tag: Tag, times: Times | None) -> None:
        self._plant, self._tag, self._times = plant, tag, times
        self.late: list[tuple[float, float]] = []
        """(when, seconds late), for every change that was seen."""
        self.wrong = 0
        self._before: float | None = None

    def _value(self, time_ns: int) -> Any:
        return self._plant.value(self._tag, self._times.moment(time_ns) if self._times else time_ns)

    async def watch(self, line: Line, until: float) -> None:
        while time.monotonic() < until:
            asked = time.time_ns()
            (value,) = struct.unpack(">f", await line.read(0, 2))
            seen = time.time_ns()
            # The value may be of any moment between question and answer.
            self.wrong += value not in {self._value(each) for each in (*range(asked, seen, 10**9), seen)}
            if self._before is not None and value != self._before:
                begin = seen - seen % 10**9
                if self._value(begin - 1) == value:  # it changed again between the answer and our look at the clock
                    begin -= 10**9
                self.late.append((time.monotonic(), (seen - begin) / 1e9))
            self._before = value
            await asyncio.sleep(LOOK)


async def _poll(lines: Sequence[Line], tags: int, until: float) -> int:
    """Reads everything once a second. Returns how many readings came."""
    count, due = 0, time.monotonic()
    while due < until:
        for first in range(0, 2 * tags, REGISTERS):
            several = await asyncio.gather(*(line.read(first, min(REGISTERS, 2 * tags - first)) for line in lines))
            count += sum(map(len, several)) // 4
        due = max(due + 1.0, time.monotonic())
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    return count


def _spread(late: list[float]) -> Json:
    if not late:
        return {"p50": None, "p99": None}
    late = sorted(late)
    return {"p50": round(1000 * late[len(late) // 2], 1), "p99": round(1000 * late[int(len(late) * 0.99)], 1)}


async def _read(config: configs.Config, pids: list[int], seconds: float, times: Times | None) -> Json:
    plant = Plant.of(config, 1)
    lines = [Line(device.url) for device in config.devices]
    watched = [Line(device.url) for device in config.devices[:WATCHED]]
    for line in [*lines, *watched]:
        await line.open()
    tags = len(config.devices[0].tags)
    begun, used, until = time.monotonic(), sum(map(cpu_seconds, pids)), time.monotonic() + seconds
    clocks = [Clock(plant, device.tags[0], times) for device in config.devices[:WATCHED]]
    polling = asyncio.create_task(_poll(lines, tags, until))
    await asyncio.gather(*(clock.watch(line, until) for clock, line in zip(clocks, watched, strict=True)))
    readings = await polling
    passed, used = time.monotonic() - begun, sum(map(cpu_seconds, pids)) - used
    await asyncio.gather(*(line.close() for line in (*lines, *watched)))
    late = [each for clock in clocks for each in clock.late]
    third = seconds / 3
    first = [each for at, each in late if at < begun + third]
    last = [each for at, each in late if at > begun + 2 * third]
    return {
        "seconds": round(passed, 1),
        "readings_per_second": round(readings / passed),
        "cpu_percent_of_a_core": round(100 * used / passed, 2),
        "us_per_reading": round(used / readings * 1e6, 2),
        "peak_mb": round(sum(map(peak_mb, pids)), 1),
        "changes_seen": len(late),
        "wrong": sum(clock.wrong for clock in clocks),
        "late_ms_first_third": _spread(first),
        "late_ms_last_third": _spread(last),
    }


def measure(devices: int, tags: int, seconds: float, *, load: bool = False) -> Json:
    """Starts the plant, and reads it for `seconds`. Late is from the begin of a value to its first sight."""
    with tempfile.TemporaryDirectory(prefix="headrace-plant-") as home:
        path = write(Path(home), devices, tags)
        config = configs.load(path)
        command = [sys.executable, "-m", "headrace", "simulate", str(path), "--json", "--seed", "1"]
        begun = time.monotonic()
        with process([*command, *(["--load"] if load else [])], os.sched_getaffinity(0), Path(home) / "log") as running:
            facts = _ready(running, Path(home) / "log")
            pids = [running.pid, *([facts["pid"]] if load else [])]
            used = sum(map(cpu_seconds, pids))
            started = {"start_s": round(time.monotonic() - begun, 2), "start_cpu_s": round(used, 2)}
            times = (
                Times(**{word: facts["load"][word] for word in ("begin_ns", "period_ns", "images")}) if load else None
            )
            found = asyncio.run(_read(config, pids, seconds, times))
    return {"devices": devices, "tags": devices * tags, "load": load, **started, **found}


def _ready(running: subprocess.Popen[bytes], log: Path) -> Json:
    assert running.stdout is not None
    with suppress(ValueError):
        found: Json = json.loads(running.stdout.readline())
        return found
    raise SystemExit(f"the plant did not start: {log.read_text()[-2000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plant")
    parser.add_argument("--devices", type=int, default=50)
    parser.add_argument("--tags", type=int, default=200, help="of each device (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--load", action="store_true", help="the compiled server instead")
    asked = parser.parse_args()
    sys.stdout.write(json.dumps(measure(asked.devices, asked.tags, 60 * asked.minutes, load=asked.load)) + "\n")


if __name__ == "__main__":
    main()
