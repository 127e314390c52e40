"""The CSV tag list of one device: one row per tag, checked by one model."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, NamedTuple, TypeAlias, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, ValidationError, ValidationInfo
from pydantic_core import ErrorDetails

from agent import quantity
from agent.address import ModbusAddress, NodeAddress, Order, registers
from agent.errors import Problem
from agent.model import ValueType
from agent.wording import explain, keys, likely

MAX_BYTES = 64 * 1024 * 1024
MAX_ROWS = 200_000
MAX_PROBLEMS = 1000
"""Per file: a wrong column would otherwise give as many problems as there are rows."""
MAX_STRING = 250
"""Bytes: what the 125 registers of one Modbus request hold."""
_TYPES = tuple(kind.value for kind in ValueType)
_PLC = {
    "real": "float32", "float": "float32", "lreal": "float64", "double": "float64", "boolean": "bool", "bit": "bool",
    "sint": "int8", "int": "int16", "dint": "int32", "lint": "int64", "usint": "uint8", "byte": "uint8",
    "uint": "uint16", "word": "uint16", "udint": "uint32", "dword": "uint32", "ulint": "uint64", "lword": "uint64",
    "str": "string", "text": "string", "bytestring": "bytes", "blob": "bytes",
}  # fmt: skip
_BOUNDS = {"deadband": "0.1", "swinging_door": "0.5", "grid": "0.05"}
"""The filters that have a bound, with one that people might write."""
Address: TypeAlias = ModbusAddress | NodeAddress


class DataType(NamedTuple):
    """A cell of the `type` column. `length` is the bytes of a Modbus string, 0 for every other type."""

    type: ValueType
    length: int = 0


def _address(text: str, info: ValidationInfo) -> Address:
    return ModbusAddress.parse(text) if _protocol(info) == "modbus" else NodeAddress.parse(text)


def _type(text: str, info: ValidationInfo) -> DataType:
    sized = re.fullmatch(r"string\[([0-9]{1,9})\]", text)
    if not sized and text not in _TYPES:
        element = text.lower().removesuffix("[]")
        known = _PLC.get(element)
        wanted = f"write {known}{text[len(element) :]}" if known else likely(text, _TYPES)
        raise ValueError(f"{quantity.shown(text)} is not a type; {wanted.replace('? write', '?; write')}")
    found = DataType(ValueType.STRING, int(sized[1])) if sized else DataType(ValueType(text))
    if _protocol(info) == "modbus" and (found.type.is_array or found.type is ValueType.BYTES):
        meant = "a tag for each element" if found.type.is_array else "string[16], or a number's type"
        raise ValueError(f"Modbus has no {found.type}; write {meant}")
    if _protocol(info) != "modbus":
        if sized:
            raise ValueError(f"{text!r}: an OPC UA string brings its own length; write string")
        return found
    if found.type is ValueType.STRING and not 1 <= found.length <= MAX_STRING:
        raise ValueError(f"{text!r} does not say how long it is; write string[16], with 1 to {MAX_STRING} bytes")
    address = info.data.get("address")
    if isinstance(address, ModbusAddress):
        _fits(found, address)
    return found


def _fits(found: DataType, address: ModbusAddress) -> None:
    if found.type is not ValueType.BOOL:
        if address.table.bits:
            raise ValueError(
                f"{address.text} is one bit and can't hold {found.type}; write bool, or a register's address"
            )
        if address.bit is not None:
            raise ValueError(f"{address.text} is one bit and can't hold {found.type}; write bool, or leave out the bit")
    width = registers(found.type, found.length)
    if address.number + width > 65536:
        raise ValueError(
            f"{found.type} takes {width} registers, past the last one; write an address up to {65536 - width}"
        )


def _order(text: str) -> str:
    if text.upper() not in get_args(Order):
        raise ValueError(f"{quantity.shown(text)} is not a byte order; write ABCD, DCBA, BADC or CDAB")
    return text.upper()


def _factor(text: str, info: ValidationInfo) -> float:
    kind = info.data.get("type")
    if kind and not kind.type.is_number:
        raise ValueError(f"a {kind.type} can't be scaled; write nothing in this column")
    found = quantity.number(text)
    if info.field_name == "scale" and found == 0:
        raise ValueError("a scale of 0 makes every reading the same; write 1, or nothing")
    return found


def _limit(text: str, info: ValidationInfo) -> float:
    found = quantity.number(text)
    low = info.data.get("low")
    if info.field_name == "high" and low is not None and found <= low:
        raise ValueError(f"high is {found:g} and low is {low:g}; write a high above the low")
    return found


def _filter(text: str, info: ValidationInfo) -> str:
    rule, semicolon, rest = (part.strip() for part in text.partition(";"))
    word, equals, bound = (part.strip() for part in rule.partition("="))
    if word == "heartbeat":
        raise ValueError(f"{quantity.shown(text)} has nothing to interrupt; write on_change; heartbeat=60s")
    if word not in ("on_change", *_BOUNDS) or bool(equals) == (word == "on_change"):
        forms = {name: f"{name}={example}" for name, example in _BOUNDS.items()} | {"on_change": "on_change"}
        meant = likely(word, forms).rpartition("write ")[2]
        wanted = forms.get(meant) or ", ".join(forms.values())
        raise ValueError(f"{quantity.shown(text)} is not a filter; write {wanted}, or nothing")
    found = f"{word}={_bound(word, bound, info)}" if equals else word
    if found == "deadband=0":
        found = "on_change"  # whatever differs is outside a deadband of zero
    return f"{found}; heartbeat={_heartbeat(rest)}" if semicolon else found


def _bound(word: str, text: str, info: ValidationInfo) -> str:
    """A filter's bound as the core reads it: a number above zero, for a deadband also with a % after it, or zero."""
    noun = word.replace("_", " ")
    kind = info.data.get("type")
    if kind and not kind.type.is_number:
        raise ValueError(f"a {kind.type} has no {noun}; write on_change, or nothing")
    share = text.removesuffix("%").rstrip()
    percent = share != text
    found = quantity.number(share)
    if found < 0:
        raise ValueError(f"a {noun} of {found:g} is below zero; write {word}={_BOUNDS[word]}")
    if percent and word != "deadband":
        raise ValueError(f"a {noun} has no percent; write it in the tag's unit, such as {word}={_BOUNDS[word]}")
    if percent and found > 100:
        raise ValueError(f"a {noun} of {found:g} % is more than the range; write one up to 100%, such as deadband=2%")
    if found == 0 and word != "deadband":
        raise ValueError(f"a {noun} of zero leaves nothing out; write {word}={_BOUNDS[word]}, or nothing")
    if found == 0:
        return "0"
    if not percent:
        return share
    # Where a limit is not in there, it was wrong itself, and said so.
    if any(info.data.get(limit, 0.0) is None for limit in ("low", "high")):
        raise ValueError(f"{share}% of a range that is not known; write the tag's low and high, or deadband=0.1")
    return f"{share}%"


def _heartbeat(text: str) -> str:
    word, _, duration = (part.strip() for part in text.partition("="))
    if word != "heartbeat":
        raise ValueError(f"{quantity.shown(text)} can't follow a filter; write heartbeat=60s after the semicolon")
    try:
        seconds = quantity.seconds(duration)
    except ValueError as reason:
        raise ValueError(f"{str(reason).partition('; write ')[0]}; write heartbeat=60s (or with ms, m, h)") from None
    if not 0.001 <= seconds <= 31 * 86400:
        raise ValueError(f"a heartbeat of {duration} is out of range; write one from 1ms to 744h")
    return "".join(duration.split())


def _level(text: str) -> int:
    if text not in ("1", "2", "3"):
        raise ValueError(f"{quantity.shown(text)} is not a level; write 1, 2 or 3")
    return int(text)


def _line(most: int) -> AfterValidator:
    return AfterValidator(lambda text: quantity.printable(text, most))


def _protocol(info: ValidationInfo) -> str:
    return str(info.context["protocol"]) if info.context else "modbus"


class TagRow(BaseModel):
    """One row. Empty cells are left out before; `protocol` ("modbus", "opcua") comes in the validation context."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, AfterValidator(quantity.name)] = Field(examples=["temp"])
    address: Annotated[Address, PlainValidator(_address)] = Field(examples=["hr:100"])
    type: Annotated[DataType, PlainValidator(_type)] = Field(examples=["float32"])
    order: Annotated[str, AfterValidator(_order)] = ""
    unit: Annotated[str, _line(64)] = ""
    scale: Annotated[float | None, PlainValidator(_factor)] = None
    offset: Annotated[float | None, PlainValidator(_factor)] = None
    low: Annotated[float | None, PlainValidator(_limit)] = None
    high: Annotated[float | None, PlainValidator(_limit)] = None
    filter: Annotated[str, PlainValidator(_filter)] = ""
    identifier: Annotated[str, _line(255)] = ""
    domain: Annotated[str, _line(64)] = ""
    level: Annotated[int | None, PlainValidator(_level)] = None
    description: Annotated[str, AfterValidator(lambda text: " ".join(text.split())), _line(1000)] = ""


REQUIRED = ("name", "address", "type")
COLUMNS = tuple(TagRow.model_fields)


@dataclass(slots=True)
class TagList:
    """What a CSV holds: the good rows with their lines, and what is wrong with the others."""

    file: str
    rows: list[tuple[int, TagRow]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def wrong(self, line: int | None, column: str, text: str) -> None:
        """Notes a problem: "what is wrong; write what to write instead"."""
        message, _, hint = text.rpartition("; write ")
        self.problems.append(Problem(self.file, column, message, f"write {hint}", line))


def read(path: Path, protocol: str) -> TagList:
    """Reads and checks a tag list. Raises OSError where the file can't be read; everything else is in `problems`."""
    found = TagList(str(path))
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        found.wrong(None, "(file)", f"larger than {MAX_BYTES >> 20} MiB; write several devices with a list each")
        return found
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        line = content.count(b"\n", 0, reason.start) + 1
        found.wrong(line, "(file)", "not UTF-8 text; write it as 'CSV UTF-8' from the spreadsheet")
        return found
    lines = _rows(text, found)
    header = next(lines, None)
    if header is None:
        if not found.problems:
            found.wrong(None, "(header)", f"the file is empty; write a header line: {','.join(COLUMNS)}")
        return found
    columns = _columns(*header, found)
    if all(column in columns for column in REQUIRED):
        _check(lines, columns, protocol, found)
    return found


def _rows(text: str, found: TagList) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of every row that is not blank. The delimiter is the one that the header line has most of."""
    header = next((line for line in islice(io.StringIO(text), 1000) if line.strip()), "")
    delimiter = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                yield line, stripped
            line = reader.line_num + 1
    except csv.Error as reason:
        found.wrong(
            line, "(row)", f'{reason}; write a cell that has quotes as "a ""quoted"" word", and close every quote'
        )


def _columns(line: int, cells: list[str], found: TagList) -> list[str]:
    columns = [cell.lower() for cell in cells]
    for place, column in enumerate(columns):
        if not column:
            continue  # a spreadsheet's empty column: `_check` complains where it has cells
        if column not in COLUMNS:
            hint = likely(column, [known for known in COLUMNS if known not in columns] or COLUMNS)
            found.problems.append(Problem(found.file, cells[place][:80], f"unknown column {column[:80]!r}", hint, line))
        elif column in columns[:place]:
            found.wrong(line, column, "the column is there twice; write it once")
    for column in REQUIRED:
        if column not in columns:
            found.wrong(
                line, column, f"the column {column} is missing; write a header line such as {','.join(COLUMNS)}"
            )
    return columns


def _check(lines: Iterator[tuple[int, list[str]]], columns: list[str], protocol: str, found: TagList) -> None:
    context = {"protocol": protocol}
    names: dict[str, int] = {}
    by_index: list[int] = []
    count = 0
    for line, cells in lines:
        count += 1
        if count > MAX_ROWS:
            found.wrong(line, "(file)", f"more than {MAX_ROWS} tags; write several devices with a list each")
            break
        if len(found.problems) > MAX_PROBLEMS:
            found.wrong(line, "(file)", f"more than {MAX_PROBLEMS} problems; write those above anew, then check again")
            break
        named: dict[str, str] = {column: cell for column, cell in zip(columns, cells, strict=False) if column and cell}
        named = {column: cell for column, cell in named.items() if column in TagRow.model_fields}
        if any(cell and not column for column, cell in zip([*columns, *[""] * len(cells)], cells, strict=False)):
            found.wrong(
                line, "(row)", "more cells than the header has columns; write cells with commas in double quotes"
            )
            continue
        try:
            row = TagRow.model_validate(named, context=context)
        except ValidationError as reason:
            for error in reason.errors(include_url=False):
                found.problems.append(_problem(error, found.file, line, protocol))
            row = None
        if (name := named.get("name")) and names.setdefault(name, line) != line:
            found.wrong(line, "name", f"the name {quantity.shown(name)} is taken by line {names[name]}; write another")
            continue
        if row is None:
            continue
        if isinstance(row.address, NodeAddress) and isinstance(row.address.namespace, int) and row.address.namespace:
            by_index.append(line)
        found.rows.append((line, row))
    if count == 0 and not found.problems:
        found.wrong(None, "(file)", "there are no tags in it; write a row for each tag")
    if by_index:
        found.warnings.append(
            Problem(
                found.file,
                "address",
                f"{len(by_index)} node ids with a namespace index, which may change when the server restarts",
                "write the namespace's URI: nsu=urn:plant;s=Furnace.Temp",
                by_index[0],
            )
        )


def _problem(error: ErrorDetails, file: str, line: int, protocol: str) -> Problem:
    column = str(error["loc"][0]) if error["loc"] else "(row)"
    if error["type"] == "missing":
        node = column == "address" and protocol == "opcua"
        example = "nsu=urn:plant;s=Furnace.Temp" if node else keys(TagRow)[column]
        return Problem(file, column, "the cell is empty", f"write one such as {example}", line)
    message, hint = explain(error, TagRow, {})
    return Problem(file, column, message, hint, line)
