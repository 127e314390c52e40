"""Not one wrong value from a device that lies in every way that shows. `make soak-modbus` runs for longer."""

from __future__ import annotations

import os
import random

import pytest

from agent.collectors.carrier import open_wire
from agent.endpoint import Framing
from tests.hostile import Hostile, serve
from tests.modbus_soak import soak
from tests.virtual_time import run


@pytest.fixture
def seed() -> int:
    seed = int(os.environ.get("HEADRACE_SEED") or random.randrange(2**32))
    print(f"seed {seed}")
    return seed


@pytest.mark.parametrize("framing", Framing)
def test_no_wrong_value_from_a_hostile_device(framing: Framing, seed: int) -> None:
    facts = run(soak(framing, 20_000, seed))
    print(facts)
    assert facts["wrong"] == 0
    right = facts["right"]
    assert isinstance(right, int)
    assert right > 10_000
    # Every kind of lie was met, and counted as what it was.
    for kind in ("late", "doubled", "foreign", "wrong", "short", "long", "malformed"):
        assert facts[f"discarded_{kind}"], kind
    assert facts["timeouts"]


@pytest.mark.parametrize("framing", Framing)
async def test_no_wrong_value_over_a_socket(framing: Framing, seed: int) -> None:
    # The pauses of a loaded machine come on top of what the device does: it lies well within its time, and what it
    # says twice it says at once.
    device = Hostile(seed, framing, timeout=0.05, late=0.03, gap=0.0, share=0.2)
    server, port = await serve(device)
    async with server:
        facts = await soak(framing, 120, seed, device=device, opener=open_wire, port=port(), pauses=0.12)
    print(facts)
    assert facts["wrong"] == 0
    right = facts["right"]
    assert isinstance(right, int)
    assert right > 30
