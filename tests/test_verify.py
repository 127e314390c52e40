"""What `headrace verify` makes of stored readings, true ones and harmed ones: nothing that is wrong passes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent import config
from agent.config import Config
from agent.model import Tag
from headrace.verify import Verdict, awaited, judge
from simulators.mood import Spell, Wrong
from simulators.oracle import Oracle
from simulators.plant import Plant as Signals
from tests.rig import Device, Plant

S = 1_000_000_000
END = (time.time_ns() // S - 60) * S
"""Of the runs that are judged, which take a minute."""
BEGIN = END - 60 * S
BAD = 0x808A_0000
NAMES = ("oven.temp", "oven.batch", "oven.part", "press.load", "press.on")


class Store:
    """The readings of a run without a fault, by `device.tag`, to be harmed."""

    def __init__(self, home: Path, spells: tuple[Spell, ...] = ()) -> None:
        opcua = 'protocol = "opcua"\nurl = "opc.tcp://127.0.0.1:4840"\nsecurity = "None"\npublish = "200ms"'
        modbus = 'protocol = "modbus"\nurl = "tcp://127.0.0.1:5020"\nunit = 1\npoll = "1s"\ntimeout = "1s"'
        nodes = ["temp,nsu=urn:x;s=temp,float64", "batch,nsu=urn:x;s=batch,string", "part,nsu=urn:x;s=M#part,uint16"]
        devices = [
            Device("oven", opcua, nodes, "name,address,type"),
            Device("press", modbus, ["load,hr:0,float32,ABCD", "on,co:0,bool,"]),
        ]
        self.config: Config = config.load(Plant.write(home, "mqtt://127.0.0.1:1883", devices).path)
        self.plant = Signals.of(self.config, 3)
        self.oracle = Oracle(self.plant, self.config, spells)
        self.tags = {f"{tag.device}.{tag.name}": tag for tag in self.config.tags}
        print("from", BEGIN)  # the plant has other values each time
        self.readings: dict[str, list[list[Any]]] = {}
        for name, tag in self.tags.items():
            times = range(BEGIN, END, S)
            if tag.device == "oven":
                step = self.plant.step_ns(tag)
                times = [BEGIN, *self.oracle.expected_changes(tag, BEGIN, END // step * step)]  # type: ignore[assignment]
            self.readings[name] = [[at, self.plant.value(tag, at), 0] for at in times]
        self.gaps: list[dict[str, Any]] = []
        self.late: dict[str, list[list[Any]]] = {}
        """What comes while the others are looked at."""

    def pages(self, tag: Tag, from_ns: int | None = None) -> Iterator[dict[str, Any]]:
        name = f"{tag.device}.{tag.name}"
        found = self.readings[name] if from_ns is None else self.readings[name] + self.late.get(name, [])
        yield {"gaps": self.gaps, "readings": [each for each in found if each[0] >= (from_ns or 0)]}

    def judged(self) -> Verdict:
        return judge(self.config, self.oracle, self.pages)


def counts(found: Verdict) -> tuple[int, int, int]:
    return found.lost, found.duplicates, found.wrong


def test_a_run_without_a_fault_has_none(tmp_path: Path) -> None:
    found = Store(tmp_path).judged()
    assert (counts(found), found.late, found.named, found.fine) == ((0, 0, 0), 0, 0, True)
    assert found.stored > 200


@pytest.mark.parametrize("name", NAMES)
def test_one_reading_twice(name: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.readings[name].append(store.readings[name][2])
    assert counts(store.judged()) == (0, 1, 0)


def test_two_values_of_one_time_although_either_may_be_right(tmp_path: Path) -> None:
    """A Modbus reading has the time of its request: what the plant had half a time-out before is right as well."""
    store = Store(tmp_path)
    at, value, quality = store.readings["press.load"][9]
    tag = store.tags["press.load"]
    other = next(each for k in (-1, 1) if (each := store.plant.value(tag, at + k * S // 4)) != value)
    store.readings["press.load"].append([at, other, quality])
    assert counts(store.judged()) == (0, 1, 0)


def test_a_tag_that_falls_silent_while_its_device_goes_on(tmp_path: Path) -> None:
    store = Store(tmp_path)
    whole = store.readings["oven.temp"]
    store.readings["oven.temp"] = kept = whole[: len(whole) // 2]
    owed = [each for each in whole[len(kept) :] if each[0] < END - 6 * S]
    found = store.judged()
    assert len(owed) > 50
    assert len(owed) <= found.lost <= len(owed) + 8
    assert "after its last reading" in found.examples[0]
    assert not found.fine
    store.gaps = [{"from_ns": kept[-1][0], "to_ns": END, "reason": "subscription_lost"}]
    named = store.judged()
    assert (counts(named), named.named, named.fine) == ((0, 0, 0), found.lost, True)
    store.gaps = []
    kept.append([kept[-1][0] + S // 8, None, BAD])
    assert (counts(store.judged()), store.judged().named) == ((0, 0, 0), found.lost)


@pytest.mark.parametrize("name", NAMES[3:])
def test_a_polled_tag_that_is_read_no_more(name: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    whole = store.readings[name]
    store.readings[name] = whole[:40]
    assert (counts(store.judged()), store.judged().fine) == ((1, 0, 0), False)
    assert "was not read after" in store.judged().examples[0]
    store.late[name] = whole[40:]
    assert store.judged().fine
    store.late, store.readings[name] = {}, [*whole[:40], [whole[40][0], None, BAD]]
    assert (counts(store.judged()), store.judged().named) == ((0, 0, 0), 1)


def test_a_whole_run_that_ends_sooner_is_owed_nothing(tmp_path: Path) -> None:
    """Nobody knows when the agent stopped, but from what is stored of the device."""
    store = Store(tmp_path)
    for name in NAMES[:3]:
        store.readings[name] = [each for each in store.readings[name] if each[0] < BEGIN + 30 * S]
    assert store.judged().fine


def test_what_comes_while_others_are_looked_at_is_not_lost(tmp_path: Path) -> None:
    store = Store(tmp_path)
    whole = store.readings["oven.temp"]
    store.readings["oven.temp"], store.late["oven.temp"] = whole[:100], whole[100:]
    assert store.judged().fine


@pytest.mark.parametrize("name", NAMES)
def test_a_reading_of_a_time_to_come(name: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    tag, step = store.tags[name], store.plant.step_ns(store.tags[name])
    at = (time.time_ns() // step + 3600) * step
    store.readings[name].append([at, store.plant.value(tag, at), 0])
    assert store.judged().wrong == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_value_that_is_right_and_not_good(name: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    for place, quality in ((1, 0x480), (2, BAD), (3, 0x4000_0000)):  # an overflow of a server's queue is good
        store.readings[name][place][2] = quality
    assert counts(store.judged()) == (0, 0, 2)


def test_the_readings_of_another_tag(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.readings["oven.temp"], store.readings["oven.part"] = store.readings["oven.part"], store.readings["oven.temp"]
    found = store.judged()
    assert found.wrong > 100


@pytest.mark.parametrize("name", NAMES)
def test_a_tag_without_a_reading(name: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.readings[name] = []
    found = store.judged()
    assert found.lost >= 1
    assert not found.fine
    assert "has no reading" in found.examples[0]


def test_a_clock_that_was_set_back_shows_a_time_again(tmp_path: Path) -> None:
    back = Spell("oven", Wrong.CLOCK, BEGIN + 20 * S, None, offset=-10.0)
    store = Store(tmp_path, (back,))
    for name in NAMES[:3]:
        store.readings[name] = [
            [at - 10 * S if at >= back.from_ns else at, value, quality] for at, value, quality in store.readings[name]
        ]
    assert store.judged().fine
    store.readings["oven.temp"].append(store.readings["oven.temp"][-1])
    assert counts(store.judged()) == (0, 1, 0)


def test_only_the_agents_own_blocks_are_awaited() -> None:
    streams: list[dict[str, Any]] = [
        {"agent": "a", "holes": [[3, 3], [7, 9]]},
        {"agent": "b", "holes": [[1, 100]]},
        {"agent": "a", "holes": []},
    ]
    assert [awaited(streams, agent) for agent in "abc"] == [4, 100, 0]
