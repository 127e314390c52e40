"""Devices that misbehave, read by the agent: nothing is altered or doubled, and what is missing has a name."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent import config
from agent.address import ModbusTable
from agent.limits import Span
from headrace.verify import verify
from simulators.mood import Act, Ill, Mood, Record, Wrong, hidden
from simulators.run import Simulation
from tests.peers.brokers import Mosquitto
from tests.peers.process import free_port
from tests.rig import Device, Plant, agent, data_center, until

SEED = 11
S = 1_000_000_000


def devices() -> list[Device]:
    press = [f"temp{at},ir:{2 * at},float32" for at in range(8)] + [f"count{at},hr:{2 * at},uint32" for at in range(4)]
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

    simulation, task = asyncio.run_coroutine_threadsafe(start(), loop).result(20)

    async def stop() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await simulation.stop()

    try:
        yield simulation, loop
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
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

    asyncio.run_coroutine_threadsafe(begin(), loop).result(10)
    time.sleep(seconds)  # not for luck: this is how long the fault lasts
    asyncio.run_coroutine_threadsafe(end(), loop).result(10)


ROUNDS: list[dict[str, Ill]] = [
    {"press": Ill(Wrong.AWAY), "gauge": Ill(Wrong.GARBLED), "oven": Ill(Wrong.BAD)},
    {"press": Ill(Wrong.GARBLED), "gauge": Ill(Wrong.SLOW, delay=0.3), "oven": Ill(Wrong.FROZEN)},
    {"press": Ill(Wrong.FROZEN), "gauge": Ill(Wrong.AWAY), "oven": Ill(Wrong.REBOOT)},
    {"press": Ill(Wrong.BUSY), "gauge": Ill(Wrong.EXCEPTION, code=4), "oven": Ill(Wrong.AWAY)},
]


@pytest.mark.timeout(180)
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
        with agent(tmp_path, plant, "--drain", "15") as process:
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
    assert hidden(spells, "a", 10) == [(90, 120), (120, 2**63 - 1)]
    assert hidden(spells, "b", 10) == [], "a slow device hides nothing"


def test_moods_overlap_and_are_taken_back_one_by_one() -> None:
    mood = Mood("press")
    first, second = Ill(Wrong.SLOW, delay=0.1), Ill(Wrong.SLOW, delay=0.3)
    mood.begin(first, 1)
    mood.begin(second, 2)
    assert (mood.delay, mood.kinds) == (0.3, (Wrong.SLOW,))
    mood.end(second)
    assert mood.delay == 0.1
    some = Ill(Wrong.EXCEPTION, code=2, addresses=(Span.parse("hr:10-19"),))
    mood.begin(some, 3)
    asked = [(ModbusTable.HR, 0, 10), (ModbusTable.HR, 0, 11), (ModbusTable.HR, 19, 5), (ModbusTable.IR, 12, 1)]
    assert [mood.refusal(*each) for each in asked] == [None, 2, 2, None]
    mood.end(first)
    mood.end(some)
    assert not mood
