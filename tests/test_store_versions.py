"""Stores of earlier versions: opened, they hold what they held, and go on; those of later ones are refused."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import duckdb
import pytest

from agent.model import Value, ValueType
from datacenter import query, tables
from datacenter.kinds import kinds_of
from datacenter.store import Store, StoreError
from tests.datacenter_rig import ALL, BEGIN, REAL, TAGS, Rig, block, catalog

NEW_IN_2 = ("bytes", *(f"{kind}_array" for kind in ("boolean", "integer", "unsigned", "real", "text", "bytes")))


def sample(type_: ValueType, at: int) -> Value:
    [kind] = kinds_of([type_.element])
    several: dict[str, bool | str | bytes | float] = {
        "boolean": at % 2 == 0,
        "text": f"text {at}",
        "bytes": bytes([at % 256]),
        "real": at / 4,
    }
    one = several.get(kind, at % 100)
    return [one] * (at % 3) if type_.is_array else one


def rows(tags: list[int], sequence: int) -> list[tuple[int, int, Value, int]]:
    """Of each tag twelve readings, some at one time: those have no order but that of arrival."""
    return [
        (tag, BEGIN + (sequence * 5 + at % 7) * 10**9, sample(TAGS[tag].type, sequence + at), at % 2)
        for at in range(12)
        for tag in tags
    ]


def answers(store: Store) -> dict[str, list[Any]]:
    with store.snapshot() as view:
        found = {each.identifier: query.readings(view, each, ALL).readings for each in query.begun(view, "")}
    return {name: list(map(repr, page)) for name, page in found.items()}


def laid_out_before(folder: Path, version: int) -> None:
    """Makes a store's file one of an earlier version, by that version's own tables."""
    file, newer = folder / "headrace.duckdb", folder / "newer.duckdb"
    file.rename(newer)
    with duckdb.connect(str(file)) as db:
        db.execute(f"ATTACH '{newer}' AS newer (READ_ONLY)")
        db.execute(tables.FIRST + "".join(tables.SINCE[later] for later in range(2, version + 1)))
        for (table,) in db.execute(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = 'headrace' AND table_name NOT IN"
            " ('readings', 'settled')"
        ).fetchall():
            columns = ", ".join(name for name, *_ in db.execute(f"DESCRIBE headrace.{table}").fetchall())
            db.execute(f"INSERT INTO {table} SELECT {columns} FROM newer.{table}")
        columns = ", ".join(f'"{name}"' for name, *_ in db.execute("DESCRIBE readings").fetchall())
        halves = {"readings": (1,), "settled": (0,)} if version >= 3 else {"readings": (0, 1)}
        for table, half in halves.items():
            order = "key, half, place" if table == "settled" else "stream, sequence, half, key, place"
            db.execute(
                f"INSERT INTO {table}({columns}) SELECT {columns} FROM newer.every WHERE half IN {(*half, -1)}"
                f" ORDER BY {order}"
            )
        db.execute("UPDATE meta SET value = ? WHERE name = 'schema'", [str(version)])
    newer.unlink()


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_store_of_an_earlier_version_is_read_as_before(tmp_path: Path, version: int) -> None:
    stream = uuid4()
    known = [tag.index for tag in TAGS if version > 1 or kinds_of([tag.type])[0] not in NEW_IN_2]
    blocks = [block(stream, sequence, rows(known, sequence)) for sequence in range(1, 9)]
    with Rig(tmp_path) as rig:
        rig.send(catalog(), word="catalog")
        rig.send(*blocks)
        for kind in ("real", "integer", "text"):
            rig.store.settle(kind, 40)
        before, client = answers(rig.store), rig.store.client
    assert sum(map(len, before.values())) == 8 * 12 * len(known)
    laid_out_before(tmp_path, version)
    for _ in range(2):
        with Rig(tmp_path) as rig:
            assert (answers(rig.store), rig.store.client) == (before, client)
            rig.send(*blocks)
            assert answers(rig.store) == before, "a block that it has is refused as before"
    array = next(tag.index for tag in TAGS if tag.type is ValueType.INT16_ARRAY)
    with Rig(tmp_path) as rig:
        rig.send(block(stream, 9, [(array, BEGIN, [1, -2], 0), (REAL, BEGIN + 10**12, 1.5, 0)]))
        assert [1, -2] in rig.values(array)
        assert rig.values()[-1] == 1.5
        assert rig.stream(stream)["committed"] == 9


_OPEN = "import sys; from pathlib import Path; from datacenter.store import Store; Store(Path(sys.argv[1])).close()"


def test_kill_9_while_it_is_laid_out_anew_changes_nothing(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    stream = UUID(int=seed)
    with Rig(tmp_path) as rig:
        rig.send(catalog(), word="catalog")
        many = [(REAL, BEGIN + at, at / 8, 0) for at in range(50_000)]
        rig.send(*(block(stream, sequence, many) for sequence in range(1, 21)))
    laid_out_before(tmp_path, 3)
    file, killed = tmp_path / "headrace.duckdb", 0
    earlier = file.read_bytes()
    while killed < 3:  # ends by the time-out of the test
        with subprocess.Popen([sys.executable, "-c", _OPEN, str(tmp_path)]) as child:
            # The file grows as soon as the new tables are written; then anywhere in it.
            size = file.stat().st_size
            while child.poll() is None and file.stat().st_size == size:
                time.sleep(0.001)
            time.sleep(dice.random() * 0.1)
            child.send_signal(signal.SIGKILL)
        assert child.returncode in (0, -signal.SIGKILL)
        killed += child.returncode != 0
        if child.returncode == 0:  # it was done before we came to kill it, and there would be nothing left to do
            file.write_bytes(earlier)
    store = Store(tmp_path)
    assert store.rows(
        "SELECT sequence, count(*), sum(value), min(time) FROM arrived_real GROUP BY ALL ORDER BY ALL"
    ) == [(sequence, 50_000, sum(at / 8 for at in range(50_000)), BEGIN) for sequence in range(1, 21)]
    backwards = "SELECT count(*) FROM (SELECT sequence, time, lag((sequence, time)) OVER (ORDER BY rowid) AS before"
    assert store.rows(f"{backwards} FROM arrived_real) WHERE before > (sequence, time)") == [(0,)]
    store.close()


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    client = store.client
    store.close()
    store = Store(tmp_path)
    assert store.client == client
    with store.transaction():
        store.write("UPDATE meta SET value = '7' WHERE name = 'schema'")
    store.close()
    with pytest.raises(StoreError, match="version 7"):
        Store(tmp_path)
