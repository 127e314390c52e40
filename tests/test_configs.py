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
from headrace.query import fetch
from simulators.faults import load
from tests.peers.brokers import Mosquitto
from tests.rig import Plant, agent, data_center, simulator, until

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*/plant.toml"))
SECONDS = 5.0
SEED = 3


def verified(plant: Plant, *options: str) -> tuple[int, dict[str, Any]]:
    """Exit code and facts of `headrace verify`."""
    command = [sys.executable, "-m", "headrace", "verify", str(plant.path), "--json", *options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=150)
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


def test_there_are_configs() -> None:
    """Every file that is a config is one of those that are run."""
    tables = {
        path for path in CONFIGS[0].parent.parent.rglob("*.toml") if "[agent]" in path.read_text(encoding="utf-8")
    }
    assert tables == set(CONFIGS)
    assert len(CONFIGS) >= 3


@pytest.mark.timeout(500)
@pytest.mark.parametrize("source", CONFIGS, ids=lambda path: path.parent.name)
def test_a_config_of_the_repository_loses_doubles_and_alters_nothing(
    source: Path, tmp_path: Path, mosquitto: Mosquitto
) -> None:
    plant = settled(tmp_path, source, mosquitto)
    tags = len(config.load(plant.path).tags)
    with simulator(tmp_path, plant, SEED), data_center(tmp_path, plant):
        with agent(tmp_path, plant, "--drain", "40") as process:
            until(lambda: plant.summary()["readings"] >= tags)
            time.sleep(SECONDS)  # that long it collects
            process.stop()
            last = process.lines()[-1]
        assert last["stopped"]
        code, found = verified(plant, "--seed", str(SEED))
        other, wrong = verified(plant, "--seed", str(SEED + 1))
    told = json.dumps(found)
    assert (code, found["lost"], found["duplicates"], found["wrong"], found["awaited"]) == (0, 0, 0, 0, 0), told
    assert found["stored"] == last["accepted"] - last["filtered"]
    assert [each["name"] for each in found["devices"]] == [each.name for each in config.load(plant.path).devices]
    assert all(each["stored"] >= each["tags"] for each in found["devices"])
    assert other == 1, "a plant with another seed is not the one that was read"
    assert wrong["wrong"] > 0


@pytest.mark.timeout(500)
@pytest.mark.parametrize("source", CONFIGS, ids=lambda path: path.parent.name)
def test_with_its_faults_a_config_loses_nothing_without_a_name(
    source: Path, tmp_path: Path, mosquitto: Mosquitto
) -> None:
    plant = settled(tmp_path, source, mosquitto)
    found = config.load(plant.path)
    wanted = load(source.with_name("faults.toml"), found)
    faults = sum(len(names) for _, names in wanted.tables)

    # The agent first: it has its certificate and its outbox when the faults' time begins to run.
    with (
        data_center(tmp_path, plant),
        agent(tmp_path, plant, "--drain", "40") as process,
        simulator(tmp_path, plant, SEED, "--faults", str(source.with_name("faults.toml"))) as plants,
    ):
        until(lambda: plants.events().count("fault_ended") == faults, 60)
        since_ns = time.time_ns()

        def goes_on(device: str) -> bool:
            """Whether any tag of a device has a good reading of the time after the faults."""
            tags = [tag.identifier for tag in found.tags if tag.device == device]
            answers = (fetch(plant.url, "/v1/readings", id=each, limit=10, **{"from": since_ns}) for each in tags)
            return any(not quality for each in answers for _, _, quality in json.loads(each)["readings"])

        until(lambda: all(goes_on(device.name) for device in found.devices), 60)
        process.stop()
        code, verdict = verified(plant, "--seed", str(SEED))
    told = json.dumps(verdict)
    assert (code, verdict["lost"], verdict["duplicates"], verdict["wrong"], verdict["awaited"]) == (0, 0, 0, 0, 0), told
    assert all(each["stored"] >= each["tags"] for each in verdict["devices"])
    assert plants.events().count("fault_begun") == faults
