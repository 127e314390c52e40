"""The CSV tag list of one device: one row per tag, checked by one model."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from agent import quantity
from agent.address import ModbusAddress, NodeAddress
from agent.errors import Problem
from agent.tagrow import OWN, TagRow, Traits, fits, own_text
from agent.wording import explain, keys, likely

MAX_BYTES = 64 * 1024 * 1024
_PIECE = 64 * 1024
MAX_ROWS = 200_000
MAX_PROBLEMS = 1000
"""Per file: a wrong column would otherwise give as many problems as there are rows."""
REQUIRED = ("name", "address", "type")
COLUMNS = tuple(TagRow.model_fields)


@dataclass(slots=True)
class Row:
    """One good row. It takes little memory, for there may be a hundred thousand."""

    line: int
    name: str
    address: str
    """In its canonical form."""
    modbus: ModbusAddress | None
    """The same address, taken apart, of a Modbus device."""
    identifier: str
    description: str
    traits: Traits
    """What it has in common with other rows."""


@dataclass(slots=True)
class TagList:
    """What a CSV holds: the good rows, and what is wrong with the others."""

    file: str
    rows: list[Row] = field(default_factory=list)
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
        content = b"".join(islice(iter(lambda: file.read(_PIECE), b""), MAX_BYTES // _PIECE + 1))
    if len(content) > MAX_BYTES:
        found.wrong(None, "(file)", f"larger than {MAX_BYTES >> 20} MiB; write several devices with a list each")
        return found
    try:
        content.decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        line = content.count(b"\n", 0, reason.start) + 1
        found.wrong(line, "(file)", "not UTF-8 text; write it as 'CSV UTF-8' from the spreadsheet")
        return found
    lines = _rows(content, found)
    header = next(lines, None)
    if header is None:
        if not found.problems:
            found.wrong(None, "(header)", f"the file is empty; write a header line: {','.join(COLUMNS)}")
        return found
    columns = _columns(*header, found)
    if all(column in columns for column in REQUIRED):
        _Check(columns, protocol, found).run(lines)
    return found


def _rows(content: bytes, found: TagList) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of every row that is not blank. The delimiter is the one that the header line has most of."""
    header = next((line for line in islice(_text(content, "\n"), 1000) if line.strip()), "")
    delimiter = max(",;\t", key=header.count)
    reader = csv.reader(_text(content, ""), delimiter=delimiter, strict=True)
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


def _text(content: bytes, newline: str) -> io.TextIOWrapper:
    """Decodes as it is read: the whole text at once takes four bytes a character."""
    return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline=newline)


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


class _Check:
    """Of all rows of one list. What cells were found good for once is not asked again: long lists repeat themselves."""

    def __init__(self, columns: list[str], protocol: str, found: TagList) -> None:
        self.columns = columns
        self.context = {"protocol": protocol}
        self.found = found
        self.names: dict[str, int] = {}
        self.known: dict[tuple[str, ...], Traits] = {}
        self.own = [columns.index(column) if column in columns else None for column in OWN]
        self.shared = [at for at, column in enumerate(columns) if column not in OWN]
        self.plain = not found.problems
        """Whether every column is one that there is, and is there once."""

    def run(self, lines: Iterator[tuple[int, list[str]]]) -> None:
        found = self.found
        count = 0
        for line, cells in lines:
            count += 1
            if count > MAX_ROWS:
                found.wrong(line, "(file)", f"more than {MAX_ROWS} tags; write several devices with a list each")
                break
            if len(found.problems) > MAX_PROBLEMS:
                text = f"more than {MAX_PROBLEMS} problems; write those above anew, then check again"
                found.wrong(line, "(file)", text)
                break
            if (row := self.like_another(line, cells) or self.by_itself(line, cells)) and self.is_new(line, row.name):
                found.rows.append(row)
        if count == 0 and not found.problems:
            found.wrong(None, "(file)", "there are no tags in it; write a row for each tag")
        _alike(found)

    def like_another(self, line: int, cells: list[str]) -> Row | None:
        """The row, where another had the same cells but for its own; None where there was none, or anything is wrong:
        what it is, `by_itself` says."""
        if not self.plain or len(cells) > len(self.columns):
            return None
        cells += [""] * (len(self.columns) - len(cells))
        traits = self.known.get(tuple([cells[at] for at in self.shared]))
        if traits is None:
            return None
        name, address, identifier, description = ["" if at is None else cells[at] for at in self.own]
        try:
            quantity.name(name)
            modbus = ModbusAddress.parse(address) if self.context["protocol"] == "modbus" else None
            if modbus is not None:
                fits(traits.type, modbus)
            text = (modbus or NodeAddress.parse(address)).text
            if identifier or description:
                identifier, description = own_text(identifier, description)
        except ValueError:
            return None
        return Row(line, name, text, modbus, identifier, description, traits)

    def by_itself(self, line: int, cells: list[str]) -> Row | None:
        """The row, checked cell by cell; what is wrong is noted."""
        found = self.found
        pairs = list(zip([*self.columns, *[""] * len(cells)], cells, strict=False))
        if any(cell and not column for column, cell in pairs):
            text = "more cells than the header has columns; write cells with commas in double quotes"
            found.wrong(line, "(row)", text)
            return None
        named = {column: cell for column, cell in pairs if cell and column in TagRow.model_fields}
        try:
            row = TagRow.model_validate(named, context=self.context)
        except ValidationError as reason:
            for error in reason.errors(include_url=False):
                found.problems.append(_problem(error, found.file, line, self.context["protocol"]))
            if name := named.get("name"):
                self.is_new(line, name)
            return None
        traits = row.traits()
        if self.plain:
            traits = self.known.setdefault(tuple([cells[at] for at in self.shared]), traits)
        modbus = row.address if isinstance(row.address, ModbusAddress) else None
        return Row(line, row.name, row.address.text, modbus, row.identifier, row.description, traits)

    def is_new(self, line: int, name: str) -> bool:
        first = self.names.setdefault(name, line)
        if first != line:
            self.found.wrong(line, "name", f"the name {quantity.shown(name)} is taken by line {first}; write another")
        return first == line


def _alike(found: TagList) -> None:
    """What only the addresses of the whole list can tell."""
    by_index = [row.line for row in found.rows if row.address.startswith("ns=")]
    digits: dict[int, int] = {}
    for row in found.rows:
        if row.modbus is not None and row.modbus.digits:
            digits.setdefault(row.modbus.digits, row.line)
    if len(digits) > 1:
        found.wrong(
            digits[5],
            "address",
            f"a number of five digits, and one of six in line {digits[6]}: a spreadsheet drops the zeros in front of a "
            "coil's number, so that 10001 may be coil 010001; write all of them with six digits, or as hr:100 and co:3",
        )
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
