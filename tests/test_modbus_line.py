"""One owner of a bus: fair, patient with nobody for longer than it may be, and never wrong about who said what."""

from __future__ import annotations

import asyncio
import random
import struct
from itertools import pairwise

import pytest

from agent.collectors.base import DeviceState, supervise
from agent.collectors.modbus import ModbusCollector
from agent.errors import NotConnected
from agent.model import StatusCode
from tests.bus import RAW, Bus, Rig, Said, dead, registers, steady
from tests.virtual_time import VirtualLoop, run

TIMEOUT = 0.02
URLS = ("tcp://first", "rtu+tcp://first", "ascii+tcp://first")


def seeded() -> random.Random:
    seed = random.randrange(2**32)
    print("seed", seed)
    return random.Random(seed)


async def forever(collector: ModbusCollector) -> None:
    while True:
        await collector.read()


def test_a_dead_a_slow_and_a_babbling_unit_cost_the_other_29_less_than_a_tenth_of_a_period() -> None:
    dice = seeded()

    def babbling(pdu: bytes) -> Said:
        if dice.random() < 0.5:
            return [(0.005, registers(pdu))]
        return [(dice.uniform(0, TIMEOUT), RAW + dice.randbytes(dice.randrange(1, 60)))]

    async def scene() -> None:
        units = {unit: steady() for unit in range(1, 33)} | {30: dead, 31: steady(0.9 * TIMEOUT), 32: babbling}
        rig = Rig(Bus(units), {unit: [100, 101] for unit in units}, timeout=f"{TIMEOUT * 1000:g}ms", poll="1s")
        states = {unit: DeviceState(f"unit{unit}") for unit in units}
        tasks = [asyncio.create_task(supervise(rig.collectors[u], rig.inlet.of(u), states[u])) for u in units]
        await asyncio.sleep(120)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for unit in range(1, 30):
            # Not the first one: at the start all 32 ask at the same moment.
            times = [time for time, who, _ in rig.inlet.good if who == unit][1:]
            worst = max(abs(b - a - 1) for a, b in pairwise(times))
            assert len(times) >= 117, unit
            assert worst <= 0.1, (unit, worst)
            assert rig.collectors[unit].counters["overruns"] == 0
            assert states[unit].reconnects == 0
        assert {payload for _, _, payload in rig.inlet.good} == {struct.pack(">HH", 100, 101)}
        # The dead one is knocked at once in each pause, and its tags are bad once.
        assert [name for _, name, _ in rig.inlet.bad].count("unit30.100") == 1
        assert len([when for when, unit, _ in rig.bus.asked if unit == 30]) < 15
        assert len([time for time, who, _ in rig.inlet.good if who == 31]) > 100

    run(scene())


@pytest.mark.parametrize("url", URLS)
def test_one_late_answer_is_never_that_of_the_next_request(url: str) -> None:
    answers = iter([1.5, 0.0, 0.0, 0.0])

    def late_once(pdu: bytes) -> Said:
        return [(TIMEOUT * next(answers, 0.0), registers(pdu))]

    async def scene() -> None:
        numbers = [100, 200, 300]
        rig = Rig(Bus({1: late_once}), {1: numbers}, url, timeout="20ms", poll="1s", tries=1)
        collector = rig.collectors[1]
        with pytest.raises(NotConnected, match=r"no answer from unit 1 within 0\.02 s"):
            await collector.connect()
        await collector.close()
        # What was said late is heard by whoever is connected then, as behind a gateway.
        await collector.connect()
        for _ in range(3):
            await collector.read()
        await collector.close()
        assert [payload for _, _, payload in rig.inlet.good] == [struct.pack(">H", n) for n in numbers] * 3

    run(scene())


@pytest.mark.parametrize("url", URLS)
def test_an_answer_that_lay_there_while_the_machine_stood_still_is_asked_for_again(url: str) -> None:
    """A reading has the middle of its request as its time: of one that took 5 s it would be 2.5 s off."""

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        still = iter([0.0, 5.0])

        def unit(pdu: bytes) -> Said:
            loop.call_later(0.001, loop.stand_still, next(still, 0.0))
            return [(0.005, registers(pdu))]

        rig = Rig(Bus({1: unit}), {1: [100]}, url, timeout="50ms", poll="1s")
        await rig.collectors[1].connect()
        await rig.collectors[1].read()
        (taken, _, payload), (asked, _, _) = rig.inlet.good[-1], rig.bus.asked[-1]
        assert (len(rig.inlet.good), len(rig.bus.asked), payload) == (1, 3, b"\0\x64")
        assert taken - asked < 0.01
        assert rig.collectors[1].counters["discarded_late"] == 1
        assert rig.inlet.bad == []

    run(scene())


def test_units_on_one_line_share_one_connection_and_the_last_one_closes_it() -> None:
    async def scene() -> None:
        rig = Rig(Bus({1: steady(), 2: steady(), 3: dead}), {1: [1], 2: [2], 3: [3]}, timeout="50ms")
        one, two, three = rig.collectors.values()
        await asyncio.gather(one.connect(), two.connect())
        with pytest.raises(NotConnected):
            await three.connect()
        await three.close()
        await asyncio.gather(one.read(), two.read())
        assert (rig.bus.opened, rig.bus.open_now) == (["first"], 1)
        await one.close()
        await two.read()
        await two.close()
        assert rig.bus.open_now == 0

    run(scene())


def test_what_is_cancelled_is_answered_to_nobody() -> None:
    async def scene() -> None:
        rig = Rig(Bus({1: steady(0.03)}), {1: [100, 200]}, timeout="50ms", poll="1s")
        collector = rig.collectors[1]
        await collector.connect()
        for _ in range(5):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await forever(collector)
            rig.inlet.good.clear()
            await collector.read()
            assert [payload for _, _, payload in rig.inlet.good] == [struct.pack(">H", n) for n in (100, 200)]
        assert collector.counters["discarded"] == 0

    run(scene())


def refusing(wrong: set[int], code: int = 2) -> object:
    def unit(pdu: bytes) -> Said:
        _, first, count = struct.unpack(">BHH", pdu)
        if wrong & set(range(first, first + count)):
            return [(0.001, bytes([pdu[0] | 0x80, code]))]
        return [(0.001, registers(pdu))]

    return unit


def test_a_refused_request_is_halved_once_until_the_bad_tag_is_alone_and_that_is_remembered() -> None:
    async def scene() -> None:
        bus = Bus({1: refusing({117})})  # type: ignore[dict-item]
        rig = Rig(bus, {1: list(range(100, 160))}, timeout="50ms", poll="1s")
        collector = rig.collectors[1]
        await collector.connect()
        await collector.read()
        first = len(bus.asked)
        assert first < 20
        assert [(name, quality) for _, name, quality in rig.inlet.bad] == [
            ("unit1.117", StatusCode.BAD_NODE_ID_UNKNOWN)
        ]
        assert sum(len(payload) // 2 for _, _, payload in rig.inlet.good) == 59
        bus.asked.clear()
        await collector.read()
        # What is good is joined again around it.
        assert [struct.unpack(">HH", pdu[1:]) for _, _, pdu in bus.asked] == [(100, 17), (118, 42)]
        assert len(rig.inlet.bad) == 1
        # Over a reconnect nothing is split anew, and the tag is bad again, for the reason it had.
        await collector.close()
        bus.asked.clear()
        await collector.connect()
        await collector.read()
        assert len(bus.asked) == 3
        assert [name for _, name, _ in rig.inlet.bad] == ["unit1.117"] * 2
        assert not any(struct.unpack(">HH", pdu[1:]) == (117, 1) for _, _, pdu in bus.asked)
        # Asked again only rarely; once the device has it, it is good.
        bus.units[1] = steady(0.001)
        for _ in range(130):
            await collector.read()
        assert sum(struct.unpack(">HH", pdu[1:]) == (117, 1) for _, _, pdu in bus.asked) == 1
        assert rig.inlet.good[-1][0] > 60
        assert struct.unpack(">HH", bus.asked[-1][2][1:]) == (100, 60)

    run(scene())


@pytest.mark.parametrize(("code", "quality"), [(4, StatusCode.BAD_DEVICE_FAILURE), (6, 0x80050000), (1, 0x803A0000)])
def test_an_exception_is_one_bad_reading_for_as_long_as_it_lasts(code: int, quality: int) -> None:
    async def scene() -> None:
        rig = Rig(Bus({1: refusing({100}, code)}), {1: [100]}, timeout="50ms", poll="1s")  # type: ignore[dict-item]
        await rig.collectors[1].connect()
        for _ in range(5):
            await rig.collectors[1].read()
        assert [(name, each) for _, name, each in rig.inlet.bad] == [("unit1.100", quality)]
        assert rig.inlet.good == []
        rig.bus.units[1] = steady()
        for _ in range(70):
            await rig.collectors[1].read()
        assert rig.inlet.good

    run(scene())


@pytest.mark.parametrize("code", [10, 11])
def test_a_gateway_whose_unit_is_silent_is_a_lost_device(code: int) -> None:
    async def scene() -> None:
        rig = Rig(Bus({1: refusing({100}, code)}), {1: [100]}, "tcp://first")  # type: ignore[dict-item]
        with pytest.raises(NotConnected, match=rf"the gateway gets no answer from unit 1 \(exception {code}\)"):
            await rig.collectors[1].connect()

    run(scene())


def test_polls_keep_to_the_clock_and_a_late_one_is_counted_and_not_doubled() -> None:
    async def scene() -> None:
        late = iter([*[0.01] * 21, 0.35])
        unit = lambda pdu: [(next(late, 0.01), registers(pdu))]  # noqa: E731
        rig = Rig(Bus({1: unit}), {1: [100]}, "tcp://first", poll="100ms", timeout="5s")
        collector = rig.collectors[1]
        await collector.connect()
        for _ in range(20):
            await collector.read()
        await collector.read()
        for _ in range(20):
            await collector.read()
        times = [time for time, _, _ in rig.inlet.good]
        start = times[0]
        assert collector.counters["overruns"] == 2
        for time in (*times[:20], *times[22:]):
            assert abs((time - start + 0.05) % 0.1 - 0.05) < 0.002
        assert min(b - a for (a, _, _), (b, _, _) in pairwise(rig.bus.asked[1:])) > 0.03

    run(scene())


def test_a_line_that_is_never_silent_is_given_up() -> None:
    async def scene() -> None:
        rig = Rig(Bus({1: steady()}), {1: [100]}, timeout="50ms", poll="100ms")
        await rig.collectors[1].connect()

        async def babble() -> None:
            while True:
                for ear in rig.bus.ears:
                    ear.heard(b"\x55\xaa")
                await asyncio.sleep(0.02)

        noise = asyncio.create_task(babble())
        with pytest.raises(NotConnected, match="never silent"):
            await forever(rig.collectors[1])
        noise.cancel()
        assert all(payload == b"\0\x64" for _, _, payload in rig.inlet.good)

    run(scene())


# Quirks


def test_pause_after_connect_and_between_requests() -> None:
    async def scene() -> None:
        options = {"connect_pause": "300ms", "delay": "20ms", "poll": "1s"}
        rig = Rig(Bus({1: steady(0.0)}), {1: [100, 200, 300]}, "tcp://first", **options)
        await rig.collectors[1].connect()
        await rig.collectors[1].read()
        times = [time for time, _, _ in rig.bus.asked]
        assert times[0] >= 0.3
        assert min(b - a for a, b in pairwise(times)) >= 0.02

    run(scene())


def test_the_connection_is_closed_after_each_poll() -> None:
    async def scene() -> None:
        rig = Rig(Bus({1: steady()}), {1: [100, 200]}, "tcp://first", connection="each_poll")
        await rig.collectors[1].connect()
        for _ in range(3):
            await rig.collectors[1].read()
            assert rig.bus.open_now == 0
        assert len(rig.bus.opened) == 4
        assert len(rig.inlet.good) == 6

    run(scene())


def test_one_tag_per_request() -> None:
    async def scene() -> None:
        rig = Rig(Bus({1: steady()}), {1: [100, 101, 102]}, "tcp://first", one_tag_per_request=True)
        await rig.collectors[1].connect()
        await rig.collectors[1].read()
        assert [payload for _, _, payload in rig.inlet.good] == [struct.pack(">H", n) for n in (100, 101, 102)]

    run(scene())


def test_a_slow_first_answer() -> None:
    async def scene() -> None:
        delays = iter([2.0])
        rig = Rig(
            Bus({1: lambda pdu: [(next(delays, 0.0), registers(pdu))]}),
            {1: [100]},
            "tcp://first",
            timeout="50ms",
            first_timeout="3s",
        )
        await rig.collectors[1].connect()
        await rig.collectors[1].read()
        assert len(rig.inlet.good) == 1

    run(scene())


@pytest.mark.parametrize("quirk", ["any_transaction_id", "any_unit_id"])
def test_a_wrong_id_is_only_accepted_where_that_is_configured(quirk: str) -> None:
    def odd(pdu: bytes) -> Said:
        transaction, unit = (0, 1) if quirk == "any_transaction_id" else (None, 255)
        body = registers(pdu)
        if transaction is None:
            transaction = said[-1]
        said.append(transaction + 1)
        return [(0.0, RAW + struct.pack(">HHHB", transaction, 0, len(body) + 1, unit) + body)]

    async def scene(accepted: bool) -> None:
        rig = Rig(Bus({1: odd}), {1: [100]}, "tcp://first", timeout="50ms", **({quirk: True} if accepted else {}))
        rig.line._transactions._last, said[:] = 0x1FFF, [0x2000]  # some ids are left out, of those that follow none
        if not accepted:
            with pytest.raises(NotConnected):
                await rig.collectors[1].connect()
            return
        await rig.collectors[1].connect()
        await rig.collectors[1].read()
        assert rig.inlet.good[0][2] == b"\0\x64"

    said: list[int] = []
    run(scene(False))
    run(scene(True))


def test_an_adapter_that_gives_an_echo() -> None:
    def echoing(pdu: bytes) -> Said:
        return [(0.0, pdu), (0.003, registers(pdu))]

    async def scene(echo: bool) -> None:
        rig = Rig(Bus({1: echoing}), {1: [100, 200]}, "rtu+tcp://first", timeout="50ms", tries=1, echo=echo)
        if not echo:
            with pytest.raises(NotConnected):
                await rig.collectors[1].connect()
            return
        await rig.collectors[1].connect()
        await rig.collectors[1].read()
        assert [payload for _, _, payload in rig.inlet.good] == [b"\0\x64", b"\0\xc8"]

    run(scene(True))
    run(scene(False))


def test_pipelined_transactions_are_told_apart() -> None:
    dice = seeded()

    async def scene() -> None:
        numbers = list(range(0, 2000, 50))
        bus = Bus({1: lambda pdu: [(dice.uniform(0, 0.05), registers(pdu))]})
        rig = Rig(bus, {1: numbers}, "tcp://first", pipeline=8, timeout="1s")
        await rig.collectors[1].connect()
        await rig.collectors[1].read()
        payloads = {payload for _, _, payload in rig.inlet.good}
        assert payloads == {struct.pack(">H", number) for number in numbers}
        assert len(rig.inlet.good) == len(numbers)
        # Eight at once: 40 answers of 25 ms on average in far less than one after the other.
        assert bus.asked[-1][0] - bus.asked[1][0] < 0.4

    run(scene())


def test_polls_that_are_late_follow_one_another_until_there_is_no_room() -> None:
    async def scene() -> None:
        rig = Rig(Bus({1: steady(0.05)}), {1: [100, 200]}, "tcp://first", poll="10ms", timeout="1s")
        collector = rig.collectors[1]
        await collector.connect()
        await collector.read()
        assert 20 <= len(rig.inlet.good) <= 24  # a second of them; then others may have their say
        rig.inlet.good.clear()
        asyncio.get_running_loop().call_later(0.18, rig.inlet.hold)
        await collector.read()
        assert len(rig.inlet.good) == 4  # the poll that was under way, to its end
        assert [payload for _, _, payload in rig.inlet.good] == [struct.pack(">H", n) for n in (100, 200)] * 2

    run(scene())
