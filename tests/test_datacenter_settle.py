"""Settling: readings change their place in the store, and nothing else; whatever happens in between."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from datacenter import query
from datacenter.query import Span
from datacenter.settle import Settler
from datacenter.store import Store
from tests.datacenter_rig import ALL, BEGIN, REAL, TAGS, Rig, block, catalog, until


def counts(store: Store) -> tuple[int, int]:
    """Readings as they came, and settled ones."""
    with store.snapshot() as view:
        [(hot, cold)] = view.rows("SELECT count(*) FILTER (half = 1), count(*) FILTER (half = 0) FROM every")
    return hot, cold


def pages(store: Store, limit: int, settler: Settler | None = None) -> list[tuple[int, object, int]]:
    """Every page of one identifier's readings; between two pages a run is made."""
    found, after = [], None
    while True:
        with store.snapshot() as view:
            who = query.named(view, TAGS[REAL].identifier)
            assert who is not None
            page = query.readings(view, who, Span(ALL.from_ns, ALL.to_ns, limit, after))
        found += page.readings
        if page.next is None:
            return found
        after = page.next
        if settler is not None:
            settler.step()


def test_what_is_settled_is_read_as_before(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    one, two = uuid4(), uuid4()
    with Rig(tmp_path) as rig:
        rig.send(catalog(), word="catalog")
        # Two streams whose times overlap and repeat, some blocks late.
        blocks = []
        for stream in (one, two):
            for sequence in range(1, 15):
                start = BEGIN + sequence * 20
                rows = [(REAL, start + dice.randrange(40), dice.random(), 0) for _ in range(20)]
                rows += [(0, start + at, bool(at % 2), 0) for at in range(5)]
                blocks.append(block(stream, sequence, rows))
        dice.shuffle(blocks)
        rig.send(*blocks)
        before = pages(rig.store, 1_000_000)
        assert len(before) == 560
        settler = Settler(rig.store, 100)
        assert pages(rig.store, 17, settler) == before, "runs between the pages change no page"
        while settler.step():
            pass
        hot, cold = counts(rig.store)
        assert (hot + cold, hot < 200, settler.readings) == (700, True, cold)
        assert pages(rig.store, 1_000_000) == before
        with rig.store.snapshot() as view:
            who = query.named(view, TAGS[REAL].identifier)
            assert who is not None
            table, _ = query.table(view, who, ALL)
        assert table.column("value").to_pylist() == [row[1] for row in before]
        rig.send(*blocks)
        assert rig.ingest.counters.duplicates == 28
        assert pages(rig.store, 1_000_000) == before
    with Rig(tmp_path) as rig:
        assert counts(rig.store) == (hot, cold)
        assert pages(rig.store, 1_000_000) == before


def test_ingest_goes_on_while_a_run_is_made(tmp_path: Path) -> None:
    stream = uuid4()
    rows = [(REAL, BEGIN + at, float(at), 0) for at in range(20_000)]
    with Rig(tmp_path) as rig:
        rig.send(catalog(), word="catalog")
        rig.send(*(block(stream, sequence, rows) for sequence in range(1, 41)))
        settler = Settler(rig.store, 200_000)
        done = threading.Event()

        def settle() -> None:
            while settler.step():
                pass
            done.set()

        thread = threading.Thread(target=settle)
        thread.start()
        sequence = 40
        while not done.is_set():
            sequence += 1
            rig.send(block(stream, sequence))
        thread.join()
        assert settler.runs == 4
        assert sum(counts(rig.store)) == 800_000 + (sequence - 40) * 3
        assert rig.ingest.writable
        assert rig.stream(stream)["committed"] == sequence


def test_a_run_is_given_up_when_the_data_center_stops(tmp_path: Path) -> None:
    stream = uuid4()
    rows = [(REAL, BEGIN + at, float(at), 0) for at in range(50_000)]
    with Rig(tmp_path) as rig:
        rig.send(catalog(), word="catalog")
        rig.send(*(block(stream, sequence, rows) for sequence in range(1, 21)))
        settler = Settler(rig.store, 1_000_000)
        settler.start()
        until(lambda: rig.store._settling is not None or settler.runs)
        assert settler.stop(20.0)
        assert sum(counts(rig.store)) == 1_000_000


_KILLED = """\
import sys, time
from pathlib import Path
from uuid import UUID
from datacenter.settle import Settler
from tests.datacenter_rig import Rig, block, catalog

folder, stream = Path(sys.argv[1]), UUID(sys.argv[2])
with Rig(folder) as rig:
    rig.send(catalog(), word="catalog")
    committed = rig.stream(stream)["committed"] if rig.store.rows("SELECT 1 FROM streams") else 0
    import datacenter.settle
    datacenter.settle.EVERY = 0.001
    settler = Settler(rig.store, 60)
    settler.start()
    for sequence in range(committed + 1, 10**6, 4):
        rig.send(*(block(stream, sequence + at) for at in range(4)))
        print(sequence + 3, settler.runs, flush=True)
"""


def test_kill_9_in_the_middle_of_it_loses_and_doubles_nothing(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    stream = UUID(int=seed)
    acknowledged, runs = 0, 0
    for _ in range(3):
        command = [sys.executable, "-c", _KILLED, str(tmp_path), str(stream)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                acknowledged, of_this = map(int, line.split())
                if of_this >= 2:
                    break
            time.sleep(dice.random() * 0.05)  # anywhere in a run, not to wait for anything
            child.send_signal(signal.SIGKILL)
            rest = child.stdout.read().split("\n")[:-1]
            acknowledged = max([acknowledged, *(int(line.split()[0]) for line in rest)])
        runs += of_this
        store = Store(tmp_path)
        try:
            with store.snapshot() as view:
                [(committed,)] = view.rows("SELECT committed FROM streams")
                each = view.rows("SELECT sequence, count(*), count(DISTINCT time) FROM every GROUP BY ALL ORDER BY ALL")
                assert committed >= acknowledged
                assert each == [(sequence, 3, 3) for sequence in range(1, committed + 1)]
        finally:
            store.close()
    assert runs >= 6


@pytest.mark.parametrize("limit", [0, 10])
def test_nothing_to_settle_is_nothing(tmp_path: Path, limit: int) -> None:
    with Rig(tmp_path) as rig:
        assert rig.store.settle("real", limit) == 0
