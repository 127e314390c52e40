"""What the data center says of an interval: complete, or what is missing and why."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from agent.wire import State
from datacenter.api import Api
from datacenter.completeness import account
from tests.datacenter_rig import AGENT, BEGIN, REAL, TAGS, Rig, block, catalog, gap

S = 10**9
NAME = TAGS[REAL].identifier


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Rig(tmp_path) as rig:
        rig.send(catalog(), word="catalog")
        yield rig


def ask(rig: Rig, from_ns: int = 0, to_ns: int | None = None) -> dict[str, Any]:
    with rig.store.snapshot() as view:
        return account(view, from_ns, to_ns)


def only(answer: dict[str, Any]) -> dict[str, Any]:
    [stream] = answer["streams"]
    return dict(stream)


def test_a_stream_without_holes_is_complete_as_far_as_it_is_known(rig: Rig) -> None:
    stream = uuid4()
    rig.send(*(block(stream, sequence) for sequence in (1, 2, 3)))
    assert ask(rig)["complete"]
    found = only(ask(rig, BEGIN, BEGIN + 3 * S))
    assert (found["complete"], found["closed"], found["gaps"], found["holes"]) == (True, False, [], [])
    assert (found["begins_ns"], found["known_until_ns"]) == (BEGIN + S, BEGIN + 3 * S)
    # What was accepted after the newest block is not known of: it can't be called complete.
    assert not ask(rig, BEGIN, BEGIN + 4 * S)["complete"]


def test_nothing_at_all_is_not_complete(rig: Rig) -> None:
    assert ask(rig) == {"from_ns": 0, "to_ns": None, "complete": False, "streams": []}


def test_a_hole_is_awaited_between_its_neighbours(rig: Rig) -> None:
    stream = uuid4()
    rig.send(*(block(stream, sequence) for sequence in (1, 2, 5)))
    found = only(ask(rig, BEGIN, BEGIN + 5 * S))
    assert found["holes"] == [{"from_ns": BEGIN + 2 * S, "to_ns": BEGIN + 5 * S, "first": 3, "last": 4}]
    assert not found["complete"]
    assert only(ask(rig, BEGIN, BEGIN + S))["complete"]
    rig.send(block(stream, 3), block(stream, 4))
    assert ask(rig, BEGIN, BEGIN + 5 * S)["complete"]


def test_a_gap_is_named_where_it_overlaps(rig: Rig) -> None:
    stream = uuid4()
    rig.send(block(stream, 1), gap(stream, 2, 3, 40, "disk full"), block(stream, 4))
    found = only(ask(rig))
    assert found["gaps"] == [
        {"from_ns": BEGIN + 2 * S, "to_ns": BEGIN + 3 * S, "readings": 40, "reason": "disk full", "first": 2, "last": 3}
    ]
    assert (found["complete"], found["readings_lost"]) == (False, 40)
    assert only(ask(rig, BEGIN, BEGIN + S))["complete"]


def test_a_new_stream_of_an_agent_closes_the_old_one(rig: Rig) -> None:
    old, new = uuid4(), uuid4()
    rig.send(*(block(old, sequence) for sequence in (1, 2)))
    rig.send(State(True, new, 1, {}).encode(), word="state")
    rig.send(block(new, 1), *(block(new, sequence) for sequence in range(2, 10)))
    answer = ask(rig, BEGIN, BEGIN + 9 * S)
    closed = {UUID(found["stream"]): found["closed"] for found in answer["streams"]}
    assert (answer["complete"], closed) == (True, {old: True, new: False})


def test_an_agent_with_nothing_to_send_is_known_until_it_said_so(rig: Rig) -> None:
    stream = uuid4()
    rig.send(block(stream, 1))
    facts = {"pending_readings": 0, "outbox": {"entries": 0}}
    rig.send(State(True, stream, 1, facts).encode(), word="state")
    assert only(ask(rig))["known_until_ns"] > BEGIN + S
    rig.send(State(True, stream, 1, {**facts, "pending_readings": 1}).encode(), word="state")
    assert only(ask(rig))["known_until_ns"] == BEGIN + S


async def test_over_http(rig: Rig) -> None:
    await asyncio.to_thread(rig.send, block(uuid4(), 1))
    face = Api(rig.store, lambda: {"status": "ok"}, dict)
    transport = httpx.ASGITransport(face.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://datacenter") as http:
        answer = await http.get("/v1/completeness", params={"id": NAME, "from": str(BEGIN), "to": str(BEGIN + S)})
        assert (answer.status_code, answer.json()["complete"]) == (200, True)
        assert answer.json()["streams"][0]["agent"] == AGENT
        assert (await http.get("/v1/completeness", params={"id": "no/such"})).status_code == 404
        assert (await http.get("/v1/completeness", params={"from": "2", "to": "1"})).status_code == 400
    face.close()
