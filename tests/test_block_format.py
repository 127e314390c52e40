"""The block format as others see it: golden vectors, a second decoder, and what is said of bytes that are no block.

The vectors are in tests/native_vectors.json; `python -m tests.native_vectors` writes them anew (see its docstring).
"""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, cast

import pytest
import zstandard

from agent import errors
from agent._native import Block, BlockError, Buffer, HeadraceError, crc32c, decode, gap, header
from agent.model import Scalar, Value, ValueType
from tests import block_codecs, block_reader, block_writer, native_vectors
from tests.native_vectors import BEGIN, PLACE, TAGS, describe, plain, real, single

VECTORS: list[dict[str, Any]] = json.loads(native_vectors.FILE.read_text())
CODECS = dict(enumerate(("constant", "raw", "decimal", "step", "delta", "run", "bitmap", "dictionary", "rice", "hold")))
CODECS |= {16: "pco", 17: "nudged"}


def bits(rows: Iterable[tuple[int, int, Value, int]]) -> list[tuple[int, int, str, int]]:
    """Rows with every value as its type and bits: NaN equals itself, 0.0 differs from -0.0 and True from 1."""
    return [(tag, time, exact(value), quality) for tag, time, value, quality in rows]


def exact(value: Value) -> str:
    if isinstance(value, list):
        return f"[{' '.join(map(exact, value))}]"
    return struct.pack(">d", value).hex() if isinstance(value, float) else repr(value)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_golden_vectors_decode_to_their_readings(vector: dict[str, Any]) -> None:
    assert describe(vector["name"], bytes.fromhex(vector["hex"])) == vector


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_the_second_decoder_reads_the_golden_vectors(vector: dict[str, Any]) -> None:
    found = block_reader.read_block(bytes.fromhex(vector["hex"]))
    expected = vector["header"]
    assert [[tag, time, plain(value), code] for tag, time, value, code in found.rows] == vector["rows"]
    assert [[CODECS[time], CODECS[value]] for time, value in found.codecs] == [each[3:] for each in vector["columns"]]
    assert found.sequence + found.places - 1 == expected["last_sequence"]
    assert [note and list(note) for note in found.notes] == vector["notes"]
    assert found.problems == {}
    assert (found.reason is not None) == (expected["kind"] == "gap")
    assert found.corrects == header(bytes.fromhex(vector["hex"])).corrects
    assert (found.reason or "", list(found.version), found.stream.hex()) == (
        expected["reason"],
        expected["version"],
        expected["stream"],
    )
    for name in ("sequence", "epoch", "first_ns", "last_ns", "sealed_ns", "synchronized", "readings", "columns"):
        assert getattr(found, name) == expected[name], name


def test_the_vectors_cover_every_codec_and_type() -> None:
    columns = [each for vector in VECTORS for each in vector["columns"]]
    assert {each[1] for each in columns} == {kind.value for kind in ValueType}
    assert {each[4] for each in columns} == set(CODECS.values())
    assert {each[3] for each in columns} >= {"constant", "step", "delta"}
    assert {vector["header"]["kind"] for vector in VECTORS} == {"readings", "gap", "correction"}
    notes = [note for vector in VECTORS for note in vector["notes"]]
    assert {note[0] for note in notes if note} == set(block_reader.NOTES.values())


def test_the_present_encoder_keeps_every_reading_of_the_vectors() -> None:
    made = {name: describe(name, data) for name, data in native_vectors.blocks()}
    assert list(made) == [vector["name"] for vector in VECTORS], "run python -m tests.native_vectors"
    for vector in VECTORS:
        assert made[vector["name"]]["rows"] == vector["rows"]


def held(values: list[Value], dice: random.Random) -> list[Value]:
    """The same, each value more than once."""
    place = 0
    return [values[place := at if dice.random() < 0.4 else place] for at in range(len(values))]


def values(kind: ValueType, dice: random.Random, count: int) -> list[Value]:
    """Random values of a type, of a random habit."""
    if kind.is_array:
        lengths = [dice.choice([0, 1, 3, 3, 17]) for _ in range(count)]
        elements = iter(scalars(kind.element, dice, sum(lengths)))
        return [cast("list[Scalar]", list(islice(elements, length))) for length in lengths]
    found = scalars(kind, dice, count)
    return held(found, dice) if dice.random() < 0.3 else found


def scalars(kind: ValueType, dice: random.Random, count: int) -> list[Value]:
    habit = dice.randrange(4)
    if kind is ValueType.BYTES:
        return [dice.randbytes(dice.randrange(9)) if habit else bytes([dice.randrange(3)]) for _ in range(count)]
    if kind is ValueType.BOOL:
        return [dice.random() < (0.5, 0.02, 1, 0.2)[habit] for _ in range(count)]
    if kind is ValueType.STRING:
        words = ["", "RUN", "Träger", "停止", "🏭" * dice.randrange(9)]
        return [dice.choice(words) if habit else f"B{dice.randrange(10**6)}" for _ in range(count)]
    if kind in (ValueType.FLOAT32, ValueType.FLOAT64):
        shapes: tuple[Callable[[], float], ...] = (
            lambda: dice.randrange(-5000, 5000) / 10,
            lambda: dice.choice([math.nan, math.inf, -0.0, 0.0, 1.5, 2.25, 3.0]),
            lambda: real(dice.getrandbits(64)) if kind is ValueType.FLOAT64 else dice.gauss(0, 1),
            lambda: math.sin(dice.random()) * 100,
        )
        found = [shapes[habit]() for _ in range(count)]
        return [single(value) if kind is ValueType.FLOAT32 else value for value in found]
    width, signed = int(kind.removeprefix("u").removeprefix("int")), not kind.startswith("u")
    low, span = -(2 ** (width - 1)) if signed else 0, 2**width
    start, step, noise = dice.randrange(span), dice.randrange(9), dice.choice([5, 100, 50_000])
    return [
        low + (start, start + step * at, start + step * at + dice.randrange(noise), dice.randrange(span))[habit] % span
        for at in range(count)
    ]


def random_block(dice: random.Random) -> Block:
    buffer = Buffer(TAGS)
    times: list[int] = []
    for tag in dice.sample(TAGS, dice.randrange(1, len(TAGS))):
        if not times or dice.random() < 0.5:
            tick, late = dice.choice([1, 10**6, 5 * 10**8]), dice.choice([0, 0, 3_000_000])
            times = [BEGIN + at * tick - dice.randrange(late + 1) for at in range(dice.choice([1, 10, 100, 100, 300]))]
        bad = dice.random() < 0.3
        for time, value in zip(times, values(tag.type, dice, len(times)), strict=True):
            quality = dice.choice([0, 0, 0x8005_0000, 0xFFFF_FFFF]) if bad else 0
            buffer.push([(tag.index, time, value if quality < 0x8000_0000 else None, quality)])
    made = buffer.seal(stream=dice.randbytes(16), sequence=dice.getrandbits(63), sealed_ns=dice.randrange(2**62))
    assert made is not None
    return made


def test_the_second_decoder_agrees_on_300_random_blocks() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    for _ in range(300):
        block = random_block(dice)
        first, second = decode(block.data), block_reader.read_block(block.data)
        assert bits(second.rows) == bits(first.rows())
        assert (second.first_ns, second.last_ns) == (block.first_ns, block.last_ns)
        assert (second.stream, second.sequence) == (first.header.stream, block.sequence)
        assert len(second.rows) == block.readings == len(first)


def resealed(content: bytes) -> bytes:
    return content + crc32c(content).to_bytes(4, "little")


def test_errors_have_their_classes_and_say_what_is_wrong() -> None:
    assert errors.BlockError is BlockError
    assert issubclass(BlockError, ValueError)
    assert issubclass(BlockError, HeadraceError)
    good = bytes.fromhex(VECTORS[1]["hex"])
    later = resealed(good[:4] + b"\x02" + good[5:-4])
    damaged = good[:60] + bytes([good[60] ^ 1]) + good[61:]
    for data, message in [
        (b"", "not a readable block: shorter than its checksum"),
        (b"HDR", "not a readable block: shorter than its checksum"),
        (b'{"time": 1}', "not a readable block: it does not begin with HDRC"),
        (good[:-1], "not a readable block: checksum"),
        (damaged, "not a readable block: checksum"),
        (later, r"not a readable block: version 2\.0; this program reads 1\.x"),
        (resealed(good[:-5]), "not a readable block: cut short"),
        (resealed(good[:-4] + b"\0"), "not a readable block: 1 bytes too many"),
    ]:
        for read in (header, decode):
            with pytest.raises(BlockError, match=message):
                read(data)
        with pytest.raises(ValueError):
            block_reader.read_block(data)


def test_every_prefix_and_every_flipped_byte_is_refused() -> None:
    data = bytes.fromhex(VECTORS[0]["hex"])
    for at in range(len(data)):
        for wrong in (data[:at], data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]):
            with pytest.raises(BlockError):
                header(wrong)


def unpacked(data: bytes) -> bytes:
    """A block whose soft part is compressed, without that, and without its checksum."""
    reader = block_codecs.Reader(data[39:-4])
    *numbers, hard, stored, length = (reader.varint() for _ in range(9))
    soft = zstandard.ZstdDecompressor().decompress(reader.take(stored))
    head = data[:6] + bytes([data[6] & ~block_reader.ZSTD]) + data[7:39]
    return head + b"".join(map(block_writer.varint, (*numbers, hard, length))) + soft + reader.take(hard)


def test_a_column_of_an_added_codec_is_named_and_the_others_are_read() -> None:
    data = bytes.fromhex(next(vector for vector in VECTORS if vector["name"] == "floats by pcodec")["hex"])
    content = bytearray(unpacked(data))
    content[content.index(bytes([2, 4, 2, 16])) + 3] = 99  # the array of codecs: delta, decimal, pco
    found = decode(resealed(bytes(content)))
    whole = decode(data)
    assert (len(found), found.rows()) == (330, [row for row in whole.rows() if row[0] != 10])
    (*others, column) = found.columns
    assert [each.problem for each in others] == ["", ""]
    assert (column.tag, column.type, column.readings, column.time_codec) == (10, "float64", 300, "step")
    assert (column.value_codec, column.problem) == ("99", "codec 99 is not known to this version")
    second = block_reader.read_block(resealed(bytes(content)))
    assert second.problems == {10: "unknown codec 99"}
    assert bits(second.rows) == bits(found.rows())


def test_without_its_library_a_column_of_pcodec_is_named_and_the_others_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = bytes.fromhex(next(vector for vector in VECTORS if vector["name"] == "floats by pcodec")["hex"])
    monkeypatch.setattr(block_codecs, "wrapped", None)
    found = block_reader.read_block(data)
    assert found.problems == {10: "the package pcodec is not installed"}
    assert len(found.rows) == 330


@pytest.mark.parametrize("kind", ValueType)
def test_a_block_of_one_reading_costs_at_most_100_bytes(kind: ValueType) -> None:
    chosen: dict[ValueType, Value] = {ValueType.BOOL: True, ValueType.STRING: "Träger Ø40", ValueType.FLOAT64: math.pi}
    chosen |= {ValueType.BYTES: bytes(20), ValueType.BOOL_ARRAY: [True], ValueType.FLOAT64_ARRAY: [math.pi] * 2}
    chosen |= {ValueType.STRING_ARRAY: ["Träger", "Ø40"], ValueType.BYTES_ARRAY: [bytes(9)]}
    value = chosen.get(kind, [100] if kind.is_array else 100)
    for reading in ((PLACE[kind], BEGIN, value, 0), (PLACE[kind], BEGIN, None, 0x8005_0000)):
        buffer = Buffer(TAGS)
        buffer.push([reading])
        block = buffer.seal(sequence=1_000_000, epoch=2**64 - 1, sealed_ns=BEGIN + 2 * 10**9)
        assert block is not None
        assert len(block) <= 100
        assert decode(block.data).rows() == [reading]
        assert buffer.seal() is None


def test_a_gap_with_columns_or_too_long_a_reason_is_refused() -> None:
    facts: dict[str, Any] = dict.fromkeys(("first", "last", "epoch", "from_ns", "to_ns", "readings", "sealed_ns"), 0)
    good = gap(stream=bytes(16), reason="gone", **facts).data
    columns = 39 + 4  # behind the fixed part, and sequence, span, seal time and readings of a byte each
    longest = good[: columns + 3] + b"\x80\x08" + b"x" * 1024
    assert decode(resealed(longest)).header.reason == block_reader.read_block(resealed(longest)).reason == "x" * 1024
    for wrong in (
        good[:columns] + b"\x01" + good[columns + 1 : -4],
        good[: columns + 3] + b"\x81\x08" + b"x" * 1025,
    ):
        with pytest.raises(BlockError, match="a gap that is more than that"):
            header(resealed(wrong))
        with pytest.raises(ValueError, match="a gap that is more than that"):
            block_reader.read_block(resealed(wrong))


def test_a_gap_keeps_its_facts_and_cuts_its_reason() -> None:
    facts: dict[str, Any] = {"stream": bytes(16), "epoch": 3, "from_ns": 10, "to_ns": 20, "readings": 0, "sealed_ns": 9}
    block = gap(first=5, last=9, reason="ä" * 1000, **facts)
    found = decode(block.data)
    assert (found.header.kind, found.header.sequence, found.header.last_sequence) == ("gap", 5, 9)
    assert (found.header.first_ns, found.header.last_ns, found.header.readings) == (10, 20, 0)
    assert found.header.reason == "ä" * 512
    assert (len(found), found.rows(), found.columns) == (0, [], [])
    assert (block.sequence, block.readings, len(block)) == (5, 0, len(block.data))
    with pytest.raises(ValueError, match="last is before first"):
        gap(first=5, last=4, reason="", **facts)
    with pytest.raises(ValueError, match="16"):
        gap(first=5, last=5, reason="", **{**facts, "stream": bytes(15)})


def test_the_last_place_of_a_stream_can_be_read() -> None:
    buffer = Buffer(TAGS)
    buffer.push([(0, BEGIN, True, 0)])
    block = buffer.seal(sequence=2**64 - 1)
    assert block is not None
    assert header(block.data).last_sequence == 2**64 - 1


def test_the_checksum_is_crc32c() -> None:
    assert crc32c(b"123456789") == block_reader.crc32c(b"123456789") == 0xE306_9283
