"""What Modbus readings cost the agent from end to end: polled, decoded, sealed, committed on disk, and PUBACKed.

`python -m benchmarks.modbus` runs the agent as it is (`headrace run`) against a compiled server (`modbus_load.c`) and a
real Mosquitto, each a process of its own. Only the agent's CPU counts, that of all its threads, from /proc. Two loads:

- *as fast as one core can*: the agent is bound to one core and polls devices of 62 float32 (124 registers, the most
  that a response of 125 holds) without a pause, with seal.bytes = "1 MiB". It fails where the outbox grows.
- *a plant*: 100 devices of 100 float32 each, every second.

The baseline in the same run is plain pymodbus against the same server (`benchmarks.bare`), which stores nothing.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Queue

import orjson

from benchmarks.result import Result, less, more
from headrace import brokers
from tests.peers.process import free_port, listens

COMMAND = "python -m benchmarks.modbus"
LOAD = Path(__file__).parents[1] / "target" / "peers" / "modbus_load"
PLAIN = "plain pymodbus with convert_from_registers, which stores nothing"
WARM, WINDOW = 4, 10
"""Status lines (one a second) before the measurement, and in it."""
FAST = (32, 62, "1ms")
PLANT = (100, 100, "1s")
"""Devices, float32 tags of each, and the poll period."""
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Sample:
    """What one process used, and what it had done, at one moment."""

    at: float
    cpu: float
    collected: int
    delivered: int
    waiting: int
    """Readings in the outbox."""
    written: int
    """Bytes that it sent to the disk."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of the agent."""

    seconds: float
    cpu: float
    """CPU seconds in it."""
    collected: int
    delivered: int
    """Readings that were polled, and that were PUBACKed, in it."""
    growth: int
    """Readings by which the outbox grew."""
    peak_mb: float
    """The most memory that it ever held, resident."""
    written: int
    """Bytes that it sent to the disk in it."""

    @property
    def cost_us(self) -> float:
        """CPU microseconds for each reading that was delivered."""
        return self.cpu / self.delivered * 1e6

    @property
    def rate(self) -> float:
        """Delivered readings for each second of CPU: what a core sustains that has nothing else to do."""
        return self.delivered / self.cpu


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process, to 10 ms."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / _TICK


def peak_mb(pid: int) -> float:
    """The most resident memory that a process ever had, in MB of 10^6 bytes."""
    return _memory_mb(pid, "VmHWM")


def resident_mb(pid: int) -> float:
    """The resident memory of a process now, in MB of 10^6 bytes."""
    return _memory_mb(pid, "VmRSS")


def _memory_mb(pid: int, word: str) -> float:
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines[word].split()[0]) * 1024 / 1e6


def written(pid: int) -> int:
    """Bytes that a process sent, or is about to send, to a disk (proc(5), write_bytes). On a tmpfs that is none."""
    lines = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(lines["write_bytes"])


@contextmanager
def process(command: list[str], cores: set[int], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
    os.sched_setaffinity(process.pid, cores)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def load_server(home: Path, cores: set[int], devices: int = 1) -> Iterator[list[int]]:
    """The compiled server; gives the port of each of its devices."""
    if not LOAD.exists():
        raise SystemExit(f"{LOAD} is not built: run `make bench`")
    with process([str(LOAD), str(devices)], cores, home / "load.log") as server:
        assert server.stdout is not None
        # Other load must not make it late: the agent would wait for it, and wake up for each single answer.
        with suppress(PermissionError):
            os.sched_setscheduler(server.pid, os.SCHED_RR, os.sched_param(1))
        yield [int(word) for word in server.stdout.readline().split()[1:]]


@contextmanager
def broker(home: Path, cores: set[int]) -> Iterator[int]:
    """A real Mosquitto; gives its port."""
    port = free_port()
    _, command = brokers.command("mosquitto", home / "broker", port)
    with process(command, cores, home / "broker.log"):
        deadline = time.monotonic() + 10
        while not listens(port):
            if time.monotonic() > deadline:
                raise SystemExit("Mosquitto did not start")
            time.sleep(0.02)
        yield port


def config(home: Path, ports: list[int], mqtt: int, load: tuple[int, int, str], seal: str) -> Path:
    """A config with a device at each of the load server's ports."""
    _, floats, poll = load
    text = [
        f'[agent]\nid = "bench"\ndata_dir = "{home}/agent"',
        f'[seal]\nafter = "1s"\nbytes = "{seal}"',
        f'[uplink]\nurl = "mqtt://127.0.0.1:{mqtt}"\nconfirm = "broker"',
    ]
    rows = [f"v{at},hr:{2 * at},float32,ABCD" for at in range(floats)]
    (home / "tags.csv").write_text("\n".join(["name,address,type,order", *rows]) + "\n")
    for at, port in enumerate(ports):
        url = f"tcp://127.0.0.1:{port}"
        text.append(
            f'[[device]]\nname = "d{at}"\nprotocol = "modbus"\nurl = "{url}"\npoll = "{poll}"\ntags = "tags.csv"'
        )
    path = home / "plant.toml"
    path.write_text("\n".join(text) + "\n")
    return path


def _samples(process: subprocess.Popen[bytes], found: Queue[Sample]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        facts = orjson.loads(line)
        if facts.get("stopped"):
            return
        sample = Sample(
            time.monotonic(),
            cpu_seconds(process.pid),
            facts["accepted"],
            facts["uplink"]["confirmed"],
            facts["outbox"]["readings"],
            written(process.pid),
        )
        found.put(sample)


def measure(path: Path, home: Path, cores: set[int], warm: int, window: int) -> Measured:
    """Runs the agent on a config, and measures it for `window` seconds after `warm` seconds."""
    command = [sys.executable, "-m", "headrace", "--log-level", "warning", "run", str(path), "--json"]
    with process(command, cores, home / "agent.log") as agent:
        found: Queue[Sample] = Queue()
        threading.Thread(target=_samples, args=(agent, found), daemon=True).start()
        try:
            several = [found.get(timeout=30) for _ in range(warm + window + 1)][warm:]
        except Exception as reason:
            raise SystemExit(f"the agent gave no figures: {(home / 'agent.log').read_text()[-2000:]}") from reason
        first, last = several[0], several[-1]
        return Measured(
            last.at - first.at,
            last.cpu - first.cpu,
            last.collected - first.collected,
            last.delivered - first.delivered,
            last.waiting - first.waiting,
            peak_mb(agent.pid),
            last.written - first.written,
        )


def agent(load: tuple[int, int, str], *, bound: bool, seal: str = "1 MiB", window: int = WINDOW) -> Measured:
    """Runs the agent on a load, on the first core alone where `bound`, and measures `window` seconds of it."""
    cores = sorted(os.sched_getaffinity(0))
    mine, others = ({cores[0]}, set(cores[1:]) or {cores[0]}) if bound else (set(cores), set(cores))
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=Path(__file__).parents[1] / "target")))
        ports = stack.enter_context(load_server(home, others, load[0]))
        mqtt = stack.enter_context(broker(home, others))
        return measure(config(home, ports, mqtt, load, seal), home, mine, WARM, window)


def bare(load: tuple[int, int, str], seconds: float = 4.0) -> tuple[float, float]:
    """(CPU microseconds for each reading, CPU share of a core) of plain pymodbus on the same load."""
    devices, floats, poll = load
    period = {"1ms": "0", "1s": "1"}[poll]
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name, load_server(Path(name), set(cores[1:]) or set(cores)) as ports:
        words = [str(ports[0]), str(devices), str(floats), period, str(seconds)]
        command = [sys.executable, "-m", "benchmarks.bare", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    readings, cpu = done.stdout.split()
    return float(cpu) / int(readings) * 1e6, float(cpu) / seconds


def results() -> Iterator[Result]:
    """The rows of `make bench`: what one core can, and a plant."""
    fast, (bare_us, _) = agent(FAST, bound=True), bare(FAST)
    plant, (_, bare_share) = agent(PLANT, bound=False), bare(PLANT)
    share = 100 * plant.cpu / plant.seconds
    devices, tags, _ = PLANT
    each = f"{devices} devices of {tags} tags every second"
    found = [
        *less("Modbus end to end, CPU of the agent", fast.cost_us, "us/reading", **{PLAIN: bare_us, "asked": 0.6}),
        *more("Modbus end to end, on one core", fast.rate, "readings/s", **{PLAIN: 1e6 / bare_us, "asked": 1e6}),
        *less(f"{each}, CPU", share, "% of a core", **{PLAIN: 100 * bare_share, "asked": 3.0}),
        *less(f"{each}, most memory", plant.peak_mb, "MB", asked=120.0),
    ]
    if fast.growth > fast.delivered / 20:
        raise SystemExit(f"the outbox grew by {fast.growth} readings while {fast.delivered} were delivered")
    yield from (replace(one, command=COMMAND) for one in found)


def main() -> None:
    for each in results():
        each.print()


if __name__ == "__main__":
    main()
