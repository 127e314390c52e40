"""A small fleet loses nothing and doubles nothing, over several brokers and data centers, and through an outage."""

from __future__ import annotations

import pytest

from benchmarks.fleet import Plan, fleet
from benchmarks.plant import measure

pytestmark = pytest.mark.timeout(180)  # programs start, and the machine may be busy


@pytest.mark.timeout(300)  # ten processes start, one after the other
def test_every_reading_of_a_fleet_is_stored_once() -> None:
    plan = Plan((3,), devices=2, tags=10, poll="200ms", brokers=2, datacenters=2, seconds=2, warm=0.5, outage=1.0)
    step, storm, end = fleet(plan)
    assert (step["agents"], storm["outage_s"]) == (3, 1.0)
    assert step["receipt_ms_p50"] > 0
    assert storm["readings_per_second"] > 0
    assert step["processes"]["datacenter"]["resident_mb"] > 0
    assert (end["lost"], end["doubled"], end["holes"], end["waiting"]) == (0, 0, 0, 0), end
    assert end["accepted"] == end["stored"] > 0
    # Each agent is known to the data center of its own root, and to no other.
    assert sorted(end["streams_at_each_datacenter"]) == [1, 2]


@pytest.mark.parametrize("load", [False, True], ids=["virtual PLCs", "the compiled server"])
def test_a_plant_shows_every_value_at_its_time(load: bool) -> None:
    found = measure(3, 20, 4.0, load=load)
    assert (found["wrong"], found["tags"]) == (0, 60)
    assert found["changes_seen"] >= 6
    assert found["readings_per_second"] >= 15
