"""Kinds of values: what a value's type is in a block's columns, and in SQL. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from agent.model import ValueType

_ELEMENT = {
    ValueType.BOOL: "boolean",
    ValueType.STRING: "text",
    ValueType.BYTES: "bytes",
    **dict.fromkeys((ValueType.INT8, ValueType.INT16, ValueType.INT32, ValueType.INT64), "integer"),
    **dict.fromkeys((ValueType.UINT8, ValueType.UINT16, ValueType.UINT32, ValueType.UINT64), "unsigned"),
    **dict.fromkeys((ValueType.FLOAT32, ValueType.FLOAT64), "real"),
}
KIND_OF = {type_: _ELEMENT[type_.element] + "_array" * type_.is_array for type_ in ValueType}
"""Which column of a decoded block holds the values of a type, and which tables of the store its readings."""

_SQL = {
    "boolean": "BOOLEAN",
    "integer": "BIGINT",
    "unsigned": "UBIGINT",
    "real": "DOUBLE",
    "text": "VARCHAR",
    "bytes": "BLOB",
}
SQL_OF = _SQL | {f"{kind}_array": f"{type_}[]" for kind, type_ in _SQL.items()}
"""Every kind, and its type in SQL."""


def kinds_of(types: Iterable[str]) -> list[str]:
    """The kinds of some types of values, each once."""
    return list(dict.fromkeys(KIND_OF[ValueType(type_)] for type_ in types))
