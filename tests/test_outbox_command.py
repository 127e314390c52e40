"""`headrace outbox`: status, verify, and the way over an air gap."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

from agent.model import Tag
from agent.outbox import Outbox
from agent.wire import Catalog, CatalogTag, epoch_of
from tests import outbox_rig
from tests.rig import headrace
from tests.test_outbox import block, everything, opened

pytestmark = pytest.mark.timeout(180)
"""Programs start and end here again and again; each takes seconds where others keep the machine busy."""

CONFIG = """
[agent]
id = "press-shop-1"
data_dir = "./agent"
[identifiers]
prefix = "88.118.8"
[datacenter]
store = "./store"
http = "127.0.0.1:8080"
"""


def catalog(tag: Tag = outbox_rig.TAG) -> bytes:
    return Catalog("press-shop-1", (CatalogTag(0, tag.device, tag.name, tag.identifier, tag.type.value),)).encode()


EPOCH = epoch_of(catalog())


@pytest.fixture
def plant(tmp_path: Path) -> Path:
    path = tmp_path / "plant.toml"
    path.write_text(CONFIG)
    return path


async def append(outbox: Outbox, count: int) -> None:
    await outbox.keep_catalog(EPOCH, catalog())
    for _ in range(count):
        await outbox.append(block(outbox, 50, epoch=EPOCH), EPOCH)


async def run(*arguments: object, code: int = 0) -> Any:
    done = await asyncio.to_thread(headrace, "outbox", *map(str, arguments), "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if done.stdout else done.stderr


def stored(home: Path) -> list[tuple[int, int]]:
    with duckdb.connect(str(home / "store" / "headrace.duckdb"), read_only=True) as db:
        return db.execute("SELECT sequence, readings FROM blocks ORDER BY ALL").fetchall()


async def test_over_an_air_gap(plant: Path) -> None:
    home = plant.parent
    async with opened(home / "agent" / "outbox.db") as outbox:
        await append(outbox, 130)
        # While an agent has it: read, and not disturbed.
        facts = await run("status", plant)
        assert facts["in_use"]
        assert (facts["entries"], facts["readings"], facts["next_sequence"]) == (130, 6500, 131)
        assert facts["stream"] == str(outbox.stream)
        assert (await run("verify", plant))["blocks"] == 130
        wrote = await run("export", plant, home / "first.hdrx")
        assert (wrote["blocks"], wrote["readings"], wrote["catalogs"], wrote["confirmed"]) == (130, 6500, 1, False)
        refused = await run("export", plant, home / "second.hdrx", "--confirm", code=1)
        assert "in use by process" in refused
        assert not (home / "second.hdrx").exists()
        await append(outbox, 5)
    wrote = await run("export", plant, home / "second.hdrx", "--confirm")
    assert (wrote["blocks"], wrote["confirmed"]) == (135, True)
    assert (await run("status", plant))["entries"] == 0
    assert "exists" in await run("export", plant, home / "second.hdrx", code=1)
    brought = await run("import", home / "first.hdrx", plant)
    assert (brought["stored"], brought["duplicates"], brought["whole"]) == (130, 0, True)
    brought = await run("import", home / "second.hdrx", plant)
    assert (brought["stored"], brought["duplicates"], brought["quarantined"]) == (5, 130, 0)
    assert stored(home) == [(at, 50) for at in range(1, 136)]
    done = await asyncio.to_thread(headrace, "decode", str(home / "second.hdrx"), "--header", "--json")
    assert done.returncode == 0, done.stderr


async def test_damaged_files_bring_what_they_still_hold(plant: Path) -> None:
    home = plant.parent
    path = home / "agent" / "outbox.db"
    async with opened(path) as outbox:
        await append(outbox, 20)
    await run("export", plant, home / "whole.hdrx")
    content = (home / "whole.hdrx").read_bytes()
    (home / "short.hdrx").write_bytes(content[: len(content) * 3 // 4])
    short = await run("import", home / "short.hdrx", plant, code=1)
    assert not short["whole"]
    assert 10 < short["stored"] < 20
    spoilt = bytearray(content)
    spoilt[len(content) // 2] ^= 1
    (home / "spoilt.hdrx").write_bytes(spoilt)
    brought = await run("import", home / "spoilt.hdrx", plant, code=1)
    assert brought["quarantined"] == 1
    assert (await run("import", home / "whole.hdrx", plant))["quarantined"] == 0
    assert [at for at, _ in stored(home)] == list(range(1, 21))

    damaged = bytearray(path.read_bytes())
    damaged[:100] = bytes(100)
    (path.parent / "outbox.db.corrupt-1").write_bytes(damaged)
    wrote = await run("export", plant, home / "saved.hdrx", "--file", path.parent / "outbox.db.corrupt-1")
    assert (wrote["blocks"], wrote["catalogs"]) == (20, 1)
    assert (await run("import", home / "saved.hdrx", plant))["duplicates"] == 20


async def test_verify_finds_what_is_wrong(plant: Path) -> None:
    path = plant.parent / "agent" / "outbox.db"
    async with opened(path) as outbox:
        await append(outbox, 20)
    assert (await run("verify", plant))["ok"]
    with closing(sqlite3.connect(path)) as db:
        db.execute("DELETE FROM entry WHERE sequence = 7")
        spoilt = "CAST(substr(body, 1, 200) || x'00' || substr(body, 202) AS BLOB)"
        db.execute(f"UPDATE entry SET body = {spoilt} WHERE sequence = 9")
        db.commit()
    found = await run("verify", plant, code=1)
    assert found["problems"] == ["places 7 to 7 are missing", "block 9 is not what was stored", *found["problems"][2:]]
    # The agent finds the same, puts gaps there, and goes on.
    async with opened(path) as outbox:
        entries = await everything(outbox)
        assert [entry.sequence for entry in entries if entry.gap] == [7, 9]
        assert entries[-1].last == 20
    assert (await run("verify", plant))["ok"]


async def test_says_what_to_do(plant: Path) -> None:
    assert "there is no outbox here" in await run("status", plant, code=1)
    no_center = plant.with_name("agent.toml")
    no_center.write_text(CONFIG.partition("[datacenter]")[0])
    (plant.parent / "x.hdrx").write_bytes(b"something else")
    assert "no [datacenter]" in await run("import", plant.parent / "x.hdrx", no_center, code=2)
    assert "not an exported file" in await run("import", plant.parent / "x.hdrx", plant, code=1)
