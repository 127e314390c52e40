"""Some agents of a fleet in one process: `python -m benchmarks.fleet_agents CONFIG...`, a config for each.

Every agent is the real one (`agent.pipeline`): its own collectors and connections, buffer, outbox file, MQTT session
and stream. Only the process, with its interpreter and its event loop, is shared. Prints a JSON line a second with the
sums of all, and how long each block waited from its commit in the outbox to its receipt; at SIGTERM it stops as the
agent does, and says in its last line what each of them accepted.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson

from agent import _native
from agent import config as configs
from agent.gate import Gate
from agent.pipeline import Pipeline

EVERY = 1.0
DRAIN = 20.0
"""Seconds of delivery after a stop."""
AT_ONCE = 5
"""Agents that start at the same time: a thousand at once would only measure their start."""


class Timed(Gate):
    """An outbox that notes how long its entries wait for their receipts."""

    late: list[float]
    """Seconds, of the entries that left since somebody took the list."""
    born: dict[int, float]

    async def append_all(self, blocks: Sequence[_native.Block], epoch: int, kept: Any = None, **how: Any) -> None:
        await super().append_all(blocks, epoch, kept, **how)
        self.born.update((block.sequence, time.monotonic()) for block in blocks)

    async def confirm(self, through: int) -> int:
        self._left((1, through))
        return await super().confirm(through)

    async def mark_delivered(self, spans: Sequence[tuple[int, int]]) -> int:
        for span in spans:
            self._left(span)
        return await super().mark_delivered(spans)

    def _left(self, span: tuple[int, int]) -> None:
        now = time.monotonic()
        for sequence in [each for each in self.born if span[0] <= each <= span[1]]:
            self.late.append(now - self.born.pop(sequence))


class Fleet:
    """The agents of this process."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._late: list[float] = []
        self._pipelines = [Pipeline(configs.load(path), open_outbox=self._open) for path in paths]

    async def _open(self, path: Path, **limits: Any) -> Timed:
        found = await Timed.open(path, **limits)
        assert isinstance(found, Timed)
        found.late, found.born = self._late, {}
        return found

    async def run(self, stop: asyncio.Event) -> None:
        turns = asyncio.Semaphore(AT_ONCE)
        started: list[Pipeline] = []

        async def one(pipeline: Pipeline) -> None:
            await turns.acquire()

            def ready() -> None:
                started.append(pipeline)
                turns.release()

            await pipeline.run(stop, drain=DRAIN, ready=ready)

        async with asyncio.TaskGroup() as group:
            running = [group.create_task(one(each)) for each in self._pipelines]
            telling = group.create_task(self._tell(started))
            await asyncio.wait(running)
            telling.cancel()
        each = [_account(pipeline.facts()) for pipeline in self._pipelines]
        _say({"stopped": True, **self._facts(self._pipelines), "each": each})

    async def _tell(self, started: list[Pipeline]) -> None:
        while True:
            _say(self._facts(started))
            await asyncio.sleep(EVERY)

    def _facts(self, started: Sequence[Pipeline]) -> dict[str, Any]:
        found = [pipeline.facts() for pipeline in started]
        late = [round(each, 4) for each in self._late]
        self._late.clear()
        return {
            "agents": len(found),
            "connected": sum(each["uplink"]["connected"] for each in found),
            "accepted": sum(each["accepted"] for each in found),
            "waiting": sum(each["outbox"]["entries"] for each in found),
            **{word: sum(each["uplink"][word] for each in found) for word in ("confirmed", "sent", "resent", "bytes")},
            "late": late,
        }


def _account(facts: dict[str, Any]) -> dict[str, Any]:
    waiting = facts["outbox"]["readings"]
    return {"agent": facts["agent"], "stream": facts["stream"], "accepted": facts["accepted"], "waiting": waiting}


def _say(facts: dict[str, Any]) -> None:
    sys.stdout.write(orjson.dumps(facts).decode() + "\n")
    sys.stdout.flush()


async def _main(paths: Sequence[Path]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    # An agent has six such threads to itself; all of these together must not have to wait for six.
    loop.set_default_executor(ThreadPoolExecutor(6 * len(paths)))
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, stop.set)
    await Fleet(paths).run(stop)


if __name__ == "__main__":
    asyncio.run(_main([Path(each) for each in sys.argv[1:]]))
