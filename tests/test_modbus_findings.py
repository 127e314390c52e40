"""What a device refuses is found, and everything else is read in few requests, whatever the device refuses for."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bus import Bus, Rig, Said, registers
from tests.virtual_time import run

PLACES = st.sets(st.integers(0, 90), min_size=1, max_size=60)
ABSENT = st.sets(st.integers(0, 90), max_size=8)


class Device:
    """Refuses what touches an absent register, is longer than `most`, or reaches over a multiple of `block`."""

    def __init__(self, absent: set[int], most: int = 125, block: int = 1000, code: int = 2) -> None:
        self.absent, self.most, self.block, self.code = absent, most, block, code

    def __call__(self, pdu: bytes) -> Said:
        function, first, count = struct.unpack(">BHH", pdu)
        asked = range(first, first + count)
        over = count > self.most or asked[0] // self.block != asked[-1] // self.block
        if over or self.absent.intersection(asked):
            return [(0.001, bytes([function | 0x80, self.code]))]
        return [(0.001, registers(pdu))]


async def asked(device: Device, places: set[int], polls: int = 12) -> list[list[tuple[int, int]]]:
    """(first, count) of the requests of each poll; all good values were right, and each bad tag was bad once."""
    rig = Rig(Bus({1: device}), {1: sorted(places)}, "tcp://first", timeout="50ms", poll="1s")
    found = []
    await rig.collectors[1].connect()
    for _ in range(polls):
        rig.bus.asked.clear()
        rig.inlet.good.clear()
        await rig.collectors[1].read()
        found.append([struct.unpack(">HH", pdu[1:]) for _, _, pdu in rig.bus.asked])
        values = {word for _, _, payload in rig.inlet.good for (word,) in struct.iter_unpack(">H", payload)}
        assert values.isdisjoint(device.absent)
        assert values >= places - device.absent
    assert sorted(name for _, name, _ in rig.inlet.bad) == sorted(f"unit1.{each}" for each in places & device.absent)
    return found


def fewest(places: set[int], absent: set[int]) -> int:
    """Requests of a plan that knew from the start: gaps of up to 10 registers are read over, absent ones never."""
    count, last = 0, -1000
    for place in sorted(places - absent):
        if place - last > 11 or absent.intersection(range(last, place)):
            count += 1
        last = place
    return count


@settings(max_examples=60, deadline=None)
@given(PLACES, ABSENT)
def test_absent_registers_cost_as_few_requests_as_if_they_had_been_known(places: set[int], absent: set[int]) -> None:
    found = run(asked(Device(absent), places, polls=25))
    assert found[-1] == found[-2]
    # A hole between two tags may hold an absent register and others: then the whole hole is left out.
    assert len(found[-1]) <= fewest(places, absent)


@settings(max_examples=40, deadline=None)
@given(PLACES, ABSENT, st.integers(1, 40), st.integers(10, 40))
def test_whatever_else_a_device_refuses_for_it_is_soon_asked_the_same(
    places: set[int], absent: set[int], most: int, block: int
) -> None:
    found = run(asked(Device(absent, most, block, code=3), places, polls=25))
    assert found[-1] == found[-2] == found[-3]
    assert sum(len(each) for each in found) < 25 * (len(places) + 1) + 200


def test_a_device_that_refuses_everything_for_a_while_is_read_as_before_after_that() -> None:
    device = Device(set(range(200)))
    places = set(range(40))

    async def scene() -> None:
        rig = Rig(Bus({1: device}), {1: sorted(places)}, "tcp://first", timeout="50ms", poll="1s")
        await rig.collectors[1].connect()
        for _ in range(10):
            await rig.collectors[1].read()
        assert len(rig.inlet.bad) == len(places)
        device.absent = set()
        for _ in range(130):
            await rig.collectors[1].read()
        rig.bus.asked.clear()
        await rig.collectors[1].read()
        assert [struct.unpack(">HH", pdu[1:]) for _, _, pdu in rig.bus.asked] == [(0, 40)]

    run(scene())
