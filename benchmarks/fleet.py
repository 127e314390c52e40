"""A fleet: how many agents a broker and a data center of a site bear. `python -m benchmarks.fleet`, or `make fleet`.

Real agents (`benchmarks.fleet_agents`, one process for each step), each with its own Modbus connections to a compiled
device server, its own outbox and its own MQTT session; real Mosquittos or NATS servers, each for its share of the
agents; real data centers (`headrace datacenter`), each at all brokers, for the agents of its own topic root. Two things
are not as in a plant: agents share processes, and their outboxes are on a RAM disk where there is one, because a site's
gateways have a disk each. The data centers' stores are on disk.

The fleet grows step by step. Of each step it prints one line of JSON: what went through, how late receipts were, and
what every process used. CPU seconds for each block or reading hardly depend on what else runs on the machine; rates do.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import httpx

from benchmarks.modbus import cpu_seconds, load_server
from tests.datacenter_rig import until
from tests.peers.brokers import Mosquitto, Nats
from tests.peers.process import free_port

Json: TypeAlias = dict[str, Any]
MOST_WAITING = 2
"""Blocks of an agent, which seals one a second: where more wait at the end of a step, the fleet does not keep up."""
STOP_SECONDS = 90.0
"""A process of agents delivers for 20 s after it was told to stop; on a machine that is too small it takes longer."""
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `steps` are how many agents there are in each."""

    steps: tuple[int, ...] = (5, 10, 20, 40)
    devices: int = 4
    tags: int = 60
    """Of each device, float32; every one of them is new at every poll."""
    poll: str = "1s"
    seal: str = "1s"
    broker: str = "mosquitto"
    brokers: int = 1
    datacenters: int = 1
    seconds: float = 15.0
    warm: float = 8.0
    outage: float = 0.0
    """Seconds without any broker, at the end: then all agents come back at once with what they kept."""


@dataclass(slots=True)
class Agents:
    """One process of agents, and the lines that it printed."""

    process: subprocess.Popen[bytes]
    count: int
    last: Json = field(default_factory=dict)
    late: list[float] = field(default_factory=list)

    def listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            found = json.loads(line)
            self.late += found.pop("late")
            self.last = found

    def ended(self) -> bool:
        """Waits for its end after a SIGTERM. Whether it came, and said what became of every agent."""
        with suppress(subprocess.TimeoutExpired, AssertionError):
            self.process.wait(STOP_SECONDS)
            return bool(until(lambda: self.last.get("stopped"), 40))
        return False


def resident_mb(pid: int) -> float:
    """Resident memory of a process now, in MB of 10^6 bytes."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines["VmRSS"].split()[0]) * 1024 / 1e6


def machine() -> tuple[float, float]:
    """(busy, idle) seconds of all cores since the machine started."""
    words = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = words[3] + words[4]
    tick = os.sysconf("SC_CLK_TCK")
    return (sum(words) - idle) / tick, idle / tick


class Center:
    """A data center for one topic root: `headrace datacenter`, as a plant runs it."""

    def __init__(self, home: Path, brokers: Sequence[str], root: str) -> None:
        home.mkdir(parents=True)
        self.root = root
        self.url = f"http://127.0.0.1:{free_port()}"
        config = home / "center.toml"
        http = self.url.removeprefix("http://")
        uplink = f'[uplink]\nurl = "{brokers[0]}"\nbackup = {json.dumps(brokers[1:])}\nroot = "{root}"\n'
        config.write_text(f'{uplink}[datacenter]\nstore = "{home / "store"}"\nhttp = "{http}"\n')
        command = [sys.executable, "-m", "headrace", "--log-level", "warning", "datacenter", str(config)]
        with (home / "log").open("wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait(self) -> None:
        until(self._ready, 60)

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz", timeout=2.0).status_code == 200
        except httpx.HTTPError:
            return False

    def streams(self) -> list[Json]:
        found: list[Json] = httpx.get(f"{self.url}/v1/streams", timeout=60).json()
        return found

    def counters(self) -> Json:
        found: Json = httpx.get(f"{self.url}/v1/summary", timeout=60).json()
        return found


@contextmanager
def ended(process: subprocess.Popen[bytes], seconds: float = 30.0) -> Iterator[None]:
    """Stops a process at the end, and kills it where it does not stop."""
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


class Site:
    """The running broker, data centers, devices and agents."""

    def __init__(self, plan: Plan, home: Path, outboxes: Path, parts: ExitStack) -> None:
        self.plan = plan
        self._home, self._outboxes, self._parts = home, outboxes, parts
        kind = Nats if plan.broker == "nats" else Mosquitto
        self.brokers = [parts.enter_context(kind(home / f"broker{at + 1}")) for at in range(plan.brokers)]
        self.centers = []
        for at in range(plan.datacenters):
            root = "headrace/v1" + (f"/part{at + 1}" if plan.datacenters > 1 else "")
            center = Center(home / f"center{at + 1}", [each.url for each in self.brokers], root)
            parts.enter_context(ended(center.process))
            self.centers.append(center)
        for center in self.centers:
            center.wait()
        cores = os.sched_getaffinity(0)
        self.ports = parts.enter_context(load_server(home, cores, plan.devices))
        self.agents: list[Agents] = []
        rows = [f"v{at},hr:{2 * at},float32,ABCD" for at in range(plan.tags)]
        (outboxes / "tags.csv").write_text("\n".join(["name,address,type,order", *rows]) + "\n")

    @property
    def count(self) -> int:
        return sum(each.count for each in self.agents)

    def told(self, word: str) -> int:
        """What all agents say of themselves, summed up; a second old at most."""
        return sum(each.last.get(word, 0) for each in self.agents)

    def grow(self, count: int) -> None:
        """Starts one more process, so that there are `count` agents, and waits until all are connected."""
        paths = [self._config(number) for number in range(self.count + 1, count + 1)]
        command = [sys.executable, "-m", "benchmarks.fleet_agents", *map(str, paths)]
        with (self._home / f"agents{count}.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
        self._parts.enter_context(ended(process, 60))
        found = Agents(process, len(paths))
        threading.Thread(target=found.listen, daemon=True).start()
        self.agents.append(found)
        until(lambda: found.last.get("connected") == found.count or process.poll() is not None, 60 + found.count)
        if process.poll() is not None:
            raise SystemExit(f"the agents ended: {(self._home / f'agents{count}.log').read_text()[-2000:]}")

    def _config(self, number: int) -> Path:
        """An agent of its own, for the data center and at the broker whose turn it is."""
        place = self._outboxes / f"agent{number:05d}"
        place.mkdir()
        root = self.centers[number % len(self.centers)].root
        text = [
            f'[agent]\nid = "agent{number:05d}"\ndata_dir = "{place}"\n[seal]\nafter = "{self.plan.seal}"',
            f'[uplink]\nurl = "{self.brokers[number % len(self.brokers)].url}"\nroot = "{root}"',
        ]
        for at, port in enumerate(self.ports):
            text.append(
                f'[[device]]\nname = "d{at + 1}"\nprotocol = "modbus"\nurl = "tcp://127.0.0.1:{port}"\n'
                f'poll = "{self.plan.poll}"\ntags = "../tags.csv"'
            )
        path = place / "agent.toml"
        path.write_text("\n".join(text) + "\n")
        return path

    def processes(self) -> dict[str, list[int]]:
        return {
            "broker": [each.pid for each in self.brokers],
            "datacenter": [each.process.pid for each in self.centers],
            "agents": [each.process.pid for each in self.agents],
        }

    def sample(self) -> Json:
        """Everything that is counted, at one moment."""
        busy, idle = machine()
        found = {"at": time.monotonic(), "busy": busy, "idle": idle}
        for word in ("accepted", "confirmed", "waiting", "sent", "resent", "bytes"):
            found[word] = self.told(word)
        for name, pids in self.processes().items():
            found[f"{name}_cpu"] = sum(map(cpu_seconds, pids))
        counted = [each.counters() for each in self.centers]
        for word in ("commits", "stored_blocks", "duplicate_blocks"):
            found[word] = sum(each[word] for each in counted)
        return found


def step(site: Site, count: int) -> Json:
    """Grows the fleet to `count` agents and measures it."""
    site.grow(count)
    time.sleep(site.plan.warm)
    for each in site.agents:
        each.late.clear()
    before = site.sample()
    time.sleep(site.plan.seconds)
    found = _between(site, before, site.sample())
    late = sorted(latency for each in site.agents for latency in each.late)
    found["receipt_ms_p50"] = round(1000 * late[len(late) // 2], 1) if late else None
    found["receipt_ms_p99"] = round(1000 * late[int(len(late) * 0.99)], 1) if late else None
    return {**found, "keeps_up": found["waiting_blocks"] <= MOST_WAITING * count}


def storm(site: Site) -> Json:
    """All brokers stop, and come back after a while: everything that was kept meanwhile goes through at once."""
    for each in site.brokers:
        each.stop()
    until(lambda: site.told("connected") == 0, 60)
    time.sleep(site.plan.outage)
    for each in site.brokers:
        each.start()
    before = site.sample()
    limit = 60 + 10 * site.plan.outage
    until(lambda: site.told("connected") == site.count and site.told("waiting") <= site.count, limit)
    return {"outage_s": site.plan.outage, **_between(site, before, site.sample())}


def _between(site: Site, before: Json, after: Json) -> Json:
    """What happened between two samples. CPU is in microseconds for each block and reading that was stored."""
    passed = after["at"] - before["at"]
    grown = {word: after[word] - before[word] for word in before}
    ours = sum(grown[f"{name}_cpu"] for name in site.processes())
    processes = {}
    for name, pids in site.processes().items():
        used = grown[f"{name}_cpu"]
        processes[name] = {
            "cores": round(used / passed, 3),
            "us_per_block": round(used / max(1, grown["stored_blocks"]) * 1e6),
            "us_per_reading": round(used / max(1, grown["confirmed"]) * 1e6, 2),
            "resident_mb": round(sum(map(resident_mb, pids)), 1),
        }
    return {
        "agents": site.count,
        "devices": site.plan.devices,
        "seconds": round(passed, 1),
        "readings_per_second": round(grown["confirmed"] / passed),
        "blocks_per_second": round(grown["stored_blocks"] / passed, 1),
        "bytes_per_second": round(grown["bytes"] / passed),
        "blocks_per_commit": round(grown["stored_blocks"] / max(1, grown["commits"]), 1),
        "resent": grown["resent"],
        "duplicates": grown["duplicate_blocks"],
        "waiting_blocks": after["waiting"],
        "waiting_grew": grown["waiting"],
        "machine_busy": round(grown["busy"] / (grown["busy"] + grown["idle"]), 2),
        "machine_busy_ours": round(ours / (grown["busy"] + grown["idle"]), 2),
        "processes": processes,
    }


def settle(site: Site) -> Json:
    """Stops all agents, lets them deliver, and compares what they accepted with what is stored."""
    for each in site.agents:
        each.process.send_signal(signal.SIGTERM)
    late = sum(not each.ended() for each in site.agents)
    accounts = {one["stream"]: one for each in site.agents for one in each.last.get("each", ())}

    def stored() -> dict[str, Json]:
        return {one["stream"]: one for center in site.centers for one in center.streams()}

    def whole() -> bool:
        found = stored()
        return all(
            found.get(stream, {}).get("readings") == one["accepted"] - one["waiting"]
            for stream, one in accounts.items()
        )

    deadline = time.monotonic() + 60
    while not whole() and time.monotonic() < deadline:
        time.sleep(0.2)
    found = stored()
    pairs = [(one["accepted"] - one["waiting"], found.get(stream, {"readings": 0})["readings"], stream)
             for stream, one in accounts.items()]  # fmt: skip
    return {
        "settled": not late,
        "agents": len(accounts),
        "accepted": sum(one["accepted"] for one in accounts.values()),
        "stored": sum(have for _, have, _ in pairs),
        "waiting": sum(one["waiting"] for one in accounts.values()),
        "lost": sum(max(0, owed - have) for owed, have, _ in pairs),
        "doubled": sum(max(0, have - owed) for owed, have, _ in pairs),
        "holes": sum(len(found[stream]["holes"]) for _, _, stream in pairs if stream in found),
        "streams_at_each_datacenter": [len(center.streams()) for center in site.centers],
    }


def fleet(plan: Plan) -> Iterator[Json]:
    """Runs all steps, as far as the fleet keeps up, and what became of every reading at the end."""
    with ExitStack() as parts:
        home = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="headrace-fleet-")))
        ram = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        outboxes = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="headrace-fleet-", dir=ram)))
        site = Site(plan, home, outboxes, parts)
        for count in plan.steps:
            found = step(site, count)
            yield found
            if not found["keeps_up"]:
                break
        if plan.outage:
            yield storm(site)
        yield settle(site)


def _numbers(text: str) -> tuple[int, ...]:
    found = tuple(int(word) for word in text.split(","))
    if list(found) != sorted(set(found)) or found[0] < 1:
        raise argparse.ArgumentTypeError(f"{text!r} are no growing numbers of agents; write 5,10,20")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    usual = Plan()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet")
    parser.add_argument("--agents", type=_numbers, default=usual.steps, help="how many in each step: 5,10,20")
    parser.add_argument("--devices", type=int, default=usual.devices, help="of each agent (default %(default)s)")
    parser.add_argument("--tags", type=int, default=usual.tags, help="of each device (default %(default)s)")
    parser.add_argument("--poll", default=usual.poll, help="of every device (default %(default)s)")
    parser.add_argument("--seal", default=usual.seal, help="seal.after of every agent (default %(default)s)")
    parser.add_argument("--broker", choices=["mosquitto", "nats"], default=usual.broker)
    parser.add_argument("--brokers", type=int, default=1, help="each with its share of the agents")
    parser.add_argument("--datacenters", type=int, default=1, help="each with the agents of a root of its own")
    parser.add_argument("--seconds", type=float, default=usual.seconds, help="measured in each step (%(default)s)")
    parser.add_argument(
        "--outage", type=float, default=0.0, help="then so many seconds without a broker, and what follows"
    )
    asked = parser.parse_args(arguments)
    plan = Plan(
        asked.agents,
        asked.devices,
        asked.tags,
        asked.poll,
        asked.seal,
        asked.broker,
        asked.brokers,
        asked.datacenters,
        asked.seconds,
        outage=asked.outage,
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that whatever was started is stopped
    last: Json = {}
    for last in fleet(plan):
        sys.stdout.write(json.dumps(last) + "\n")
        sys.stdout.flush()
    return 1 if last["lost"] or last["doubled"] or not last["settled"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
