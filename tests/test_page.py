"""The data center's page: what a browser may do with it, and what its script makes of real answers. Node runs the part
of the script that needs no document; docs/query.md says what was tried in a browser."""

from __future__ import annotations

import json
import re
import subprocess
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import httpx
import pytest

from agent.model import Tag, ValueType
from agent.wire import epoch_of
from datacenter import page
from datacenter.api import Api
from tests.datacenter_rig import BEGIN, Rig, block, catalog, gap
from tests.peers.process import program

Json: TypeAlias = Any
TEXT = page.PATH.read_text(encoding="utf-8")
SCRIPTS = re.findall(r"<script>(.*?)</script>", TEXT, re.DOTALL)
BAD, UNCERTAIN = 0x8005_0000, 0x4092_0000
TAGS = [
    Tag(0, "d", "counter", "hr:0", ValueType.UINT64, "88.1/counter", unit="pcs"),
    Tag(1, "d", "temp", "hr:1", ValueType.FLOAT32, "88.1/temp", unit="°C"),
    Tag(2, "d", "note", "hr:2", ValueType.STRING, "88.1/note"),
    Tag(3, "d", "list", "hr:3", ValueType.FLOAT32_ARRAY, "88.1/list"),
    Tag(4, "d", "raw", "hr:4", ValueType.BYTES, "88.1/raw"),
]
NOTE = '12345678901234567890 "\\" 1e5 </script> 温度'


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Rig(tmp_path) as rig:
        rig.send(catalog(TAGS), word="catalog")
        yield rig


@pytest.fixture
async def http(rig: Rig) -> AsyncIterator[httpx.AsyncClient]:
    face = Api(rig.store, lambda: {"status": "ok"}, dict)
    transport = httpx.ASGITransport(face.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://datacenter") as client:
        yield client
    face.close()


def evaluated(expression: str, *given: Json) -> Json:
    """What an expression of the page's own functions and of `given`, a list, is; texts of JSON answers are texts."""
    runner = (
        "const { script, expression, given } = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
        "const context = require('vm').createContext({ given });"
        "const run = (text) => require('vm').runInContext(text, context);"
        "run(script); process.stdout.write(JSON.stringify(run(expression)));"
    )
    asked = json.dumps({"script": SCRIPTS[0], "expression": expression, "given": given})
    found = subprocess.run([program("node"), "-e", runner], input=asked, capture_output=True, text=True, timeout=30)
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


async def test_a_browser_runs_nothing_but_what_is_written_in_the_page(http: httpx.AsyncClient) -> None:
    answer = await http.get("/")
    rules = dict(rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == rules["frame-ancestors"] == "'none'"
    assert (rules["connect-src"], rules["img-src"]) == ("'self'", "data:"), "no request but to the data center itself"
    for element in ("script", "style"):
        inside = re.findall(rf"<{element}>(.*?)</{element}>", answer.text, re.DOTALL)
        named = [f"'sha256-{b64encode(sha256(each.encode()).digest()).decode()}'" for each in inside]
        assert rules[f"{element}-src"].split() == named
        assert len(re.findall(rf"<{element}\b", answer.text)) == len(inside), "one that the policy would not let run"
    # The policy stops these as well; then what they are for would be missing.
    assert not re.search(r"\s(style|on[a-z]+)=", answer.text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|prompt\(|alert\(", answer.text)
    assert (await http.get("/v1/streams")).headers["content-security-policy"] == (
        "default-src 'none'; frame-ancestors 'none'"
    )


async def test_values_are_shown_as_they_are(rig: Rig, http: httpx.AsyncClient) -> None:
    body = catalog(TAGS)
    rig.send(body, word="catalog")
    rows: list[Any] = [(0, BEGIN, 2**64 - 1, 0), (0, BEGIN + 1, 7, UNCERTAIN), (0, BEGIN + 2, None, BAD)]
    rows += [
        (1, BEGIN, 20.100000381469727, 0),
        (1, BEGIN + 1, float("nan"), 0),
        (2, BEGIN, NOTE, 0),
        (2, BEGIN + 1, "x" * 2000, 0),
    ]
    rows += [(3, BEGIN, [0.10000000149011612, -2.5], 0), (3, BEGIN + 1, [], 0), (4, BEGIN, b"\x00\xff", 0)]
    rig.send(block(uuid4(), 1, rows, epoch=epoch_of(body), tags=TAGS))
    texts = [(await http.get("/v1/readings", params={"id": tag.identifier})).text for tag in TAGS]
    said = evaluated(
        "given.map(parsed).map((a) =>"
        " [unitOf(a), a.readings.map(([at, value, code]) => [shown(value, a.type), quality(code), when(at)])])",
        *texts,
    )
    at = "2025-06-15 15:06:40.000"
    assert [unit for unit, _ in said] == ["pcs", "°C", "", "", "base64"]
    assert said[0][1] == [
        ["18446744073709551615", "Good", at],
        ["7", "Uncertain (0x40920000)", at],
        ["–", "Bad (0x80050000)", at],
    ]
    assert [[value for value, *_ in readings] for _, readings in said[1:]] == [
        ["20.1", "NaN"],
        [NOTE, "x" * 1000 + "… (2,000 letters)"],
        ["[0.1, -2.5]", "[]"],
        ["AP8="],
    ]


async def test_what_is_missing_is_said_also_where_nobody_can_count_it(rig: Rig, http: httpx.AsyncClient) -> None:
    stream, said = uuid4(), []
    for first, readings in ((0, 0), (2, 0), (5, 1200)):
        if first:
            rig.send(gap(stream, first, first + 1, readings))
        said.append(evaluated("missing(parsed(given[0]))", (await http.get("/v1/summary")).text))
    assert said == ["nothing", "1 gap, not counted", "1,200 readings in 2 gaps"]


async def test_a_line_is_not_drawn_over_what_is_missing(rig: Rig, http: httpx.AsyncClient) -> None:
    body, stream = catalog(TAGS), uuid4()
    rig.send(body, word="catalog")
    seconds = [0, 1, 3, 4, 9, 10, 11]  # the gap is from 5 to 7
    rows: list[Any] = [(1, BEGIN + at * 10**9, float(at), BAD if at == 10 else 0) for at in seconds]
    rows += [(1, BEGIN + 2 * 10**9, None, BAD), (2, BEGIN, "12", 0), (2, BEGIN + 1, "13", 0)]
    rig.send(block(stream, 1, rows, epoch=epoch_of(body), tags=TAGS), gap(stream, 5, 7, 3))
    temp, note = [(await http.get("/v1/readings", params={"id": f"88.1/{name}"})).text for name in ("temp", "note")]
    drawn = evaluated(
        "given.map(parsed).map((a) => pieces(a).map((piece) => piece.map((point) => point[1])))", temp, note
    )
    assert drawn == [[[0, 1], [3, 4], [9], [11]], []], "neither bad readings nor texts that look like numbers"
    kept = evaluated("thinned(Array.from({length: 9000}, (_, i) => [i, i === 4321 ? 99 : i % 2]), 0, 8999, 100)")
    assert len(kept) <= 404
    assert [4321, 99] in kept
    assert (kept[0][0], kept[-1][0]) == (0, 8999)


@pytest.mark.parametrize(
    ("health", "agents", "said"),
    [
        ({"status": "ok"}, [], ["ok; no agent was heard yet", ""]),
        (
            {"status": "ok"},
            [{"online": True, "facts": {"devices": {"press1": {"connected": True}}}}],
            ["ok: 1 agent online, 1 device connected", ""],
        ),
        (
            {"status": "no broker", "broker": {"connected": False, "address": "10.0.0.1:1883"}},
            [
                {"online": False, "facts": {"devices": {"press1": {"connected": False}}}},
                {"online": True, "facts": {"devices": {"a": {"connected": False, "reason": "refused"}, "b": 7}}},
                *({"online": True, **odd} for odd in ({}, {"facts": None}, {"facts": {"devices": [None, 5]}})),
            ],
            ["no broker at 10.0.0.1:1883; 1 of 5 agents offline; 1 of 1 device not connected", "bad"],
        ),
    ],
)
def test_the_verdict(health: Json, agents: list[Json], said: list[str]) -> None:
    assert evaluated("verdict(given[0], given[1])", health, agents) == said


def test_the_script_is_well_formed() -> None:
    for script in SCRIPTS:
        found = subprocess.run(
            [program("node"), "--check", "-"], input=script, capture_output=True, text=True, timeout=30
        )
        assert found.returncode == 0, found.stderr
