"""Long tag lists: what rows share is checked once and means the same, and a tag takes little memory."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path
from uuid import uuid4

import orjson
import pytest

from agent import envelope, taglist
from agent.config import load
from agent.model import Tag, ValueType
from agent.policy import MAIN, Policy
from agent.split import Split
from agent.tables import Uplink
from agent.wire import Catalog, CatalogTag, epoch_of
from tests.datacenter_rig import AGENT, BEGIN, Rig, block
from tests.test_config import write

COLUMNS = ("name", "address", "type", "order", "unit", "scale", "low", "high", "filter", "identifier", "description")
CELLS = {
    "modbus": {
        "address": ["hr:{n}", "ir:{n}", "co:{n}", "hr:{n}.3", "hr:{n}.h", "4{n:05}", "hr:70000", "nsu=x;i=1", ""],
        "type": ["float32", "bool", "uint8", "string[16]", "int16", "real", ""],
    },
    "opcua": {
        "address": ["nsu=urn:x;i={n}", "ns=2;s=a{n}", "i={n}", "path=/Objects/2:A{n}", "hr:1", "ns=2;s=", ""],
        "type": ["float32", "bool", "string", "float64[]", "string[16]", "real", ""],
    },
}
COMMON = {
    "name": ["a{n}", "a{n}", "a{n}", "same", "a b", ""],
    "order": ["", "", "CDAB", "x"],
    "unit": ["", "°C", "bar\t"],
    "scale": ["", "", "0.1", "0"],
    "low": ["", "", "0"],
    "high": ["", "", "400", "-1"],
    "filter": ["", "", "on_change", "deadband=2%", "deadband=x"],
    "identifier": ["", "", "88.1/x{n}", "x" * 300],
    "description": ["", "die  temperature {n}", "y" * 2000],
}


@pytest.mark.parametrize("protocol", ["modbus", "opcua"])
def test_a_row_like_another_is_checked_as_if_it_were_alone(
    tmp_path: Path, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    cells = {**COMMON, **CELLS[protocol]}
    path = tmp_path / "tags.csv"
    shared = 0
    for _ in range(25):
        columns = ["name", "address", "type", *chance.sample(COLUMNS[3:], chance.randrange(len(COLUMNS) - 2))]
        chance.shuffle(columns)
        # Mostly the first of the cells, so that many rows are good and like each other.
        rows = [
            [chance.choice(cells[column][: chance.choice((1, 1, 1, 3, 9))]).format(n=number) for column in columns]
            for number in range(60)
        ]
        ragged = [row[: chance.choice((len(row), len(row), 2))] + [""] * chance.choice((0, 0, 3)) for row in rows]
        path.write_text("\n".join(",".join(row) for row in [columns, *ragged]), encoding="utf-8")
        found = taglist.read(path, protocol)
        with monkeypatch.context() as alone:
            alone.setattr(taglist._Check, "like_another", lambda *_: None)
            wanted = taglist.read(path, protocol)
        assert found == wanted
        shared += len(found.rows) - len({id(row.traits) for row in found.rows})
    assert shared > 100


def listed(count: int) -> str:
    """A tag list of an OPC UA device, with the units and limits of a plant."""
    rows = (
        f"t{at},nsu=urn:plant;s=Line{at % 7}.T{at},float32,{('bar', '°C')[at % 2]},0,{100 * (1 + at % 9)}"
        for at in range(count)
    )
    return "\n".join(["name,address,type,unit,low,high", *rows]) + "\n"


def test_a_tag_takes_little_memory(tmp_path: Path) -> None:
    count = 10_000
    path = write(tmp_path, furnace=listed(count))
    load(path)  # what is made once
    tracemalloc.start()
    try:
        config = load(path)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(config.tags) > count
    # Bytes. Measured: 470 and 616; a model for each row took 1,350 and more.
    assert kept / count < 560
    assert peak / count < 740


def catalog(count: int) -> Catalog:
    return Catalog(
        AGENT, [CatalogTag(at, "d", f"t{at}", f"88.1/d.t{at}", "float64", unit="bar") for at in range(count)]
    )


def test_a_large_catalog_goes_in_an_envelope() -> None:
    small, large = catalog(3), catalog(30_000)
    assert small.packed() == (small.encode(), epoch_of(small.encode()))
    body, epoch = large.packed()
    assert epoch == epoch_of(body) == epoch_of(large.encode())
    assert len(body) < len(large.encode()) / 8
    assert body.startswith(b"{")
    assert set(orjson.loads(body)) == {"deflated", "format"}
    assert Catalog.decode(body).encode() == envelope.opened(body) == large.encode()
    split = Split.of(large, Policy(None, Uplink()))
    assert split.bodies[MAIN] == (body, epoch)


def test_a_damaged_or_endless_envelope_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    body, _ = catalog(30_000).packed()
    for wrong in (
        body[:1000],
        body[:1000] + body[-40:],
        body[:1000] + b"A" * 100 + body[1100:],
        body.replace(b"headrace-deflated/1", b"headrace-deflated/2"),
    ):
        with pytest.raises(ValueError, match="envelope"):
            Catalog.decode(wrong)
        with pytest.raises(ValueError, match="envelope"):
            epoch_of(wrong)
    monkeypatch.setattr(envelope, "MOST", 1_000_000)
    with pytest.raises(ValueError, match="more than 1000000 bytes"):
        Catalog.decode(body)


def test_the_data_center_learns_from_an_envelope(tmp_path: Path) -> None:
    stream, (body, epoch) = uuid4(), catalog(30_000).packed()
    tags = [Tag(at, "d", f"t{at}", "hr:0", ValueType.FLOAT64, f"88.1/d.t{at}") for at in range(30_000)]
    with Rig(tmp_path) as rig:
        rig.send(block(stream, 1, [(29_999, BEGIN, 1.5, 0)], epoch=epoch, tags=tags))
        assert not rig.receipts(stream)
        rig.send(body, word="catalog")
        assert rig.receipts(stream)[-1] == 1
        assert not rig.gaps()
