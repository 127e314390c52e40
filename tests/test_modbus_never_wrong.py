"""Bytes that once gave a value of another request, or could have: each is a trap that a device or gateway can set."""

from __future__ import annotations

import asyncio
import contextlib
import struct

import pytest

from agent.collectors.base import DeviceState, supervise
from agent.collectors.line import Line
from agent.collectors.transactions import Transactions
from agent.endpoint import Framing
from agent.errors import NotConnected
from tests.bus import RAW, Bus, Rig, Said, registers, steady
from tests.hostile import wrap
from tests.virtual_time import run


def test_a_late_answer_is_not_another_units_where_answers_may_name_any_unit_and_any_transaction() -> None:
    delays = iter([0.0, 0.06])

    def late_once(pdu: bytes) -> Said:
        return [(next(delays, 0.0), registers(pdu))]

    def other(pdu: bytes) -> Said:
        return [(0.03, bytes([pdu[0], 2, 0xBE, 0xEF]))]

    async def scene() -> None:
        quirks = {"any_unit_id": True, "any_transaction_id": True, "timeout": "50ms", "poll": "100ms", "tries": 1}
        rig = Rig(Bus({1: late_once, 2: other}), {1: [100], 2: [200]}, "tcp://first", **quirks)
        tasks = [
            asyncio.create_task(supervise(collector, rig.inlet.of(unit), DeviceState(f"unit{unit}")))
            for unit, collector in rig.collectors.items()
        ]
        await asyncio.sleep(20)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert rig.collectors[1].counters["timeouts"]
        assert {(unit, payload) for _, unit, payload in rig.inlet.good} == {(1, b"\0\x64"), (2, b"\xbe\xef")}

    run(scene())


def test_a_frame_that_begins_behind_a_doubled_answer_is_not_filled_up_by_the_next() -> None:
    transactions: list[int] = []
    turn = iter(["knock", "trap"])

    def unit(pdu: bytes) -> Said:
        now = transactions[0]
        transactions[0] = now + 1
        whole, ahead = (wrap(Framing.MBAP, now + later, 1, registers(pdu)) for later in (0, 1))
        if next(turn, "") == "trap":
            return [(0.0, RAW + whole + whole + ahead[:-2] + b"\xee")]
        return [(0.001, RAW + whole[:1]), (0.002, RAW + whole[1:])]

    async def scene() -> None:
        rig = Rig(Bus({1: unit}), {1: [100, 101]}, "tcp://first", timeout="50ms", poll="1s")
        rig.line._transactions._last, transactions[:] = 0x1FFF, [0x2000]  # some ids are left out, not this
        await rig.collectors[1].connect()
        with contextlib.suppress(NotConnected):
            for _ in range(3):
                await rig.collectors[1].read()
        assert {payload for _, _, payload in rig.inlet.good} <= {struct.pack(">HH", 100, 101)}
        assert rig.collectors[1].counters["discarded_long"] == 1

    run(scene())


def test_an_answer_that_is_cut_and_begun_again_is_asked_for_again_wherever_the_pieces_end() -> None:
    turn = iter(["knock", "trap"])

    def unit(pdu: bytes) -> Said:
        transaction = asked[-1]._transactions._last
        whole = wrap(Framing.MBAP, transaction, 1, registers(pdu))
        if next(turn, "") == "trap":
            rest = len(whole) - 13
            return [(0.0, RAW + whole[:13]), (0.001, RAW + (whole[13:15] + whole)[:rest])]
        return [(0.0, RAW + whole)]

    async def scene() -> None:
        rig = Rig(Bus({1: unit}), {1: list(range(100, 110))}, "tcp://first", timeout="50ms", poll="1s")
        asked.append(rig.line)
        await rig.collectors[1].connect()
        await rig.collectors[1].read()
        assert [payload for _, _, payload in rig.inlet.good] == [struct.pack(">10H", *range(100, 110))]
        assert rig.collectors[1].counters["discarded_short"] == 1

    asked: list[Line] = []
    run(scene())


def test_a_device_that_sends_header_and_zeros_one_after_the_other_is_never_doubted() -> None:
    def unit(pdu: bytes) -> Said:
        whole = wrap(Framing.MBAP, lines[-1]._transactions._last, 1, registers(pdu))
        return [(0.0, RAW + whole[:7]), (0.001, RAW + whole[7:])]

    async def scene() -> None:
        rig = Rig(Bus({1: unit}), {1: [0, 1]}, "tcp://first", timeout="50ms", poll="1s")
        lines.append(rig.line)
        rig.line._transactions._last = 0x02F0
        await rig.collectors[1].connect()
        for _ in range(100):
            await rig.collectors[1].read()
        assert (len(rig.inlet.good), rig.collectors[1].counters["discarded"]) == (100, 0)

    lines: list[Line] = []
    run(scene())


def test_no_transaction_id_looks_like_the_beginning_of_an_answer() -> None:
    ids = Transactions()
    found = {ids.next() for _ in range(65536)}
    assert not {each >> 8 for each in found} & {1, 2, 3, 4}
    assert len(found) == 65536 - 4 * 256


@pytest.mark.parametrize("url", ["rtu+tcp://first", "ascii+tcp://first"])
def test_a_byte_that_nobody_asked_for_makes_a_serial_line_wait_for_silence(url: str) -> None:
    async def scene() -> None:
        rig = Rig(Bus({1: steady(0.001)}), {1: [100]}, url, timeout="50ms", poll="100ms")
        await rig.collectors[1].connect()
        await rig.collectors[1].read()
        for ear in rig.bus.ears:
            ear.heard(b"\0")
        soiled = asyncio.get_running_loop().time()
        await rig.collectors[1].read()
        assert rig.bus.asked[-1][0] - soiled >= 0.05
        assert rig.collectors[1].counters["discarded_foreign"] + rig.collectors[1].counters["discarded_doubled"] == 1

    run(scene())
