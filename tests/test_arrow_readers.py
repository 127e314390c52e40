"""A block is a table to every library that speaks the Arrow PyCapsule interface: one table, and no copy of it."""

from __future__ import annotations

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from agent._native import Buffer, Readings, decode
from tests.native_vectors import TAGS
from tests.test_native import every_type, sealed


@pytest.fixture
def readings() -> Readings:
    """Two readings of every type, and a bad one without a value."""
    buffer = Buffer(TAGS)
    buffer.push(every_type())
    return decode(sealed(buffer).data)


def test_duckdb_pyarrow_polars_and_pandas_read_the_same(readings: Readings) -> None:
    table = pa.table(readings)
    rows = [tuple(row.values()) for row in table.to_pylist()]
    assert len(rows) == 3 * len(TAGS)
    with duckdb.connect() as connection:
        connection.register("readings", readings)
        assert connection.sql("from readings").fetchall() == rows
    frame = pl.DataFrame(readings)
    assert frame.columns == table.column_names
    assert frame.rows() == rows
    # pandas' own types have no 64-bit integer that may be missing, so it is asked to keep Arrow's.
    kept = table.to_pandas(types_mapper=pd.ArrowDtype)
    assert pa.Table.from_pandas(kept, preserve_index=False).to_pylist() == table.to_pylist()


def test_pandas_reads_a_block_by_itself(readings: Readings) -> None:
    """Into its own types: integers of which some are missing become float64 there, which is the way of pandas."""
    frame = pd.DataFrame.from_arrow(readings)
    assert list(frame.columns) == pa.table(readings).column_names
    assert frame["time"].tolist() == [row.time_ns for row in every_type()]
    assert frame["tag"].dtype == "uint32"


def addresses(column: pa.ChunkedArray) -> list[int | None]:
    """Where the buffers of a column's only chunk lie."""
    (chunk,) = column.chunks
    return [None if each is None else each.address for each in chunk.buffers()]


def test_no_reader_copies_numbers(readings: Readings) -> None:
    """Text alone is laid out anew by polars, which keeps short strings in another way than Arrow's plainest."""
    table = pa.table(readings)
    numbers = [field.name for field in table.schema if pa.types.is_primitive(field.type)]
    assert {"tag", "time", "quality", "boolean", "integer", "unsigned", "real"} <= set(numbers)
    frame = pl.DataFrame(table)
    kept = table.to_pandas(types_mapper=pd.ArrowDtype)
    for name in numbers:
        where = addresses(table[name])
        assert addresses(pa.chunked_array([frame[name].to_arrow()]))[1] == where[1], name
        assert addresses(kept[name].array.__arrow_array__())[1] == where[1], name
