"""An exported file is a way out like an uplink: what may not leave stays in the outbox, and is counted and recorded."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from agent import _native, config, export
from agent.errors import OutboxFull
from agent.gate import Gate
from agent.model import Tag, ValueType
from agent.outbox import Outbox
from agent.policy import Policy
from agent.split import Split
from agent.wire import Catalog, CatalogTag, epoch_of
from tests import test_outbox_command as outbox_command
from tests.rig import headrace
from tests.test_outbox import MEBIBYTE, opened

pytestmark = pytest.mark.timeout(180)  # programs start, and the machine may be busy

NAMES = ("temp", "count", "recipe")
SECRET = "88.118.8/press1.recipe"
CONFIG = f"""{outbox_command.CONFIG}
[uplink]
url = "mqtts://127.0.0.1:8883"
[[device]]
name = "press1"
protocol = "modbus"
url = "tcp://127.0.0.1:5020"
tags = "press1.csv"
"""
ROWS = "name,address,type,level,domain\ntemp,hr:0,float64,1,\ncount,hr:4,float64,2,\nrecipe,hr:8,float64,3,rd\n"
ALLOW = '[egress]\ndefault = "deny"\n[[egress.rule]]\naction = "allow"\n'
DENY = '[egress]\n[[egress.rule]]\naction = "deny"\n'


def plant(home: Path, egress: str = "") -> Path:
    (home / "press1.csv").write_text(ROWS)
    path = home / "plant.toml"
    path.write_text(CONFIG + egress)
    return path


def tag(index: int) -> CatalogTag:
    name, domain = NAMES[index], "rd" if index == 2 else ""
    return CatalogTag(index, "press1", name, f"88.118.8/press1.{name}", "float64", level=index + 1, domain=domain)


WHOLE = Catalog("press-shop-1", tuple(map(tag, range(3)))).encode()
EPOCH = epoch_of(WHOLE)
SPECS = [Tag(at, "press1", name, "", ValueType.FLOAT64, "") for at, name in enumerate(NAMES)]


async def fill(outbox: Outbox, *blocks: set[int], epoch: int = EPOCH) -> None:
    """A block for each set of tags, with a reading of each."""
    await outbox.keep_catalog(EPOCH, WHOLE)
    for tags in blocks:
        buffer = _native.Buffer(SPECS)
        buffer.push([(at, 1_000_000_000 * outbox.next_sequence, float(at), 0) for at in sorted(tags)])
        block = buffer.seal(stream=outbox.stream.bytes, sequence=outbox.next_sequence, epoch=epoch)
        assert block is not None
        await outbox.append(block, epoch)


async def run(*arguments: object, code: int = 0) -> Any:
    done = await asyncio.to_thread(headrace, *map(str, arguments), "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if done.stdout else done.stderr


def places(file: Path) -> list[int]:
    with file.open("rb") as opened:
        return [_native.header(item).sequence for item in export.items(opened) if not item.startswith(b"{")]


async def test_what_may_not_leave_is_held_back_counted_recorded_and_not_confirmed(tmp_path: Path) -> None:
    made = plant(tmp_path, DENY + "levels = [3]\n")
    file = tmp_path / "out.hdrx"
    async with opened(tmp_path / "agent" / "outbox.db") as outbox:
        await fill(outbox, {0}, {1}, {2}, {0, 1}, {0, 2}, {0})
        wrote = await run("outbox", "export", made, file)  # while an agent has it
    assert (wrote["blocks"], wrote["readings"]) == (4, 5)
    assert wrote["held_back"] == {"blocks": 2, "readings": 3, "why": {"rule 1": 2}}
    assert places(file) == [1, 2, 4, 6]
    # Neither its readings nor its name: the catalog in the file is of what may leave.
    assert b"recipe" not in file.read_bytes()
    file.unlink()
    assert (await run("outbox", "export", made, file, "--confirm"))["confirmed"]
    status = await run("outbox", "status", made)
    assert status["readings"] == 3
    async with opened(tmp_path / "agent" / "outbox.db") as outbox:
        left = [entry.sequence for entry in await outbox.peek(0, 100, MEBIBYTE) if not entry.gap]
    assert left == [3, 5]
    brought = await run("outbox", "import", file, made)
    assert (brought["stored"], brought["quarantined"], brought["parked"]) == (4, 0, 0)
    (report,) = (await run("audit", "verify", made))["ledgers"]
    assert (report["ledger"], report["records"], report["sound"]) == ("export", 4, True)
    records = [
        json.loads(line)
        for each in (tmp_path / "agent" / "audit").glob("export-*.jsonl")
        for line in each.read_text().splitlines()
    ]
    assert [(record["kind"], record["blocks"]) for record in records] == 2 * [("exported", 4), ("withheld", 2)]
    assert records[1]["why"] == {"rule 1": 2}
    assert records[0]["file"] == str(file)


@pytest.mark.parametrize(
    ("egress", "goes"),
    [
        ("", [1, 2, 3]),
        (DENY + 'domains = ["rd"]\n', [1, 2]),
        (DENY + f'identifiers = ["{SECRET}"]\nuplinks = ["main"]\n', [1, 2]),
        (DENY + 'levels = [2]\nuplinks = ["export"]\n', [1, 3]),
        (DENY + 'levels = [2]\nuplinks = ["level3"]\n', [1, 2, 3]),
        # A file has no TLS; the uplink's own does not help it.
        ("[egress]\ntls_from_level = 2\n", [1]),
        (ALLOW + "levels = [1, 2]\n", [1, 2]),
        (
            ALLOW + 'uplinks = ["main"]\n[[egress.rule]]\naction = "allow"\nlevels = [1]\n',
            [1],
        ),
        # Only who names the way opens it.
        ('[egress]\ntls_from_level = 2\n[[egress.rule]]\naction = "allow"\nlevels = [2, 3]\n', [1]),
        (
            '[egress]\ntls_from_level = 2\n[[egress.rule]]\naction = "allow"\nlevels = [2]\nuplinks = ["export"]\n',
            [1, 2],
        ),
        (DENY + 'levels = [3]\n[[egress.rule]]\naction = "allow"\nuplinks = ["export"]\n', [1, 2]),
        (
            DENY + 'levels = [3]\nuplinks = ["main"]\n[[egress.rule]]\naction = "allow"\nuplinks = ["export"]\n',
            [1, 2, 3],
        ),
        ('[egress]\nlevel3 = { url = "mqtt://127.0.0.1:1884" }\n', [1, 2]),
    ],
)
def test_which_rules_hold_for_a_file(tmp_path: Path, egress: str, goes: list[int]) -> None:
    found = config.load(plant(tmp_path, egress))
    policy = Policy(found.egress, found.uplink)
    tags = list(map(tag, range(3)))
    assert [each.level for each in tags if not policy.export_refusal(each, "main")] == goes
    # What is sealed from now on never shares a block with what a file may not hold.
    parts = Split.of(Catalog("press-shop-1", tuple(tags)), policy)
    sealed = [each.level for each in tags if policy.way(each).uplink == "main"]
    assert [each.level for each in parts.parts if each.way.uplink == "main" and each.way.portable] == [
        level for level in goes if level in sealed
    ]
    assert all(_portable(policy, parts, each) for each in parts.parts if each.way.uplink == "main")


def _portable(policy: Policy, split: Split, group: Any) -> bool:
    number = group.number or 0
    tags = [each for each, of in zip(split.catalog.tags, split.groups, strict=True) if of == number]
    return all(bool(policy.export_refusal(each, "main")) != group.way.portable for each in tags)


async def test_the_outbox_of_level_3_is_exported_by_its_name(tmp_path: Path) -> None:
    level3 = '[egress]\nlevel3 = { url = "mqtt://127.0.0.1:1884" }\n'
    made = plant(tmp_path, level3)
    async with opened(tmp_path / "agent" / "level3" / "outbox.db") as outbox:
        await fill(outbox, {2}, {2}, {0})
    wrote = await run("outbox", "export", made, tmp_path / "out.hdrx", "--uplink", "level3")
    assert wrote["held_back"] == {"blocks": 1, "readings": 1, "why": {"not for the uplink level3": 1}}
    assert (await run("outbox", "status", made, "--uplink", "level3"))["entries"] == 3
    made = plant(tmp_path)
    assert "has no uplink level3" in await run("outbox", "status", made, "--uplink", "level3", code=2)


async def test_a_file_that_was_set_aside_is_asked_about_too(tmp_path: Path) -> None:
    made = plant(tmp_path, DENY + "levels = [3]\n")
    path = tmp_path / "agent" / "outbox.db"
    aside = path.with_name("outbox.db.corrupt-1")
    async with opened(path) as outbox:
        await fill(outbox, {0}, {2})
        await fill(outbox, {1}, epoch=77)
    damaged = bytearray(path.read_bytes())
    damaged[:100] = bytes(100)
    aside.write_bytes(damaged)
    path.unlink()
    wrote = await run("outbox", "export", made, tmp_path / "out.hdrx", "--file", aside)
    unknown = "the catalog is unknown, and so is what may leave"
    assert wrote["held_back"] == {"blocks": 2, "readings": 2, "why": {"rule 1": 1, unknown: 1}}
    assert places(tmp_path / "out.hdrx") == [1]
    # Without a policy that could forbid anything nobody has to know what it is.
    made = plant(tmp_path)
    assert (await run("outbox", "export", made, tmp_path / "all.hdrx", "--file", aside))["blocks"] == 3


async def gate(path: Path, policy: Policy, catalog: Catalog) -> Gate:
    outbox = await Gate.open(path, max_bytes=64 * MEBIBYTE, when_full="drop_oldest")
    assert isinstance(outbox, Gate)
    outbox.admit("main", policy, Split.of(catalog, policy))
    return outbox


async def test_a_correction_passes_whatever_its_epoch_held(tmp_path: Path) -> None:
    found = config.load(plant(tmp_path, DENY + "levels = [3]\n"))
    policy = Policy(found.egress, found.uplink)
    outbox = await gate(tmp_path / "outbox.db", policy, found.catalog())
    try:
        await fill(outbox, {0, 2})
        of = {"stream": outbox.stream.bytes, "corrected": outbox.stream.bytes, "epoch": EPOCH}
        block = _native.correction(**of, sequence=2, first=1, last=1, offset_ns=10**9, sealed_ns=1)  # type: ignore[arg-type]
        await outbox.append(block, EPOCH)
        first, second = await outbox.peek(0, 10, MEBIBYTE)
        assert (first.readings, _native.header(second.body).kind) == (1, "correction")
    finally:
        await outbox.close()


async def test_a_policy_that_changes_while_blocks_are_judged_holds_for_them(tmp_path: Path) -> None:
    found = config.load(plant(tmp_path, DENY + "levels = [3]\n"))
    strict = Policy(found.egress, found.uplink)
    free = Policy(None, found.uplink)
    outbox = await gate(tmp_path / "outbox.db", free, found.catalog())
    try:
        await fill(outbox, {0, 2}, {2})
        for _ in range(50):
            outbox.admit("main", free, Split.of(found.catalog(), free))
            task = asyncio.create_task(outbox.peek(0, 10, MEBIBYTE))
            await asyncio.sleep(0.0005)  # somewhere in the middle, as a reload comes
            outbox.admit("main", strict, Split.of(found.catalog(), strict))
            was_done = task.done()
            entries = await task
            assert was_done or [(entry.readings, entry.gap) for entry in entries] == [(1, False), (1, True)]
    finally:
        await outbox.close()


async def test_a_catalog_that_can_not_be_read_now_withholds_nothing_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = config.load(plant(tmp_path, DENY + "levels = [3]\n"))
    outbox = await gate(tmp_path / "outbox.db", Policy(found.egress, found.uplink), found.catalog())

    async def failing(epoch: int) -> bytes:
        raise OutboxFull(f"the disk does not give back the catalog of {epoch}")

    try:
        await fill(outbox, {0}, {1})
        with monkeypatch.context() as broken:
            broken.setattr(outbox._contents, "catalog", failing)
            assert await outbox.peek(0, 10, MEBIBYTE) == []
        assert [entry.gap for entry in await outbox.peek(0, 10, MEBIBYTE)] == [False, False]
        # Where it is gone for good its blocks can't leave, and somebody is told.
        await fill(outbox, {0}, epoch=77)
        assert [entry.gap for entry in await outbox.peek(0, 10, MEBIBYTE)] == [False, False, True]
        (told,) = [each for each in caplog.records if each.levelname == "ERROR"]
        assert told.__dict__["epoch"] == f"{77:016x}"
    finally:
        await outbox.close()
