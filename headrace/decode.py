"""`headrace decode`: what is in blocks and exported files, for people and for other programs."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from uuid import UUID

from agent import _native, export
from agent.errors import HeadraceError
from headrace.facts import moment

SHOWN = 20
"""Rows of a block's table that people read; the other formats have them all."""
HEADER = (
    "kind",
    "version",
    "stream",
    "sequence",
    "epoch",
    "first_ns",
    "last_ns",
    "sealed_ns",
    "synchronized",
    "readings",
    "bytes",
    "last_sequence",
    "reason",
    "corrects",
)
ROW = ("stream", "sequence", "tag", "type", "time_ns", "value", "quality")


class _Writer(Protocol):
    """One form of output."""

    def add(self, block: bytes) -> None:
        """Writes one block. Raises BlockError, and then has written nothing of it."""


def header_of(block: bytes) -> dict[str, Any]:
    """A block's header as docs/json-form.md has it, without its columns. Raises BlockError."""
    header = _native.header(block)
    shown: dict[str, Any] = {
        "kind": header.kind,
        "version": "{}.{}".format(*header.version),
        "stream": str(UUID(bytes=header.stream)),
        "sequence": header.sequence,
        "epoch": f"{header.epoch:016x}",
        "first_ns": header.first_ns,
        "last_ns": header.last_ns,
        "sealed_ns": header.sealed_ns,
        "synchronized": header.synchronized,
        "readings": header.readings,
        "bytes": len(block),
    }
    if header.kind == "gap":
        shown |= {"last_sequence": header.last_sequence, "reason": header.reason}
    if header.corrects:
        stream, first, last, offset_ns = header.corrects
        corrects = {"stream": str(UUID(bytes=stream)), "first": first, "last": last, "offset_ns": offset_ns}
        shown |= {"corrects": corrects}
    return shown


class _Json:
    """One line a block."""

    def __init__(self, out: BinaryIO, header_only: bool) -> None:
        self._out, self._header_only = out, header_only

    def add(self, block: bytes) -> None:
        if self._header_only:
            self._out.write(json.dumps(header_of(block), ensure_ascii=False).encode() + b"\n")
        else:
            self._out.write(_native.to_json(block) + b"\n")


class _Text:
    """CSV and tables: both are text, in UTF-8 whatever the system's encoding is."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def write(self, text: str) -> int:
        return self._out.write(text.encode("utf-8", "backslashreplace"))


class _Csv:
    """One row a reading; with `header_only` one row a block."""

    def __init__(self, out: BinaryIO, header_only: bool) -> None:
        self._csv = csv.writer(_Text(out), lineterminator="\n")
        self._header_only = header_only
        self._csv.writerow(HEADER if header_only else ROW)

    def add(self, block: bytes) -> None:
        if self._header_only:
            shown = header_of(block)
            self._csv.writerow(_cell(shown.get(name)) for name in HEADER)
            return
        content = json.loads(_native.to_json(block))
        if content["kind"] == "gap":
            _say(f"gap: places {content['sequence']} to {content['last_sequence']}: {_plain(content['reason'])}")
        if corrects := content.get("corrects"):
            _say(f"correction: {_cell(corrects)}")
        for column in content["columns"]:
            if "problem" in column:
                _say(f"tag {column['tag']}: {column['count']} readings can't be read: {_plain(column['problem'])}")
            of = (content["stream"], content["sequence"], column["tag"], column["type"])
            self._csv.writerows((*of, time, _cell(value), quality) for time, value, quality in column["readings"])


class _Table:
    """The header's fields, then the first readings."""

    def __init__(self, out: BinaryIO, header_only: bool) -> None:
        self._out, self._header_only, self._first = _Text(out), header_only, True

    def add(self, block: bytes) -> None:
        header = header_of(block)
        columns = [] if self._header_only else json.loads(_native.to_json(block))["columns"]
        lines = [] if self._first else [""]
        self._first = False
        for name, value in header.items():
            stamp = f"  {moment(value)}" if name.endswith("_ns") else ""
            lines.append(f"{name:<14} {_plain(_cell(value))}{stamp}")
        shown = 0
        for column in columns:
            codecs = f"times {column['time_codec']}, values {column['value_codec']}"
            lines.append(f"\ntag {column['tag']}  {column['type']}  {column['count']} readings  {codecs}")
            if passed := column.get("filter"):
                lines.append(
                    f"  filter {passed['kind']}, bound {passed['bound']}, between readings: {passed['between']}"
                )
            if "problem" in column:
                lines.append(f"  unreadable: {_plain(column['problem'])}")
            for time_ns, value, quality in column["readings"][: max(0, SHOWN - shown)]:
                lines.append(f"  {moment(time_ns)}  {_plain(_cell(value)):<24} {quality:#010x}")
            shown += column["count"]
        if shown > SHOWN:
            lines.append(f"\n... {header['readings']} readings in all; --format json, csv and parquet have them")
        self._out.write("\n".join(lines) + "\n")


class _Parquet:
    """One row group a block: the columns of its Arrow stream, with its stream and place."""

    def __init__(self, out: BinaryIO) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._pa = pa
        time = pa.field("time", pa.timestamp("ns", "UTC"), nullable=False)
        rows = [time if each.name == "time" else each for each in pa.table(_native.decode(_EMPTY)).schema]
        own = [pa.field("stream", pa.string(), nullable=False), pa.field("sequence", pa.uint64(), nullable=False)]
        self._schema = pa.schema(own + rows)
        self._writer = pq.ParquetWriter(out, self._schema, compression="zstd")

    def add(self, block: bytes) -> None:
        pa = self._pa
        decoded = _native.decode(block)
        for column in decoded.columns:
            if column.problem:
                _say(f"tag {column.tag}: {column.readings} readings can't be read: {_plain(column.problem)}")
        if not len(decoded):
            return
        read = pa.table(decoded)
        stream = pa.repeat(pa.scalar(str(UUID(bytes=decoded.header.stream))), len(read))
        sequence = pa.repeat(pa.scalar(decoded.header.sequence, pa.uint64()), len(read))
        arrays = [stream, sequence, *(read.column(name) for name in self._schema.names[2:])]
        cast = [each.cast(field.type) for each, field in zip(arrays, self._schema, strict=True)]
        self._writer.write_table(pa.table(cast, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


_EMPTY = _native.gap(
    stream=bytes(16), first=0, last=0, epoch=0, from_ns=0, to_ns=0, readings=0, reason="", sealed_ns=0
).data
"""A block without rows: it has the schema of all."""


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _plain(text: str) -> str:
    """Text of a block for a terminal: what is not printable as an escape, or a block could command the terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _say(text: str) -> None:
    print(f"headrace: {text}", file=sys.stderr)


def blocks_of(file: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """The blocks of an exported file, each with its name, or the one that the file is. Raises ExportError, OSError."""
    start = export.take(file, len(export.MAGIC))
    if start == export.MAGIC:
        for number, block in enumerate(export.read_blocks(file), 1):
            yield f"block {number}: ", block
        return
    block = start + export.take(file, export.MAX_BLOCK - len(start) + 1)
    if len(block) > export.MAX_BLOCK:
        raise export.ExportError("larger than a block can be, and not an exported file")
    yield "", block


class _Unread(HeadraceError):
    """A file that can't be opened; the message is the system's."""


def _input(name: str) -> AbstractContextManager[BinaryIO]:
    if name == "-":
        return nullcontext(sys.stdin.buffer)
    try:
        return Path(name).open("rb")
    except OSError as reason:
        raise _Unread(reason.strerror) from None


@contextmanager
def _output(path: Path | None) -> Iterator[BinaryIO]:
    """Where the output goes: a file appears under its name when it is whole."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    unfinished = path.with_name(path.name + ".part")
    try:
        with unfinished.open("wb") as file:
            yield file
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _read(name: str, add: Callable[[bytes], None]) -> int:
    """Gives a file's blocks to `add`; returns how many faults there were, each reported."""
    faults, found = 0, False
    label = "stdin" if name == "-" else name
    try:
        with _input(name) as file:
            for block_name, block in blocks_of(file):
                found = True
                try:
                    add(block)
                except _native.BlockError as wrong:
                    faults += 1
                    _say(f"{label}: {block_name}{wrong}")
    except export.ExportError as wrong:
        _say(f"{label}: {wrong}")
        return faults + 1
    except _Unread as reason:
        _say(f"{label}: {reason}; name a file with a block in it, or - for stdin")
        return faults + 1
    if not found:
        _say(f"{label}: an exported file without blocks")
    return faults


def main(options: argparse.Namespace) -> int:
    """`headrace decode`: exit 1 where a file or a block of one can't be read; the others are shown all the same."""
    form = "json" if options.json else options.format
    if form == "parquet" and (options.header or options.output is None):
        _say("parquet has no header form" if options.header else "parquet is not text; write --output FILE.parquet")
        return 2
    with ExitStack() as stack:
        out = stack.enter_context(_output(options.output))
        writer: _Writer
        match form:
            case "parquet":
                parquet = _Parquet(out)
                stack.callback(parquet.close)
                writer = parquet
            case "json":
                writer = _Json(out, options.header)
            case "csv":
                writer = _Csv(out, options.header)
            case _:
                writer = _Table(out, options.header)
        faults = sum(_read(name, writer.add) for name in options.files)
    return 1 if faults else 0
