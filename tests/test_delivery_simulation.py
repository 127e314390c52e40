"""Many lives of an agent on virtual time, each with faults of its own from a seed.

`HEADRACE_SEED=17 pytest tests/test_delivery_simulation.py` runs that one alone; `HEADRACE_SEEDS=10000` so many.
"""

from __future__ import annotations

import logging
import os
import random
import tempfile
from pathlib import Path

import pytest

from tests.delivery_world import World
from tests.virtual import run

SEEDS = int(os.environ.get("HEADRACE_SEEDS", "200"))
ONE = os.environ.get("HEADRACE_SEED")
GROUPS = 8
SECONDS = 60.0
"""Of faults, on the virtual clock."""


def live(seed: int) -> None:
    random.seed(seed)  # the agent's own jitter
    # In memory where that is: a sync that takes no time changes nothing here.
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as home:
        world = World(seed, Path(home))
        try:
            run(world.live(SECONDS))
        except BaseException:
            print(f"HEADRACE_SEED={seed}", *world.told, sep="\n")
            raise


@pytest.mark.timeout(60 + SEEDS)
@pytest.mark.parametrize("group", range(GROUPS))
def test_nothing_is_lost_in_any_life(group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.traffic.FEW", 32)
    logging.getLogger("headrace").setLevel(logging.CRITICAL)
    try:
        for seed in [int(ONE)] if ONE else range(group, SEEDS, GROUPS):
            live(seed)
    finally:
        logging.getLogger("headrace").setLevel(logging.NOTSET)


def test_tags_that_change_while_the_disk_takes_no_writes_are_taken_when_it_does(tmp_path: Path) -> None:
    run(World(1, tmp_path).relabelled())


def test_a_backlog_goes_on_while_a_poisonous_block_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Entries go one at a time then; what is kept free for live ones was more than that one.
    monkeypatch.setattr("agent.traffic.FEW", 32)
    random.seed(909)
    run(World(909, tmp_path).live(SECONDS))
