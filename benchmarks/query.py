"""The data center's store: a day of one tag out of many readings, cold and warm, and ingest from blocks beside it.

`python -m benchmarks.query [READINGS]` prints the lines by itself. The store of the queries (115 tags at 10 Hz, by
default 100 million readings, about 300 MB) is made once, in `target/benchmarks`, through the store's own insert and
settle; the baseline is the same question asked before anything was settled.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter, process_time
from uuid import UUID, uuid4

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from agent import _native
from agent.model import Tag, ValueType
from agent.wire import Catalog, CatalogTag, epoch_of
from benchmarks.result import COMMAND, Result, less, more
from datacenter import names
from datacenter.access import Caller
from datacenter.kinds import SQL_OF
from datacenter.ledger import Ledger, Outcome
from datacenter.query import Span
from datacenter.questions import Asked, readings
from datacenter.settle import RUN
from datacenter.store import Store
from datacenter.tables import VERSION

READINGS = 100_000_000
TAGS = tuple(Tag(at, "press1", f"t{at}", f"hr:{at}", ValueType.FLOAT64, f"88.118.8/press1.t{at}") for at in range(115))
BEGIN = 1_750_000_000 * 10**9
STEP = 100_000_000
DAY = 86_400 * 10**9
FOLDER = Path(__file__).parents[1] / "target" / "benchmarks"
ROUNDS = 5


def results(count: int = READINGS) -> Iterator[Result]:
    """Queries first. Raises AssertionError where a day does not have all of its readings."""
    folder, before = _made(count)
    answers = [_asked(folder) for _ in range(ROUNDS)]
    what = f"a day of one tag out of {count // 10**6} million readings"
    for name, key in (
        ("cold: file not in memory, another tag asked for before", "cold"),
        ("cold, the first question of a store just opened", "opened"),
        ("the same with the start of Python and the opening", "started"),
        ("warm", "warm"),
        ("first 10,000 as JSON, warm", "page"),
    ):
        of = min(answer[key] for answer in answers)
        yield from less(f"{what}, {name}", of, "ms", **{"in order of arrival": before[key]})
        if f"{key}_cpu" in before:
            of_cpu = min(answer[f"{key}_cpu"] for answer in answers)
            by_clock = f"by the clock; load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores"
            yield from less(f"{what}, {name}: CPU", of_cpu, "ms", **{by_clock: of})
    yield from _ingest()


def _catalog() -> bytes:
    return Catalog(
        "bench", tuple(CatalogTag(t.index, t.device, t.name, t.identifier, t.type.value) for t in TAGS)
    ).encode()


def _made(count: int) -> tuple[Path, dict[str, float]]:
    """The settled store of so many readings, and the times of the questions before it was."""
    folder = FOLDER / f"store-{VERSION}-{count}"
    told = folder / "before.json"
    if told.is_file():
        return folder, orjson.loads(told.read_bytes())
    shutil.rmtree(folder, ignore_errors=True)
    store = Store(folder)
    body = _catalog()
    with store.transaction():
        names.bind(store, epoch_of(body), Catalog.decode(body))
    stream = pa.scalar(1, pa.int32())
    for start in range(0, count, 1_000_000):
        at = pa.array(range(start, min(start + 1_000_000, count)), pa.int64())
        scan = pc.divide(at, len(TAGS))
        rows = {
            "key": pc.cast(pc.add(pc.subtract(at, pc.multiply(scan, len(TAGS))), 1), pa.int32()),
            "time": pc.add(pc.multiply(scan, STEP), BEGIN),
            "quality": pa.repeat(pa.scalar(0, pa.uint32()), len(at)),
            "value": pc.round(pc.multiply(pc.sin(pc.divide(pc.cast(at, pa.float64()), 1000.0)), 100.0), 2),
            "stream": pa.repeat(stream, len(at)),
            "sequence": pc.divide(at, len(TAGS) * 10),
        }
        with store.transaction():
            store.insert("arrived_real", pa.table(rows))
    store.close()
    before = _asked(folder)
    store = Store(folder)
    while store.rows("SELECT count(*) >= ? FROM arrived_real", [RUN])[0][0]:
        store.settle("real", RUN)
    store.close()
    told.write_bytes(orjson.dumps(before))
    return folder, before


def _asked(folder: Path) -> dict[str, float]:
    """The questions in processes of their own."""
    command = [sys.executable, "-m", "benchmarks.query", "--ask", str(folder)]
    root = Path(__file__).parents[1]
    answer: dict[str, float] = {}
    for way in ("opened", "cold"):
        _forget(folder)
        answer |= orjson.loads(subprocess.run([*command, way], check=True, capture_output=True, cwd=root).stdout)
    _forget(folder)
    began = perf_counter()
    subprocess.run([*command, "started"], check=True, capture_output=True, cwd=root)
    return answer | {"started": (perf_counter() - began) * 1000}


def _forget(folder: Path) -> None:
    """The file is not in the memory of the system afterwards."""
    number = os.open(folder / "headrace.duckdb", os.O_RDONLY)
    os.fsync(number)
    os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(number)


def _ask(folder: Path, way: str) -> None:
    """Prints milliseconds."""
    # Tags far from each other: what one was read from holds nothing of the other.
    other, day = (
        Asked((TAGS[at].identifier,), None, Span(BEGIN, BEGIN + DAY, 1_000_000), None, "arrow") for at in (7, 57)
    )
    page = Asked(day.ids, None, Span(BEGIN, BEGIN + DAY, 10_000), None, "json")
    expected = DAY // STEP
    if way != "started":
        with tempfile.TemporaryDirectory() as place:
            # Libraries are loaded, and the code has run once, on another store.
            small = Store(Path(place))
            body = _catalog()
            with small.transaction():
                names.bind(small, epoch_of(body), Catalog.decode(body))
            for question in (day, page):
                _timed(small, question, 0)
            small.close()
    store = Store(folder)
    if way == "cold":
        _timed(store, other, expected)
        _forget(folder)
    took, cpu = _timed(store, day, expected)
    found = {way: took, f"{way}_cpu": cpu}
    if way == "cold":
        found["warm"], found["warm_cpu"] = map(
            min, zip(*(_timed(store, day, expected) for _ in range(ROUNDS)), strict=True)
        )
        found["page"] = min(_timed(store, page, 10_000)[0] for _ in range(ROUNDS))
    store.close()
    sys.stdout.write(orjson.dumps(found).decode())


def _timed(store: Store, question: Asked, expected: int) -> tuple[float, float]:
    """Milliseconds by the clock, and of CPU."""
    began, cpu = perf_counter(), process_time()
    with store.snapshot() as view:
        found = readings(view, question, Caller())
    took, used = (perf_counter() - began) * 1000, (process_time() - cpu) * 1000
    assert found.readings == expected, f"{found.readings} readings instead of {expected}"
    return took, used


def _ingest(blocks: int = 100, each: int = 20_000) -> Iterator[Result]:
    """From blocks in memory to committed transactions of eight blocks; CPU time is that of all threads together."""
    body, stream = _catalog(), uuid4()
    made = [_block(stream, sequence, each, epoch_of(body)) for sequence in range(1, blocks + 1)]
    rounds = [_round(body, made, blocks * each) for _ in range(ROUNDS)]
    cpu, wall, settled, duplicates, wide = (max(column) for column in zip(*rounds, strict=True))
    both = 1 / (1 / cpu + 1 / settled)
    wide_name = "the insert alone, into one table with a column for each kind of values"
    yield from more("blocks to DuckDB, a second of CPU", cpu, "readings/s", **{wide_name: wide})
    yield from more("blocks to DuckDB and settled, a second of CPU", both, "readings/s", **{wide_name: wide})
    load = f"the same by CPU time; load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores"
    yield from more("blocks to DuckDB, by the clock", wall, "readings/s", **{load: cpu})
    yield from more("duplicate blocks refused, a second of CPU", duplicates, "readings/s", stored=cpu)


def _round(body: bytes, blocks: list[bytes], count: int) -> tuple[float, float, float, float, float]:
    """Readings a second: stored, by CPU and by the clock; settled, refused, and in the layout of before, by CPU."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        ledger = Ledger(store)
        with store.transaction():
            ledger.learn(body, 0)
        stored, cpu, wall = _add(store, ledger, blocks, Outcome.STORED)
        again, refused, _ = _add(store, ledger, blocks, Outcome.DUPLICATE)
        assert stored == again == len(blocks)
        assert store.rows("SELECT count(*) FROM every") == [(count,)]
        kinds = ", ".join(f'"{kind}"' for kind in SQL_OF)
        store.write(f"CREATE TABLE wide AS SELECT key, time, quality, {kinds}, stream, sequence FROM every LIMIT 0")
        with store.snapshot() as view:
            rows = view.arrow("SELECT key, time, quality, value AS real, stream, sequence FROM arrived_real")
        size = count // len(blocks) * 8
        began = process_time()
        for at in range(0, count, size):
            with store.transaction():
                store.insert("wide", rows.slice(at, size))
        wide = process_time() - began
        began = process_time()
        assert store.settle("real", count) == count
        settled = process_time() - began
        store.close()
    return count / cpu, count / wall, count / settled, count / refused, count / wide


def _add(store: Store, ledger: Ledger, blocks: list[bytes], wanted: Outcome) -> tuple[int, float, float]:
    """Blocks with the wanted outcome; seconds of CPU, and by the clock."""
    began, clock, count = process_time(), perf_counter(), 0
    for at in range(0, len(blocks), 8):
        with store.transaction():
            for body in blocks[at : at + 8]:
                count += ledger.add("bench", body, 0)[1] is wanted
            ledger.flush()
    return count, process_time() - began, perf_counter() - clock


def _block(stream: UUID, sequence: int, count: int, epoch: int) -> bytes:
    buffer = _native.Buffer(TAGS)
    start = BEGIN + sequence * count // len(TAGS) * STEP
    buffer.push([(at % len(TAGS), start + at // len(TAGS) * STEP, round(at * 0.37 % 100, 2), 0) for at in range(count)])
    sealed = buffer.seal(stream=stream.bytes, sequence=sequence, epoch=epoch, sealed_ns=start)
    assert sealed is not None
    return sealed.data


def main() -> None:
    if sys.argv[1:2] == ["--ask"]:
        _ask(Path(sys.argv[2]), sys.argv[3])
        return
    for result in results(int(sys.argv[1]) if len(sys.argv) > 1 else READINGS):
        replace(result, command=f"{COMMAND}.query").print()


if __name__ == "__main__":
    main()
