"""Queries by identifier over real blocks: spelling, prefixes, several agents, aggregates, handles, lineage, quality."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import pyarrow.csv
import pyarrow.ipc
import pytest

from agent import _native
from agent.model import Tag, ValueType
from agent.wire import Catalog, CatalogTag, epoch_of
from datacenter import quality
from datacenter.api import Api
from datacenter.quality import Point, Rules, scores
from tests.datacenter_rig import BEGIN, Rig, block

SECOND = 10**9
START = BEGIN // (3600 * SECOND) * 3600 * SECOND
MODBUS = {"protocol": "modbus", "url": "tcp://127.0.0.1:5020", "address": "hr:100"}
OPCUA = {"protocol": "opcua", "url": "opc.tcp://127.0.0.1:4840", "address": "nsu=urn:x;s=temp"}


def tags(*identifiers: str, type_: ValueType = ValueType.FLOAT64) -> list[Tag]:
    return [Tag(at, "press1", f"t{at}", f"hr:{at}", type_, each) for at, each in enumerate(identifiers)]


def catalog(agent: str, of: Sequence[Tag], source: dict[str, str] | None = None, **facts: Any) -> bytes:
    made = (
        CatalogTag(tag.index, tag.device, tag.name, tag.identifier, tag.type.value, source=source or {}, **facts)
        for tag in of
    )
    return Catalog(agent, tuple(made)).encode()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Rig(tmp_path) as rig:
        yield rig


@pytest.fixture
async def http(rig: Rig) -> AsyncIterator[httpx.AsyncClient]:
    face = Api(rig.store, lambda: {"status": "ok"}, dict)
    transport = httpx.ASGITransport(face.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://datacenter:8080") as client:
        yield client
    face.close()


def feed(
    rig: Rig, agent: str, of: Sequence[Tag], rows: Any, source: dict[str, str] | None = None, **facts: Any
) -> bytes:
    """One agent's catalog, and one block of a new stream; returns the block."""
    body = catalog(agent, of, source, **facts)
    rig.send(body, word="catalog", agent=agent)
    made = block(uuid4(), 1, rows, epoch=epoch_of(body), tags=of)
    rig.send(made, agent=agent)
    return made


async def test_one_identifier_of_two_agents_over_two_protocols_is_one_line(rig: Rig, http: httpx.AsyncClient) -> None:
    """Spelled differently, of different types, at interleaved times: one answer, in order, from both."""
    feed(rig, "plant-a", tags("88.118.8/press1.temp"), [(0, START + at * 2, at * 2.0, 0) for at in range(50)], MODBUS)
    other = tags("hdl:88.118.8/press1.temp", type_=ValueType.FLOAT32)
    feed(rig, "plant-b", other, [(0, START + at * 2 + 1, at * 2.0 + 1, 0) for at in range(50)], OPCUA)
    for spelled in ("88.118.8/press1.temp", "hdl:88.118.8/press1.temp"):
        answer = (await http.get("/v1/readings", params={"id": spelled})).json()
        assert answer["readings"] == [[START + at, float(at), 0] for at in range(100)]
    found = await http.get("/v1/readings", params={"id": "88.118.8/press1.temp", "format": "csv"})
    assert len(found.text.splitlines()) == 101
    assert (await http.get("/v1/readings", params={"id": "88.118.8/PRESS1.temp"})).status_code == 404, (
        "a suffix has case"
    )
    sources = [
        (await http.get("/v1/lineage", params={"id": "88.118.8/press1.temp", "time": str(START + at)})).json()
        for at in (0, 1)
    ]
    assert [each["readings"][0]["source"] for each in sources] == [MODBUS, OPCUA]


async def test_a_handles_prefix_has_no_case(rig: Rig, http: httpx.AsyncClient) -> None:
    feed(rig, "a", tags("10.ABC/x"), [(0, START, 1.0, 0)])
    feed(rig, "b", tags("10.abc/x"), [(0, START + 1, 2.0, 0)])
    for asked in ({"id": "10.Abc/x"}, {"prefix": "10.aBC/"}, {"id": "10.aBC/*"}):
        assert [row[1] for row in (await http.get("/v1/readings", params=asked)).json()["readings"]] == [1.0, 2.0]


async def test_what_is_no_identifier_is_itself(rig: Rig, http: httpx.AsyncClient) -> None:
    feed(rig, "a", tags("just a name", "ends with *"), [(0, START, 1.0, 0), (1, START, 2.0, 0)])
    assert (await http.get("/v1/readings", params={"id": "just a name"})).json()["readings"] == [[START, 1.0, 0]]
    assert (await http.get("/v1/readings", params={"id": "Just a name"})).status_code == 404
    assert (await http.get("/v1/readings", params={"id": "ends with *"})).json()["readings"] == [[START, 2.0, 0]]


@pytest.mark.parametrize("form", ["json", "arrow", "csv"])
async def test_a_prefix_gives_every_reading_once_in_order_page_by_page(
    rig: Rig, http: httpx.AsyncClient, form: str
) -> None:
    names = [f"88.1/press{n}.{what}" for n in (1, 2, 10) for what in ("temp", "count")]
    wanted = []
    for agent in ("a", "b"):
        rows = [(tag, START + at * 10 + tag % 2, float(at), 0) for tag in range(6) for at in range(10)]
        feed(rig, agent, tags(*names), rows)
        wanted += [(time_ns, value, names[tag]) for tag, time_ns, value, _ in rows if tag < 2]
    for limit in (1, 7, 39, 40, 41):
        asked: dict[str, str] = {"prefix": "88.1/press1.", "limit": str(limit), "format": form}
        found: list[tuple[int, float, str]] = []
        while True:
            answer = await http.get("/v1/readings", params=asked)
            if form == "json":
                assert [each["id"] for each in answer.json()["identifiers"]] == sorted(names[:2])
                page = [(row[0], row[1], row[3]) for row in answer.json()["readings"]]
            else:
                table = (
                    pyarrow.ipc.open_stream(answer.content).read_all()
                    if form == "arrow"
                    else pyarrow.csv.read_csv(io.BytesIO(answer.content))
                )
                columns = (table.column(name).to_pylist() for name in ("time_ns", "value", "id"))
                page = list(zip(*columns, strict=True))
            assert len(page) <= limit
            found += page
            if "next" not in answer.links:
                break
            asked["after"] = httpx.URL(answer.links["next"]["url"]).params["after"]
        assert [at for at, *_ in found] == sorted(at for at, *_ in wanted)
        assert sorted(found) == sorted(wanted)


@pytest.mark.parametrize(
    ("asked", "status", "says"),
    [
        ("prefix=88.9/", 404, "no identifier begins"),
        ("prefix=88.1/&id=88.1/a", 400, "one of them"),
        ("id=88.1/a&id=88.1/none", 404, "88.1/none"),
        ("id=88.1/a&aggregate=median&window=1m", 400, "count, good, min, max, mean"),
        ("id=88.1/a&aggregate=mean", 400, "go together"),
        ("id=88.1/a&window=1m", 400, "go together"),
        ("id=88.1/a&aggregate=mean&window=1", 400, "duration"),
        ("id=88.1/a&aggregate=mean&window=0s", 400, "duration"),
        ("id=88.1/a&aggregate=mean&window=999999d", 400, "a year"),
        ("id=88.1/text&aggregate=mean&window=1m", 400, "aggregate=count"),
    ],
)
async def test_what_can_not_be_answered_says_why(
    rig: Rig, http: httpx.AsyncClient, asked: str, status: int, says: str
) -> None:
    feed(rig, "a", [*tags("88.1/a"), Tag(1, "d", "t", "hr:0", ValueType.STRING, "88.1/text")], [(0, START, 1.0, 0)])
    answer = await http.get(f"/v1/readings?{asked}")
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert says in answer.json()["detail"]


async def test_aggregates_are_those_of_the_good_readings(rig: Rig, http: httpx.AsyncClient) -> None:
    nan = float("nan")
    values = [1.0, 2.0, None, nan, 6.0, -3.0]
    rows: list[Any] = [
        (0, START + at * SECOND, value, 0x80050000 if value is None else 0) for at, value in enumerate(values)
    ]
    rows.append((0, START + 6 * SECOND, 1000.0, 0x80000000))
    rows += [(0, START + (60 + at) * SECOND, float(at), 0x40000000) for at in range(3)]
    rows += [(0, -5 * SECOND, 7.0, 0)]
    feed(rig, "a", tags("88.1/a"), rows)
    asked = {"id": "88.1/a", "aggregate": "count,good,min,max,mean", "window": "1m"}
    answer = (await http.get("/v1/readings", params=asked)).json()
    assert answer["windows"] == [
        [-60 * SECOND, 1, 1, 7.0, 7.0, 7.0],
        [START, 7, 4, -3.0, 6.0, mean([1, 2, 6, -3])],
        [START + 60 * SECOND, 3, 3, 0.0, 2.0, 1.0],
    ]
    assert (answer["window_ns"], answer["columns"][0]) == (60 * SECOND, "time_ns")
    pages: list[Any] = []
    paged = {**asked, "limit": "1"}
    while True:
        page = await http.get("/v1/readings", params=paged)
        pages += page.json()["windows"]
        if "next" not in page.json():
            break
        paged["after"] = page.json()["next"]
    assert pages == answer["windows"]
    table = pyarrow.ipc.open_stream(
        (await http.get("/v1/readings", params={**asked, "format": "arrow"})).content
    ).read_all()
    assert table.column("mean").to_pylist() == [row[5] for row in answer["windows"]]


@pytest.mark.parametrize(
    ("type_", "values", "ends"),
    [
        (ValueType.INT64, [-(2**63), 2**63 - 1], [-(2**63), 2**63 - 1]),
        (ValueType.UINT64, [0, 2**64 - 1], [0, 2**64 - 1]),
        (ValueType.BOOL, [True, False, True], [0, 1]),
        (ValueType.FLOAT32, [0.5, math.inf], [0.5, "Infinity"]),
    ],
)
async def test_aggregates_of_other_types(
    rig: Rig, http: httpx.AsyncClient, type_: ValueType, values: list[Any], ends: list[Any]
) -> None:
    feed(rig, "a", tags("88.1/a", type_=type_), [(0, START + at, value, 0) for at, value in enumerate(values)])
    asked = {"id": "88.1/a", "aggregate": "count,min,max", "window": "1s"}
    assert (await http.get("/v1/readings", params=asked)).json()["windows"] == [[START, len(values), *ends]]
    several = await http.get("/v1/readings", params={**asked, "id": "88.1/*", "format": "csv"})
    assert (several.status_code, '"88.1/a"' in several.text) == (200, True)


async def test_a_handle_record_says_what_it_is_and_where_its_readings_are(rig: Rig, http: httpx.AsyncClient) -> None:
    odd = "88.608.8889/EQ#01 泵"
    facts = {"unit": "°C", "low": -40.0, "high": 250.5, "domain": "production", "level": 2, "description": "die"}
    feed(rig, "a", tags(odd), [(0, START, 1.5, 0)], MODBUS, **facts)
    path = "/api/handles/88.608.8889/EQ%2301%20%E6%B3%B5"
    answer = await http.get(path)
    found = answer.json()
    assert (answer.status_code, found["responseCode"], found["handle"]) == (200, 1, odd)
    values = {value["type"]: value for value in found["values"]}
    wanted = {"unit": "°C", "dtype": "float64", "eu_low": "-40.0", "eu_high": "250.5", "domain": "production"}
    wanted |= {"level": "2", "name_en": "t0", "DESC": "die"}
    assert {name: values[name]["data"] for name in wanted} == {
        name: {"format": "string", "value": text} for name, text in wanted.items()
    }
    assert values["unit"]["index"] == 2002
    assert all(value["ttl"] > 0 and value["timestamp"].endswith("Z") for value in found["values"])
    url = values["URL"]["data"]["value"]
    assert url == f"http://datacenter:8080/v1/readings?id={quote(odd, safe='')}"
    assert (await http.get(url)).json()["readings"] == [[START, 1.5, 0]]
    assert [v["type"] for v in (await http.get(f"{path}?type=url")).json()["values"]] == ["URL"]
    assert [v["index"] for v in (await http.get(f"{path}?index=2002&type=LEVEL&index=1")).json()["values"]] == [
        1,
        2002,
        2009,
    ]
    none = await http.get(f"{path}?type=EMAIL")
    assert (none.status_code, none.json()["responseCode"], none.json()["values"]) == (200, 200, [])
    unknown = await http.get("/api/handles/88.608.8889/none")
    assert (unknown.status_code, unknown.json()["responseCode"]) == (404, 100)
    assert unknown.json()["handle"] == "88.608.8889/none"
    assert (await http.get("/api/handles/88.608.8889/EQ%2301%20%E6%B3%B5/")).status_code == 404, "another handle"


async def test_lineage_leads_back_to_the_very_block(rig: Rig, http: httpx.AsyncClient) -> None:
    made = feed(rig, "plant-a", tags("88.1/a", "88.1/b"), [(0, START, 1.0, 0), (1, START, 2.0, 0)], MODBUS)
    for name, value, tag in (("88.1/a", 1.0, 0), ("88.1/b", 2.0, 1)):
        answer = (await http.get("/v1/lineage", params={"id": name, "time": str(START)})).json()
        [found] = answer["readings"]
        assert (found["time_ns"], found["value"], found["quality"]) == (START, value, 0)
        assert (found["agent"], found["sequence"], found["tag"]) == ("plant-a", 1, tag)
        assert found["block"]["sha256"] == hashlib.sha256(made).hexdigest()
        assert (found["block"]["bytes"], found["block"]["readings"]) == (len(made), 2)
        body = catalog("plant-a", tags("88.1/a", "88.1/b"), MODBUS)
        assert found["epoch"] == f"{epoch_of(body):016x}"
        assert found["catalog_sha256"] == hashlib.sha256(body).hexdigest()
        assert (found["device"], found["source"]) == ("press1", MODBUS)
        assert found["sealed_ns"] <= found["received_ns"] <= found["stored_ns"]
    assert rig.store.settle("real", 10) == 2
    assert (await http.get("/v1/lineage", params={"id": "88.1/b", "time": str(START)})).json()["readings"] == [found]
    missing = await http.get("/v1/lineage", params={"id": "88.1/a", "time": str(START + 1)})
    assert (missing.status_code, "nanosecond" in missing.json()["detail"]) == (404, True)


async def test_lineage_tells_the_address_of_its_own_epoch(rig: Rig, http: httpx.AsyncClient) -> None:
    feed(rig, "a", tags("88.1/a"), [(0, START, 1.0, 0)], MODBUS)
    moved = {**MODBUS, "address": "hr:200"}
    feed(rig, "a", tags("88.1/a"), [(0, START + 1, 2.0, 0)], moved)
    for at, address in ((0, "hr:100"), (1, "hr:200")):
        answer = (await http.get("/v1/lineage", params={"id": "88.1/a", "time": str(START + at)})).json()
        assert answer["readings"][0]["source"]["address"] == address


GOLDEN = (
    [2, 3, 4, 6, 8, 10, 14, 15, 16, 18, 20, 22, 26, 28, 30],
    [100.0, 101, 102, 104, 126, 108, 112, 113, 114, 116, 118, 120, 124, 126, math.nan],
)


async def test_the_published_quality_scores(rig: Rig, http: httpx.AsyncClient) -> None:
    feed(rig, "a", tags("88.1/a"), [(0, START + at * SECOND, value, 0) for at, value in zip(*GOLDEN, strict=True)])
    answer = (await http.get("/v1/quality", params={"id": "88.1/a"})).json()
    [window] = answer["windows"]
    names = ("completeness", "consistency", "timeliness", "validity")
    assert [round(window[name], 5) for name in names] == [0.875, 0.93333, 0.93333, 0.88333]
    assert [window[name] for name in ("missing", "late", "redundant", "special")] == [1, 1, 1, 1]
    assert window["gbt36344"]["element_completeness"] == 14 / 15
    few = (await http.get("/v1/quality", params={"id": "88.1/a", "window": "10s"})).json()["windows"]
    assert sum(each["readings"] for each in few) == 15
    assert {each["validity"] for each in few} == {None}, "ten readings are too few"


async def test_completeness_agrees_with_the_gaps_of_the_stream(rig: Rig, http: httpx.AsyncClient) -> None:
    of = tags("88.1/a")
    body = catalog("a", of)
    rig.send(body, word="catalog", agent="a")
    stream = uuid4()
    begin = BEGIN // (10 * SECOND) * 10 * SECOND
    for sequence in (1, 2, 4):
        rows = [(0, begin + (sequence * 10 + at) * SECOND, float(at), 0) for at in range(10)]
        made = block(stream, sequence, rows, epoch=epoch_of(body), tags=of)
        rig.send(made, agent="a")
    # The third block's ten readings are lost, and the agent says so.
    told = _native.gap(
        stream=stream.bytes,
        first=3,
        last=3,
        epoch=epoch_of(body),
        from_ns=begin + 30 * SECOND,
        to_ns=begin + 39 * SECOND,
        readings=10,
        reason="outbox full",
        sealed_ns=begin,
    )
    rig.send(told.data, agent="a")
    span = {"from": str(begin + 10 * SECOND), "to": str(begin + 50 * SECOND)}
    [whole] = (await http.get("/v1/quality", params={"id": "88.1/a", **span})).json()["windows"]
    assert (whole["missing"], whole["readings_lost"], whole["complete"]) == (10, 10, False)
    assert whole["completeness"] == 1 - 10 / 40
    assert whole["gbt36344"]["record_completeness"] == 30 / 40
    account = (await http.get("/v1/completeness", params={"id": "88.1/a", **span})).json()
    assert account["complete"] is False
    each = (await http.get("/v1/quality", params={"id": "88.1/a", **span, "window": "10s", "interval": "1s"})).json()
    assert [window["gbt36344"]["record_completeness"] for window in each["windows"]] == [1.0, 1.0, 0.0, 1.0]


def test_a_day_without_readings_scores_nothing() -> None:
    found = scores([], 86400 * SECOND, Rules(interval_ns=SECOND))
    assert (found["completeness"], found["gbt36344"]["record_completeness"]) == (None, 0.0)
    even = [Point(at * SECOND, 5.0, 0, at * SECOND + 10**6) for at in range(100)]
    found = scores(even, 100 * SECOND, Rules(deadline_ns=10**5, low=0.0, high=4.0))
    assert [found[name] for name in ("completeness", "consistency", "timeliness", "validity")] == [1.0] * 4
    assert (found["gbt36344"]["plausibility"], found["gbt36344"]["timeliness"]) == (0.0, 0.0)
    assert found["gbt36344"]["delay_ms"]["p99"] == 1.0
    assert quality.outliers([]) == 0
