"""The same readings in the formats that others send and store, each in its smallest usual form.

Every function of `RIVALS` takes a `Sample` and returns the number of bytes. Where a format leaves a choice that a user
would make by hand (a long or a wide table, a dictionary or a byte split), each is tried and the smallest is taken,
block by block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from pcodec import ChunkConfig, ModeSpec, wrapped

from agent.model import Reading, Tag, Value, ValueType
from benchmarks import sparkplug

LEVEL = 3
MILLISECOND = 1_000_000
PCO_BOOKKEEPING = 8
"""Bytes that a container of pco columns is given for each column: which tag, which type, how long."""

_ARROW = {
    ValueType.BOOL: pa.bool_(),
    ValueType.INT16: pa.int16(),
    ValueType.UINT32: pa.uint32(),
    ValueType.FLOAT32: pa.float32(),
    ValueType.FLOAT64: pa.float64(),
    ValueType.STRING: pa.string(),
}
_NUMPY = {
    ValueType.INT16: np.int16,
    ValueType.UINT32: np.uint32,
    ValueType.FLOAT32: np.float32,
    ValueType.FLOAT64: np.float64,
}
_FLOATS = (pa.float32(), pa.float64())
_TIME = pa.timestamp("ms")
_MODES = (ModeSpec.auto(), ModeSpec.classic())


@dataclass(frozen=True, slots=True)
class Column:
    """A tag's readings in order; times in ms, which is exact for every signal of these benchmarks."""

    tag: Tag
    times: list[int]
    values: list[Value]


@dataclass(frozen=True, slots=True)
class Sample:
    """What one block holds. `shared` says that every column has the times of the first."""

    tags: list[Tag]
    rows: list[Reading]
    columns: list[Column]
    shared: bool

    @classmethod
    def of(cls, tags: list[Tag], rows: list[Reading]) -> Sample:
        columns = [Column(tag, [], []) for tag in tags]
        for tag, time_ns, value, _ in rows:
            columns[tag].times.append(time_ns // MILLISECOND)
            columns[tag].values.append(value)
        return cls(tags, rows, columns, all(column.times == columns[0].times for column in columns))


def json(sample: Sample) -> bytes:
    """The usual telemetry message: an object a reading, with the tag's identifier."""
    return orjson.dumps([
        {"id": sample.tags[tag].identifier, "time": time_ns, "value": value, "quality": quality}
        for tag, time_ns, value, quality in sample.rows
    ])  # fmt: skip


def sparkplug_b(sample: Sample) -> bytes:
    """One payload with all the readings."""
    return sparkplug.payload(sample.tags, sample.rows, seq=0, sent_ns=sample.rows[-1].time_ns)


def arrow(sample: Sample) -> bytes:
    """An IPC stream in one zstd frame, which also shrinks the schema; Arrow's own compression leaves that as it is."""
    return min((_zstd(_ipc(table)) for table in (_long(sample), _wide(sample))), key=len)


def parquet(sample: Sample) -> bytes:
    """zstd, times DELTA_BINARY_PACKED, floats by dictionary or by BYTE_STREAM_SPLIT; no statistics."""
    tables = (_long(sample), _wide(sample))
    return min((_parquet(table, split=split) for table in tables for split in (False, True)), key=len)


def pco(sample: Sample) -> int:
    """Wrapped: one file header, and of each column the chunk's meta and its page. Nothing of what a container needs.

    pco takes no bools and no strings: these are a zstd frame a column.
    """
    files = wrapped.FileCompressor()
    columns: list[bytes] = [files.write_header()]
    columns += [_pco(files, np.array(each.times)) for each in sample.columns[: 1 if sample.shared else None]]
    for each in sample.columns:
        if (kind := _NUMPY.get(each.tag.type)) is not None:
            columns.append(_pco(files, np.array(each.values, dtype=kind)))
        elif each.tag.type == ValueType.BOOL:
            columns.append(_zstd(bytes(map(bool, each.values))))
        else:
            columns.append(_zstd("\0".join(map(str, each.values)).encode()))
    return sum(map(len, columns))


def pco_in_container(sample: Sample) -> int:
    """The same, and 8 bytes a column for what tells the columns apart: still without checksum and block header."""
    times = 1 if sample.shared else len(sample.columns)
    return pco(sample) + PCO_BOOKKEEPING * (times + len(sample.columns))


RIVALS: dict[str, Callable[[Sample], int]] = {
    "JSON": lambda sample: len(json(sample)),
    "JSON + zstd-3": lambda sample: len(_zstd(json(sample))),
    "Sparkplug B": lambda sample: len(sparkplug_b(sample)),
    "Sparkplug B + zstd-3": lambda sample: len(_zstd(sparkplug_b(sample))),
    "Arrow IPC + zstd-3": lambda sample: len(arrow(sample)),
    "Parquet zstd-3": lambda sample: len(parquet(sample)),
    "pco": pco,
    "pco + 8 B/column": pco_in_container,
}


def _zstd(content: bytes) -> bytes:
    return zstandard.compress(content, LEVEL)


def _pco(files: wrapped.FileCompressor, numbers: np.ndarray) -> bytes:
    """By pco's own choice or in its classic mode: regular times come out half as long in that."""
    return min((_pco_chunk(files, numbers, mode) for mode in _MODES), key=len)


def _pco_chunk(files: wrapped.FileCompressor, numbers: np.ndarray, mode: ModeSpec) -> bytes:
    chunk = files.chunk_compressor(numbers, ChunkConfig(mode_spec=mode))
    pages = [chunk.write_page(page) for page in range(len(chunk.n_per_page()))]
    return b"".join([chunk.write_meta(), *pages])


def _long(sample: Sample) -> pa.Table:
    """A row a reading, ordered by tag: the tag's index, the time and a value column for every type."""
    columns = sample.columns
    counts = [len(column.values) for column in columns]
    tags = np.repeat(np.arange(len(columns), dtype=np.uint16), counts)
    times = [time for column in columns for time in column.times]
    table = {"tag": pa.array(tags), "time": pa.array(times, _TIME)}
    for kind in dict.fromkeys(column.tag.type for column in columns):
        values = [value if column.tag.type == kind else None for column in columns for value in column.values]
        table[str(kind)] = pa.array(values, _ARROW[kind])
    return pa.table(table)


def _wide(sample: Sample) -> pa.Table:
    """A row a scan and a column a tag, with one column of times or one beside each."""
    return pa.table(dict(_wide_columns(sample)))


def _wide_columns(sample: Sample) -> Iterator[tuple[str, pa.Array]]:
    if sample.shared:
        yield "t", pa.array(sample.columns[0].times, _TIME)
    for column in sample.columns:
        if not sample.shared:
            yield f"t{column.tag.index}", pa.array(column.times, _TIME)
        yield str(column.tag.index), pa.array(column.values, _ARROW[column.tag.type])


def _ipc(table: pa.Table) -> bytes:
    sink = BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


def _parquet(table: pa.Table, *, split: bool) -> bytes:
    encodings = {field.name: "DELTA_BINARY_PACKED" for field in table.schema if field.type == _TIME}
    if split:
        encodings |= {field.name: "BYTE_STREAM_SPLIT" for field in table.schema if field.type in _FLOATS}
    sink = BytesIO()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=LEVEL,
        use_dictionary=[field.name for field in table.schema if field.name not in encodings],
        column_encoding=encodings,
        write_statistics=False,
        store_schema=False,
    )
    return sink.getvalue()
