"""`headrace demo`: a plant, a broker, an agent and a data center as separate processes, and a verdict on every reading.

Everything is real but the plant: the devices answer over TCP, the broker is Mosquitto or NATS, the agent writes its
outbox to disk, and the comparison at the end asks the data center over HTTP.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent import config as configs
from agent.errors import HeadraceError
from headrace import brokers
from headrace.children import Child
from headrace.processes import show
from headrace.progress import Misused
from headrace.query import NoAnswer, fetch
from headrace.verify import Verdict, verify
from simulators import ports

PLANT = Path(__file__).parent.parent / "configs" / "demo"
START = 30.0
"""Seconds that a process may take to start on a slow machine."""
DRAIN = 20.0
"""Seconds that the agent may take to deliver the rest."""


def main(options: argparse.Namespace) -> int:
    """Runs the demo; 0 only where nothing was lost, doubled or wrong."""
    if options.outage >= options.seconds:
        raise Misused(f"an outage of {options.outage:g} s in {options.seconds:g} s; write a longer --seconds")
    try:
        return asyncio.run(_main(options))
    except KeyboardInterrupt:
        return 130


async def _main(options: argparse.Namespace) -> int:
    work = asyncio.current_task()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, lambda: work.cancel() if work else None)
    try:
        with _home(options.keep) as home:
            return await Demo(options, home).run()
    except asyncio.CancelledError:
        print("stopped", file=sys.stderr)
        return 130


@contextlib.contextmanager
def _home(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="headrace-demo-") as made:
            yield Path(made)
        return
    if keep.exists() and any(keep.iterdir()):
        raise HeadraceError(f"{keep} is not empty; name a new directory for --keep")
    keep.mkdir(parents=True, exist_ok=True)
    yield keep.resolve()


def settle(home: Path, plant: Path = PLANT) -> Path:
    """A copy of a config's directory in `home`, with every port changed to a free one. Returns the config's path."""
    if not plant.is_dir():
        raise HeadraceError(f"the demo's config is not at {plant}; run it from a clone of the repository")
    shutil.copytree(plant, home, dirs_exist_ok=True)
    path = home / "plant.toml"
    text = path.read_text(encoding="utf-8")
    written = sorted(set(re.findall(r"127\.0\.0\.1:(\d+)", text)))
    free = dict(zip(written, ports.free(len(written)), strict=True))
    path.write_text(re.sub(r"127\.0\.0\.1:(\d+)", lambda at: f"127.0.0.1:{free[at[1]]}", text), encoding="utf-8")
    return path


class Demo:
    """One run, in the order of the methods."""

    def __init__(self, options: argparse.Namespace, home: Path) -> None:
        self.options = options
        self.home = home
        self.path = settle(home)
        self.config = configs.load(self.path)
        if self.config.datacenter is None:
            raise HeadraceError("the demo's config has no [datacenter]")
        self.url = f"http://{self.config.datacenter.http}"
        port = int(self.config.uplink.url.rpartition(":")[2])
        self.broker_name, command = brokers.command(options.broker, home / "broker", port)
        self.port = port
        self.broker = Child("broker", command, home / "broker.log")
        path = str(self.path)
        self.plant = Child.headrace(
            "simulated plant", home / "simulate.log", "simulate", path, "--json", "--seed", str(options.seed)
        )
        self.center = Child.headrace("data center", home / "datacenter.log", "datacenter", path, "--json")
        self.agent = Child.headrace("agent", home / "agent.log", "run", path, "--json", "--drain", str(DRAIN))
        self.children = [self.broker, self.plant, self.center, self.agent]
        self.view: Any = None

    async def run(self) -> int:
        screen = None
        if not self.options.json and sys.stdout.isatty():
            from rich.live import Live

            from headrace.view import View

            self.view = View(self.options.seconds, self.broker_name)
            screen = Live(get_renderable=self.view.render, refresh_per_second=4, transient=False)
        try:
            with screen or contextlib.nullcontext():
                await self._start()
                await self._collect()
                answer = await self._finish()
        finally:
            await self._stop()
        return self._tell(answer)

    def _say(self, stage: str) -> None:
        if self.view is not None:
            self.view.stage = stage
        else:
            print(stage, file=sys.stderr, flush=True)

    async def _start(self) -> None:
        self._say(f"starting {self.broker_name}, {len(self.config.devices)} simulated devices, data center and agent")
        await asyncio.gather(self._start_broker(), self.plant.start(), self.center.start())
        await asyncio.gather(self.plant.first_words(START), self.center.first_words(START))
        await self.agent.start()
        await self.agent.first_words(START)

    async def _start_broker(self) -> None:
        await self.broker.start()
        deadline = time.monotonic() + START
        while True:
            self.broker.must_run()
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return
            if time.monotonic() > deadline:
                raise HeadraceError(f"the broker does not listen at port {self.port}")
            await asyncio.sleep(0.05)

    async def _collect(self) -> None:
        seconds, outage = self.options.seconds, self.options.outage
        tags = len(self.config.tags)
        self._say(f"collecting {tags} tags for {seconds:g} s")
        if self.view is not None:
            self.view.begin()
        began = time.monotonic()
        away = (seconds - outage) / 2 if outage else seconds + 1
        while (elapsed := time.monotonic() - began) < seconds:
            if outage and elapsed >= away and self.broker.running:
                self._say(f"the broker is away for {outage:g} s")
                await self.broker.stop()
                away_until = time.monotonic() + outage
            elif outage and not self.broker.running and time.monotonic() >= away_until:
                self._say("the broker is back")
                outage = 0.0
                await self._start_broker()
            for child in self.children:
                if child is not self.broker or not outage:
                    child.must_run()
            await self._refresh()
            await asyncio.sleep(0.25)
        if not self.broker.running:
            await self._start_broker()

    async def _refresh(self) -> None:
        if self.view is None:
            return
        self.view.agent = self.agent.facts
        self.view.broker_up = self.broker.running
        with contextlib.suppress(NoAnswer):
            self.view.center = await self._ask("/v1/summary", blocks=30)
        self.view.sample()

    async def _ask(self, path: str, **parameters: object) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(await asyncio.to_thread(fetch, self.url, path, **parameters))
        return answer

    async def _finish(self) -> dict[str, Any]:
        self._say("delivering the rest")
        await self.agent.stop(DRAIN + 5)
        facts = self.agent.facts
        if not facts.get("stopped"):
            raise HeadraceError(f"the agent did not end cleanly; see {self.home / 'agent.log'} (with --keep)")
        # Receipts say that all is committed; what the store says of it is asked for afresh.
        summary = await self._ask("/v1/summary", blocks=100_000)
        await self.plant.stop()
        self._say("comparing every stored reading with the plant")
        verdict = await asyncio.to_thread(verify, self.config, self.options.seed, self.url)
        if self.view is not None:
            # Its devices and its uplink were let go in good order: they are shown as they were before that.
            before = {name: self.view.agent.get(name, {}) for name in ("devices", "uplink")}
            self.view.agent, self.view.center = {**facts, **before}, summary
        self._say("done")
        return self._answer(facts, summary, verdict)

    def _answer(self, facts: dict[str, Any], summary: dict[str, Any], verdict: Verdict) -> dict[str, Any]:
        # What a tag's filter held back is not owed.
        collected = facts["accepted"] - facts["filtered"]
        missing = max(0, collected + verdict.duplicates - verdict.stored)
        size = summary["bytes"] / verdict.stored if verdict.stored else None
        return {
            "readings_collected": collected,
            "readings_stored": verdict.stored,
            "lost": max(missing, verdict.lost),
            "duplicates": verdict.duplicates,
            "wrong": verdict.wrong,
            "gaps": verdict.gaps,
            "bytes_per_reading": round(size, 3) if size else None,
            "latency_ms_p50": _round(summary["latency_ms_p50"]),
            "latency_ms_p99": _round(summary["latency_ms_p99"]),
            "seconds": self.options.seconds,
            "outage": self.options.outage,
            "broker": self.broker_name,
            "tags": len(self.config.tags),
            "resent_blocks": facts["uplink"].get("resent", 0),
            "examples": verdict.examples,
        }

    async def _stop(self) -> None:
        """Ends what still runs, in two seconds at most, and then by force."""
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*(child.stop(1.5) for child in self.children))
        for child in self.children:
            child.kill()

    def _tell(self, answer: dict[str, Any]) -> int:
        fine = not (answer["lost"] or answer["duplicates"] or answer["wrong"])
        if self.options.json:
            show(answer)
            return 0 if fine else 1
        stored, tags = answer["readings_stored"], answer["tags"]
        print(f"\n{stored:,} readings of {tags} tags went from simulated PLCs over OPC UA and Modbus,")
        print(f"through the agent's outbox and {answer['broker']}, into the data center. Compared with the plant:")
        print("  " + ", ".join(f"{name} {answer[name]}" for name in ("lost", "duplicates", "wrong", "gaps")))
        if answer["outage"]:
            print(f"  although the broker was away for {answer['outage']:g} s")
        print(f"  {answer['bytes_per_reading']} bytes a reading on the wire")
        print(f"  device to store: {answer['latency_ms_p50']} ms median, {answer['latency_ms_p99']} ms for 99 of 100")
        for example in answer["examples"]:
            print(f"  {example}")
        tag = self.config.tags[0]
        if self.options.keep:
            print(f"\nEverything is kept in {self.home}. To ask for readings, start the data center again:")
            print(f"  headrace datacenter {self.path} &")
            print(f"  headrace query {tag.identifier} --url {self.url}")
        return 0 if fine else 1


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
