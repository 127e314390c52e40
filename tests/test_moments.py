"""Level 3 with an outbox of its own: what belongs to one moment is in both outboxes, or after a crash in neither.

A server numbers its messages, and sends again what was not acknowledged, as one of OPC UA does. The process ends before
each BEGIN and each COMMIT of both outboxes in turn; after the next start every message is in each lane exactly once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from agent.sealer import FULL_AT_END, STOPPED
from headrace import cli
from tests.delivery_world import BEGIN_NS
from tests.moments_rig import INNER, LEVEL3, MAIN, Plant, stored
from tests.virtual import run

pytestmark = pytest.mark.timeout(180)  # on a busy machine, or where a sync takes long

SEEDS = int(os.environ.get("HEADRACE_SEEDS", "120")) // 8
ONE = os.environ.get("HEADRACE_SEED")


@pytest.fixture
def home() -> Iterator[Path]:
    # In memory where that is: a sync that takes no time changes nothing here.
    logging.getLogger("headrace").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        yield Path(name)
    logging.getLogger("headrace").setLevel(logging.NOTSET)


def crash_at(plant: Plant, place: int) -> Callable[[str], bool]:
    """Ends the process at the so-manieth BEGIN or COMMIT."""
    left = [place]

    def fault(_: str) -> bool:
        left[0] -= 1
        if not left[0]:
            plant.crash()
        return False

    return fault


@pytest.mark.parametrize("group", range(2))
def test_each_message_is_once_in_each_lane_wherever_the_process_ends(home: Path, group: int) -> None:
    ended = 0
    for place in range(1 + group, 41, 2):
        plant = Plant(home / f"{place}")
        plant.home.mkdir()

        async def life(plant: Plant = plant, place: int = place) -> bool:
            plant.fault = crash_at(plant, place)
            crashed = await plant.live(6.0)
            await plant.live(3.0)
            plant.quiet = True
            await plant.live(3.0)
            return crashed

        ended += run(life())
        every = Counter(range(1, plant.sent + 1))
        assert plant.sent > 5
        assert (place, plant.found(MAIN)) == (place, every)
        assert (place, plant.found(INNER)) == (place, every)
    assert ended > 8


async def live(plant: Plant, chance: random.Random) -> None:
    """Disks that now and then take no writes, stops and crashes; then peace."""
    for _ in range(chance.randint(2, 5)):
        left = chance.choice([0, 1, 1, 1]) * chance.randint(1, 120)
        lanes = chance.choice([(MAIN,), (INNER,), (MAIN, INNER)])
        crash, rate = crash_at(plant, left), chance.choice([0.0, 0.0, 0.05, 0.3])
        plant.next_fault = partial(faults, crash=crash, lanes=lanes, rate=rate, chance=chance)
        await plant.live(chance.choice([2.0, 5.0, 9.0]))
    await plant.live(4.0)
    plant.quiet = True
    await plant.live(4.0)


def faults(
    lane: str, *, crash: Callable[[str], bool], lanes: Sequence[str], rate: float, chance: random.Random
) -> bool:
    crash(lane)
    return lane in lanes and chance.random() < rate


@pytest.mark.timeout(60 + 2 * SEEDS)
def test_each_message_is_once_in_each_lane_or_named_in_any_life(home: Path) -> None:
    for seed in [int(ONE)] if ONE else range(SEEDS):
        random.seed(seed)
        plant = Plant(home / f"{seed}")
        plant.home.mkdir()
        run(live(plant, random.Random(seed)))
        for lane in (MAIN, INNER):
            found, every = plant.found(lane), Counter(range(1, plant.sent + 1))
            named = sum(readings for readings, _ in plant.gaps(lane))
            told = f"HEADRACE_SEED={seed} {lane}: {found - every} twice, {every - found} missing, {named} named"
            assert not found - every, told
            assert (every - found).total() <= named, told


def crash_between(plant: Plant) -> Callable[[str], bool]:
    """Ends the process when level 3 has its part of a moment, and the main outbox asks for its own."""
    seen = Counter[str]()

    def fault(lane: str) -> bool:
        seen[lane] += 1
        if lane == MAIN and seen[INNER] >= 12 and plant.sent > 5 and stored(plant, INNER):
            plant.crash()
        return False

    return fault


def begun(home: Path, then: Callable[[Plant], None]) -> Plant:
    """A plant whose process ended between the two outboxes; `then` happens before it starts again."""
    plant = Plant(home)

    async def life() -> None:
        plant.fault = crash_between(plant)
        assert await plant.live(12.0)
        then(plant)
        await plant.live(4.0)
        plant.quiet = True
        await plant.live(4.0)

    run(life())
    return plant


def test_a_tag_that_moves_to_the_other_lane_at_that_moment_is_neither_lost_nor_doubled(home: Path) -> None:
    def moved(plant: Plant) -> None:
        assert stored(plant, INNER)
        plant.levels.reverse()

    plant = begun(home, moved)
    once = Counter(dict.fromkeys(range(1, plant.sent + 1), 1))
    assert plant.found(MAIN) == plant.found(INNER) == once


def test_level_3_comes_to_the_main_lane_where_its_own_is_given_up_at_that_moment(home: Path) -> None:
    def given_up(plant: Plant) -> None:
        plant.extra = ""

    plant = begun(home, given_up)
    both = plant.found(MAIN) + plant.found(INNER)
    assert both == Counter(dict.fromkeys(range(1, plant.sent + 1), 2))
    assert stored(plant, INNER)
    plant.extra = LEVEL3
    run(plant.live(2.0))  # and when it is back it is not sent either
    assert plant.found(MAIN) + plant.found(INNER) == both
    assert not stored(plant, INNER)


@pytest.mark.parametrize("lane", [MAIN, INNER])
def test_nothing_is_taken_back_where_one_of_the_two_was_put_back_from_a_copy(home: Path, lane: str) -> None:
    def copied(plant: Plant) -> None:
        path = plant.home / "agent" / lane
        shutil.copy(path, path.with_name("copy"))
        path.with_name("copy").rename(path)

    plant = begun(home, copied)
    assert set(plant.found(MAIN)) == set(plant.found(INNER)) == set(range(1, plant.sent + 1))
    assert max(plant.found(MAIN).values()) == 1


def test_what_a_device_does_not_send_again_is_not_taken_back(home: Path) -> None:
    plant = Plant(home)
    plant.marks = False

    async def life() -> int:
        plant.fault = crash_between(plant)
        assert await plant.live(12.0)
        waited = sum(int(readings) for _, readings, _ in stored(plant, INNER))
        before = plant.found(INNER).total()
        plant.quiet = True
        await plant.live(4.0)
        assert plant.found(INNER).total() == before + waited
        return waited

    assert run(life())


def test_a_stop_while_only_the_main_outbox_takes_no_writes_loses_nothing(home: Path) -> None:
    plant = Plant(home)

    async def life() -> None:
        await plant.start()
        await asyncio.sleep(5.0)
        plant.fault = lambda lane: lane == MAIN
        await asyncio.sleep(5.0)
        before = plant.found(INNER)
        assert stored(plant, INNER)
        plant.stop.set()
        await plant.running
        assert plant.found(INNER) == before
        await plant.crashed()
        await plant.live(4.0)
        plant.quiet = True
        await plant.live(4.0)

    run(life())
    once = Counter(dict.fromkeys(range(1, plant.sent + 1), 1))
    assert plant.found(MAIN) == plant.found(INNER) == once
    assert {reason for readings, reason in plant.gaps(INNER) if readings} == {FULL_AT_END}


def test_no_place_is_stored_that_lies_behind_what_could_not_be_told(home: Path) -> None:
    """With the place of before the device is asked once more for what it lost, and that is told then."""
    plant = Plant(home)

    async def life() -> None:
        await plant.start()
        await asyncio.sleep(5.0)
        plant.quiet = True
        await asyncio.sleep(3.0)
        failures = iter([True] * 2)
        plant.pipeline._intake.lost(BEGIN_NS, BEGIN_NS + 5, 7, "press: its queue ran over")
        plant.pipeline._intake.mark("place", b"999")
        plant.fault = lambda lane: lane == MAIN and next(failures, False)
        plant.stop.set()
        await plant.running

    run(life())
    with contextlib.closing(sqlite3.connect(home / "agent" / MAIN)) as db:
        [(place,)] = db.execute("SELECT body FROM mark WHERE name = 'place'")
    assert int(place) == plant.sent
    assert not plant.gaps(MAIN)


def test_what_is_missing_is_told_on_both_lanes(home: Path) -> None:
    """Behind each may be a data center that knows nothing of the other."""
    plant = Plant(home)

    async def life() -> None:
        await plant.start()
        await asyncio.sleep(5.0)
        plant.pipeline._intake.lost(BEGIN_NS, BEGIN_NS + 5, 7, "press: its queue ran over")
        await asyncio.sleep(2.0)
        plant.fault = lambda lane: lane == INNER
        await asyncio.sleep(5.0)
        plant.fault = lambda _: False
        await asyncio.sleep(5.0)
        plant.stop.set()
        await plant.running

    run(life())
    assert plant.gaps(MAIN) == [(7, "press: its queue ran over"), (0, STOPPED)]
    assert plant.gaps(INNER) == [(0, "press: its queue ran over"), (0, STOPPED)]


def test_nothing_is_exported_that_may_still_be_taken_back(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant = Plant(home)

    async def life() -> None:
        plant.fault = crash_between(plant)
        assert await plant.live(12.0)

    run(life())
    before = stored(plant, INNER)
    names = [str(home / "plant.toml"), str(home / "out.hdrx")]
    assert cli.main(["outbox", "export", *names, "--uplink", "level3", "--confirm", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["blocks"] == len(before) - 1
