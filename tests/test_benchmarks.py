"""The benchmarks run anywhere, print what scripts rely on, and give every rival the whole of the readings."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from pcodec import wrapped

from agent.model import Reading, Tag, ValueType
from benchmarks import modbus, page, rivals, signals, sizes, sparkplug
from benchmarks.result import Result
from benchmarks.rivals import RIVALS, Sample

ROOT = Path(__file__).parent.parent
MILLISECOND = 1_000_000


@pytest.fixture(params=["shared", "own"])
def sample(request: pytest.FixtureRequest) -> Sample:
    source = signals.simulated()
    return Sample.of(source.tags, (source.own if request.param == "own" else source.shared)(20))


@pytest.mark.timeout(240)  # it measures for as long as it takes
def test_every_benchmark_prints_one_json_object_a_line() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks", "plant", "tep"], cwd=ROOT, capture_output=True, timeout=200
    )
    assert (found.returncode, found.stderr) == (0, b"")
    lines = [orjson.loads(line) for line in found.stdout.splitlines()]
    for line in lines:
        assert list(line) == ["name", "value", "unit", "baseline", "ratio", "command"]
        assert line["value"] > 0
        assert line["ratio"] > 0
    assert len({(line["name"], line["baseline"]) for line in lines}) == len(lines)
    plant = [line for line in lines if line["name"].startswith("block of simulated plant")]
    assert len(plant) == 6 * (len(RIVALS) + 1)
    # Bytes are the same on every machine, so they may be held to a bound; speeds may not.
    assert all(line["value"] < 3 for line in plant)
    assert all(line["ratio"] > 30 for line in plant if line["baseline"] == "JSON")
    assert all(line["ratio"] > 1 for line in plant if not line["baseline"].startswith("pco"))
    rates = {line["name"] for line in lines if line["unit"] == "readings/s"}
    assert {"seal alone, own times", "decode to Arrow, shared times"} <= rates


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, content) of a protobuf message: a decoder that shares nothing with the encoder."""
    at = 0

    def varint() -> int:
        nonlocal at
        number = shift = 0
        while True:
            byte = message[at]
            number, shift, at = number + ((byte & 127) << shift), shift + 7, at + 1
            if byte < 128:
                return number

    while at < len(message):
        key = varint()
        match key & 7:
            case 0:
                yield key >> 3, varint()
            case 1 | 5 as wire:
                width = 8 if wire == 1 else 4
                yield key >> 3, message[at : at + width]
                at += width
            case 2:
                length = varint()
                assert at + length <= len(message)
                yield key >> 3, message[at : at + length]
                at += length
            case wire:
                raise AssertionError(f"wire type {wire}")


def test_a_sparkplug_payload_of_known_bytes() -> None:
    tags = [Tag(0, "d", "a", "hr:0", ValueType.FLOAT64, "a"), Tag(1, "d", "b", "hr:4", ValueType.BOOL, "b")]
    rows = [Reading(0, 300 * MILLISECOND, 1.5), Reading(1, 1 * MILLISECOND, True)]
    double = "10 00" + "18 ac02" + "69 000000000000f83f"
    boolean = "10 01" + "18 01" + "70 01"
    expected = "08 ac02" + "12 0e" + double + "12 06" + boolean + "18 07"
    assert sparkplug.payload(tags, rows, seq=7, sent_ns=300 * MILLISECOND) == bytes.fromhex(expected)


def test_sparkplug_keeps_every_reading(sample: Sample) -> None:
    found, content = [], list(fields(rivals.sparkplug_b(sample)))
    assert [number for number, _ in content] == [1, *[2] * len(sample.rows), 3]
    for number, metric in content:
        if number == 2:
            assert isinstance(metric, bytes)
            alias, time_ms, value = list(fields(metric))
            assert (alias[0], time_ms[0]) == (2, 3)
            assert isinstance(alias[1], int)
            found.append((alias[1], time_ms[1], metric_value(sample.tags[alias[1]].type, *value)))
    assert found == [(tag, time_ns // MILLISECOND, value) for tag, time_ns, value, _ in sample.rows]


def metric_value(kind: ValueType, number: int, content: int | bytes) -> object:
    """By the field numbers of sparkplug_b.proto; a negative integer is in two's complement."""
    match number, content:
        case 10, int():
            return content - 2**32 if content >= 2**31 and kind == ValueType.INT16 else content
        case 12, bytes():
            return struct.unpack("<f", content)[0]
        case 13, bytes():
            return struct.unpack("<d", content)[0]
        case 14, int():
            return bool(content)
        case 15, bytes():
            return content.decode()
    raise AssertionError(f"field {number}")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, (7, 1)), (-2, (10, 2**32 - 2)), (2**31, (10, 2**31))],
)
def test_other_sparkplug_values(value: int | None, expected: tuple[int, int]) -> None:
    tags = [Tag(0, "d", "a", "hr:0", ValueType.INT32, "a")]
    metric = dict(fields(sparkplug.payload(tags, [Reading(0, 0, value)], 0, 0)))[2]
    assert isinstance(metric, bytes)
    assert list(fields(metric))[2] == expected


def test_a_value_that_no_metric_holds_is_refused() -> None:
    with pytest.raises(TypeError, match="can't hold"):
        sparkplug.payload([Tag(0, "d", "a", "hr:0", ValueType.BOOL, "a")], [Reading(0, 0, 5)], 0, 0)


def table_rows(table: pa.Table, sample: Sample) -> list[tuple[int, int, object]]:
    """(tag, ms, value) by tag, of a long or of a wide table."""
    names, columns = table.column_names, {name: table[name].to_pylist() for name in table.column_names}
    columns |= {
        name: table[name].cast(pa.int64()).to_pylist() for name in names if name.startswith("t") and name != "tag"
    }
    if "tag" in names:
        values = zip(*(columns[name] for name in names if name not in {"tag", "time"}), strict=True)
        found = [next((value for value in row if value is not None), None) for row in values]
        return list(zip(columns["tag"], columns["time"], found, strict=True))
    return [
        (tag.index, time_ms, value)
        for tag in sample.tags
        for time_ms, value in zip(
            columns["t" if "t" in names else f"t{tag.index}"], columns[str(tag.index)], strict=True
        )
    ]


def by_tag(sample: Sample) -> list[tuple[int, int, object]]:
    return [
        (column.tag.index, *pair) for column in sample.columns for pair in zip(column.times, column.values, strict=True)
    ]


@pytest.mark.parametrize("scans", [1, 20, 300])
def test_arrow_and_parquet_keep_every_reading(scans: int) -> None:
    source = signals.simulated()
    for rows in (source.shared(scans), source.own(scans)):
        sample = Sample.of(source.tags, rows)
        stream = zstandard.ZstdDecompressor().decompress(rivals.arrow(sample), max_output_size=1 << 26)
        assert table_rows(pa.ipc.open_stream(stream).read_all(), sample) == by_tag(sample)
        assert table_rows(pq.read_table(BytesIO(rivals.parquet(sample))), sample) == by_tag(sample)


def test_parquet_has_its_times_as_differences(sample: Sample) -> None:
    file = pq.ParquetFile(BytesIO(rivals.parquet(sample))).metadata.row_group(0)
    for column in map(file.column, range(file.num_columns)):
        if column.path_in_schema.startswith("t") and column.path_in_schema != "tag":
            assert "DELTA_BINARY_PACKED" in column.encodings
        assert column.compression == "ZSTD"


def test_json_keeps_every_reading(sample: Sample) -> None:
    found = orjson.loads(rivals.json(sample))
    assert [tuple(row.values()) for row in found] == [
        (sample.tags[tag].identifier, time_ns, value, quality) for tag, time_ns, value, quality in sample.rows
    ]


@pytest.mark.parametrize("kind", [np.int16, np.uint32, np.float32, np.float64, np.int64])
def test_pco_columns_can_be_read_again(kind: type[np.generic]) -> None:
    numbers = np.arange(300).astype(kind) * 3
    files = wrapped.FileCompressor()
    content = rivals._pco(files, numbers)
    back, _ = wrapped.FileDecompressor.new(files.write_header())
    chunk, length = back.chunk_decompressor(content, f"{numbers.dtype.kind}{8 * numbers.itemsize}")
    found = np.zeros_like(numbers)
    chunk.read_page_into(content[length:], len(numbers), found)
    assert (found == numbers).all()


def test_blocks_are_spread_and_do_not_overlap() -> None:
    source = signals.simulated()
    assert source.starts(300, 8) == [0, 300, 600, 900]
    starts = source.starts(10, 8)
    assert len(starts) == 8
    assert all(later - earlier >= 10 for earlier, later in pairwise(starts))
    assert starts[-1] > len(source.rows) / 2
    assert source.starts(len(source.rows) + 1, 8) == []


def test_real_signals_may_be_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "REAL", tmp_path)
    monkeypatch.setattr(signals, "SETS", {"steel": signals.steel.__wrapped__, "tep": signals.eastman.__wrapped__})
    assert list(sizes.sizes(["steel", "tep"])) == []
    assert "left out: steel, tep." in page.tables([], [])


def test_the_page_takes_new_tables_between_its_marks(tmp_path: Path) -> None:
    copy = tmp_path / "benchmarks.md"
    copy.write_text((ROOT / "docs" / "benchmarks.md").read_text())
    before, after = copy.read_text().split(page.BEGIN)[0], copy.read_text().split(page.END)[1]
    size = sizes.measure(signals.simulated(), 10, "own")
    speed = Result("decode", 2e6, "readings/s", "memcpy", 0.01)
    for _ in range(2):
        page.write(page.tables([size], [speed]), copy)
    text = copy.read_text()
    assert text.startswith(before)
    assert text.endswith(after)
    assert text.count("| simulated plant | own | 10 |") == 1
    assert "| decode | 2.0 million readings/s | memcpy: 0.01 |" in text
    copy.write_text("no marks")
    with pytest.raises(ValueError, match="lacks the marks"):
        page.write("", copy)


def test_the_load_server_answers_as_a_device_would() -> None:
    with subprocess.Popen([modbus.LOAD], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline().split()[1])
            with socket.create_connection(("127.0.0.1", port), timeout=10) as line, line.makefile("rb") as answers:

                def asked(transaction: int, pdu: bytes) -> bytes:
                    return struct.pack(">HHHB", transaction, 0, len(pdu) + 1, 1) + pdu

                read = struct.pack(">BHH", 3, 0, 124)
                seen = []
                line.sendall(b"".join(asked(number, read) for number in range(20)))  # all at once
                for number in range(20):
                    transaction, protocol, length, unit = struct.unpack(">HHHB", answers.read(7))
                    assert (transaction, protocol, length, unit) == (number, 0, 251, 1)
                    answer = answers.read(250)
                    assert answer[:2] == bytes((3, 248))
                    seen.append(struct.unpack(">62f", answer[2:]))
                assert all(0 <= value <= 400 for row in seen for value in row)
                assert all(before != after for before, after in pairwise(seen))
                for pdu, answer in (
                    (struct.pack(">BHH", 3, 0, 126), b"\x83\x03"),
                    (struct.pack(">BHH", 3, 65535, 2), b"\x83\x02"),
                    (struct.pack(">BHH", 6, 0, 1), b"\x86\x01"),
                ):
                    line.sendall(asked(7, pdu))
                    assert answers.read(9)[7:] == answer
                line.sendall(asked(8, struct.pack(">BHH", 1, 0, 13)))
                assert answers.read(11)[7:9] == b"\x01\x02"
        finally:
            process.kill()
