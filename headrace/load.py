"""`headrace simulate --load`: the compiled server at the addresses of a config, and what it does and costs."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from agent.config import Config
from agent.errors import ConfigError, HeadraceError, Problem
from headrace import processes
from simulators.load_plan import Times, plan
from simulators.plant import Plant
from simulators.resolving import resolving

SERVER = "headrace-load"
BUILT = Path(__file__).parents[1] / "target" / "peers" / "opcua" / "release" / SERVER
START_SECONDS = 30.0
STOP_SECONDS = 2.0
_TICK = os.sysconf("SC_CLK_TCK")


class LoadFailed(HeadraceError):
    """The compiled server is missing, can't listen, or ended by itself; the message says what to do."""


def main(config: Config, plant: Plant, options: argparse.Namespace, adapted: Path | None) -> int:
    """Serves until told to stop. Raises ConfigError for what the server can't do, and LoadFailed."""
    odd = [word for word in ("faults", "watch", "cert", "key") if getattr(options, word)]
    problems = [
        Problem("headrace simulate", f"--{word}", f"--load knows no --{word}", "leave one of them out") for word in odd
    ]
    if options.period < 0.001:
        problems.append(Problem("headrace simulate", "--period", "--period is too short", "write 1ms or more"))
    if problems:
        raise ConfigError(problems)
    with tempfile.TemporaryDirectory(prefix="headrace-load-") as store:

        async def work(stop: asyncio.Event) -> None:
            times = Times.of(len(config.tags), round(options.period * 1e9), time.time_ns())
            made = await asyncio.to_thread(plan, config, plant, times, Path(store))
            async with resolving(config, options.resolver):
                await _serve(made, options, partial(processes.announce, config, options, adapted), stop)

        processes.until_stopped(work)
    return 0


async def _serve(
    made: dict[str, Any], options: argparse.Namespace, announce: Callable[[dict[str, Any]], None], stop: asyncio.Event
) -> None:
    server = await _started(orjson.dumps(made) + b"\n")
    try:
        announce({"pid": server.pid, "load": made["times"]})
        await _report(server, options, stop)
    finally:
        await _end(server)


def command() -> str:
    """The path of the compiled server. Raises LoadFailed."""
    found = shutil.which(SERVER) or (str(BUILT) if BUILT.exists() else None)
    if found is None:
        raise LoadFailed(
            f"{SERVER}, the compiled server of --load, is not built: run `make peers` in a checkout of the source, or "
            "leave --load out"
        )
    return found


async def _started(text: bytes) -> asyncio.subprocess.Process:
    # A session of its own: a Ctrl-C is ours, and the server ends when we close its stdin, or are killed.
    server = await asyncio.create_subprocess_exec(
        command(), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    assert server.stdin is not None
    try:
        async with asyncio.timeout(START_SECONDS):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                server.stdin.write(text)
                await server.stdin.drain()
            said = await _line(server)
    except TimeoutError:
        await _end(server)
        raise LoadFailed(f"{SERVER} was not ready within {START_SECONDS:.0f} s") from None
    except BaseException:
        await _end(server)
        raise
    if said and said.get("ready"):
        return server
    await _end(server)
    if said and "taken" in said:
        place = f"port {said['port']} of {said['host']}"
        raise LoadFailed(f"{said['taken']}: can't listen at {place}: {said['why']}")
    raise LoadFailed(f"{SERVER} refuses the plan: {said.get('refused') if said else 'it ended without a word'}")


async def _line(server: asyncio.subprocess.Process) -> dict[str, Any] | None:
    """The next JSON line, or None at the end."""
    assert server.stdout is not None
    line = await server.stdout.readline()
    return dict(orjson.loads(line)) if line else None


async def _report(server: asyncio.subprocess.Process, options: argparse.Namespace, stop: asyncio.Event) -> None:
    """A line a second: JSON ones on stdout, or one on stderr that is written over and over; then one of the whole."""
    shown = not options.json and sys.stderr.isatty()
    begun, first = time.monotonic(), _used(server.pid)
    seen: dict[str, Any] = {"readings": 0, "changes": 0, "requests": 0, "at": begun, "cpu": first}
    last: dict[str, Any] = {}
    stopping = asyncio.create_task(stop.wait())
    try:
        while not stop.is_set():
            heard = asyncio.create_task(_line(server))
            await asyncio.wait((stopping, heard), return_when=asyncio.FIRST_COMPLETED)
            if not heard.done():
                heard.cancel()
                break
            counted = heard.result()
            if counted is None:
                raise LoadFailed(f"{SERVER} ended by itself; its exit code is {await server.wait()}")
            now = {**counted, "at": time.monotonic(), "cpu": _used(server.pid)}
            last = _facts(now, seen, now["at"] - begun, now["cpu"] - first)
            seen = now
            if options.json:
                processes.show(last)
            elif shown:
                print(f"\r\033[K{_sentence(last)}", end="", file=sys.stderr, flush=True)
    finally:
        stopping.cancel()
    if options.json:
        processes.show({"stopped": True, **last})
    elif last:
        print(f"{chr(10) if shown else ''}{_sentence(last)}", file=sys.stderr)


def _facts(now: dict[str, Any], before: dict[str, Any], seconds: float, cpu: float) -> dict[str, Any]:
    """Counters since the start, rates over the last second. `clients`, `requests` and `readings` (values in answers)
    are of Modbus devices; `changes` are of OPC UA nodes, and go to everyone who watches them; `skipped` periods came
    too late to be shown."""
    passed = max(0.001, now["at"] - before["at"])
    counters = {word: now[word] for word in ("clients", "requests", "exceptions", "readings", "changes", "skipped")}
    rates = {f"{word}_per_second": round((now[word] - before[word]) / passed, 1) for word in ("readings", "changes")}
    share = round(100 * (now["cpu"] - before["cpu"]) / passed, 1)
    return {"seconds": round(seconds, 1), **counters, **rates, "cpu_percent": share, "cpu_seconds": round(cpu, 2)}


def _sentence(facts: dict[str, Any]) -> str:
    return (
        f"{facts['clients']} clients, {facts['requests']:,} requests, {facts['readings_per_second']:,.0f} readings/s, "
        f"{facts['changes_per_second']:,.0f} OPC UA changes/s, {facts['cpu_percent']:.0f} % of a core"
    )


def _used(pid: int) -> float:
    """CPU seconds of a process, to 10 ms."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0  # it just ended
    return (int(words[11]) + int(words[12])) / _TICK


async def _end(server: asyncio.subprocess.Process) -> None:
    if server.stdin is not None:
        server.stdin.close()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await server.wait()
    except TimeoutError:
        server.kill()
        await server.wait()
