"""The CSV tag list of one device: one row per tag, checked by one model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from agent import quantity, sheet, slip
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
_HEADER = f"a header line such as {','.join(COLUMNS)}"


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
    lines = sheet.rows(content, found.wrong)
    header = next(lines, None)
    if header is None:
        if not found.problems:
            found.wrong(None, "(header)", f"the file is empty; write {_HEADER}")
        return found
    columns = _columns(*header, found)
    if all(column in columns for column in REQUIRED):
        _Check(columns, protocol, found).run(lines)
    return found


def _columns(line: int, cells: list[str], found: TagList) -> list[str]:
    columns = [cell.lower() for cell in cells]
    if not any(column in columns for column in REQUIRED):
        given = ",".join(cells)
        text = f"{quantity.shown(given)} is no header line{slip.cause('(header)', given)}"
        text += f"; write {_HEADER}, with commas, semicolons or tabs"
        found.wrong(line, "(header)", text)
        return columns
    for place, column in enumerate(columns):
        if not column or (found.problems and sheet.UNREAD in column):
            continue  # a spreadsheet's empty column: `_Check` complains where it has cells
        if column not in COLUMNS:
            hint = likely(column, [known for known in COLUMNS if known not in columns] or COLUMNS)
            found.problems.append(Problem(found.file, cells[place][:80], f"unknown column {column[:80]!r}", hint, line))
        elif column in columns[:place]:
            found.wrong(line, column, "the column is there twice; write it once")
    for column in REQUIRED:
        if column not in columns:
            found.wrong(line, column, f"the column {column} is missing; write {_HEADER}")
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
        self.torn = bool(found.problems)
        """Whether there may be cells that are no text, which was said."""

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
        over = [at for at, (column, cell) in enumerate(pairs) if cell and not column]
        if over:
            text = (
                f"{quantity.shown(cells[over[0]])} in cell {over[0] + 1} stands under no column of the header; write "
            )
            found.wrong(
                line, "(row)", text + "a cell that has a comma or semicolon in double quotes, or leave this one out"
            )
            return None
        named = {column: cell for column, cell in pairs if cell and column in TagRow.model_fields}
        try:
            row = TagRow.model_validate(named, context=self.context)
        except ValidationError as reason:
            for error in reason.errors(include_url=False):
                self.note(error, line, named)
            if name := named.get("name"):
                self.is_new(line, name)
            return None
        traits = row.traits()
        if self.plain:
            traits = self.known.setdefault(tuple([cells[at] for at in self.shared]), traits)
        modbus = row.address if isinstance(row.address, ModbusAddress) else None
        return Row(line, row.name, row.address.text, modbus, row.identifier, row.description, traits)

    def note(self, error: ErrorDetails, line: int, named: dict[str, str]) -> None:
        """Says what is wrong with one cell, and what it was probably meant to be."""
        column = str(error["loc"][0]) if error["loc"] else "(row)"
        given = named.get(column, "")
        if self.torn and sheet.UNREAD in given:
            return
        if error["type"] == "missing":
            node = column == "address" and self.context["protocol"] == "opcua"
            example = "nsu=urn:plant;s=Furnace.Temp" if node else keys(TagRow)[column]
            message, hint = "the cell is empty", f"write one such as {example}"
        else:
            message, hint = explain(error, TagRow, {})
            message += slip.cause(column, given)
            hint = self.better(column, given, named) or hint
        self.found.problems.append(Problem(self.found.file, column, message, hint, line))

    def better(self, column: str, given: str, named: dict[str, str]) -> str:
        """What to write instead of a wrong cell, where that can be told from what it seems to have been meant to be."""
        hint = ""
        for cell in dict.fromkeys(slip.meant(column, given)):
            if cell == given:
                continue
            refused = self.refusal(column, cell, named)
            if refused is None:
                return f"write {cell}"
            hint = hint or explain(refused, TagRow, {})[1]
        return hint if given != slip.narrow(given) else ""

    def refusal(self, column: str, cell: str, named: dict[str, str]) -> ErrorDetails | None:
        """What would be wrong in one column of a row that had this cell there."""
        try:
            TagRow.model_validate(named | {column: cell}, context=self.context)
        except ValidationError as reason:
            return next((each for each in reason.errors(include_url=False) if each["loc"][:1] == (column,)), None)
        return None

    def is_new(self, line: int, name: str) -> bool:
        first = self.names.setdefault(name, line)
        if first != line:
            self.found.wrong(line, "name", f"the name {quantity.shown(name)} is taken by line {first}; write another")
        return first == line


def _alike(found: TagList) -> None:
    """What only the addresses of the whole list can tell."""
    by_index = [row.line for row in found.rows if row.address.startswith("ns=")]
    wide = [row for row in found.rows if not row.name.isascii() and row.name != slip.narrow(row.name)]
    dates = [row for row in found.rows if slip.made_a_date(row.name)]
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
    if wide:
        found.warnings.append(
            Problem(
                found.file,
                "name",
                f"{len(wide)} names with full-width characters: whoever writes plain ones will not find these tags",
                f"write {slip.narrow(wide[0].name)}, unless they are meant",
                wide[0].line,
            )
        )
    if dates:
        found.warnings.append(
            Problem(
                found.file,
                "name",
                f"{len(dates)} names such as {dates[0].name}: a spreadsheet makes dates of what looks like one",
                "make the column's format text and write the name again, unless it is meant",
                dates[0].line,
            )
        )
