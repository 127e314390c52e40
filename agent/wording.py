"""Says in plain words what a pydantic error is about: the message and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from agent.quantity import shown

_KINDS = {
    "string_type": 'text in "double quotes"',
    "int_type": "a whole number without quotes",
    "int_from_float": "a whole number without quotes",
    "float_type": "a number without quotes",
    "bool_type": "true or false",
}
_BOUNDS = {
    "greater_than_equal": ("ge", "of at least"),
    "less_than_equal": ("le", "of at most"),
    "greater_than": ("gt", "above"),
    "less_than": ("lt", "below"),
}
_LENGTHS = {
    "string_too_short": ("min_length", "text of at least {} character{}"),
    "string_too_long": ("max_length", "text of at most {} character{}"),
    "too_short": ("min_length", "at least {} of them"),
    "too_long": ("max_length", "at most {} of them"),
}


def halves(text: str) -> tuple[str, str]:
    """Splits "what is wrong; write what to write instead", the form of every ValueError of the config's parts."""
    message, _, hint = text.rpartition("; write ")
    return (message, f"write {hint}") if message else (hint, "write it as docs/config.schema.json describes")


def keys(model: type[BaseModel]) -> dict[str, Any]:
    """The keys that a table may have, each with an example (None where there is none)."""
    return {
        field.alias or name: field.examples[0] if field.examples else None for name, field in model.model_fields.items()
    }


def likely(word: str, known: Iterable[str], *, otherwise: str = "one of ") -> str:
    """ "write x" for the known word that `word` probably means, else all of them."""
    choices = list(known)
    near = get_close_matches(word[:80].lower(), choices, n=1, cutoff=0.6)
    return f"did you mean {near[0]}? write {near[0]}" if near else f"write {otherwise}{', '.join(choices)}"


def explain(error: ErrorDetails, model: type[BaseModel], tables: Mapping[str, type[BaseModel]]) -> tuple[str, str]:
    """(message, hint). `model` is the table in which the error lies; `tables` are all of them, by their TOML name."""
    key = str(error["loc"][-1]) if error["loc"] else ""
    kind, given, context = error["type"], error["input"], error.get("ctx", {})
    found = error["msg"], "write it as docs/config.schema.json describes"
    match kind:
        case "value_error":
            found = halves(str(context.get("error", error["msg"])))
        case "missing":
            found = f"{key} is missing", _example(key, model)
        case "extra_forbidden":
            found = f"unknown key {shown(key)}", _known(key, model, tables)
        case "literal_error":
            found = _choice(key, given, re.findall(r"'([^']*)'", str(context.get("expected", ""))))
        case "union_tag_not_found":
            found = "protocol is missing", 'write protocol = "modbus" or protocol = "opcua"'
        case "union_tag_invalid":
            word = str(context.get("tag"))
            found = f"{shown(word)} is not a protocol", likely(word, ("modbus", "opcua"))
        case _ if kind in _BOUNDS:
            bound, words = _BOUNDS[kind]
            found = f"{shown(given)} is out of range", f"write a number {words} {context.get(bound)}"
        case _ if kind in _LENGTHS:
            bound, words = _LENGTHS[kind]
            count = context.get(bound)
            long = f"{len(given)} {'characters' if isinstance(given, str) else 'of them'}"
            found = f"{long} where another length is wanted", f"write {words.format(count, 's' * (count != 1))}"
        case "model_type" | "model_attributes_type" | "dict_type":
            found = (
                f"{_sort(given)} where a table is wanted",
                f"write [{key}] on a line of its own, and its keys below it",
            )
        case "tuple_type" | "list_type":
            found = (
                f"{_sort(given)} where a list of tables is wanted",
                f"write [[{key}]], with two brackets on each side",
            )
        case _ if kind in _KINDS:
            found = (
                f"{_sort(given)} where {_KINDS[kind].split(' in ')[0]} is wanted",
                _example(key, model, _KINDS[kind]),
            )
    return found


def _choice(key: str, given: object, words: list[str]) -> tuple[str, str]:
    if not isinstance(given, str):
        wanted = str(given) if str(given) in words else words[0]
        return f"{_sort(given)} where text is wanted", f'write {key} = "{wanted}", in quotes'
    return f"{shown(given)} is not known here", likely(given, words)


def _example(key: str, model: type[BaseModel], otherwise: str = "a value for it") -> str:
    example = keys(model).get(key)
    if example is None:
        return f"write {otherwise}"
    return f'write {key} = "{example}"' if isinstance(example, str) else f"write {key} = {example}"


def _known(key: str, model: type[BaseModel], tables: Mapping[str, type[BaseModel]]) -> str:
    mine = keys(model)
    if not get_close_matches(key[:80].lower(), mine, n=1, cutoff=0.6):
        for table, other in tables.items():
            if other is not model and key in keys(other):
                place = f'a [[device]] with protocol = "{table}"' if table in ("modbus", "opcua") else f"[{table}]"
                return f"{key} belongs to {place}: write it there, or leave it out"
    return likely(key, mine)


def _sort(value: object) -> str:
    """What a TOML value is, in a word. The value itself may be a secret."""
    match value:
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return "a date or time"
