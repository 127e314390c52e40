"""What sharing a commit saves on a machine with nothing else to do: `python -m benchmarks.commits [STREAMS...]`.

Real blocks, ledger and store; the clock is computed. It goes on by the CPU time that a commit took and `SYNC` for the
disk, so that a busy machine gives the figures of an idle one: no broker, no other thread, no wait but those that
`datacenter.ingest` makes on purpose. Each stream sends a block of 240 readings a second, at a moment of its own.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.fleet import ROOT, Json
from benchmarks.streams import Source
from datacenter.ingest import BATCH_MESSAGES, LITTLE, PACE
from datacenter.ledger import Ledger
from datacenter.store import Store

SYNC = 0.003
BLOCKS = 400
TAGS = 240


def run(store: Store, ledger: Ledger, sources: Sequence[Source], due: Sequence[tuple[float, int]], pace: float) -> Json:
    """Commits what is due, at the earliest `pace` seconds after the last one began where little waits."""
    now = not_before = cpu = 0.0
    at = commits = 0
    late: list[float] = []
    while at < len(due):
        now = max(now, due[at][0])
        full = due[at + LITTLE - 1][0] if at + LITTLE <= len(due) else float("inf")
        now = max(now, min(not_before, full))
        batch = [each for each in due[at : at + BATCH_MESSAGES] if each[0] <= now]
        bodies = [(sources[number].agent, sources[number].block()[1]) for _, number in batch]
        not_before = now + pace
        began = time.process_time()
        with store.transaction():
            for agent, body in bodies:
                ledger.add(agent, body, time.time_ns())
            ledger.close()
        used = time.process_time() - began
        cpu, now, at, commits = cpu + used, now + used + SYNC, at + len(batch), commits + 1
        late += [now - when for when, _ in batch]
    late.sort()
    return {
        "streams": len(sources),
        "pace_ms": round(1000 * pace),
        "cpu_ms_per_block": round(1000 * cpu / len(due), 2),
        "blocks_per_commit": round(len(due) / commits, 1),
        "late_ms_p50": round(1000 * late[len(late) // 2]),
        "late_ms_p99": round(1000 * late[len(late) * 99 // 100]),
    }


def main() -> None:
    for streams in map(int, sys.argv[1:] or ("10", "50", "100", "200")):
        with tempfile.TemporaryDirectory(dir=ROOT / "target") as home:
            store = Store(Path(home))
            ledger = Ledger(store)
            sources = [Source.of(number, TAGS) for number in range(streams)]
            chance = random.Random(7)
            moments = sorted((chance.random(), number) for number in range(streams))
            seconds = max(2, BLOCKS // streams)
            due = [(second + when, number) for second in range(seconds) for when, number in moments]
            with store.transaction():
                for source in sources:
                    ledger.learn(source.catalog, time.time_ns())
            run(store, ledger, sources, moments, 0.0)
            for pace in (0.0, PACE, 0.0, PACE):
                sys.stdout.write(json.dumps(run(store, ledger, sources, due, pace)) + "\n")
                sys.stdout.flush()
            store.close()


if __name__ == "__main__":
    main()
