"""What the promise says when something on the way is lost for good."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.peers.brokers import Mosquitto
from tests.peers.process import free_port
from tests.rig import Device, Plant, agent, data_center, simulator, until

pytestmark = pytest.mark.timeout(180)
"""Programs start and end here again and again; each takes seconds where others keep the machine busy."""


def press() -> Device:
    lines = f'protocol = "modbus"\nurl = "tcp://127.0.0.1:{free_port()}"\npoll = "50ms"'
    return Device("press", lines, ["temp,hr:0,float32,", "count,hr:2,uint32,CDAB"])


def test_a_data_center_with_a_new_store_names_what_it_never_had(tmp_path: Path, mosquitto: Mosquitto) -> None:
    plant = Plant.write(tmp_path, mosquitto.url, [press()])
    with simulator(tmp_path, plant), data_center(tmp_path, plant) as center, agent(tmp_path, plant) as process:
        until(lambda: len(plant.readings("88.118.8/press.temp")["readings"]) >= 20)
        center.stop()
        shutil.rmtree(tmp_path / "store")
        center.start()
        found = until(lambda: (seen := plant.readings("88.118.8/press.temp"))["readings"] and seen["gaps"] and seen)
        [gap] = found["gaps"]
        assert "does not know" in gap["reason"]
        assert gap["to_ns"] <= found["readings"][0][0]
        # Delivery goes on, and the outbox empties: the places that are gone hold nothing up.
        until(lambda: (last := process.lines()[-1]).get("outbox") and last["outbox"]["entries"] <= 2)
        until(lambda: all(stream["holes"] == [] for stream in plant.streams()))
        assert process.events().count("store_forgot") == 1


def test_a_full_outbox_names_what_it_dropped(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """The broker is away until the quota is passed; every reading is then stored, or counted in a gap."""
    wide = Device("press", press().lines, [f"t{index},hr:{4 * index},float64," for index in range(500)])
    extra = '[outbox]\nmax_bytes = "512 KiB"'
    plant = Plant.write(tmp_path, mosquitto.url, [wide], extra)
    with simulator(tmp_path, plant), data_center(tmp_path, plant), agent(tmp_path, plant, "--drain", "20") as process:
        until(lambda: plant.readings("88.118.8/press.t0")["readings"])
        mosquitto.stop()
        until(lambda: (last := process.lines()[-1]).get("outbox") and last["outbox"]["dropped_readings"] > 5000, 60)
        mosquitto.start()
        until(lambda: plant.readings("88.118.8/press.t0")["gaps"])
        process.stop()
        last = process.lines()[-1]
        summary = plant.summary()
    assert last["outbox"]["entries"] == 0
    assert summary["readings"] + summary["readings_lost"] == last["accepted"] - last["filtered"]
    # The agent may drop what the data center has already, and whose receipt the outage swallowed: that is not lost.
    assert 0 < summary["readings_lost"] <= last["outbox"]["dropped_readings"]
    lost = [line for line in process.lines() if line.get("event") == "readings_lost"]
    assert sum(line["lost"] for line in lost) == last["outbox"]["dropped_readings"]
    assert {line["level"] for line in lost} == {"error"}
