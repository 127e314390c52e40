"""kill -9 of the agent and of the brokers at random moments, also while they start. `make soak-kills` does it at
length."""

from __future__ import annotations

import random
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import kill_rig
from tests.kill_rig import KILLS, PLANT_SEED, check_whole, committed, furnace, kills, press, settle, stored, survives
from tests.peers.brokers import Mosquitto, Nats
from tests.rig import Plant, agent, data_center, simulator

pytestmark = pytest.mark.timeout(kill_rig.SECONDS)
chance, running = kill_rig.chance, kill_rig.running


def test_kills_of_mosquitto(tmp_path: Path, running: ExitStack, chance: random.Random, mosquitto: Mosquitto) -> None:
    mosquitto.persistence = False  # what it acknowledged is gone after a kill: only receipts can tell
    mosquitto.restart()
    survives(tmp_path, running, chance, mosquitto, center_dies=False)


def test_kills_of_nats(tmp_path: Path, running: ExitStack, chance: random.Random, nats: Nats) -> None:
    survives(tmp_path, running, chance, nats, center_dies=False)


def test_kills_of_the_agent(tmp_path: Path, running: ExitStack, chance: random.Random, mosquitto: Mosquitto) -> None:
    plant = Plant.write(tmp_path, mosquitto.url, [press(), furnace()])
    running.enter_context(simulator(tmp_path, plant, PLANT_SEED))
    center = running.enter_context(data_center(tmp_path, plant))
    process = running.enter_context(agent(tmp_path, plant, "--drain", kill_rig.DRAIN))
    promised: dict[int, int] = {}
    for _ in kills(plant, process, KILLS, chance):
        found = committed(tmp_path)
        assert all(promised.get(sequence, readings) == readings for sequence, readings in found.items())
        promised |= found
    verdict = settle(plant, process)
    center.stop()
    # What was in memory and not yet committed is gone, and was promised to nobody; nothing stored may be wrong.
    assert (verdict.duplicates, verdict.wrong) == (0, 0), verdict.examples
    check_whole(tmp_path)
    blocks, _ = stored(tmp_path)
    arrived = {sequence: readings for _, sequence, readings in blocks}
    assert promised
    assert promised.items() <= arrived.items()
    print(f"{KILLS} kills of the agent: {len(promised)} blocks were promised and all arrived; {verdict}")
