"""Random faults on an OPC UA device for some minutes: `make soak-opcua`. Each stack's counter is checked at the end.

python -m tests.opcua_soak MINUTES SEED
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from simulators.proxy import Fault, Kind
from tests.opcua_plant import Committed, opcua_plant
from tests.peers.line import Line
from tests.peers.servers import AsyncOpcUaServer, Device, NodeOpcUaServer
from tests.rig import agent, until

FAULTS = ("reset", "cut", "vanish", "blackhole", "stall", "stop the server", "kill the agent", "stop the agent")
LONGEST = 3.0
"""Seconds of one fault: less than the server's queues cover."""


def soak(kind: type[Device], seconds: float, seed: int) -> dict[str, object]:
    """Faults in random order until the time is over; what became of the counter's changes."""
    chance, done = random.Random(seed), Counter[str]()
    with ExitStack() as running:
        home = Path(tempfile.mkdtemp(prefix="headrace-soak-"))  # kept: where something is wrong, it is looked at
        server = running.enter_context(kind(home / "server"))
        line = running.enter_context(Line(server.port, seed=seed))
        plant = opcua_plant(home, f"opc.tcp://127.0.0.1:{line.port}")
        process = running.enter_context(agent(home, plant, "--drain", "0"))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            fault = chance.choice(FAULTS)
            done[fault] += 1
            match fault:
                case "stop the server":
                    os.kill(server.pid, signal.SIGSTOP)
                    time.sleep(chance.uniform(0.1, LONGEST))
                    os.kill(server.pid, signal.SIGCONT)
                case "kill the agent":
                    process.kill()
                    time.sleep(chance.uniform(0.0, LONGEST))
                    process.start()
                case "stop the agent":
                    process.stop()
                    process.start()
                case _:
                    line.apply(Fault(Kind(fault)))
                    time.sleep(chance.uniform(0.1, LONGEST))
                    line.apply(None)
            time.sleep(chance.uniform(0.0, 4.0))
        line.apply(None)
        far = max(value for _, value in Committed.of(plant).counted())
        until(lambda: max(value for _, value in Committed.of(plant).counted()) > far + 50, 60)
        found = Committed.of(plant)
    counts = {name: len(values) for name, values in found.faults().items()}
    return {
        "server": kind.__name__,
        "seconds": round(seconds),
        "seed": seed,
        "faults": dict(done),
        "changes": len(found.counted()),
        **counts,
        "gaps": len(found.gaps),
        "kept": str(home),
        "examples": {name: values[:5] for name, values in found.faults().items() if values} | {"gaps": found.gaps[:3]},
    }


def main() -> int:
    minutes, seed = float(sys.argv[1]), int(sys.argv[2])
    whole = True
    for kind in (NodeOpcUaServer, AsyncOpcUaServer):
        found = soak(kind, 30 * minutes, seed)
        print(json.dumps(found), flush=True)
        whole = whole and not any(found[name] for name in ("lost", "doubled", "wrong", "gaps"))
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
