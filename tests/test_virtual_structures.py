"""Tags that are fields of structures, on virtual OPC UA servers: what foreign clients read, and a verified run."""

from __future__ import annotations

import asyncio
import base64
import csv
import io
import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua

from simulators.mood import Ill, Wrong
from simulators.opcua_structures import VARIANTS
from simulators.oracle import Oracle
from tests.peers.brokers import Mosquitto
from tests.peers.process import free_port
from tests.rig import Device, Plant, agent, data_center, headrace, simulator, until
from tests.test_simulators import patient
from tests.test_simulators import until as soon
from tests.test_virtual_opcua import SPACE, TYPES, S, at, node_opcua, plainly, served, written

pytestmark = pytest.mark.timeout(180)
"""Programs start and end here again and again; each takes seconds where others keep the machine busy."""

ROWS = [
    f"speed,nsu={SPACE};s=Machine#Speed,float32,rpm,,,,",
    f"x,nsu={SPACE};s=Machine#Position.X,float64,mm,0,500,,",
    f"count,nsu={SPACE};s=Machine#Parts.Count,uint32,pcs,,,,",
    f"y,nsu={SPACE};s=Machine#Position.Y,int16,mm,0,500,0.1,-5",
    f"deep,nsu={SPACE};s=Machine#Position.Far.Away.Bit,bool,,,,,",
    f"batch,nsu={SPACE};s=Machine#Batch,string,,,,,",
    f"list,nsu={SPACE};s=Machine#Counts,uint16[],,,,,",
    f"whole,nsu={SPACE};s=A,float32,,,,,",
    f"seven,nsu={SPACE};i=7#Speed,float32,,,,,",
    f"odd,nsu={SPACE};s=Hall##1#Speed,int64,,,,,",
]


async def test_node_opcua_and_asyncua_decode_the_structures_that_tags_make(tmp_path: Path) -> None:
    start = now = 1_760_000_000 * S
    rows = ROWS[:-1] + [f"t{n},nsu={SPACE};s=All#{kind},{kind},,,,," for n, kind in enumerate(TYPES)]
    rows += [f"a{n},nsu={SPACE};s=All#Many.{kind},{kind}[],,,,," for n, kind in enumerate(TYPES) if kind != "bytes"]
    found = written(tmp_path, rows)
    async with served(found, lambda: now) as simulation:
        now = start + 90 * S
        await soon(lambda: all(each._due[0][0] > now for _, each in simulation._opcua))
        answers = await node_opcua(found.devices[0].url, [tag.address for tag in found.tags])
        oracle = Oracle(simulation.plant, found)
        for tag, answer in zip(found.tags, answers, strict=True):
            assert answer["type"] == VARIANTS[tag.type.element].name
            values = [(answer["time"], answer["value"]), *((each["time"], each["value"]) for each in answer["history"])]
            for at_ms, shown in values:
                wanted = simulation.plant.raw(tag, at_ms * 1_000_000)
                each = wanted if isinstance(wanted, tuple) else (wanted,)
                assert [plainly(one, tag.type.element) for one in each] == (shown if tag.type.is_array else [shown])
            last = answer["time"] * 1_000_000
            changes = oracle.expected_changes(tag, max(start, last - 60 * S) - 1, last + 1)
            assert changes
            assert set(changes) <= {each["time"] * 1_000_000 for each in answer["history"]}
        structured = [tag for tag in found.tags if "#" in tag.address]
        told = await asyncua_reads(found.devices[0].url, [tag.address.partition(";")[2] for tag in structured])
        for tag, answer in zip(structured, told, strict=True):
            raw = simulation.plant.raw(tag, answer["time"] * 1_000_000)
            plain = base64.b64encode(raw).decode() if isinstance(raw, bytes) else raw
            assert answer["value"] == (list(plain) if isinstance(plain, tuple) else plain), tag
        assert {answer["kind"] for answer in told} == {"MachineType", "7Type", "AllType"}


async def asyncua_reads(url: str, names: list[str]) -> list[dict[str, Any]]:
    """With a client in a process of its own: asyncua has one set of types in a process."""
    script = Path(__file__).parent / "peers" / "asyncua_client.py"
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, str(script), url, SPACE, stdin=pipe, stdout=pipe)
    async with asyncio.timeout(40):
        output, _ = await process.communicate(json.dumps(names).encode())
    assert process.returncode == 0
    found: list[dict[str, Any]] = json.loads(output)
    return found


async def test_a_structure_is_bad_and_frozen_as_a_whole(tmp_path: Path) -> None:
    now = 1_760_000_000 * S
    found = written(tmp_path, ROWS[:4])
    async with served(found, lambda: now) as simulation, patient(found.devices[0].url) as client:
        space = await client.get_namespace_index(SPACE)
        node = client.get_node(f"ns={space};s=Machine")

        async def passed() -> ua.DataValue:
            nonlocal now
            now += 10 * S
            await soon(lambda: all(each._due[0][0] > now for _, each in simulation._opcua))
            return await node.read_data_value(raise_on_bad_status=False)

        first = await passed()
        bad = simulation.act("oven", Ill(Wrong.BAD))
        await bad.begin()
        seen = await passed()
        assert seen.StatusCode is not None
        assert seen.StatusCode.is_bad()
        assert seen.Value is None or seen.Value.Value is None
        await bad.end()
        frozen = simulation.act("oven", Ill(Wrong.FROZEN))
        again = await passed()
        await frozen.begin()
        still = await passed()
        assert at(first) < at(again) == at(still)


def test_what_can_be_no_field_is_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        f"speed,nsu={SPACE};s=Machine#Speed,float32,,,,,",
        f"same,nsu={SPACE};s=Machine#Speed,float32,,,,,",
        f"other,nsu={SPACE};s=Machine#Speed,int16,,,,,",
        f"below,nsu={SPACE};s=Machine#Speed.X,int16,,,,,",
        f"part,nsu={SPACE};s=Node#Speed,float32,,,,,",
        f"node,nsu={SPACE};s=Node,float32,,,,,",
        "state,i=2256#State,int32,,,,,",
    ]
    found = written(tmp_path, rows)

    async def work() -> None:
        async with served(found) as simulation, patient(found.devices[0].url) as client:
            one, same = found.tags[:2]
            assert simulation.plant.raw(one, 5 * S) == simulation.plant.raw(same, 5 * S)
            assert isinstance(await client.get_node("i=2256").read_value(), ua.ServerStatusDataType)

    with caplog.at_level(logging.WARNING, "headrace.simulators"):
        asyncio.run(work())
    [told] = [each for each in caplog.records if getattr(each, "event", "") == "tags_overlap"]
    assert told.__dict__["tags"] == 4


POLLED = [f"x,nsu={SPACE};s=Machine#X,float32,,,,,", f"y,nsu={SPACE};s=Y,bool,,,,,", f"z,nsu={SPACE};s=Z,string,,,,,"]
FAULTS = """
[[fault]]
device = "oven"
kind = "clock"
offset = "-2s"
drift = 300
for = "2s"
every = "5s"
[[fault]]
device = "oven"
kind = "bad"
at = "1s"
for = "2s"
every = "5s"
[[fault]]
device = "polled"
kind = "frozen"
at = "1s"
for = "1100ms"
every = "5s"
"""


def test_a_run_with_fields_is_verified_field_by_field(tmp_path: Path) -> None:
    header = "name,address,type,unit,low,high,scale,offset"
    port = free_port()
    lines = f'protocol = "opcua"\nurl = "opc.tcp://127.0.0.1:{port}"\nsecurity = "None"\n'
    other = lines.replace(str(port), str(free_port()))
    with Mosquitto(tmp_path / "broker") as broker:
        devices = [
            Device("oven", f'{lines}publish = "100ms"', ROWS, header),
            Device("slow", f'{lines}publish = "700ms"', [f"torque,nsu={SPACE};s=Machine#Torque,float64,,,,,"], header),
            Device("polled", f'{other}mode = "poll"\npublish = "100ms"', POLLED, header),
        ]
        plant = Plant.write(tmp_path, broker.url, devices)
        (tmp_path / "faults.toml").write_text(FAULTS, encoding="utf-8")
        faults = ("--faults", str(tmp_path / "faults.toml"))
        with simulator(tmp_path, plant, 1, *faults) as simulated, data_center(tmp_path, plant):
            with agent(tmp_path, plant) as running:
                until(lambda: len(plant.readings("88.118.8/oven.deep")["readings"]) > 8, 40)
                until(lambda: len(plant.readings("88.118.8/slow.torque")["readings"]) > 8, 40)
                begun = simulated.events().count("fault_begun")
                until(lambda: simulated.events().count("fault_ended") > begun + 2, 40)
                seen = len(plant.readings("88.118.8/polled.x")["readings"])
                until(lambda: len(plant.readings("88.118.8/polled.x")["readings"]) > seen + 10, 40)
                assert "no_fields" not in running.events()
            done = headrace("verify", str(plant.path), "--json")
            browsed = headrace("browse", f"opc.tcp://127.0.0.1:{port}", "--csv", "--security", "None", timeout=50)
            assert "tags_overlap" not in simulated.events()
    found = json.loads(done.stdout)
    assert done.returncode == 0, found
    assert (found["lost"], found["duplicates"], found["wrong"]) == (0, 0, 0)
    named = {device["name"]: device["named"] for device in found["devices"]}
    assert named["oven"] > 0
    assert named["slow"] > 0, "its field is in a node of the oven's"
    types = {row["address"]: row["type"] for row in csv.DictReader(io.StringIO(browsed.stdout))}
    assert types[f"nsu={SPACE};s=Machine#Position.Far.Away.Bit"] == "bool"
    assert types[f"nsu={SPACE};s=Machine#Torque"] == "float64"
    assert types[f"nsu={SPACE};s=Hall##1#Speed"] == "int64"
