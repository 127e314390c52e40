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
        for column in columns:
            expected = self.kinds.get(column.tag)
            if expected is None or _KIND_NAMED.get(column.type) != expected:
                kind = f"a {expected} value" if expected else "no tag"
                return f"tag {column.tag} holds {column.type}, and is {kind}"
        return ""

    def parts(self, rows: pa.Table, columns: list[_native.Column]) -> Iterator[tuple[str, pa.Table]]:
        """The rows of each kind, in their order, with the kind's values as `value`.

        `rows` has the columns tag, key, time, quality, stream, sequence, and those of the kinds.
        """
        kinds = list(dict.fromkeys(self.kinds[column.tag] for column in columns))
        numbers = pc.take(self.numbers, rows.column("tag")) if len(kinds) > 1 else None
        for kind in kinds:
            part = rows.select(["key", "time", "quality", kind, "stream", "sequence"])
            if numbers is not None:
                part = part.filter(pc.equal(numbers, _NUMBER[kind]))
            if len(part):
                yield kind, part.rename_columns({kind: "value"})
