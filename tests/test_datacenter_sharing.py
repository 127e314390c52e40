"""Who may read what at the data center: grants, their revocation, the ledger of queries and the metering."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from agent import audit
from agent.audit import AuditError
from agent.model import Tag, ValueType
from agent.wire import Catalog, CatalogTag, epoch_of
from datacenter import access, recorder
from datacenter.access import Access
from datacenter.api import Api
from datacenter.grants import Grants
from datacenter.recorder import Recorder
from tests.datacenter_rig import AGENT, BEGIN, DataCenter, Rig, block, until

LEVELS: dict[str, int | None] = {"open": 1, "inner": 2, "secret": 3, "unlabelled": None}
MINUTE = 60 * 10**9
START = BEGIN // MINUTE * MINUTE
TABLE = tuple(
    Tag(at, "press1", name, f"hr:{at}", ValueType.FLOAT64, f"88.118.8/press1.{name}") for at, name in enumerate(LEVELS)
)


def catalog(**levels: Any) -> bytes:
    now = {**LEVELS, **levels}
    tags = (CatalogTag(t.index, t.device, t.name, t.identifier, t.type.value, level=now[t.name]) for t in TABLE)
    return Catalog(AGENT, tuple(tags)).encode()


def of(stream: UUID, sequence: int, body: bytes) -> bytes:
    """A block of the epoch of a catalog."""
    return block(stream, sequence, [(0, START + sequence, 1.0, 0)], epoch=epoch_of(body), tags=TABLE)


class Shared:
    """A store with readings of every level, its grants, its ledger, and its HTTP face that wants tokens."""

    def __init__(self, rig: Rig, folder: Path) -> None:
        self.grants = Grants(folder)
        self.recorder = Recorder(folder / "audit")
        self.api = Api(rig.store, lambda: {"status": "ok"}, dict, Access("token", self.grants), self.recorder)
        transport = httpx.ASGITransport(self.api.app, raise_app_exceptions=False)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://datacenter")
        self.folder = folder

    def token(self, who: str = "analyst", **facts: Any) -> str:
        asked = {"patterns": ("88.118.8/press1.*",), "level": 1, "form": "raw", "window_ns": MINUTE, "purpose": "test"}
        with self.grants.changing() as base:
            return self.grants.add(base, who=who, **{"until_ns": None, **asked, **facts})[1]

    async def get(self, token: str | None, path: str = "/v1/readings", **asked: Any) -> httpx.Response:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return await self.http.get(path, params=asked, headers=headers)

    def records(self) -> list[audit.Record]:
        lines = [path.read_bytes().splitlines() for _, path in audit.files(self.folder / "audit", "queries")]
        return [audit.Record.parse(line) for each in lines for line in each]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Rig(tmp_path) as rig:
        rig.send(catalog(), word="catalog")
        # Per tag eight readings in the first minute, and one in the second.
        times = [START + at * 10**9 for at in range(8)] + [START + MINUTE]
        rows = [(tag.index, at, float(n), 0) for tag in TABLE for n, at in enumerate(times)]
        rig.send(block(uuid4(), 1, rows, epoch=epoch_of(catalog()), tags=TABLE))
        yield rig


@pytest.fixture
async def shared(rig: Rig, tmp_path: Path) -> AsyncIterator[Shared]:
    made = Shared(rig, tmp_path)
    async with made.http:
        yield made
    made.api.close()
    made.recorder.close()


async def test_a_grant_reaches_as_far_as_its_pattern_and_level(shared: Shared) -> None:
    for level in (1, 2, 3):
        token = shared.token(level=level)
        for name, own in LEVELS.items():
            answer = await shared.get(token, id=f"88.118.8/press1.{name}")
            assert answer.status_code == (200 if (own or 3) <= level else 403), (level, name)
            if answer.status_code == 403:
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.json()["status"] == 403
                assert "does not allow" in answer.json()["detail"]
    one = shared.token(patterns=("88.118.8/press1.open",), level=3)
    assert (await shared.get(one, id="88.118.8/press1.open")).status_code == 200
    assert (await shared.get(one, id="88.118.8/press1.inner")).status_code == 403
    assert (await shared.get(one, id="88.118.8/press1.nothing")).status_code == 404


async def test_no_path_leads_around_a_grant(shared: Shared) -> None:
    low = shared.token()
    secret = "88.118.8/press1.secret"
    for path, asked in (
        ("/v1/readings", {"id": secret}),
        ("/v1/readings", {"id": secret, "format": "arrow"}),
        ("/v1/readings", {"id": ["88.118.8/press1.open", secret]}),
        ("/v1/readings", {"prefix": secret}),
        ("/v1/readings", {"id": secret, "aggregate": "mean", "window": "1h"}),
        ("/v1/quality", {"id": secret}),
        ("/v1/lineage", {"id": secret, "time": str(START)}),
        ("/v1/completeness", {"id": secret}),
        (f"/api/handles/{secret}", {}),
    ):
        assert (await shared.get(low, path, **asked)).status_code == 403, (path, asked)
        assert (await shared.get(None, path, **asked)).status_code == 401
        assert (await shared.get("hr_00000000_wrong", path, **asked)).status_code == 401
    found = (await shared.get(low, prefix="88.118.8/")).json()
    assert [each["id"] for each in found["identifiers"]] == ["88.118.8/press1.open"]
    assert {row[3] for row in found["readings"]} == {"88.118.8/press1.open"}
    listed = (await shared.get(low, "/v1/catalog")).json()
    assert [tag["identifier"] for tag in listed] == ["88.118.8/press1.open"]
    for path in ("/v1/streams", "/v1/agents", "/v1/summary", "/v1/metering"):
        assert (await shared.get(None, path)).status_code == 401
        assert (await shared.get(low, path)).status_code == 200
    handle = (await shared.get(low, f"/api/handles/{secret}")).json()
    assert (handle["responseCode"], handle["handle"], handle["status"]) == (401, secret, 403)
    assert (await shared.get(None, f"/api/handles/{secret}")).json()["responseCode"] == 402
    assert (await shared.get(None, "/healthz")).status_code == 200


async def test_what_is_revoked_or_over_ends_at_once(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    token = shared.token()
    asked = {"id": "88.118.8/press1.open"}
    assert (await shared.get(token, **asked)).status_code == 200
    with shared.grants.changing() as base:
        shared.grants.revoke(base, shared.grants.all()[0].id)
    answer = await shared.get(token, **asked)
    assert (answer.status_code, "revoked" in answer.json()["detail"]) == (401, True)
    assert "bearer" in answer.headers["www-authenticate"].lower()
    short = shared.token(until_ns=None)
    late = shared.token(until_ns=time.time_ns() - 1)
    assert (await shared.get(late, **asked)).status_code == 401
    # While the query runs: what was found does not leave.
    found = shared.grants.of(short)
    assert found is not None

    def revoke(*_: Any) -> None:
        with shared.grants.changing() as base:
            shared.grants.revoke(base, found.id)

    monkeypatch.setattr(access.Caller, "check", revoke)
    assert (await shared.get(short, **asked)).status_code == 401


def test_a_level_is_what_the_newest_block_says_and_no_old_catalog_lowers_it(tmp_path: Path) -> None:
    low, high, odd = catalog(open=1), catalog(open=3), catalog(open=0)
    stream = uuid4()
    with Rig(tmp_path) as rig:

        def level() -> int | None:
            found = rig.named("88.118.8/press1.open")
            assert found is not None
            return found.level

        # An agent that was away: its newest catalog comes first, those of its backlog later.
        rig.send(high, word="catalog")
        rig.send(of(stream, 9, high))
        rig.send(low, word="catalog")
        rig.send(of(stream, 1, low))
        assert level() == 3
        # The config lowers it, and sets it right again: an epoch that is known already.
        rig.send(of(stream, 10, low))
        assert level() == 1
        rig.send(of(stream, 11, high))
        assert level() == 3
        rig.send(catalog(open=2), word="catalog")
        assert level() == 3
        rig.send(of(stream, 12, catalog(open=2)))
        assert level() == 2
        # A late catalog may raise it until the next of the newest blocks comes.
        rig.send(catalog(open=None), word="catalog")
        assert level() is None
        rig.send(of(stream, 13, catalog(open=2)))
        assert level() == 2
        # The outbox of an installation before is brought later; and an odd level is none.
        other = uuid4()
        rig.send(of(other, 20, high))
        rig.send(of(stream, 14, low))
        assert level() == 3
        rig.send(odd, word="catalog")
        rig.send(of(other, 21, odd))
        assert level() is None
    with Rig(tmp_path) as rig:
        rig.send(of(other, 22, high))
        assert rig.named("88.118.8/press1.open").level == 3  # type: ignore[union-attr]


async def test_whoever_may_only_aggregate_never_learns_a_reading(shared: Shared) -> None:
    token = shared.token(form="aggregate")
    asked = {"id": "88.118.8/press1.open", "aggregate": "count,good,min,max,mean"}
    assert (await shared.get(token, id=asked["id"])).status_code == 403
    assert (await shared.get(token, "/v1/lineage", id=asked["id"], time=str(START))).status_code == 403
    for window in ("1s", "59s", "61s", "90s"):
        assert (await shared.get(token, **asked, window=window)).status_code == 403, window
    answer = (await shared.get(token, **asked, window="1m")).json()
    assert answer["columns"] == ["time_ns", "count", "good", "min", "max", "mean"]
    first = [START, 8, 8, 0.0, 7.0, 3.5]
    assert answer["windows"] == [first, [START + MINUTE, 1, 1, None, None, None]]
    # A span that cuts windows is made of whole ones: no two answers differ by one reading.
    for cut in range(1, 8):
        narrow = {"from": str(START + cut * 10**9), "to": str(START + cut * 10**9 + 1)}
        assert (await shared.get(token, **asked, window="1m", **narrow)).json()["windows"] == [first]
    wide = (await shared.get(token, **asked, window="2m")).json()["windows"]
    # Nor do two lengths: the mean of both minutes and that of the first would tell the one reading of the second.
    assert wide == [[START, 9, 9, None, None, None]]
    assert (await shared.get(token, **asked, window="1d")).json()["windows"][0][2:] == [9, None, None, None]
    # Everybody else may have any window, and sees what is in it.
    raw = (await shared.get(shared.token(), **asked, window="1m")).json()["windows"]
    assert raw == [first, [START + MINUTE, 1, 1, 8.0, 8.0, 8.0]]


async def test_quality_is_of_whole_windows_for_whoever_may_only_aggregate(shared: Shared) -> None:
    token, asked = shared.token(form="aggregate"), {"id": "88.118.8/press1.open"}
    assert (await shared.get(token, "/v1/quality", **asked, window="1s")).status_code == 403
    cut = {"from": str(START + 3 * 10**9), "to": str(START + 3 * 10**9 + 1)}
    for more in (cut, cut | {"window": "1m"}):
        [window] = (await shared.get(token, "/v1/quality", **asked, **more)).json()["windows"]
        assert [window[name] for name in ("from_ns", "to_ns", "readings")] == [START, START + MINUTE, 8]
    whole = (await shared.get(token, "/v1/quality", **asked)).json()["windows"]
    assert [(window["from_ns"], window["readings"]) for window in whole] == [(START, 9)]
    raw = (await shared.get(shared.token(), "/v1/quality", **asked, **cut)).json()["windows"]
    assert [window["readings"] for window in raw] == [1]


async def test_every_query_is_in_the_ledger_before_its_answer(shared: Shared) -> None:
    token = shared.token(who="analyst")
    wanted = []
    for status, name, by in ((200, "open", token), (403, "secret", token), (404, "none", token), (401, "open", None)):
        answer = await shared.get(by, id=f"88.118.8/press1.{name}")
        assert answer.status_code == status
        wanted.append((status, "analyst" if by else "", 9 if status == 200 else 0, len(answer.content)))
        found = [(r.facts["status"], r.facts["who"], r.facts["readings"], r.facts["bytes"]) for r in shared.records()]
        assert found == wanted, "as soon as the answer is here"
    asked = shared.records()[0].facts["asked"]
    assert "id=88.118.8%2Fpress1.open" in asked
    assert token not in json.dumps([record.facts for record in shared.records()])
    assert audit.verify(shared.folder / "audit", "queries").sound
    metered = (await shared.get(token, "/v1/metering")).json()
    assert [(each["who"], each["queries"], each["refused"], each["readings"]) for each in metered] == [
        ("analyst", 3, 2, 9)
    ]
    again = (await shared.get(token, "/v1/metering")).json()
    assert (again[0]["queries"], again[0]["readings"]) == (4, 9), "each record counts once"


async def test_what_can_not_be_recorded_is_not_answered(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise AuditError("the disk is full")

    token = shared.token()
    with monkeypatch.context() as patched:
        patched.setattr("agent.audit_file.AuditFile.append", full)
        answer = await shared.get(token, id="88.118.8/press1.open")
        assert (answer.status_code, answer.json()["status"]) == (503, 503)
        assert "disk is full" in answer.json()["detail"]
        assert shared.recorder.refused == 1
    assert (await shared.get(token, id="88.118.8/press1.open")).status_code == 200


async def test_nothing_that_was_asked_for_is_cut_off_in_the_ledger(shared: Shared) -> None:
    names = ["88.118.8/press1.open"] * 300 + ["88.118.8/press1.secret"]
    assert (await shared.get(shared.token(level=3), id=names)).status_code == 200
    assert shared.records()[-1].facts["asked"].endswith("press1.secret")
    assert (await shared.get("wrong", id=names)).status_code == 401
    assert len(shared.records()[-1].facts["asked"]) == 2048


async def test_grants_that_can_not_be_read_are_said_so(shared: Shared) -> None:
    token = shared.token()
    (shared.folder / "grants.db").write_bytes(b"not a database" * 1000)
    answer = await shared.get(token, id="88.118.8/press1.open")
    assert (answer.status_code, "grants can't be read" in answer.json()["detail"]) == (503, True)


async def test_strangers_can_not_fill_the_ledger(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "UNKNOWN_A_MINUTE", 5)
    monkeypatch.setattr(time, "monotonic", lambda: 1e6)
    for _ in range(20):
        assert (await shared.get("wrong", id="x")).status_code == 401
    assert len(shared.records()) == 5
    await shared.get(shared.token(), id="88.118.8/press1.open")
    assert shared.records()[-1].facts["unrecorded"] == 15


CONFIG = """\
[uplink]
url = "{broker}"
[datacenter]
store = "./store"
http = "127.0.0.1:{port}"
access = "token"
"""


def headrace(home: Path, *arguments: str, token: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headrace", *arguments]
    environment = {"HEADRACE_TOKEN": token, "PATH": "", "PYTHONPATH": str(Path(__file__).parent.parent)}
    return subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=50)


@pytest.mark.timeout(300)  # twenty commands, one after the other
def test_the_commands_work_on_a_data_center_that_runs(tmp_path: Path) -> None:
    with Rig(tmp_path / "store") as rig:
        rig.send(catalog(), word="catalog")
        rig.send(
            block(uuid4(), 1, [(0, START + at, float(at), 0) for at in range(5)], epoch=epoch_of(catalog()), tags=TABLE)
        )
    center = DataCenter(tmp_path, "mqtt://127.0.0.1:9")
    path = tmp_path / "plant.toml"
    path.write_text(CONFIG.format(broker="mqtt://127.0.0.1:9", port=center.port))
    with (
        (tmp_path / "log").open("w") as out,
        subprocess.Popen([sys.executable, "-m", "headrace", "datacenter", str(path)], stderr=out,
                         cwd=Path(__file__).parent.parent) as running,
    ):  # fmt: skip
        try:
            until(lambda: _reached(center.url))
            url = ("--url", center.url)
            identifier = "88.118.8/press1.open"
            asked = ("query", identifier, *url, "--format", "json")
            assert "token is wanted" in headrace(tmp_path, *asked).stderr
            made = headrace(
                tmp_path, "grant", "add", str(path), "--who", "plant-b", "--pattern", "88.118.8/*", "--json"
            )
            assert made.returncode == 0, made.stderr
            grant = json.loads(made.stdout)
            found = headrace(tmp_path, *asked, token=grant["token"])
            assert [row[1] for row in json.loads(found.stdout)["readings"]] == [0.0, 1.0, 2.0, 3.0, 4.0], found.stderr
            several = headrace(tmp_path, "query", "88.118.8/*", *url, token=grant["token"])
            assert several.stdout.count(identifier) == 6
            window = ("--aggregate", "count,mean", "--window", "1h")
            assert " 2.0" in headrace(tmp_path, "query", identifier, *url, *window, token=grant["token"]).stdout
            quality = headrace(tmp_path, "quality", identifier, *url, "--json", token=grant["token"])
            assert json.loads(quality.stdout)["windows"][0]["readings"] == 5
            later = ("--from", "2100-01-01", "--to", "2100-01-02")
            told = headrace(tmp_path, "quality", identifier, *url, *later, token=grant["token"]).stdout
            assert told.rstrip().endswith("not known until its end"), told
            listed = headrace(tmp_path, "grant", "list", str(path), "--json")
            [known] = json.loads(listed.stdout)["grants"]
            assert (known["who"], known["live"], "token" in known) == ("plant-b", True, False)
            assert grant["token"] not in (tmp_path / "store" / "grants.db").read_bytes().decode("latin-1")
            assert headrace(tmp_path, "grant", "revoke", str(path), grant["grant"]).returncode == 0
            assert "was revoked" in headrace(tmp_path, *asked, token=grant["token"]).stderr
            assert headrace(tmp_path, "grant", "revoke", str(path), "ffffffff").returncode == 1
            adding = ("grant", "add", str(path), "--who", "x")
            assert headrace(tmp_path, *adding).returncode == 2
            for more, says in (
                (("--pattern", "88.1/*", "--until", "9999-12-31"), "leave --until out"),
                (("--pattern", "88.1/*", "--until", "2020-01-01"), "is over"),
                (("--pattern", "88.1/*.temp"), "star within"),
            ):
                refused = headrace(tmp_path, *adding, *more)
                assert (refused.returncode, says in refused.stderr) == (2, True), refused.stderr
            verified = headrace(tmp_path, "audit", "verify", str(path), "--json")
            report = json.loads(verified.stdout)
            assert [each["ledger"] for each in report["ledgers"]] == ["grants", "queries"], verified.stderr
            assert (verified.returncode, report["sound"], report["ledgers"][0]["records"]) == (0, True, 2)
        finally:
            running.terminate()
            running.wait(10)
    [(_, ledger)] = audit.files(tmp_path / "store" / "audit", "queries")
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join([*lines[:2], lines[2].replace(b"88.118.8", b"88.118.9"), *lines[3:]]))
    verified = headrace(tmp_path, "audit", "verify", str(ledger))
    assert (verified.returncode, f"{ledger.name}:3: " in verified.stdout) == (1, True), verified.stdout


def _reached(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=2.0).status_code in (200, 503)
    except httpx.HTTPError:
        return False


def test_two_do_not_write_one_ledger(tmp_path: Path) -> None:
    with closing(Recorder(tmp_path)), pytest.raises(AuditError, match="in use"):
        Recorder(tmp_path)
