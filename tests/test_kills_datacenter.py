"""kill -9 of the data center at random moments, also while it starts. `make soak-kills` does it at length."""

from __future__ import annotations

import random
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import kill_rig
from tests.kill_rig import survives
from tests.peers.brokers import Nats

pytestmark = pytest.mark.timeout(kill_rig.SECONDS)
chance, running = kill_rig.chance, kill_rig.running


def test_kills_of_the_data_center(tmp_path: Path, running: ExitStack, chance: random.Random, nats: Nats) -> None:
    survives(tmp_path, running, chance, nats, center_dies=True)
