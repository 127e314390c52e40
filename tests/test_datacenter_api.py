"""The HTTP face over a store that holds real blocks."""

from __future__ import annotations

import csv
import io
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pyarrow as pa
import pyarrow.parquet
import pytest

from agent.model import Tag, ValueType
from agent.wire import State, epoch_of
from datacenter import api, moment
from datacenter.api import Api
from tests.datacenter_rig import AGENT, BEGIN, EPOCH, TAGS, Rig, Rows, block, catalog, gap

NAN, INF = float("nan"), float("inf")
BAD = 0x8005_0000
EXTREMES: dict[str, list[Any]] = {
    "bool": [True, False],
    "int8": [-128, 127],
    "int16": [-(2**15), 2**15 - 1],
    "int32": [-(2**31), 2**31 - 1],
    "int64": [-(2**63), 2**63 - 1],
    "uint8": [0, 255],
    "uint16": [0, 65535],
    "uint32": [0, 2**32 - 1],
    "uint64": [0, 2**64 - 1],
    "float32": [0.5, -0.10000000149011612, NAN],
    "float64": [0.1, -1.7976931348623157e308, 5e-324, NAN, INF, -INF],
    "string": ["", "Zwölf 标识\n\"'\\", "with\0nul"],
    "bytes": [b"", b"\x00\xff\xfe", b"plain"],
}
EXTREMES |= {f"{type_}[]": [values, [], values[:1]] for type_, values in EXTREMES.items()}


def spelled(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, list):
        return [spelled(each) for each in value]
    if isinstance(value, bytes):
        return b64encode(value).decode()
    return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(repr(value), value)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Rig(tmp_path) as rig:
        rig.send(catalog(), word="catalog")
        yield rig


@pytest.fixture
async def http(rig: Rig) -> AsyncIterator[httpx.AsyncClient]:
    face = Api(rig.store, lambda: {"status": "ok"}, lambda: {"duplicate_blocks": rig.ingest.counters.duplicates})
    transport = httpx.ASGITransport(face.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://datacenter") as client:
        yield client
    face.close()


def name(type_: str) -> str:
    return next(tag.identifier for tag in TAGS if tag.type == type_)


def every_type() -> list[tuple[int, int, Any, int]]:
    """Two or more extreme values of every type, and one bad reading without a value."""
    rows: list[tuple[int, int, Any, int]] = []
    for tag in TAGS:
        values = [*EXTREMES[tag.type], None]
        rows += [(tag.index, BEGIN + at, value, BAD if value is None else 0) for at, value in enumerate(values)]
    return rows


async def test_every_value_comes_back_as_it_was(rig: Rig, http: httpx.AsyncClient) -> None:
    rig.send(block(uuid4(), 1, every_type()))
    for tag in TAGS:
        answer = (await http.get("/v1/readings", params={"id": tag.identifier})).json()
        wanted = [spelled(value) for value in EXTREMES[tag.type]]
        assert answer == {
            "id": tag.identifier,
            "unit": "u",
            "type": tag.type,
            "readings": [
                *([BEGIN + at, value, 0] for at, value in enumerate(wanted)),
                [BEGIN + len(wanted), None, BAD],
            ],
            "gaps": [],
        }
        assert [type(row[1]) for row in answer["readings"][:-1]] == [type(value) for value in wanted]


async def test_every_format_says_the_same(rig: Rig, http: httpx.AsyncClient) -> None:
    rig.send(block(uuid4(), 1, every_type()))
    for tag in TAGS:
        asked = {"id": tag.identifier}
        values = [*EXTREMES[tag.type], None]
        arrow = (await http.get("/v1/readings", params={**asked, "format": "arrow"})).content
        parquet = (await http.get("/v1/readings", params={**asked, "format": "parquet"})).content
        for table in (pa.ipc.open_stream(arrow).read_all(), pa.parquet.read_table(io.BytesIO(parquet))):
            assert str(table.column("value").to_pylist()) == str(values)
            assert table.column("time_ns").to_pylist() == [BEGIN + at for at in range(len(values))]
            assert table.column("quality").to_pylist() == [0] * (len(values) - 1) + [BAD]
            assert table.schema.field("time").type == pa.timestamp("ns", "UTC")
            assert table.schema.metadata == {b"id": tag.identifier.encode(), b"unit": b"u", b"type": tag.type.encode()}
        text = (await http.get("/v1/readings", params={**asked, "format": "csv"})).text
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        assert [int(row["time_ns"]) for row in rows] == [BEGIN + at for at in range(len(values))]
        assert rows[0]["time"] == "2025-06-15 15:06:40.000000000Z"
        if tag.type in ("int64", "uint64"):
            assert [row["value"] for row in rows] == [*(str(value) for value in EXTREMES[tag.type]), ""]


@pytest.mark.parametrize("format_", ["json", "arrow"])
async def test_pages_give_every_reading_once_and_in_order(rig: Rig, http: httpx.AsyncClient, format_: str) -> None:
    real = next(tag.index for tag in TAGS if tag.type == "float64")
    one, two = uuid4(), uuid4()
    # Three readings at the very same time, within a block and over streams: a page may end between them.
    rows: Rows = [(real, BEGIN + at // 3, float(at), 0) for at in range(30)]
    rig.send(block(one, 1, rows), block(two, 1, rows))
    for limit in (1, 2, 7, 59, 60, 61):
        asked = {"id": name("float64"), "limit": str(limit), "format": format_}
        found: list[tuple[int, float]] = []
        for _ in range(61):
            answer = await http.get("/v1/readings", params=asked)
            if format_ == "json":
                page = [(row[0], row[1]) for row in answer.json()["readings"]]
            else:
                table = pa.ipc.open_stream(answer.content).read_all()
                page = list(zip(table.column("time_ns").to_pylist(), table.column("value").to_pylist(), strict=True))
            assert len(page) <= limit
            found += page
            if "next" not in answer.links:
                break
            asked["after"] = httpx.URL(answer.links["next"]["url"]).params["after"]
            assert format_ != "json" or answer.json()["next"] == asked["after"]
        assert len(found) == 60
        assert [time for time, _ in found] == sorted(BEGIN + at // 3 for at in range(30) for _ in range(2))
        assert sorted(value for _, value in found) == sorted(float(at) for at in range(30) for _ in range(2))
        assert [value for _, value in found][:6] == [0.0, 1.0, 2.0] * 2


async def test_from_is_included_and_to_is_not(rig: Rig, http: httpx.AsyncClient) -> None:
    rig.send(block(uuid4(), 0 + 1))
    first = BEGIN + 10**9
    for begin, end, count in (
        (str(first), str(first + 2 * 10**6), 2),
        (str(first + 1), str(first + 2 * 10**6 + 1), 2),
        ("2025-06-15T15:06:41Z", "2025-06-15T15:06:41.001Z", 1),
        ("2025-06-15T17:06:41.001+02:00", "2025-06-16", 2),
        (str(first), str(first), 0),
    ):
        answer = await http.get("/v1/readings", params={"id": name("float64"), "from": begin, "to": end})
        assert len(answer.json()["readings"]) == count, (begin, end)
    # The plus of an offset that was not encoded arrives as a space.
    answer = await http.get(f"/v1/readings?id={name('float64')}&from=2025-06-15T17:06:41.001+02:00")
    assert len(answer.json()["readings"]) == 2


async def test_readings_of_several_agents_and_types_lie_in_one_line(rig: Rig, http: httpx.AsyncClient) -> None:
    same = "88.1/press1.float64"
    other = catalog([Tag(tag.index, "b", "b", "hr:0", tag.type, same) for tag in TAGS[:1]], "other")
    stream = uuid4()
    rig.send(other, word="catalog", agent="other")
    rig.send(block(uuid4(), 1))
    rig.send(block(stream, 1, [(0, BEGIN + 10**9 + 1, True, 0)], epoch=epoch_of(other)), agent="other")
    answer = (await http.get("/v1/readings", params={"id": same})).json()
    assert [row[1] for row in answer["readings"]] == [1.0, True, 1.1, 1.2]
    answer = await http.get("/v1/readings", params={"id": same, "format": "csv"})
    assert [row["value"] for row in csv.DictReader(io.StringIO(answer.text))] == ["1.0", "true", "1.1", "1.2"]


async def test_gaps_that_overlap_are_named(rig: Rig, http: httpx.AsyncClient) -> None:
    stream = uuid4()
    rig.send(block(stream, 1), gap(stream, 2, 4, 9), block(stream, 5), gap(stream, 6, 9, 0, "clock"))
    everything = (await http.get("/v1/readings", params={"id": name("float64")})).json()["gaps"]
    second = BEGIN + 10**9
    assert everything == [
        {"from_ns": second + 10**9, "to_ns": second + 3 * 10**9, "reason": "outbox full"},
        {"from_ns": second + 5 * 10**9, "to_ns": second + 8 * 10**9, "reason": "clock"},
    ]
    asked = {"id": name("float64"), "from": str(second + 4 * 10**9)}
    assert (await http.get("/v1/readings", params=asked)).json()["gaps"] == everything[1:]


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ("", 400, "id is missing"),
        ("id=", 400, "id is missing"),
        ("id=no/such.tag", 404, "'no/such.tag'"),
        ("id=x&from=yesterday", 400, "RFC 3339"),
        ("id=x&from=2025-02-30", 400, "day"),
        ("id=x&from=2025-01-01T00:00:00", 400, "offset"),
        ("id=x&from=2025-01-01T00:00:00%2B99:99", 400, "not a time"),
        ("id=x&from=%D9%A1%D9%A2", 400, "not a time"),
        ("id=x&to=99999999999999999999", 400, "not a time"),
        ("id=x&to=9999999999999999999", 400, "out of range"),
        ("id=x&from=2&to=1", 400, "later"),
        ("id=x&limit=0", 400, "1 to 1000000"),
        ("id=x&limit=1000001", 400, "1 to 1000000"),
        ("id=x&limit=ten", 400, "1 to 1000000"),
        ("id=x&format=xml", 400, "json, csv, arrow, parquet"),
        ("id=x&after=zzz", 400, "cursor"),
        ("id=x&after=MS4yLjM", 400, "cursor"),
        ("id=x&form=csv", 400, "format"),
    ],
)
async def test_what_can_not_be_answered_says_why(http: httpx.AsyncClient, query: str, status: int, says: str) -> None:
    answer = await http.get(f"/v1/readings?{query}")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["status"], body["type"]) == (status, "about:blank")
    assert says in body["detail"]


async def test_an_identifier_may_have_any_letter(rig: Rig, http: httpx.AsyncClient) -> None:
    odd = "88.118.8/a b+c%2F?x=1&y#z/标识'\";--"
    body = catalog([Tag(0, "d", "n", "hr:0", ValueType.BOOL, odd)])
    rig.send(body, word="catalog")
    rig.send(block(uuid4(), 1, [(0, 5, True, 0)], epoch=epoch_of(body)))
    answer = (await http.get("/v1/readings", params={"id": odd})).json()
    assert (answer["id"], answer["readings"]) == (odd, [[5, True, 0]])
    found = (await http.get("/v1/catalog", params={"prefix": "88.118.8/a b+c%2F"})).json()
    assert [tag["identifier"] for tag in found] == [odd]


async def test_catalog_streams_agents_and_summary(rig: Rig, http: httpx.AsyncClient) -> None:
    stream = uuid4()
    rig.send(block(stream, 1), block(stream, 1), block(stream, 4))
    rig.send(State(True, stream, EPOCH, {"devices": 2}).encode(), word="state")
    tags = (await http.get("/v1/catalog")).json()
    assert [tag["identifier"] for tag in tags] == sorted(tag.identifier for tag in TAGS)
    assert len((await http.get("/v1/catalog", params={"prefix": "88.1/press1.int", "limit": "2"})).json()) == 2
    [found] = (await http.get("/v1/streams")).json()
    assert UUID(found.pop("stream")) == stream
    size = found.pop("bytes")
    account = {"agent": AGENT, "first": 1, "last": 4, "holes": [[2, 3]], "readings": 6, "committed": 1, "blocks": 2}
    assert found == account
    [agent] = (await http.get("/v1/agents")).json()
    assert (agent["agent"], agent["online"], agent["facts"]) == (AGENT, True, {"devices": 2})
    totals = (await http.get("/v1/summary")).json()
    assert (totals["readings"], totals["blocks"], totals["bytes"], totals["duplicate_blocks"]) == (6, 2, size, 1)
    assert totals["latency_ms_p99"] >= totals["latency_ms_p50"] > 0


async def test_the_page_and_the_rest(http: httpx.AsyncClient) -> None:
    page = await http.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "http" not in page.text.replace("http://www.w3.org/2000/svg", ""), "nothing is loaded from elsewhere"
    assert (await http.get("/healthz")).status_code == 200
    for method, path, status in (("GET", "/nowhere", 404), ("POST", "/v1/readings", 405)):
        answer = await http.request(method, path)
        assert (answer.status_code, answer.json()["status"]) == (status, status)
    empty = (await http.get("/v1/summary")).json()
    assert (empty["readings"], empty["latency_ms_p50"]) == (0, None)
    assert (await http.get("/v1/streams")).json() == []


async def test_a_query_has_a_deadline(rig: Rig, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "SECONDS", 0.0)
    answer = await http.get("/v1/streams")
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    monkeypatch.undo()
    assert (await http.get("/v1/streams")).status_code == 200


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0", 0),
        ("-5", -5),
        ("1970-01-01", 0),
        ("1969-12-31T23:59:59.999999999Z", -1),
        ("2026-05-01T06:00:00.123456789Z", 1777615200123456789),
        ("2026-05-01t06:00:00.5z", 1777615200500000000),
        ("2026-05-01T08:00:00+02:00", 1777615200000000000),
        ("2026-05-01T00:30:00-05:30", 1777615200000000000),
    ],
)
def test_moments(text: str, ns: int) -> None:
    assert moment.parse(text) == ns
