"""Fields of structures as tags, decoded by the server's own definitions: one monitored item for a node.

Against servers made with asyncua (a type of its own, nested, with an enumeration and an array) and with node-opcua (the
standard's ServerStatusDataType).
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.model import ValueType
from agent.taglist import read
from tests.opcua_collector import Rig, node, running, until
from tests.peers.servers import AsyncuaPlant, NodeOpcUaServer
from tests.rig import headrace

pytestmark = pytest.mark.timeout(180)
"""Programs start and end here again and again; each takes seconds where others keep the machine busy."""

BAD_NO_MATCH, MISTYPED = 0x806F0000, 0x80740000
STATUS = "i=2256"


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsyncuaPlant]:
    with AsyncuaPlant(tmp_path_factory.mktemp("asyncua")) as running:
        yield running


MACHINE = {
    "Machine#Speed": (ValueType.FLOAT32, 12.5),
    "Machine#Position.X": (ValueType.FLOAT64, 0.25),
    "Machine#Position.Y": (ValueType.FLOAT32, -1.5),
    "Machine#Mode": (ValueType.INT32, 2),
    "Machine#Counts": (ValueType.UINT32_ARRAY, [1, 2, 3]),
    "Machine#Name": (ValueType.STRING, "press 7"),
    "Machine#Started": (ValueType.INT64, 1767225600_000_000_000),
    "Limits#Low": (ValueType.FLOAT64, -10.5),
    "Limits#High": (ValueType.FLOAT64, 400.0),
}


@pytest.mark.parametrize("mode", ["subscribe", "poll"])
async def test_the_fields_of_a_type_of_the_servers_own(plant: AsyncuaPlant, mode: str) -> None:
    rig = Rig(plant.url, *(node(name, kind) for name, (kind, _) in MACHINE.items()), mode=mode)

    async def work() -> None:
        await until(lambda: all(rig.of(tag) for tag in range(len(MACHINE))), 40)
        for tag, (_, value) in enumerate(MACHINE.values()):
            assert rig.of(tag)[0] == (value, 0)
        assert rig.intake.buffer.stats()["mistyped"] == 0
        assert rig.collector.counters["bad_nodes"] == 0

    await running(rig, work)


async def test_a_field_that_is_none_is_one_bad_tag(plant: AsyncuaPlant, caplog: pytest.LogCaptureFixture) -> None:
    kind = ValueType.FLOAT32
    names = ("Machine#Speed", "Machine#Torque", "Machine#Position", "Machine#Speed.X", "Counter#Speed", "Machine#Name")
    rig = Rig(plant.url, *(node(name, kind) for name in names))

    async def work() -> None:
        await until(lambda: all(rig.of(tag) for tag in range(len(names))), 40)
        assert [rig.of(tag)[0] for tag in range(5)] == [(12.5, 0), *[(None, BAD_NO_MATCH)] * 4]
        assert rig.of(5)[0] == (None, MISTYPED)

    with caplog.at_level(logging.WARNING, "headrace.collector"):
        await running(rig, work)
    [told] = [each.getMessage() for each in caplog.records if getattr(each, "event", "") == "no_fields"]
    assert "t1 (#Torque): its structure has no such field" in told
    assert "t4 (#Speed): its type is no structure" in told


async def test_the_fields_of_a_standard_type_on_another_stack(tmp_path: Path) -> None:
    fields = {
        "#State": ValueType.INT32,
        "#BuildInfo.ProductName": ValueType.STRING,
        "#StartTime": ValueType.INT64,
        "#CurrentTime": ValueType.INT64,
    }
    with NodeOpcUaServer(tmp_path / "server") as server:
        rig = Rig(server.url, *((f"{STATUS}{name}", kind, "") for name, kind in fields.items()))

        async def work() -> None:
            await until(lambda: len(rig.of(3)) >= 3, 40)
            assert rig.of(0)[0] == (0, 0)
            assert rig.of(1)[0] == ("NodeOPCUA-Server", 0)
            times = [value for value, _ in rig.of(3) if isinstance(value, int)]
            began = rig.of(2)[0][0]
            assert isinstance(began, int)
            assert all(began <= each for each in times)
            assert times == sorted(times)

        await running(rig, work)
        again = Rig(server.url, *((f"{STATUS}{name}", kind, "") for name, kind in fields.items()))
        again.intake.restore(rig.intake._marks)  # as after a restart

        async def more() -> None:
            await until(lambda: len(again.of(3)) >= 2, 40)
            assert again.collector.counters["resumed"] == 1
            assert {quality for _, quality in again.of(3)} == {0}

        await running(again, more)


def test_browse_lists_fields_as_tags(plant: AsyncuaPlant, tmp_path: Path) -> None:
    done = headrace("browse", plant.url, "--csv", "--security", "None", timeout=50)
    assert done.returncode == 0, done.stderr
    rows = {row["address"]: row for row in csv.DictReader(io.StringIO(done.stdout))}
    found = {
        address.partition(";s=")[2]: row["type"] for address, row in rows.items() if "#" in address and ";s=" in address
    }
    assert found == {
        "Machine#Speed": "float32",
        "Machine#Position.X": "float64",
        "Machine#Position.Y": "float32",
        "Machine#Mode": "int32",
        "Machine#Name": "string",
        "Limits#Low": "float64",
        "Limits#High": "float64",
    }
    path = tmp_path / "tags.csv"
    path.write_text(done.stdout)
    assert read(path, "opcua").problems == []
