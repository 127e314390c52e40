"""Kills of an agent that has a node-opcua server, run after run: `make soak-opcua-kills`. Any reading that is lost,
doubled or has another's time ends it with 1, and so does a gap.

python -m tests.opcua_kills RUNS SEED
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from tests.opcua_plant import Committed, events, opcua_plant
from tests.peers.process import free_port
from tests.peers.servers import NodeOpcUaServer
from tests.rig import agent, until

KILLS = 3
"""Of one agent, in one run."""


def run(chance: random.Random) -> dict[str, object]:
    """One fresh server, the second of its device's list, and one agent that is killed again and again."""
    with ExitStack() as running:
        home = Path(tempfile.mkdtemp(prefix="headrace-kills-"))  # kept: where something is wrong, it is looked at
        server = running.enter_context(NodeOpcUaServer(home / "server"))
        lines = (f"backup = ['{server.url}']", 'return_after = "1s"')
        plant = opcua_plant(home, f"opc.tcp://127.0.0.1:{free_port()}", *lines, tags=("Counter", "UInt16"))
        process = running.enter_context(agent(home, plant, "--drain", "0"))
        until((plant.path.parent / "agent" / "outbox.db").exists)
        until(lambda: len(Committed.of(plant).counted()) > 8)
        resumed = 0
        for _ in range(KILLS):
            # Random on purpose: the moment within push, seal, commit and acknowledgement is what is tried.
            time.sleep(chance.uniform(0.0, 0.5))
            process.kill()
            process.start()
            count = len(Committed.of(plant).counted())
            until(lambda count=count: len(Committed.of(plant).counted()) > count + 8)  # type: ignore[misc]
            resumed += events(process)["resumed"]
        found = Committed.of(plant)
    faults = found.faults()
    counts = {name: len(values) for name, values in faults.items()} | {"gaps": len(found.gaps)}
    examples = {name: values[:5] for name, values in faults.items() if values}
    return {"kills": KILLS, "resumed": resumed, "changes": len(found.counted()), **counts, "examples": examples} | (
        {"kept": str(home)} if any(counts.values()) else {}
    )


def main() -> int:
    runs, seed = int(sys.argv[1]), int(sys.argv[2])
    chance, total, clean = random.Random(seed), Counter[str](), 0
    for _ in range(runs):
        found = run(chance)
        print(json.dumps(found), flush=True)
        clean += not any(found[name] for name in ("lost", "doubled", "wrong", "gaps"))
        total.update({name: value for name, value in found.items() if isinstance(value, int)})
    print(json.dumps({"runs": runs, "seed": seed, "clean": clean, **total}), flush=True)
    return 0 if clean == runs else 1


if __name__ == "__main__":
    sys.exit(main())
