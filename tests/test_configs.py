"""Every config in configs/ as its user runs it: simulated, read by the agent, stored, and each reading verified."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agent import config
from headrace.demo import settle
from tests.peers.brokers import Mosquitto
from tests.rig import Plant, agent, data_center, simulator, until

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*/plant.toml"))
SECONDS = 5.0
SEED = 3


def verified(plant: Plant, *options: str) -> tuple[int, dict[str, Any]]:
    """Exit code and facts of `headrace verify`."""
    command = [sys.executable, "-m", "headrace", "verify", str(plant.path), "--json", *options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=40)
    assert ended.stdout, ended.stderr
    return ended.returncode, json.loads(ended.stdout)


def settled(tmp_path: Path, source: Path, broker: Mosquitto) -> Plant:
    """A copy with free ports, and with this broker."""
    path = settle(tmp_path / "plant", source.parent)
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r'"mqtt://[^"]*"', f'"{broker.url}"', text), encoding="utf-8")
    found = config.load(path)
    assert found.datacenter is not None
    return Plant(path, found.datacenter.http)


@pytest.mark.parametrize("source", CONFIGS, ids=lambda path: path.parent.name)
def test_a_config_of_the_repository_loses_doubles_and_alters_nothing(
    source: Path, tmp_path: Path, mosquitto: Mosquitto
) -> None:
    plant = settled(tmp_path, source, mosquitto)
    tags = len(config.load(plant.path).tags)
    with simulator(tmp_path, plant, SEED), data_center(tmp_path, plant):
        with agent(tmp_path, plant, "--drain", "15") as process:
            until(lambda: plant.summary()["readings"] >= tags)
            time.sleep(SECONDS)  # that long it collects
            process.stop()
            last = process.lines()[-1]
        assert last["stopped"]
        code, found = verified(plant, "--seed", str(SEED))
        other, wrong = verified(plant, "--seed", str(SEED + 1))
    assert (code, found["lost"], found["duplicates"], found["wrong"], found["awaited"]) == (0, 0, 0, 0, 0), found
    assert found["stored"] == last["accepted"] - last["filtered"]
    assert [each["name"] for each in found["devices"]] == [each.name for each in config.load(plant.path).devices]
    assert all(each["stored"] >= each["tags"] for each in found["devices"])
    assert other == 1, "a plant with another seed is not the one that was read"
    assert wrong["wrong"] > 0
