"""What OPC UA values cost the agent from end to end: published, decoded, sealed, committed on disk, and PUBACKed.

`python -m benchmarks.opcua` runs the agent as it is (`headrace run`) against a compiled server (`opcua-load`, made with
async-opcua) and a real Mosquitto, each a process of its own. Only the agent's CPU counts, that of all its threads.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks import modbus, opcua_replay
from benchmarks.result import Result, less, more
from tests.peers.process import free_port, listens
from tests.pki_rig import der, equip, put

COMMAND = "python -m benchmarks.opcua"
TARGET = Path(__file__).parents[1] / "target"
LOAD = TARGET / "peers" / "opcua" / "release" / "opcua-load"
STOCK = "stock asyncua subscription with a handler that counts, which stores nothing"
LOAD_FAST = (1_000, 20, 20)
"""Items, how often each changes and how often that is published, in ms: 50,000 values/s, 1,000 a notification."""
LOAD_MANY = (10_000, 50, 50)
WARM, WINDOW = 6, 10
"""Seconds before the measurement, and of it."""


SECURE = "Basic256Sha256/SignAndEncrypt"


@contextmanager
def load_server(home: Path, items: int, period_ms: int, cores: set[int], security: str = "None") -> Iterator[int]:
    """The compiled server; gives its port."""
    if security != "None":
        certificate = equip(home / "load")
        put(home / "agent" / "pki" / "trusted" / "load.der", der(certificate))
    if not LOAD.exists():
        raise SystemExit(f"{LOAD} is not built: run `make bench`")
    port = free_port()
    command = [str(LOAD), str(port), str(home / "load"), str(items), str(period_ms)]
    with modbus.process(command, cores, home / "load.log"):
        deadline = time.monotonic() + 20
        while not listens(port):
            if time.monotonic() > deadline:
                raise SystemExit("the load server did not start")
            time.sleep(0.02)
        yield port


def config(home: Path, server: int, mqtt: int, items: int, publish_ms: int, *, security: str) -> Path:
    """A config with one device, which has every item of the load server."""
    path = home / "plant.toml"
    path.write_text(f"""
[agent]
id = "bench"
data_dir = "{home}/agent"
[seal]
after = "1s"
bytes = "1 MiB"
[uplink]
url = "mqtt://127.0.0.1:{mqtt}"
confirm = "broker"
[[device]]
name = "load"
protocol = "opcua"
url = "opc.tcp://127.0.0.1:{server}"
security = "{security}"
publish = "{publish_ms}ms"
sampling = "every change"
outage = "2s"
tags = "tags.csv"
""")
    rows = [f"v{item},nsu=urn:headrace:test;s={item},float64" for item in range(items)]
    (home / "tags.csv").write_text("\n".join(["name,address,type", *rows]) + "\n")
    return path


def agent(
    items: int, period_ms: int, publish_ms: int, *, window: int = WINDOW, warm: int = WARM, security: str = "None"
) -> modbus.Measured:
    """Runs the agent, bound to the first core, on a load, and measures `window` seconds of it."""
    cores = sorted(os.sched_getaffinity(0))
    mine, others = {cores[0]}, set(cores[1:]) or {cores[0]}
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=TARGET)))
        server = stack.enter_context(load_server(home, items, period_ms, others, security))
        mqtt = stack.enter_context(modbus.broker(home, others))
        return modbus.measure(
            config(home, server, mqtt, items, publish_ms, security=security), home, mine, warm, window
        )


def stock(items: int, period_ms: int, publish_ms: int, seconds: float = 5.0, security: str = "None") -> float:
    """CPU microseconds for each value of a stock asyncua subscription."""
    cores = set(sorted(os.sched_getaffinity(0))[1:]) or os.sched_getaffinity(0)
    with (
        tempfile.TemporaryDirectory(dir=TARGET) as home,
        load_server(Path(home), items, period_ms, cores, security) as port,
    ):
        words = [str(port), str(items), str(publish_ms), str(seconds)]
        if security != "None":
            words.append(str(Path(home) / "load"))
        command = [sys.executable, "-m", "benchmarks.opcua_stock", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=90)
    values, cpu = done.stdout.split()
    return float(cpu) / int(values) * 1e6


def results() -> Iterator[Result]:
    """The rows of `make bench`."""
    loads = ((LOAD_FAST, "None"), (LOAD_MANY, "None"), (LOAD_FAST, SECURE))
    baselines = {security: stock(*LOAD_FAST, security=security) for security in ("None", SECURE)}
    for (items, period_ms, publish_ms), security in loads:
        found, baseline = agent(items, period_ms, publish_ms, security=security), baselines[security]
        if found.growth > found.delivered / 20:
            raise SystemExit(f"the outbox grew by {found.growth} readings while {found.delivered} were delivered")
        fed = f"{items} items every {period_ms} ms" + ("" if security == "None" else f", {security}")
        rows = [
            *less(
                f"OPC UA end to end, {fed}, CPU of the agent", found.cost_us, "us/value", asked=1.0, **{STOCK: baseline}
            ),
            *more(f"OPC UA end to end, {fed}, values for each second of CPU", found.rate, "values/s", asked=5e5),
            *more(f"OPC UA end to end, {fed}, delivered", found.delivered / found.seconds, "values/s", asked=5e4),
        ]
        yield from (replace(one, command=COMMAND) for one in rows)
    yield from (replace(one, command=COMMAND) for one in opcua_replay.results(LOAD_FAST))


def main() -> None:
    for each in results():
        each.print()


if __name__ == "__main__":
    main()
