"""Ingest with real blocks and a real store, without a broker: each reading once, or a gap that says what is missing."""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import orjson
import pytest

from agent import _native
from agent.model import Tag, ValueType
from agent.wire import ROOT, State, epoch_of
from datacenter import ledger
from datacenter.store import Store, StoreError
from tests.datacenter_rig import AGENT, BEGIN, EPOCH, REAL, TAGS, Rig, Rows, block, catalog, gap


def test_a_block_is_stored_once_however_often_it_comes(tmp_path: Path) -> None:
    stream = uuid4()
    with Rig(tmp_path) as rig:
        rig.send(catalog(), word="catalog")
        one, two = block(stream, 1), block(stream, 2)
        rig.send(one, one, two)
        rig.send(one)
        assert rig.values() == [1.0, 1.1, 1.2, 2.0, 2.1, 2.2]
        assert rig.ingest.counters.duplicates == 2
        assert rig.receipts(stream)[-1] == 2, "a duplicate is receipted too"
        account = rig.stream(stream)
        assert (account["readings"], account["blocks"], account["bytes"]) == (6, 2, len(one) + len(two))


def test_blocks_out_of_order_leave_holes_that_close(tmp_path: Path) -> None:
    stream = uuid4()
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    sequences = list(range(1, 41))
    random.Random(seed).shuffle(sequences)
    with Rig(tmp_path) as rig:
        rig.send(catalog(), word="catalog")
        rig.send(block(stream, 1), block(stream, 5), block(stream, 3))
        account = rig.stream(stream)
        assert account["holes"] == [[2, 2], [4, 4]]
        assert (account["first"], account["last"], account["committed"]) == (1, 5, 1)
        for sequence in sequences:
            rig.send(block(stream, sequence))
        assert rig.stream(stream)["holes"] == []
        assert rig.receipts(stream)[-1] == 40
        assert rig.receipts(stream) == sorted(rig.receipts(stream))
        assert len(rig.values()) == 120


def test_the_account_survives_a_restart(tmp_path: Path) -> None:
    stream = uuid4()
    with Rig(tmp_path) as rig:
        rig.send(catalog(), word="catalog")
        rig.send(block(stream, 1), block(stream, 2), block(stream, 5), gap(stream, 7, 8, 6))
        before = rig.stream(stream)
    with Rig(tmp_path) as rig:
        assert rig.stream(stream) == before
        rig.send(block(stream, 5), block(stream, 1), gap(stream, 7, 8, 6))
        assert rig.ingest.counters.duplicates == 3
        rig.send(block(stream, 3), block(stream, 4))
        assert rig.receipts(stream)[-1] == 5
        rig.ingest.greet()
        rig.send(block(stream, 6))
        assert rig.receipts(stream)[-1] == 8


def test_a_gap_fills_its_places_and_names_what_is_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stream = uuid4()
    with Rig(tmp_path) as rig:
        rig.send(catalog(), word="catalog")
        rig.send(block(stream, 1), gap(stream, 2, 4, 9), block(stream, 5))
        assert rig.receipts(stream)[-1] == 5
        assert rig.gaps() == [(2, 4, 9, "outbox full")]
        assert rig.stream(stream)["holes"] == []
        rig.send(gap(stream, 2, 4, 9))
        assert rig.gaps() == [(2, 4, 9, "outbox full")]
    [lost] = [record for record in caplog.records if getattr(record, "event", "") == "readings_lost"]
    assert (lost.levelno, lost.__dict__["lost"], lost.__dict__["stream"]) == (logging.ERROR, 9, str(stream))


def test_a_gap_counts_only_what_is_not_stored(tmp_path: Path) -> None:
    stream = uuid4()
    with Rig(tmp_path) as rig:
        rig.send(catalog(), word="catalog")
        # In one transaction, and again over two: what is pending counts as stored.
        rig.send(block(stream, 1), block(stream, 3), gap(stream, 2, 5, 12))
        assert rig.gaps() == [(2, 5, 9, "outbox full")]
        rig.send(gap(stream, 2, 5, 12))
        assert rig.gaps() == [(2, 5, 9, "outbox full")]
        assert rig.receipts(stream)[-1] == 5
        assert rig.values() == [1.0, 1.1, 1.2, 3.0, 3.1, 3.2]


def test_a_late_block_takes_its_place_back_from_a_gap(tmp_path: Path) -> None:
    stream = uuid4()
    with Rig(tmp_path) as rig:
        rig.send(catalog(), word="catalog")
        rig.send(gap(stream, 1, 3, 9))
        rig.send(block(stream, 2))
        assert rig.gaps() == [(1, 3, 6, "outbox full")]
        rig.send(block(stream, 1), block(stream, 1), block(stream, 2))
        assert rig.gaps() == [(3, 3, 3, "outbox full")]
        assert rig.ingest.counters.duplicates == 2
        rig.send(gap(stream, 1, 3, 9))
        assert rig.gaps() == [(3, 3, 3, "outbox full")]
        rig.send(block(stream, 3))
        assert rig.gaps() == []
        assert rig.values() == [s + at / 10 for s in (1, 2, 3) for at in range(3)]
        assert rig.receipts(stream)[-1] == 3


def test_a_longer_gap_replaces_the_shorter_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stream = uuid4()
    with Rig(tmp_path) as rig:
        rig.send(catalog(), word="catalog")
        rig.send(gap(stream, 1, 2, 6))
        rig.send(block(stream, 4), gap(stream, 1, 4, 12))
        assert rig.gaps() == [(1, 3, 9, "outbox full")]
        assert rig.receipts(stream)[-1] == 4
        rig.send(gap(stream, 3, 6, 12))
        assert rig.gaps() == [(1, 3, 9, "outbox full"), (5, 6, 9, "outbox full")]
    lost = [record.__dict__["lost"] for record in caplog.records if getattr(record, "event", "") == "readings_lost"]
    assert lost == [6, 3, 9]


def test_an_unknown_epoch_waits_for_its_catalog(tmp_path: Path) -> None:
    stream = uuid4()
    with Rig(tmp_path) as rig:
        rig.send(block(stream, 1), block(stream, 2), block(stream, 1))
        assert rig.values() == []
        assert rig.receipts(stream) == []
        commands = [body for topic, body in rig.published if topic == f"{ROOT}/{AGENT}/commands"]
        assert [orjson.loads(body) for body in commands] == [{"command": "catalog", "epoch": f"{EPOCH:016x}"}]
        assert rig.ingest.parked == 2
    with Rig(tmp_path) as rig:
        assert rig.ingest.parked == 2, "what waits is on the disk"
        rig.send(catalog(), word="catalog")
        assert rig.ingest.parked == 0
        assert rig.values() == [1.0, 1.1, 1.2, 2.0, 2.1, 2.2]
        assert rig.receipts(stream)[-1] == 2


def test_what_waits_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = uuid4()
    monkeypatch.setattr(ledger, "PARKED_BLOCKS", 2)
    with Rig(tmp_path) as rig:
        rig.send(*(block(stream, sequence) for sequence in (1, 2, 3)))
        assert (rig.ingest.parked, rig.ingest.counters.refused) == (2, 1)
        rig.send(catalog(), word="catalog")
        assert rig.receipts(stream)[-1] == 2, "the refused one is not receipted: it comes again"
        rig.send(block(stream, 3))
        assert rig.receipts(stream)[-1] == 3


def test_a_damaged_block_is_set_aside_and_its_neighbours_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stream = uuid4()
    damaged = bytearray(block(stream, 2))
    damaged[len(damaged) // 2] ^= 0x10
    with Rig(tmp_path) as rig:
        rig.send(catalog(), word="catalog")
        rig.send(block(stream, 1), bytes(damaged), b"", b"not a block", bytes(damaged), block(stream, 3))
        assert rig.values() == [1.0, 1.1, 1.2, 3.0, 3.1, 3.2]
        assert rig.ingest.counters.quarantined == 4
        assert rig.receipts(stream)[-1] == 1, "the damaged one is still wanted"
        kept = {path.read_bytes() for path in (tmp_path / "quarantine").iterdir()}
        assert kept == {bytes(damaged), b"", b"not a block"}
        rig.send(block(stream, 2))
        assert rig.receipts(stream)[-1] == 3
    events = [record for record in caplog.records if getattr(record, "event", "") == "block_quarantined"]
    assert [record.levelno for record in events] == [logging.ERROR] * 4


def test_another_block_at_a_place_that_is_filled_is_told_and_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A machine that was put back to an old state gives out places again. What it read since must not go in silence."""
    stream = uuid4()
    rows: Rows = [(REAL, BEGIN + 77 * 10**9 + at, 0.5, 0) for at in range(5)]
    buffer = _native.Buffer(TAGS)
    buffer.push(rows)
    other = buffer.seal(stream=stream.bytes, sequence=2, epoch=EPOCH, sealed_ns=BEGIN + 78 * 10**9)
    assert other is not None
    buffer.push(rows[:1])
    trimmed = buffer.seal(stream=stream.bytes, sequence=1, epoch=EPOCH, sealed_ns=BEGIN + 10**9)
    assert trimmed is not None
    with Rig(tmp_path) as rig:
        rig.send(catalog(), word="catalog")
        rig.send(block(stream, 1), block(stream, 2))
        rig.send(block(stream, 2), block(stream, 1), trimmed.data)  # as they are, and as a policy would leave one
        assert not [record for record in caplog.records if getattr(record, "event", "") == "readings_lost"]
        rig.send(other.data)
        assert rig.values() == [1.0, 1.1, 1.2, 2.0, 2.1, 2.2]
        (kept,) = (tmp_path / "quarantine").iterdir()
        assert kept.read_bytes() == other.data
    (lost,) = [record for record in caplog.records if getattr(record, "event", "") == "readings_lost"]
    assert (lost.levelno, lost.__dict__["lost"], lost.__dict__["first"]) == (logging.ERROR, 5, 2)


def test_a_block_that_its_catalog_does_not_fit_becomes_a_gap(tmp_path: Path) -> None:
    stream = uuid4()
    few = catalog(TAGS[:REAL])
    text = catalog([*TAGS[:REAL], Tag(REAL, "press1", "x", "hr:1", ValueType.STRING, "88.1/x")])
    with Rig(tmp_path) as rig:
        rig.send(few, text, word="catalog")
        rig.send(block(stream, 1, epoch=epoch_of(few)), block(stream, 2, epoch=epoch_of(text)))
        rig.send(block(stream, 1, epoch=epoch_of(few)))
        assert [(first, last, readings) for first, last, readings, _ in rig.gaps()] == [(1, 1, 3), (2, 2, 3)]
        assert "no tag" in rig.gaps()[0][3]
        assert "a text value" in rig.gaps()[1][3]
        assert rig.receipts(stream)[-1] == 2
        assert len(list((tmp_path / "quarantine").iterdir())) == 2


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'{"format":"other"}',
        orjson.dumps({"format": "headrace-catalog/1", "agent": AGENT, "tags": [{"tag": 0}]}),
        catalog([TAGS[0], TAGS[0]]),
        catalog([Tag(-1, "d", "n", "hr:0", ValueType.BOOL, "i")]),
        catalog([Tag(2**40, "d", "n", "hr:0", ValueType.BOOL, "i")]),
        catalog().replace(b'"float64"', b'"float65"'),
        catalog().replace(b'"name":"bool"', b'"level":"high","name":"bool"'),
        catalog().replace(b'"name":"bool"', b'"level":1.9,"name":"bool"'),
    ],
)
def test_a_catalog_that_can_not_be_used_is_refused(
    tmp_path: Path, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with Rig(tmp_path) as rig:
        rig.send(body, word="catalog")
        assert rig.named(TAGS[0].identifier) is None
        rig.send(catalog(), word="catalog")
        assert rig.named(TAGS[0].identifier) is not None
    assert [record for record in caplog.records if getattr(record, "event", "") == "catalog_refused"]


def test_a_tag_keeps_its_key_over_epochs(tmp_path: Path) -> None:
    stream = uuid4()
    moved = catalog([*TAGS, Tag(len(TAGS), "press1", "new", "hr:99", ValueType.BOOL, "88.1/new")])
    with Rig(tmp_path) as rig:
        rig.send(catalog(), moved, word="catalog")
        rig.send(block(stream, 1), block(stream, 2, epoch=epoch_of(moved)))
        assert len(rig.values()) == 6
        with rig.store.snapshot() as view:
            assert view.rows("SELECT count(*) FROM tags") == [(len(TAGS) + 1,)]


def test_a_state_is_kept_and_answered_with_a_receipt(tmp_path: Path) -> None:
    known, unknown = uuid4(), uuid4()
    with Rig(tmp_path) as rig:
        rig.send(catalog(), word="catalog")
        rig.send(block(known, 1))
        rig.published.clear()
        rig.send(State(True, known, EPOCH).encode(), State(True, unknown).encode(), word="state")
        assert rig.receipts(known) == [1]
        assert rig.receipts(unknown) == [0]
        rig.published.clear()
        rig.send(State(False, known).encode(), b"not json", b"", word="state")
        assert rig.published == []
        with rig.store.snapshot() as view:
            [(state,)] = view.rows("SELECT state FROM agents")
        assert orjson.loads(state)["online"] is False


def test_a_full_queue_takes_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datacenter import ingest
    from datacenter.message import Message

    monkeypatch.setattr(ingest, "QUEUE_MESSAGES", 3)
    rig = Rig(tmp_path)
    message = Message(AGENT, "data", b"x", False, lambda: None)
    assert [rig.ingest.offer(message) for _ in range(5)] == [True, True, True, False, False]
    assert rig.ingest.counters.dropped == 2
    rig.store.close()


_FULL = """\
import resource, sys
from pathlib import Path
from uuid import uuid4
from tests.datacenter_rig import REAL, Message, Rig, block, catalog, until

stream, settled = uuid4(), []
rows = [(REAL, at, at * 1.1, 0) for at in range(5000)]
with Rig(Path(sys.argv[1])) as rig:
    rig.send(catalog(), word="catalog")
    rig.send(block(stream, 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    for sequence in range(2, 6):
        rig.ingest.offer(Message("a", "data", block(stream, sequence, rows), False, lambda: settled.append(1)))
    until(lambda: not rig.ingest.writable)
    assert rig.ingest.alive and not settled, "nothing is acknowledged that is not on the disk"
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    until(lambda: len(settled) == 4)
    assert rig.ingest.writable and len(rig.values()) == 20_003
"""


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    found = subprocess.run([sys.executable, "-c", _FULL, str(tmp_path)], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def test_a_store_in_use_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path)
    code = (
        "import sys; from pathlib import Path; from datacenter.store import Store, StoreError\n"
        "try: Store(Path(sys.argv[1]))\nexcept StoreError as reason: print(reason)"
    )
    found = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert "in use by another process" in found.stdout, found
    store.close()


def test_a_store_that_is_none_says_so(tmp_path: Path) -> None:
    (tmp_path / "headrace.duckdb").write_bytes(os.urandom(8192))
    with pytest.raises(StoreError, match="is not a store"):
        Store(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="can't be opened"):
        Store(tmp_path / "file")
