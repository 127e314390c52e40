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
from agent.address import ModbusAddress
from agent.errors import Problem
from agent.tagrow import TagRow
from agent.wording import explain, keys, likely

MAX_BYTES = 64 * 1024 * 1024
MAX_ROWS = 200_000
MAX_PROBLEMS = 1000
"""Per file: a wrong column would otherwise give as many problems as there are rows."""
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
        found.rows.append((line, row))
    if count == 0 and not found.problems:
        found.wrong(None, "(file)", "there are no tags in it; write a row for each tag")
    _alike(found)


def _alike(found: TagList) -> None:
    """What only the addresses of the whole list can tell."""
    by_index: list[int] = []
    digits: dict[int, int] = {}
    for line, row in found.rows:
        if isinstance(row.address, ModbusAddress):
            if row.address.digits:
                digits.setdefault(row.address.digits, line)
        elif isinstance(row.address.namespace, int) and row.address.namespace:
            by_index.append(line)
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
