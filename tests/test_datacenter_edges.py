"""The data center's answers at the edges: odd times, odd states, very many gaps and holes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from agent.wire import State
from datacenter.api import Api
from tests.datacenter_rig import AGENT, BEGIN, EPOCH, REAL, TAGS, Rig, block, catalog

LOWEST, HIGHEST = -(2**63), 2**63 - 1
ID = TAGS[REAL].identifier


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Rig(tmp_path) as rig:
        rig.send(catalog(), word="catalog")
        yield rig


@pytest.fixture
async def http(rig: Rig) -> AsyncIterator[httpx.AsyncClient]:
    api = Api(rig.store, lambda: {"status": "ok"}, dict)
    transport = httpx.ASGITransport(app=api.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://datacenter") as client:
        yield client
    api.close()


async def test_a_reading_of_an_odd_time_spoils_no_answer(rig: Rig, http: httpx.AsyncClient) -> None:
    rig.send(block(uuid4(), 1, [(REAL, at, 1.0, 0) for at in (LOWEST, LOWEST + 1, -1, 5, HIGHEST - 1, HIGHEST)]))
    hour = 3600 * 10**9
    counted = (await http.get("/v1/readings", params={"id": ID, "aggregate": "count", "window": "1h"})).json()
    assert counted["windows"] == [[LOWEST, 2], [-hour, 1], [0, 1], [HIGHEST // hour * hour, 1]]
    for path, asked in (
        ("/v1/summary", {}),
        ("/v1/quality", {"id": ID}),
        ("/v1/completeness", {"id": ID}),
        ("/v1/readings", {"id": ID, "format": "parquet"}),
        ("/v1/lineage", {"id": ID, "time": str(HIGHEST)}),
    ):
        assert (await http.get(path, params=asked)).status_code == 200, path
    wide = {"id": ID, "from": str(LOWEST + 1), "to": str(HIGHEST), "window": "1ns"}
    refused = await http.get("/v1/quality", params=wide)
    assert (refused.status_code, "windows; write a longer window" in refused.text) == (400, True)


@pytest.mark.parametrize("facts", [{"outbox": 5}, {"outbox": [0]}, {"outbox": None}, {"pending_readings": "0"}])
async def test_an_odd_state_of_one_agent_spoils_no_answer(
    rig: Rig, http: httpx.AsyncClient, facts: dict[str, object]
) -> None:
    stream = uuid4()
    rig.send(block(stream, 1))
    rig.send(State(True, stream, EPOCH, facts).encode(), word="state")
    assert (await http.get("/v1/completeness")).json()["complete"] is True
    rig.send(b'{"online": true, "stream": "%s", "facts": [1], "agent": "another"}' % str(stream).encode(), word="state")
    assert (await http.get("/v1/completeness")).json()["complete"] is True
    assert [each["agent"] for each in (await http.get("/v1/agents")).json()] == [AGENT]


async def test_a_path_that_is_not_there_says_what_is(http: httpx.AsyncClient) -> None:
    posted, lost = await http.post("/v1/readings"), await http.get("/v2/readings")
    assert (posted.status_code, "ask with GET" in posted.json()["detail"]) == (405, True)
    assert (lost.status_code, "/v1/catalog" in lost.json()["detail"]) == (404, True)


async def test_very_many_gaps_and_holes_are_all_counted(rig: Rig, http: httpx.AsyncClient) -> None:
    """More than one answer lists: what it does not list counts all the same, in each window too."""
    rig.send(block(uuid4(), 1))
    rig.ingest.stop(5.0)
    many, step = 12_000, 10**6
    with rig.store.transaction():
        rig.store.write(
            "INSERT INTO gaps SELECT 1, 2 * i, 2 * i, ? + i * ?, ? + i * ?, 7, 'full', true FROM range(1, ?) t(i)",
            [BEGIN, step, BEGIN, step, many + 1],
        )
    found = (await http.get("/v1/completeness", params={"to": str(BEGIN + 10**15)})).json()
    [stream] = found["streams"]
    assert (stream["readings_lost"], len(stream["gaps"]), stream["more_gaps"]) == (7 * many, 10_000, 2_000)
    # Behind the places that are filled from the first on, every other one is awaited.
    assert (len(stream["holes"]), stream["more_holes"]) == (10_000, 1_999)
    asked = {"id": ID, "from": str(BEGIN), "to": str(BEGIN + (many + 1) * step), "window": "1s"}
    windows = (await http.get("/v1/quality", params=asked)).json()["windows"]
    assert [window["gaps"] for window in windows] == [999, *[1000] * 11, 1]
    assert sum(window["readings_lost"] for window in windows) == 7 * many
    assert not any(window["complete"] for window in windows)
