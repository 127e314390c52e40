"""A request that a device never answers, or never as it was asked, costs its own tags and no others."""

from __future__ import annotations

import asyncio
import struct
from itertools import pairwise

import pytest

from agent.collectors.base import DeviceState, supervise
from agent.model import StatusCode
from tests.bus import Bus, Rig, Said, dead, registers, steady
from tests.virtual_time import run

URLS = ("tcp://first", "rtu+tcp://first")


def odd(kind: str, wrong: set[int]) -> Bus:
    """A device that does not answer where one of these registers is asked for, or with fewer or more of them."""

    def hang_up() -> None:
        for ear in list(bus.ears):
            ear.lost("the device closed the connection")

    def unit(pdu: bytes) -> Said:
        _, first, count = struct.unpack(">BHH", pdu)
        whole = registers(pdu)
        if not wrong & set(range(first, first + count)):
            return [(0.005, whole)]
        if kind == "hangs up":
            asyncio.get_running_loop().call_later(0.005, hang_up)
        if kind in ("mute", "hangs up"):
            return []
        size = whole[1] + (-2 if kind == "short" else 2)
        return [(0.005, bytes([whole[0], size]) + (whole[2:] + b"\0\0")[:size])]

    bus = Bus({1: unit})
    return bus


async def supervised(rig: Rig, seconds: float) -> DeviceState:
    state = DeviceState("unit1")
    task = asyncio.create_task(supervise(rig.collectors[1], rig.inlet.of(1), state))
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.wait([task])
    return state


@pytest.mark.parametrize("place", [100, 500, 900])
@pytest.mark.parametrize("kind", ["mute", "short", "long", "hangs up"])
@pytest.mark.parametrize("url", URLS)
def test_a_request_without_a_right_answer_costs_its_own_tags_and_no_others(url: str, kind: str, place: int) -> None:
    async def scene() -> None:
        numbers = [100, 500, 900]
        rig = Rig(odd(kind, {place}), {1: numbers}, url, timeout="500ms", poll="1s")
        state = await supervised(rig, 170)
        # One that hangs up does so again each time that it is asked again.
        again = 3 if kind == "hangs up" else 0
        assert state.reconnects <= 4 + again
        for number in set(numbers) - {place}:
            times = [time for time, _, payload in rig.inlet.good if payload == struct.pack(">H", number)]
            assert len(times) > 140, number
            # A minute apart the odd one is asked again, which takes its time-outs.
            assert max(b - a for a, b in pairwise(times[3:])) < (4.1 + 2 * again)
        told = [(name, quality) for _, name, quality in rig.inlet.bad if quality != StatusCode.BAD_NOT_CONNECTED]
        assert set(told) == {(f"unit1.{place}", StatusCode.BAD_TIMEOUT)}
        assert len(told) <= 1 + again
        lost = [time for time, _, quality in rig.inlet.bad if quality == StatusCode.BAD_NOT_CONNECTED]
        assert max(lost, default=0.0) < 15 or again
        # Asked again seldom; once it answers, it is good.
        asked = len([pdu for _, _, pdu in rig.bus.asked if pdu[1:3] == struct.pack(">H", place)])
        assert asked <= 16
        rig.bus.units[1] = steady()
        rig.inlet.good.clear()
        await supervised(rig, 260)
        assert any(payload == struct.pack(">H", place) for _, _, payload in rig.inlet.good)

    run(scene())


@pytest.mark.parametrize("kind", ["mute", "short", "hangs up"])
def test_such_a_request_of_many_tags_is_halved_until_the_odd_tag_is_alone(kind: str) -> None:
    async def scene() -> None:
        rig = Rig(odd(kind, {117}), {1: list(range(100, 160))}, "tcp://first", timeout="500ms", poll="1s")
        state = await supervised(rig, 200 if kind == "hangs up" else 55)
        assert state.reconnects <= (20 if kind == "hangs up" else 5)
        rig.inlet.good.clear()
        told = [(name, quality) for _, name, quality in rig.inlet.bad if quality != StatusCode.BAD_NOT_CONNECTED]
        assert set(told) == {("unit1.117", StatusCode.BAD_TIMEOUT)}
        rig.bus.asked.clear()
        await supervised(rig, 3)
        read = {struct.unpack(">HH", pdu[1:]) for _, _, pdu in rig.bus.asked}
        assert read - {(117, 1)} == {(100, 17), (118, 42)}

    run(scene())


def test_a_device_that_dies_is_lost_and_nothing_of_it_is_taken_for_unanswered() -> None:
    async def scene() -> None:
        rig = Rig(Bus({1: steady()}), {1: [100, 500, 900]}, "tcp://first", timeout="500ms", poll="1s")
        state = DeviceState("unit1")
        task = asyncio.create_task(supervise(rig.collectors[1], rig.inlet.of(1), state))
        for _ in range(20):
            await asyncio.sleep(7.3)
            rig.bus.units[1] = dead
            await asyncio.sleep(97)
            assert not state.connected
            rig.bus.units[1] = steady()
            await asyncio.sleep(45)
            assert state.connected
        task.cancel()
        await asyncio.wait([task])
        assert {quality for _, _, quality in rig.inlet.bad} == {StatusCode.BAD_NOT_CONNECTED}
        assert len(rig.inlet.bad) == 20 * 3

    run(scene())


def test_a_device_that_hangs_up_after_one_answer_is_asked_ever_more_seldom() -> None:
    async def scene() -> None:
        def once(pdu: bytes) -> Said:
            for ear in list(bus.ears):
                asyncio.get_running_loop().call_later(0.006, ear.lost, "the device closed the connection")
            return [(0.005, registers(pdu))]

        bus = Bus({1: once})
        rig = Rig(bus, {1: [100, 500]}, "tcp://first", timeout="500ms", poll="10s")
        state = await supervised(rig, 600)
        # Neither a flood of bad readings and log lines, nor silence.
        assert 15 < state.reconnects < 40
        bus.units[1] = steady()
        before = state.reconnects
        assert (await supervised(rig, 60)).reconnects < before
        assert rig.inlet.good

    run(scene())
