"""The codecs of the second decoder (block_reader.py), from the section "Codecs" of docs/block-format.md."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

try:
    import numpy as np
    from pcodec import wrapped
except ImportError:
    wrapped = None

Scalar: TypeAlias = bool | int | float | str | bytes
Value: TypeAlias = Scalar | list[Scalar] | None

CONSTANT, RAW, DECIMAL, STEP, DELTA, RUN, BITMAP, DICTIONARY, RICE, HOLD = range(10)
PCO, NUDGED = 16, 17
KNOWN = (*range(10), PCO, NUDGED)
FIRST_ADDED_CODEC, FIRST_ADDED_TYPE = 16, 32
BOOL, FIRST_UNSIGNED, FLOAT32, FLOAT64, STRING, BYTES, ARRAY = 0, 5, 9, 10, 11, 12, 16
TYPES = (*range(BYTES + 1), *range(ARRAY, ARRAY + BYTES + 1))
MOST_LENGTH, MOST_ELEMENTS, MOST_TEXT = 1 << 20, 1 << 24, 1 << 28
WIDTHS = (1, 1, 2, 4, 8, 1, 2, 4, 8, 4, 8, 0)
ESCAPE, MOST_K = 20, 56


class Unreadable(Exception):
    """One column can't be read; the others can."""


class Reader:
    """The bytes that are left."""

    def __init__(self, content: bytes) -> None:
        self.content, self.at = content, 0

    def take(self, count: int) -> bytes:
        taken = self.content[self.at : self.at + count]
        if len(taken) != count:
            raise ValueError("cut short")
        self.at += count
        return taken

    def byte(self) -> int:
        return self.take(1)[0]

    def varint(self, most: int = 2**64 - 1) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        if value > most or shift > 70:
            raise ValueError(f"{value} where at most {most} may be")
        return value

    def signed(self) -> int:
        return unzigzag(self.varint())

    def array(self, count: int) -> list[int]:
        form = self.byte()
        if form == 2:
            return [self.varint() for _ in range(count)]
        if form > 2:
            raise ValueError(f"array form {form}")
        first = self.varint()
        return [(first + form * index) % 2**64 for index in range(count)]

    def end(self) -> None:
        if self.at != len(self.content):
            raise ValueError("bytes left over")


@dataclass(slots=True)
class Source:
    """The three places that a column is read from, and what the columns of a block may still become."""

    heads: Reader
    soft: Reader
    hard: Reader
    elements: int = MOST_ELEMENTS
    text: int = MOST_TEXT


def unzigzag(number: int) -> int:
    return (number >> 1) ^ -(number & 1)


def int64(value: int) -> int:
    """Modulo 2^64, as a signed number."""
    return (value + 2**63) % 2**64 - 2**63


def runs(reader: Reader, count: int, most: int = 1) -> list[int]:
    values: list[int] = []
    while len(values) < count:
        length = reader.varint(count - len(values))
        if length == 0:
            raise ValueError("empty run")
        values += [reader.varint(most)] * length
    return values


def bitmap(reader: Reader, count: int) -> list[bool]:
    content = reader.take((count + 7) // 8)
    return [content[index // 8] >> index % 8 & 1 == 1 for index in range(count)]


def integers(source: Source, codec: int, count: int, width: int = 8, signed: bool = True) -> list[int]:
    """As 64 signed bits; of an unsigned type `signed` is False and they are made unsigned at the end."""
    values = list(_integers(source, codec, count, width, signed)) if count else []
    return [int64(value) if signed else value % 2**64 for value in values]


def _integers(source: Source, codec: int, count: int, width: int, signed: bool) -> Iterator[int]:
    reader = source.soft
    if codec == CONSTANT:
        yield from [reader.signed()] * count
    elif codec == STEP:
        value, step = reader.signed(), reader.signed()
        yield from (value + index * step for index in range(count))
    elif codec in (DELTA, RICE):
        yield from predicted(source, codec, count)
    elif codec == RUN:
        while count:
            length = reader.varint(count)
            if length == 0:
                raise ValueError("empty run")
            yield from [reader.signed()] * length
            count -= length
    elif codec == RAW:
        yield from (int.from_bytes(reader.take(width), "little", signed=signed) for _ in range(count))
    elif codec == HOLD:
        is_new = [True, *bitmap(reader, count - 1)]
        inner = source.heads.byte()
        if inner == HOLD:
            raise ValueError("hold within hold")
        fresh = iter(integers(source, inner, sum(is_new)))
        value = 0
        for new in is_new:
            value = next(fresh) if new else value
            yield value
    else:
        raise ValueError(f"codec {codec} on integers")


def predicted(source: Source, codec: int, count: int) -> Iterator[int]:
    head, reader = source.heads.byte(), source.soft
    exponent, has_base, prediction = head & 31, head & 32, head >> 6
    if exponent not in (*range(19), 31) or prediction > 2:
        raise ValueError(f"head {head:#x}")
    unit = reader.signed() if exponent == 31 else 10**exponent
    value = reader.signed()
    base = reader.signed() if has_base else 0
    left = count if prediction == 2 else count - 1
    rest = rice(source, left) if codec == RICE else [reader.signed() for _ in range(left)]
    if prediction == 2:
        yield from ((value + index * base + each) * unit for index, each in enumerate(rest))
        return
    yield value * unit
    difference = 0
    for each in rest:
        difference = each + base + (difference if prediction == 1 else 0)
        value += difference
        yield value * unit


def rice(source: Source, count: int) -> list[int]:
    k = source.heads.byte()
    content, at, values = source.hard.content, 8 * source.hard.at, list[int]()
    if k > MOST_K:
        raise ValueError(f"a Rice parameter of {k}")

    def bits(count: int) -> int:
        nonlocal at
        at += count
        if at > 8 * len(content):
            raise ValueError("cut short")
        whole = int.from_bytes(content[(at - count) // 8 : (at + 7) // 8], "little")
        return whole >> (at - count) % 8 & (1 << count) - 1

    for _ in range(count):
        zeros = 0
        while zeros < ESCAPE and bits(1) == 0:
            zeros += 1
        values.append(unzigzag(bits(64) if zeros == ESCAPE else zeros << k | bits(k)))
    source.hard.at = (at + 7) // 8
    return values


def floats(source: Source, codec: int, count: int, form: struct.Struct) -> list[float]:
    reader = source.soft

    def one() -> float:
        value: float = form.unpack(reader.take(form.size))[0]
        return value

    if count == 0:
        return []
    if codec == CONSTANT:
        return [one()] * count
    if codec == RAW:
        return [one() for _ in range(count)]
    if codec == PCO:
        return pcodec(source.hard, count, form)
    if codec == NUDGED:
        return nudged(source.hard, count, form)
    if codec != DECIMAL:
        raise ValueError(f"codec {codec} on floats")
    head, exceptions, index = source.heads.byte(), list[tuple[int, float]](), -1
    exponent = head & ~32
    if exponent > 22:
        raise ValueError("exponent past 22")
    for _ in range(reader.varint(count) if head & 32 else 0):
        index += 1 + reader.varint(count)
        exceptions.append((index, one()))
    digits = integers(source, source.heads.byte(), count)
    values: list[float] = [form.unpack(form.pack(float(each) / float(10**exponent)))[0] for each in digits]
    for index, value in exceptions:
        values[index] = value
    return values


def nudged(reader: Reader, count: int, form: struct.Struct) -> list[float]:
    heads, soft = reader.varint(), reader.varint()
    head, body = Reader(reader.take(heads)), Reader(reader.take(soft))
    source = Source(head, body, Reader(reader.take(len(reader.content) - reader.at)))
    values = floats(source, DECIMAL, count, form)
    steps = integers(source, source.heads.byte(), count)
    for part in (source.heads, source.soft, source.hard):
        part.end()
    moved: list[float] = []
    for value, step in zip(values, steps, strict=True):
        bits = (int.from_bytes(form.pack(value), "little") + step) % 256**form.size
        moved += form.unpack(bits.to_bytes(form.size, "little"))
    return moved


def pcodec(reader: Reader, count: int, form: struct.Struct) -> list[float]:
    if wrapped is None:
        raise Unreadable("the package pcodec is not installed")
    content = reader.take(len(reader.content) - reader.at)
    values = np.zeros(count, np.dtype(form.format))
    try:
        files, length = wrapped.FileDecompressor.new(content)
        chunk, more = files.chunk_decompressor(content[length:], f"f{8 * form.size}")
        progress, used = chunk.read_page_into(content[length + more :], count, values)
    except RuntimeError as why:
        raise ValueError(str(why)) from None
    if (progress.n_processed, progress.finished, length + more + used) != (count, True, len(content)):
        raise ValueError("pcodec: another number of values")
    found: list[float] = values.tolist()
    return found


def bools(source: Source, codec: int, count: int) -> list[bool]:
    if count == 0:
        return []
    if codec == CONSTANT:
        value = source.soft.byte()
        if value > 1:
            raise ValueError("a constant bool is 0 or 1")
        return [value == 1] * count
    if codec == RUN:
        return [value == 1 for value in runs(source.soft, count)]
    if codec == BITMAP:
        return bitmap(source.soft, count)
    raise ValueError(f"codec {codec} on bools")


def strings(source: Source, codec: int, count: int) -> list[bytes]:
    def one() -> bytes:
        return source.soft.take(source.soft.varint())

    if count == 0:
        return []
    if codec == CONSTANT:
        return [one()] * count
    if codec == RAW:
        return [one() for _ in range(count)]
    if codec == DICTIONARY:
        known = [one() for _ in range(source.soft.varint(count))]
        indexes = integers(source, source.heads.byte(), count)
        if min(indexes) < 0 or max(indexes) >= len(known):
            raise ValueError("no such string")
        return [known[index] for index in indexes]
    raise ValueError(f"codec {codec} on strings")


def bounded(source: Source, pieces: list[bytes]) -> list[bytes]:
    """The same, if they and all before them are no more bytes than a block may have."""
    source.text -= sum(map(len, pieces))
    if source.text < 0:
        raise ValueError("too many bytes of strings")
    return pieces


def stream(source: Source, codec: int, kind: int = 0) -> Source:
    """Where the stream of a column is: by itself, if it is of an added codec or type. Refuses what is not known."""
    added = codec >= FIRST_ADDED_CODEC or kind >= FIRST_ADDED_TYPE
    if added:
        source = Source(Reader(b""), Reader(b""), Reader(source.hard.take(source.soft.varint())))
    what = f"unknown type {kind}" if kind not in TYPES else f"unknown codec {codec}" if codec not in KNOWN else ""
    if what:
        raise Unreadable(what) if added else ValueError(what)
    return source


def values_of(source: Source, kind: int, codec: int, count: int) -> list[Value]:
    """The values of a column that has `count` of them."""
    if kind not in TYPES or kind < ARRAY:
        return [*scalars(source, kind, codec, count)]
    lengths = integers(source, source.heads.byte(), count) if count else []
    source.elements -= sum(lengths)
    if not all(0 <= length <= MOST_LENGTH for length in lengths) or source.elements < 0:
        raise ValueError("too many elements")
    elements = iter(scalars(source, kind - ARRAY, codec, sum(lengths)))
    return [list(islice(elements, length)) for length in lengths]


def scalars(source: Source, kind: int, codec: int, count: int) -> list[Scalar]:
    """The values, or the elements of all arrays."""
    whole, source = source, stream(source, codec, kind)
    if kind == BOOL:
        return [*bools(source, codec, count)]
    if kind == STRING:
        return [piece.decode() for piece in bounded(source, strings(source, codec, count))]
    if kind == BYTES:
        return [*bounded(source, strings(source, codec, count))]
    if kind in (FLOAT32, FLOAT64):
        reals = floats(source, codec, count, struct.Struct("<f" if kind == FLOAT32 else "<d"))
        if source is not whole:
            source.hard.end()
        return [*reals]
    numbers = integers(source, codec, count, WIDTHS[kind], kind < FIRST_UNSIGNED)
    bits = 8 * WIDTHS[kind]
    least = -(1 << bits - 1) if kind < FIRST_UNSIGNED else 0
    if not all(least <= number < least + (1 << bits) for number in numbers):
        raise Unreadable("values past the type")
    return [*numbers]
