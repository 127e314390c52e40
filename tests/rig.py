"""What the tests of the whole chain share: configs written for a test, and our own commands as processes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from headrace.query import NoAnswer, fetch
from tests.peers.process import Peer, free_port

Json: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Device:
    """One [[device]] of a config: the TOML lines after its name, and the rows of its CSV under a header."""

    name: str
    lines: str
    rows: Sequence[str]
    header: str = "name,address,type,order"


@dataclass(frozen=True, slots=True)
class Plant:
    """A config in a directory of its own, with free ports where it needs some."""

    path: Path
    http: str

    @classmethod
    def write(cls, home: Path, broker: str, devices: Sequence[Device], extra: str = "") -> Plant:
        home.mkdir(parents=True, exist_ok=True)
        http = f"127.0.0.1:{free_port()}"
        text = f"""
[agent]
id = "test-agent"
data_dir = "./agent"
[identifiers]
prefix = "88.118.8"
[seal]
after = "200ms"
[uplink]
url = "{broker}"
{extra}
[datacenter]
store = "./store"
http = "{http}"
"""
        for device in devices:
            text += f'[[device]]\nname = "{device.name}"\ntags = "{device.name}.csv"\n{device.lines}\n'
            (home / f"{device.name}.csv").write_text("\n".join([device.header, *device.rows]) + "\n", encoding="utf-8")
        path = home / "plant.toml"
        path.write_text(text, encoding="utf-8")
        return cls(path, http)

    @property
    def url(self) -> str:
        return f"http://{self.http}"

    def readings(self, identifier: str) -> Json:
        """What `/v1/readings` answers now; an empty answer while the identifier is unknown."""
        try:
            found: Json = json.loads(fetch(self.url, "/v1/readings", id=identifier, limit=1_000_000))
        except NoAnswer as reason:
            if reason.status == 404:
                return {"readings": [], "gaps": []}
            raise
        return found

    def summary(self) -> Json:
        found: Json = json.loads(fetch(self.url, "/v1/summary"))
        return found

    def streams(self) -> list[Json]:
        found: list[Json] = json.loads(fetch(self.url, "/v1/streams"))
        return found


class Command(Peer):
    """One of our own commands with a config; ready when `word` is in what it printed."""

    scheme = "none"
    stop_seconds = 60.0

    def __init__(self, home: Path, *arguments: str, word: str) -> None:
        super().__init__(home, 1)
        self._arguments = arguments
        self._word = word

    def command(self) -> list[str]:
        return [sys.executable, "-m", "headrace", "--log-format", "json", *self._arguments]

    def ready(self) -> bool:
        return self._word in self.log.read_text(errors="replace")

    def lines(self) -> list[Json]:
        """Every JSON line that it printed since its last start: facts and log records."""
        whole, _, _ = self.log.read_text(errors="replace").rpartition("\n")  # the last line may still be being written
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def events(self) -> list[str]:
        return [line["event"] for line in self.lines() if "event" in line]


def agent(home: Path, plant: Plant, *options: str) -> Command:
    return Command(home / "run", "run", str(plant.path), "--json", *options, word='"agent_started"')


def data_center(home: Path, plant: Plant) -> Command:
    return Command(home / "datacenter", "datacenter", str(plant.path), "--json", word='"ready"')


def simulator(home: Path, plant: Plant, seed: int = 1, *options: str) -> Command:
    shared = ("--json", "--seed", str(seed))
    return Command(home / "simulate", "simulate", str(plant.path), *shared, *options, word='"ready"')


def headrace(*arguments: str, timeout: float = 50.0) -> subprocess.CompletedProcess[str]:
    """Runs one command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "headrace", *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )


def until(condition: Callable[[], Any], seconds: float = 40.0, what: str = "") -> Any:
    """Waits for a condition, and gives what it gave. Raises AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain {what}"
        time.sleep(0.05)
    return found


async def soon(condition: Callable[[], object], seconds: float = 40.0) -> None:
    """Waits for what other tasks of this loop bring about. Raises TimeoutError after `seconds`."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - there is no event of it
            await asyncio.sleep(0.01)
