"""`headrace decode`, the JSON form of a block and the exported file, by what other programs read out of them."""

from __future__ import annotations

import csv
import io
import json
import math
import random
import struct
import subprocess
import sys
from base64 import b64encode
from itertools import repeat
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from agent import export
from agent._native import BlockError, Buffer, crc32c, decode, gap, to_json
from agent.model import Reading, Scalar, Value, ValueType
from headrace import cli
from headrace.decode import header_of
from tests import native_vectors
from tests.native_vectors import BEGIN, PLACE, TAGS

VECTORS: list[dict[str, Any]] = json.loads(native_vectors.FILE.read_text())
SPECIAL = (math.nan, math.inf, -math.inf, 0.0, -0.0, 5e-324, 1e308, 1e16, 123456.789, -1e-7, 0.1)
TEXTS = ("", "RUN", 'quote " and \\', "line\nfeed\r\t", "\0\x1b[31m\x7f", "Träger Ø40", "停止 🏭", "\u2028")
GAP = gap(
    stream=bytes(16),
    first=3,
    last=5,
    epoch=1,
    from_ns=7,
    to_ns=9,
    readings=0,
    reason='the disk was "full"',
    sealed_ns=9,
).data


def value_of(kind: ValueType, source: random.Random) -> Value:
    """A value of a type: the ends of its range, special ones, and any."""
    if source.random() < 0.1:
        return None
    if kind.is_array:
        return [scalar_of(kind.element, source) for _ in range(source.choice([0, 1, 5]))]
    return scalar_of(kind, source)


def scalar_of(kind: ValueType, source: random.Random) -> Scalar:
    match kind:
        case ValueType.BOOL:
            return source.random() < 0.5
        case ValueType.FLOAT32:
            bits: float = struct.unpack("<f", source.randbytes(4))[0]
            near: float = struct.unpack("<f", struct.pack("<f", round(source.uniform(-1e3, 1e3), 2)))[0]
            return source.choice([bits, near, math.nan, math.inf, -math.inf, -0.0])
        case ValueType.FLOAT64:
            double: float = struct.unpack("<d", source.randbytes(8))[0]
            return source.choice([double, *SPECIAL])
        case ValueType.STRING:
            return source.choice(TEXTS)
        case ValueType.BYTES:
            return source.randbytes(source.randrange(6))
    width, signed = int(kind.value.lstrip("uint")), not kind.value.startswith("u")
    least, most = (-(1 << width - 1), (1 << width - 1) - 1) if signed else (0, (1 << width) - 1)
    return source.choice([least, most, 0, source.randint(least, most)])


def random_block(seed: int) -> bytes:
    """Up to 60 readings of every type."""
    source = random.Random(seed)
    buffer = Buffer(TAGS)
    for tag in TAGS:
        buffer.push(
            [
                Reading(tag.index, BEGIN + source.randint(-(10**12), 10**12), value_of(tag.type, source), quality)
                for quality in (source.choice([0, 0, 0x80050000, 0xFFFFFFFF]) for _ in range(source.randint(1, 60)))
            ]
        )
    block = buffer.seal(stream=source.randbytes(16), sequence=source.getrandbits(64), epoch=source.getrandbits(64))
    assert block is not None
    return block.data


def constant(text: str) -> float:
    raise AssertionError(f"{text} is no JSON")


def same(value: Value, shown: object, kind: str) -> bool:
    """Whether a value of the JSON form is that of the block: bit for bit, but that a NaN is any NaN."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return shown == ("NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity")
        form = "<f" if kind == "float32" else "<d"
        return isinstance(shown, float) and struct.pack(form, shown) == struct.pack(form, value)
    if isinstance(value, bytes):
        return shown == b64encode(value).decode()
    if isinstance(value, list):
        element = kind.removesuffix("[]")
        return isinstance(shown, list) and len(value) == len(shown) and all(map(same, value, shown, repeat(element)))
    return type(shown) is type(value) and shown == value


@pytest.mark.parametrize("seed", range(40))
def test_json_has_the_readings_of_the_block(seed: int) -> None:
    block = random_block(seed)
    decoded, found = decode(block), json.loads(to_json(block), parse_constant=constant)
    columns = found.pop("columns")
    assert found == header_of(block)
    assert list(found) == list(header_of(block))
    assert [
        (each["tag"], each["type"], each["time_codec"], each["value_codec"], each["count"]) for each in columns
    ] == [(each.tag, each.type, each.time_codec, each.value_codec, each.readings) for each in decoded.columns]
    rows = [(each["tag"], each["type"], row) for each in columns for row in each["readings"]]
    assert len(rows) == len(decoded) == found["readings"]
    for (tag, time_ns, value, quality), (shown_tag, kind, (shown_time, shown, shown_quality)) in zip(
        decoded.rows(), rows, strict=True
    ):
        assert (tag, time_ns, quality) == (shown_tag, shown_time, shown_quality)
        assert same(value, shown, kind), (seed, value, shown)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_json_of_the_golden_vectors(vector: dict[str, Any]) -> None:
    found = json.loads(to_json(bytes.fromhex(vector["hex"])))
    assert len([row for each in found["columns"] for row in each["readings"]]) == len(vector["rows"])
    assert found["kind"] == vector["header"]["kind"]


def test_float32_is_the_shortest_decimal_and_lines_have_no_breaks() -> None:
    buffer = Buffer(TAGS)
    place = next(tag.index for tag in TAGS if tag.type == ValueType.FLOAT32)
    buffer.push([Reading(place, BEGIN, native_vectors.single(71.3))])
    block = buffer.seal()
    assert block is not None
    assert f"[[{BEGIN},71.3,0]]".encode() in to_json(block.data)
    assert b"\n" not in to_json(random_block(1))


def test_a_column_that_cannot_be_read_carries_its_problem() -> None:
    buffer = Buffer(TAGS)
    buffer.push([Reading(0, BEGIN, False)])  # its stream, a 0, is then the length of an added codec's
    block = buffer.seal()
    assert block is not None
    name = decode(block.data).columns[0].value_codec
    for place in range(50, len(block.data) - 4):
        changed = bytearray(block.data)
        changed[place] = 99
        changed[-4:] = crc(changed)
        try:
            found = json.loads(to_json(bytes(changed)))
        except BlockError:
            continue
        (column,) = found["columns"]
        if column["value_codec"] == "99":
            assert column["problem"] == "codec 99 is not known to this version"
            assert (column["count"], column["readings"]) == (1, [])
            return
    raise AssertionError(f"no byte is the codec {name}")


def crc(block: bytearray) -> bytes:
    return crc32c(bytes(block[:-4])).to_bytes(4, "little")


def test_more_text_than_fits_is_refused() -> None:
    buffer = Buffer(TAGS, 128 << 20)
    buffer.push([Reading(PLACE[ValueType.STRING], BEGIN, "\0" * (90 << 20))])
    block = buffer.seal()
    assert block is not None
    with pytest.raises(BlockError, match="bytes of text as JSON; at most 536870912"):
        to_json(block.data)


# The exported file.


def exported(*blocks: bytes) -> bytes:
    file = io.BytesIO()
    assert export.write(file, blocks) == len(blocks)
    return file.getvalue()


def test_an_exported_file_reads_back() -> None:
    blocks = [random_block(seed) for seed in range(3)]
    content = exported(*blocks)
    assert content.startswith(b"HDRX\x01" + len(blocks[0]).to_bytes(4, "little") + b"HDRC")
    assert list(export.read(io.BytesIO(content))) == blocks
    assert list(export.read(io.BytesIO(exported()))) == []


def test_every_prefix_of_an_exported_file_gives_whole_blocks_and_says_so() -> None:
    blocks = [GAP, GAP]
    content = exported(*blocks)
    ends = {5: 0, 5 + 4 + len(GAP): 1, len(content): 2}
    for end in range(len(content) + 1):
        found: list[bytes] = []
        try:
            found.extend(export.read(io.BytesIO(content[:end])))
        except export.ExportError:
            assert end not in ends
        else:
            assert len(found) == ends[end]


@pytest.mark.parametrize("length", [0, export.MAX_BLOCK + 1, 2**32 - 1])
def test_a_length_that_no_block_has_is_refused(length: int) -> None:
    with pytest.raises(export.ExportError, match="block 1 can't have"):
        list(export.read(io.BytesIO(export.MAGIC + length.to_bytes(4, "little") + bytes(100))))
    with pytest.raises(export.ExportError, match="cut short: block 1 has 100 of its"):
        list(export.read(io.BytesIO(export.MAGIC + export.MAX_BLOCK.to_bytes(4, "little") + bytes(100))))


def test_an_empty_block_is_not_written() -> None:
    with pytest.raises(export.ExportError):
        export.write(io.BytesIO(), [b""])


# The command.


def run(capsysbinary: pytest.CaptureFixture[bytes], *arguments: object) -> tuple[int, str, str]:
    status = cli.main(["decode", *map(str, arguments)])
    out, err = capsysbinary.readouterr()
    return status, out.decode(), err.decode()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shift.hdrx"
    path.write_bytes(exported(random_block(1), GAP, random_block(2)))
    return path


def test_a_json_line_a_block(capsysbinary: pytest.CaptureFixture[bytes], file: Path, tmp_path: Path) -> None:
    status, out, err = run(capsysbinary, file, "--format", "json")
    assert (status, err) == (0, "")
    assert out.encode() == to_json(random_block(1)) + b"\n" + to_json(GAP) + b"\n" + to_json(random_block(2)) + b"\n"
    assert run(capsysbinary, file, "--json")[1] == out
    single = tmp_path / "block"
    single.write_bytes(GAP)
    assert run(capsysbinary, single, file, single, "--json")[1].splitlines().count(to_json(GAP).decode()) == 3
    written = tmp_path / "out.json"
    assert run(capsysbinary, file, "--json", "--output", written) == (0, "", "")
    assert written.read_text() == out
    assert not list(tmp_path.glob("*.part"))


def test_only_the_header(capsysbinary: pytest.CaptureFixture[bytes], file: Path) -> None:
    lines = run(capsysbinary, file, "--json", "--header")[1].splitlines()
    assert [json.loads(line) for line in lines] == [
        header_of(random_block(1)),
        header_of(GAP),
        header_of(random_block(2)),
    ]
    rows = list(csv.DictReader(io.StringIO(run(capsysbinary, file, "--format", "csv", "--header")[1])))
    assert [row["kind"] for row in rows] == ["readings", "gap", "readings"]
    assert rows[1]["reason"] == 'the disk was "full"'
    table = run(capsysbinary, file, "--header")[1]
    assert table.count("kind ") == 3
    assert "tag 0" not in table
    assert run(capsysbinary, file, "--header", "--format", "parquet", "--output", "x")[0] == 2


def test_csv_has_every_reading(capsysbinary: pytest.CaptureFixture[bytes], file: Path) -> None:
    status, out, err = run(capsysbinary, file, "--format", "csv")
    assert status == 0
    assert 'gap: places 3 to 5: the disk was "full"' in err
    rows = list(csv.DictReader(io.StringIO(out, newline="")))
    expected = [row for seed in (1, 2) for row in decode(random_block(seed)).rows()]
    assert [(int(row["tag"]), int(row["time_ns"]), int(row["quality"])) for row in rows] == [
        (tag, time, quality) for tag, time, _, quality in expected
    ]
    for row, (_, _, value, _) in zip(rows, expected, strict=True):
        match row["type"]:
            case _ if value is None:
                assert row["value"] == ""
            case "bool":
                assert row["value"] == str(value).lower()
            case "float64" if isinstance(value, float) and not math.isnan(value):
                assert float(row["value"]) == value
            case "string":
                assert row["value"] == value


def test_parquet_has_every_reading(capsysbinary: pytest.CaptureFixture[bytes], file: Path, tmp_path: Path) -> None:
    path = tmp_path / "readings.parquet"
    assert run(capsysbinary, file, "--format", "parquet", "--output", path)[0] == 0
    table = pq.read_table(path)
    expected = [row for seed in (1, 2) for row in decode(random_block(seed)).rows()]
    assert table.column_names[:5] == ["stream", "sequence", "tag", "time", "quality"]
    assert str(table.schema.field("time").type) == "timestamp[ns, tz=UTC]"
    assert table.column("tag").to_pylist() == [tag for tag, *_ in expected]
    assert table.column("time").cast("int64").to_pylist() == [time for _, time, *_ in expected]
    status, _, err = run(capsysbinary, file, "--format", "parquet")
    assert status == 2
    assert "--output" in err


def test_the_table_obeys_no_commands_of_a_block(capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> None:
    buffer = Buffer(TAGS)
    buffer.push([Reading(PLACE[ValueType.STRING], BEGIN, "\x1b[2J\x9b31m é")])
    block = buffer.seal()
    assert block is not None
    path = tmp_path / "block"
    path.write_bytes(block.data)
    out = run(capsysbinary, path)[1]
    assert "\\x1b[2J\\x9b31m é" in out
    assert "\x1b" not in out


def test_a_damaged_block_is_named_and_the_next_ones_are_shown(
    capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    first, second = random_block(1), bytearray(random_block(2))
    second[len(second) // 2] ^= 1
    path = tmp_path / "damaged"
    path.write_bytes(exported(first, bytes(second), GAP))
    for form in ("json", "csv", "table"):
        status, out, err = run(capsysbinary, path, "--format", form)
        assert status == 1
        assert f"{path}: block 2: not a readable block: checksum" in err
        assert str(header_of(first)["sequence"]) in out
        assert "gap" in out + err
    written = tmp_path / "out"
    assert run(capsysbinary, path, "--format", "parquet", "--output", written)[0] == 1
    assert pq.read_table(written).num_rows == header_of(first)["readings"]
    path.write_bytes(exported(first)[:-1])
    status, out, err = run(capsysbinary, path, gap_file(tmp_path), "--json")
    assert (status, len(out.splitlines())) == (1, 1)
    assert "cut short: block 1 has" in err


def gap_file(tmp_path: Path) -> Path:
    path = tmp_path / "gap"
    path.write_bytes(GAP)
    return path


def test_files_that_are_none(capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    status, out, err = run(capsysbinary, empty, tmp_path / "none", tmp_path)
    assert (status, out) == (1, "")
    assert f"{empty}: not a readable block" in err
    assert f"{tmp_path / 'none'}: No such file or directory; name a file with a block in it, or - for stdin" in err
    assert f"{tmp_path}: Is a directory" in err
    assert len(err.splitlines()) == 3


def test_stdin() -> None:
    command = [sys.executable, "-m", "headrace", "decode", "-", "--json"]
    done = subprocess.run(command, input=exported(GAP, GAP), capture_output=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, 2 * (to_json(GAP) + b"\n"), b"")
    done = subprocess.run(command, input=GAP[:-1], capture_output=True, timeout=30)
    assert done.returncode == 1
    assert done.stderr.startswith(b"headrace: stdin: not a readable block")


def test_parquet_without_pyarrow_says_what_to_install(
    capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    status, _, err = run(capsysbinary, gap_file(tmp_path), "--format", "parquet", "--output", tmp_path / "out")
    assert status == 1
    assert "pip install 'headrace[datacenter]'" in err
    assert not list(tmp_path.glob("out*"))
