"""Devices that misbehave, read by the agent: nothing is altered or doubled, and what is missing has a name."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from asyncua import ua
from asyncua.client.client import Client

from agent import config
from agent.address import ModbusTable
from agent.limits import Span
from headrace.verify import verify
from simulators.mood import Act, Ill, Mood, Record, Spell, Wrong, clocks, hidden
from simulators.opcua_server import OpcUaServer
from simulators.oracle import Oracle
from simulators.plant import Plant as Signals
from simulators.run import Simulation
from tests.peers.brokers import Mosquitto
from tests.peers.process import free_port
from tests.rig import Device, Plant, agent, data_center, until
from tests.test_simulators import Seen
from tests.test_simulators import until as soon

SEED = 11
S = 1_000_000_000
DONE = 40.0
"""Seconds within which the devices' loop does what it is told."""


def devices() -> list[Device]:
    press = [f"temp{at},ir:{2 * at},float32" for at in range(8)] + [f"count{at},hr:{2 * at},uint32" for at in range(4)]
    press.append("clock,hr:20,datetime[unix32]")
    one = ['protocol = "modbus"', 'poll = "200ms"', 'timeout = "500ms"']
    two = ['protocol = "opcua"', 'security = "None"', 'publish = "200ms"', 'sampling = "100ms"', 'timeout = "3s"']
    oven = [f"zone{at},nsu=urn:test:oven;s=zone{at},float64" for at in range(6)]
    oven += [f"fan{at},nsu=urn:test:fans;s=fan{at},int32" for at in range(3)]
    return [
        Device("press", "\n".join([*one, f'url = "tcp://127.0.0.1:{free_port()}"']), press),
        Device("gauge", "\n".join([*one, f'url = "rtu+tcp://127.0.0.1:{free_port()}"', "unit = 5"]), press),
        Device("oven", "\n".join([*two, f'url = "opc.tcp://127.0.0.1:{free_port()}"']), oven),
    ]


@contextmanager
def running(found: config.Config) -> Iterator[tuple[Simulation, asyncio.AbstractEventLoop]]:
    """The devices in a thread with a loop of its own, so that the test can wait for processes."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> tuple[Simulation, asyncio.Task[None]]:
        made = Simulation(found, SEED)
        await made.start()
        return made, asyncio.create_task(made.run())

    simulation, task = asyncio.run_coroutine_threadsafe(start(), loop).result(DONE)

    async def stop() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await simulation.stop()

    try:
        yield simulation, loop
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(DONE)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(DONE)
        loop.close()


def suffer(simulation: Simulation, loop: asyncio.AbstractEventLoop, ills: dict[str, Ill], seconds: float) -> None:
    acts: list[Act] = []

    async def begin() -> None:
        acts.extend(simulation.act(device, ill) for device, ill in ills.items())
        for act in acts:
            await act.begin()

    async def end() -> None:
        for act in acts:
            await act.end()

    asyncio.run_coroutine_threadsafe(begin(), loop).result(DONE)
    time.sleep(seconds)  # not for luck: this is how long the fault lasts
    asyncio.run_coroutine_threadsafe(end(), loop).result(DONE)


ROUNDS: list[dict[str, Ill]] = [
    {"press": Ill(Wrong.AWAY), "gauge": Ill(Wrong.GARBLED), "oven": Ill(Wrong.BAD)},
    {"press": Ill(Wrong.GARBLED), "gauge": Ill(Wrong.SLOW, delay=0.3), "oven": Ill(Wrong.FROZEN)},
    {"press": Ill(Wrong.FROZEN), "gauge": Ill(Wrong.AWAY), "oven": Ill(Wrong.REBOOT)},
    {"press": Ill(Wrong.BUSY), "gauge": Ill(Wrong.EXCEPTION, code=4), "oven": Ill(Wrong.AWAY)},
    {
        "press": Ill(Wrong.CLOCK, offset=-90.0),
        "gauge": Ill(Wrong.CLOCK, drift=40_000),
        "oven": Ill(Wrong.CLOCK, offset=0.1, drift=500),
    },
]


@pytest.mark.timeout(300)
def test_nothing_is_altered_or_doubled_and_what_is_missing_has_a_name(tmp_path: Path, mosquitto: Mosquitto) -> None:
    plant = Plant.write(tmp_path, mosquitto.url, devices())
    found = config.load(plant.path)
    names = {device.name: [tag.identifier for tag in device.tags] for device in found.devices}

    def healed(since_ns: int) -> bool:
        return all(
            any(at > since_ns and not quality for at, _, quality in plant.readings(each[0])["readings"])
            for each in names.values()
        )

    with running(found) as (simulation, loop), data_center(tmp_path, plant):
        with agent(tmp_path, plant, "--drain", "40") as process:
            until(lambda: healed(0), 40)
            for ills in ROUNDS:
                suffer(simulation, loop, ills, 1.5)
                since_ns = time.time_ns()
                until(lambda since_ns=since_ns: healed(since_ns), 40, str(ills))  # type: ignore[misc]
            process.stop()
        bad = [
            quality for each in names.values() for _, _, quality in plant.readings(each[0])["readings"] if quality != 0
        ]
        verdict = verify(found, SEED, plant.url)
    assert len(Record.beside(found.agent.data_dir).spells()) == 3 * len(ROUNDS)
    assert (verdict.lost, verdict.duplicates, verdict.wrong, verdict.awaited) == (0, 0, 0, 0), verdict.examples
    assert verdict.devices["oven"].named > 0, "changes that nobody could see have a name"
    assert bad, "a device that is away reads bad"


async def test_a_freeze_between_two_equal_values_owes_nobody_a_change(tmp_path: Path) -> None:
    """The value went there and back while it stood still: a client sees no change at its end. Found by a run of the
    test above that called this one lost."""
    step = S // 4
    start = now = 1_760_000_000 * S + 7
    signal = """
[[simulation.signal]]
tags = "oven.door"
shape = "states"
states = [{ value = false, for = "250ms" }, { value = true, for = "250ms" }]
"""
    lines = f'protocol = "opcua"\nsecurity = "None"\nurl = "opc.tcp://127.0.0.1:{free_port()}"'
    rows = ["door,nsu=urn:test:oven;s=door,bool", "temp,nsu=urn:test:oven;s=temp,float64"]
    written = Plant.write(tmp_path, "mqtt://127.0.0.1:1883", [Device("oven", lines, rows)], signal)
    found = config.load(written.path)
    plant = Signals.of(found, SEED)
    server = OpcUaServer(found.devices[0].url, [("oven", found.tags)], plant, lambda: now)
    mood, spells = server.moods.setdefault("oven", Mood("oven")), []
    for first, last in ((2, 4), (6, 9), (20, 21)):
        spell = Spell("oven", Wrong.FROZEN, start + first * step + step // 2, start + last * step + step // 2)
        mood.begin(ill := Ill(Wrong.FROZEN), spell.from_ns)
        mood.end(ill, spell.to_ns or 0)  # all of them are over when the server, which is late, gets there
        spells.append(spell)
    seen = Seen()
    await server.start()
    running = asyncio.create_task(server.run())
    try:
        async with Client(server.url) as client:
            subscription = await client.create_subscription(50, seen)
            space = await client.get_namespace_index("urn:test:oven")
            nodes = {tag.name: ua.NodeId(ua.String(tag.name), ua.Int16(space)) for tag in found.tags}
            await subscription.subscribe_data_change([client.get_node(each) for each in nodes.values()], queuesize=1000)
            await soon(lambda: len(seen.values) == len(nodes), 20)
            now += 40 * step
            await soon(lambda: seen.values[nodes["temp"]][-1][0] == now // step * step, 20)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await server.stop()
    oracle = Oracle(plant, found, spells)
    for tag in found.tags:
        times = [time_ns for time_ns, _ in seen.values[nodes[tag.name]]]
        hides = oracle.hidden(tag)
        owed = oracle.expected_changes(tag, times[0], now + 1)
        assert times[1:] == [at for at in owed if not any(first <= at <= last for first, last in hides)], tag.name
    assert len(seen.values[nodes["door"]]) == 1 + 40 - (2 + 3 + 1) - 2, "two of the three ended with an equal value"


async def test_a_small_plc_has_one_client_and_answers_once_a_cycle(tmp_path: Path) -> None:
    """The same as `one_client`, for as long as it runs."""
    small = '[[simulation.device]]\nname = "press"\nprofile = "s7-1200"\n'
    url = f"tcp://127.0.0.1:{free_port()}"
    rows = ["a,hr:0,uint16", *(f"b{at},co:{at},bool" for at in range(3))]
    written = Plant.write(
        tmp_path, "mqtt://127.0.0.1:1883", [Device("press", f'protocol = "modbus"\nurl = "{url}"', rows)], small
    )
    simulation = Simulation(config.load(written.path), SEED)
    await simulation.start()
    request = bytes.fromhex("000100000006010300000001")
    try:
        place = urlsplit(url)
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        begun = time.monotonic()
        writer.write(request)
        answer = await reader.readexactly(11)
        assert answer[:9] == bytes.fromhex("000100000005010302")
        assert time.monotonic() - begun >= 0.01
        other, second = await asyncio.open_connection(place.hostname, place.port)
        with suppress(ConnectionError):
            second.write(request)
            assert await other.read() == b""
        writer.write(request)
        assert len(await reader.readexactly(11)) == 11, "the first stays"
        for each in (writer, second):
            each.close()
    finally:
        await simulation.stop()


def test_a_record_survives_restarts_and_rubbish(tmp_path: Path) -> None:
    now = iter(range(100, 200, 10))
    record = Record.beside(tmp_path, lambda: next(now))
    assert record.spells() == []
    assert record.began("a", Wrong.AWAY) == 100
    record.began("b", Wrong.SLOW)
    record.ended("a", Wrong.AWAY)
    with record.path.open("a") as file:
        file.write('not json\n{"device": "a", "kind": "nothing", "began": 5}\n')
    record.began("a", Wrong.FROZEN)
    spells = Record(record.path).spells()
    assert [(each.device, each.kind, each.from_ns, each.to_ns) for each in spells] == [
        ("a", "away", 100, 120),
        ("b", "slow", 110, None),
        ("a", "frozen", 130, None),
    ]
    assert hidden(spells, "a", 10) == [(90, 120), (130, 2**63 - 1)]
    assert hidden(spells, "b", 10) == [], "a slow device hides nothing"
    record.started()  # after a kill
    assert {each.to_ns for each in record.spells()} == {120, 140}
    first, second = record.began("a", Wrong.CLOCK, offset=1.0), record.began("a", Wrong.CLOCK, offset=2.0)
    record.ended("a", Wrong.CLOCK, second)
    record.ended("a", Wrong.CLOCK, first)
    assert [(each.offset, each.from_ns, each.to_ns) for each in record.spells()[-2:]] == [
        (2.0, 160, 170),
        (1.0, 150, 180),
    ]


def test_a_wrong_clock_can_be_turned_back(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    for _ in range(1000):
        start = 1_760_000_000 * S + chance.randrange(S)
        wrong = [
            Spell("a", Wrong.CLOCK, start, start + 3600 * S, chance.uniform(-9, 9), chance.uniform(-1e5, 1e5))
            for _ in range(chance.randint(1, 3))
        ]
        [clock] = clocks(wrong, "a")
        at = start + chance.randrange(3600 * S)
        assert abs(clock.true_ns(clock.shown_ns(at)) - at) <= 2
    late = Spell("a", Wrong.CLOCK, start + 5 * S, None, 3.0)
    early = Spell("a", Wrong.CLOCK, start, start + 9 * S, -1.0)
    found_clocks = clocks([late, early, Spell("b", Wrong.CLOCK, start, None, 7.0)], "a")
    assert [(each.from_ns, each.to_ns, each.spells) for each in found_clocks] == [
        (start, start + 5 * S, (early,)),
        (start + 5 * S, start + 9 * S, (late, early)),
        (start + 9 * S, None, (late,)),
    ]
    record = Record.beside(tmp_path)
    record.began("a", Wrong.CLOCK, offset=1.5, drift=-20.0)
    [found] = record.spells()
    assert (found.offset, found.drift) == (1.5, -20.0)
    mood = Mood("a")
    mood.begin(Ill(Wrong.CLOCK, offset=1.0), 100 * S)
    mood.begin(Ill(Wrong.CLOCK, drift=1000), 200 * S)
    assert [mood.shown_ns(at * S) - at * S for at in (99, 100, 200, 300)] == [0, S, S, S + S // 10]


def test_moods_overlap_and_are_taken_back_one_by_one() -> None:
    mood = Mood("press")
    first, second = Ill(Wrong.SLOW, delay=0.1), Ill(Wrong.SLOW, delay=0.3)
    mood.begin(first, 1)
    mood.begin(second, 2)
    assert (mood.delay, mood.kinds) == (0.3, (Wrong.SLOW,))
    mood.end(second, 4)
    assert mood.delay == 0.1
    some = Ill(Wrong.EXCEPTION, code=2, addresses=(Span.parse("hr:10-19"),))
    mood.begin(some, 3)
    asked = [(ModbusTable.HR, 0, 10), (ModbusTable.HR, 0, 11), (ModbusTable.HR, 19, 5), (ModbusTable.IR, 12, 1)]
    assert [mood.refusal(*each) for each in asked] == [None, 2, 2, None]
    mood.end(first, 5)
    mood.end(some, 6)
    assert not mood
    assert [mood.at(Wrong.SLOW, at) for at in range(7)] == [False, True, True, True, True, True, False]
    assert not mood.at(Wrong.FROZEN, 3)
