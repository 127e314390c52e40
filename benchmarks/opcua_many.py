"""How soon many OPC UA items are subscribed, and how much memory they take.

`python -m benchmarks.opcua_many [ITEMS ...]` runs the agent as it is (`headrace run`) with a tag list of so many items
against the compiled server `opcua-load`, on which each of them changes every 5 s, and a real Mosquitto.

The time is from the start of the process, with its imports and the check of the tag list, until the agent says that it
is subscribed. The memory is what is resident (as the kernel counts it, in MB of 10^6 bytes): the most that it ever was,
and what it is `SETTLED` seconds after every item has had two values.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, Queue
from subprocess import Popen

import orjson

from benchmarks import modbus, opcua
from benchmarks.result import Result, less

COMMAND = "python -m benchmarks.opcua_many"
PERIOD_MS = 5_000
FEW, MANY, MOST = 10, 10_000, 100_000
SETTLED = 10.0
PATIENCE = 300.0
"""Seconds for one run: far more than it takes on a machine that has nothing else to do."""


@dataclass(frozen=True, slots=True)
class Held:
    """One run of the agent."""

    items: int
    subscribed: float
    """Seconds from the start of the process."""
    cpu: float
    """CPU seconds until then."""
    peak_mb: float
    steady_mb: float


def held(items: int) -> Held:
    """Runs the agent, bound to the first core, on so many items."""
    cores = sorted(os.sched_getaffinity(0))
    mine, others = {cores[0]}, set(cores[1:]) or {cores[0]}
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=opcua.TARGET)))
        server = stack.enter_context(opcua.load_server(home, items, PERIOD_MS, others))
        mqtt = stack.enter_context(modbus.broker(home, others))
        path, log = opcua.config(home, server, mqtt, items, 1000, security="None"), home / "agent.log"
        command = [sys.executable, "-m", "headrace", "--log-format", "json", "run", str(path), "--json"]
        began = time.monotonic()
        agent = stack.enter_context(modbus.process(command, mine, log))
        while not _said(log, "subscribed"):
            _alive(agent, began, log)
            time.sleep(0.02)
        subscribed, cpu = time.monotonic() - began, modbus.cpu_seconds(agent.pid)
        facts: Queue[int] = Queue()
        threading.Thread(target=_accepted, args=(agent, facts), daemon=True).start()
        while _next(facts) < 2 * items:
            _alive(agent, began, log)
        time.sleep(SETTLED)
        return Held(items, subscribed, cpu, modbus.peak_mb(agent.pid), modbus.resident_mb(agent.pid))


def _said(log: Path, event: str) -> bool:
    return f'"event": "{event}"'.encode() in log.read_bytes()


def _alive(agent: Popen[bytes], began: float, log: Path) -> None:
    if agent.poll() is not None or time.monotonic() - began > PATIENCE:
        raise SystemExit(f"the agent ended, or took too long: {log.read_text()[-2000:]}")


def _accepted(agent: Popen[bytes], found: Queue[int]) -> None:
    assert agent.stdout is not None
    for line in agent.stdout:
        found.put(int(orjson.loads(line)["accepted"]))


def _next(found: Queue[int]) -> int:
    try:
        return found.get(timeout=5)
    except Empty:
        return 0


def results(counts: tuple[int, ...] = (FEW, MANY, MOST)) -> Iterator[Result]:
    """The rows of `make bench`."""
    for items in counts:
        run = held(items)
        name = f"{items:,} OPC UA items"
        soon = {"asked": 5.0} if items == MANY else {"nothing asked": run.subscribed}
        most = {"asked": 250.0} if items == MOST else {"nothing asked": run.peak_mb}
        rows = [
            *less(f"{name}, subscribed after", run.subscribed, "s", **soon),
            *less(f"{name}, CPU until they are subscribed", run.cpu, "s", **{"nothing asked": run.cpu}),
            *less(f"{name}, most memory", run.peak_mb, "MB", **most),
            *less(
                f"{name}, memory then",
                run.steady_mb,
                "MB",
                **(most if "asked" in most else {"nothing asked": run.steady_mb}),
            ),
        ]
        yield from (replace(one, command=COMMAND) for one in rows)


def main() -> None:
    for each in results(tuple(map(int, sys.argv[1:])) or (FEW, MANY, MOST)):
        each.print()


if __name__ == "__main__":
    main()
