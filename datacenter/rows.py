"""Rows: a decoded block as rows of the store's tables, which are one for each kind of values. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from agent import _native
from datacenter.kinds import KIND_OF, SQL_OF

_KIND_NAMED: Mapping[str, str] = {type_.value: kind for type_, kind in KIND_OF.items()}
"""By a type's name: a block has a name in each column, and to make an enum of each takes longer than to read it."""
_NUMBER = {kind: number for number, kind in enumerate(SQL_OF)}


@dataclass(frozen=True, slots=True)
class Bound:
    """What the tag indexes of an epoch stand for. `keys`, and `numbers` of their kinds, are null where no tag is."""

    keys: pa.Array
    numbers: pa.Array
    kinds: Mapping[int, str]

    @classmethod
    def of(cls, tags: Mapping[int, tuple[int, str]]) -> Bound:
        """`tags`: tag index -> (key, type)."""
        kinds = {tag: _KIND_NAMED[type_] for tag, (_, type_) in tags.items()}
        indexes = range(max(tags, default=-1) + 1)
        keys = [tags[tag][0] if tag in tags else None for tag in indexes]
        numbers = [_NUMBER[kinds[tag]] if tag in tags else None for tag in indexes]
        return cls(pa.array(keys, pa.int32()), pa.array(numbers, pa.int8()), kinds)

    def problem(self, columns: list[_native.Column]) -> str:
        """What of a block's columns is not as the catalog says; empty where all is."""
        kinds = self.kinds
        for column in columns:
            if _KIND_NAMED.get(column.type) != kinds.get(column.tag, ""):
                kind = f"a {kinds[column.tag]} value" if column.tag in kinds else "no tag"
                return f"tag {column.tag} holds {column.type}, and is {kind}"
        return ""

    def bind(self, rows: pa.Table, stream: int, sequence: int) -> pa.Table:
        """The rows of a block with what the tables have instead of a tag index: key, stream, sequence; and `number`."""
        tags = rows.column("tag")
        bound = {
            "key": pc.take(self.keys, tags),
            "stream": pa.repeat(pa.scalar(stream, pa.int32()), len(rows)),
            "sequence": pa.repeat(pa.scalar(sequence, pa.int64()), len(rows)),
            "number": pc.take(self.numbers, tags),
        }
        return pa.table(dict(zip(rows.column_names, rows.columns, strict=True)) | bound)


def parts(rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Bound rows of many blocks, as rows of each kind's table; they keep their order."""
    numbers = rows.column("number")
    present = pc.unique(numbers).to_pylist()
    for kind in (kind for kind, number in _NUMBER.items() if number in present):
        part = rows.select(["key", "time", "quality", kind, "stream", "sequence"])
        if len(present) > 1:
            part = part.filter(pc.equal(numbers, _NUMBER[kind]))
        # In one piece: DuckDB takes the pieces of small blocks one by one.
        yield kind, part.rename_columns({kind: "value"}).combine_chunks()
