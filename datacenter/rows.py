"""Rows: a decoded block as rows of the store's tables, which are one for each kind of values. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from agent import _native
from datacenter.kinds import KIND_OF, SQL_OF

_NUMBER = {kind: number for number, kind in enumerate(SQL_OF)}
_NUMBER_NAMED: Mapping[str, int] = {type_.value: _NUMBER[kind] for type_, kind in KIND_OF.items()}
"""By a type's name: a block has a name in each column, and to make an enum of each takes longer than to read it."""
_KINDS = tuple(SQL_OF)
_NO_TAG = 255


@dataclass(frozen=True, slots=True)
class Bound:
    """What the tag indexes of an epoch stand for, some bytes for each: a data center keeps those of all its agents.

    `keys`, and `numbers` of their kinds, are null where no tag is; `kinds` are the numbers again, for single looks.
    """

    keys: pa.Array
    numbers: pa.Array
    kinds: bytes

    @classmethod
    def of(cls, tags: Mapping[int, tuple[int, str]]) -> Bound:
        """`tags`: tag index -> (key, type)."""
        kinds = bytearray([_NO_TAG]) * (max(tags, default=-1) + 1)
        for tag, (_, type_) in tags.items():
            kinds[tag] = _NUMBER_NAMED[type_]
        keys = [tags[tag][0] if tag in tags else None for tag in range(len(kinds))]
        numbers = [None if kind == _NO_TAG else kind for kind in kinds]
        return cls(pa.array(keys, pa.int32()), pa.array(numbers, pa.int8()), bytes(kinds))

    def __len__(self) -> int:
        """One more than the highest tag index."""
        return len(self.kinds)

    def problem(self, columns: list[_native.Column]) -> str:
        """What of a block's columns is not as the catalog says; empty where all is."""
        kinds, most = self.kinds, len(self.kinds)
        for column in columns:
            tag = column.tag
            number = kinds[tag] if tag < most else _NO_TAG
            if _NUMBER_NAMED.get(column.type, _NO_TAG) != number or number == _NO_TAG:
                kind = "no tag" if number == _NO_TAG else f"a {_KINDS[number]} value"
                return f"tag {tag} holds {column.type}, and is {kind}"
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
