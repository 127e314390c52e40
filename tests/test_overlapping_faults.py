"""Faults that overlap, or that devices have together: what is shown then, and what its judge makes of it."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from agent import config
from simulators.mood import Ill, Wrong
from simulators.oracle import Oracle
from simulators.run import Simulation
from tests.peers.process import free_port
from tests.rig import Device, Plant
from tests.test_simulators import patient, until
from tests.test_virtual_opcua import SPACE, S, at, served, written


async def test_faults_that_overlap_are_judged_together(tmp_path: Path) -> None:
    """Two wrong clocks add up, and a device that stands still twice shows what it had at first."""
    now = 1_760_000_000 * S
    found = written(tmp_path, [f"x,nsu={SPACE};s=x,float64,,,,,", f"on,nsu={SPACE};s=on,bool,,,,,"])
    async with served(found, lambda: now) as simulation:
        [(_, server)] = simulation._opcua
        acts = [
            simulation.act("oven", Ill(Wrong.CLOCK, offset=-7.0, drift=500.0)),
            simulation.act("oven", Ill(Wrong.CLOCK, offset=3.5, drift=-20_000.0)),
            simulation.act("oven", Ill(Wrong.CLOCK, offset=0.125)),
            simulation.act("oven", Ill(Wrong.FROZEN)),
            simulation.act("oven", Ill(Wrong.FROZEN)),
        ]
        seen: list[tuple[Any, int, Any]] = []
        polled: list[tuple[Any, int, Any]] = []

        def written_up() -> bool:
            return server._due[0][0] > now

        async def passed(seconds: int) -> None:
            nonlocal now
            for _ in range(seconds * 4):
                now += S // 4
                await until(written_up)
                for node in server._by_id.values():
                    seen.append((node.tag, at(node.shown), node.raw))
                    polled.append((node.tag, now, node.raw))

        await passed(2)
        for act in acts:
            await act.begin()
            await passed(3)
        for act in acts:
            await act.end()
            await passed(3)
    oracle = Oracle(simulation.plant, found, simulation.record.spells())
    assert [each for each in seen if oracle.wrong(*each, 0)] == []
    assert [each for each in polled if oracle.wrong(*each, 0)] == []
    tag, time_ns, value = seen[-40]
    assert oracle.wrong(tag, time_ns, not value if isinstance(value, bool) else value + 1, 0)


async def test_two_devices_that_are_one_modbus_unit_have_its_faults_together(tmp_path: Path) -> None:
    now = 1_760_000_000 * S
    lines = f'protocol = "modbus"\nurl = "tcp://127.0.0.1:{free_port()}"\nunit = 3\ntimeout = "10ms"'
    rows = {"fast": ["a,hr:0,float64,ABCD"], "slow": ["b,hr:4,float64,ABCD"]}
    devices = [Device(name, lines, each) for name, each in rows.items()]
    found = config.load(Plant.write(tmp_path, "mqtt://127.0.0.1:1883", devices).path)
    simulation = Simulation(found, 5, lambda: now)
    home = simulation._homes["slow"]
    assert isinstance(home, tuple)
    frozen = simulation.act("fast", Ill(Wrong.FROZEN))
    read = []
    for second in range(20):
        now += S
        if second == 5:
            await frozen.begin()
        elif second == 15:
            await frozen.end()
        answer = home[0].units.answer(3, bytes([3, 0, 0, 0, 8]))
        values = struct.unpack(">2d", answer[2:])
        read += [(tag, now, value) for tag, value in zip(found.tags, values, strict=True)]
    oracle = Oracle(simulation.plant, found, simulation.record.spells())
    assert [each for each in read if oracle.wrong(*each, 0)] == []
    blind = Oracle(simulation.plant, found)
    assert {tag.name for tag, at, value in read if blind.wrong(tag, at, value, 0)} == {"a", "b"}


async def test_a_reboot_while_the_server_is_away_changes_its_namespaces(tmp_path: Path) -> None:
    found = written(tmp_path, [f"x,nsu={SPACE};s=x,float64,,,,,", "y,nsu=urn:other;s=y,float64,,,,,"])

    async def places() -> list[int]:
        async with patient(found.devices[0].url) as client:
            return [await client.get_namespace_index(each) for each in (SPACE, "urn:other")]

    async with served(found) as simulation:
        [(_, server)] = simulation._opcua
        before = await places()
        for turned in (True, False):
            away, reboot = (simulation.act("oven", Ill(kind)) for kind in (Wrong.AWAY, Wrong.REBOOT))
            await away.begin()
            await until(lambda: server._server is None)
            await reboot.begin()
            await until(lambda: server._rebooted)
            await away.end()
            await reboot.end()
            await until(lambda: server._server is not None and not server._gone)
            assert (await places() != before) is turned
