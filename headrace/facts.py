"""The commands that look at a file and say what is in it: `check` and `decode`."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from agent import _native, config
from agent.errors import HeadraceError
from agent.model import Value

MAX_FILE = 512 * 1024 * 1024
SHOWN = 20
"""Rows of a table that people read; `--json` has them all."""


def check(options: argparse.Namespace) -> int:
    """`headrace check`: every problem at once; exit 2 where there is one."""
    found = config.check(options.config)
    if options.json:
        print(json.dumps(found.as_dict(), ensure_ascii=False))
    else:
        for warning in found.warnings:
            print(f"warning: {warning}")
        for problem in found.problems:
            print(f"problem: {problem}")
        if found.config is not None:
            print(f"{options.config}: fine, {len(found.config.tags)} tags on {len(found.config.devices)} devices")
        else:
            print(f"{options.config}: {len(found.problems)} problem{'s' * (len(found.problems) != 1)}", file=sys.stderr)
    return 2 if found.problems else 0


def moment(time_ns: int) -> str:
    """RFC 3339 with all nine digits, which datetime does not have; the number itself outside of its years."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
    except (OverflowError, ValueError, OSError):
        return str(time_ns)


def _header(header: _native.Header, size: int) -> dict[str, Any]:
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
        "columns": header.columns,
        "bytes": size,
    }
    if header.kind == "gap":
        shown |= {"last_sequence": header.last_sequence, "reason": header.reason}
    return shown


def decode(options: argparse.Namespace) -> int:
    """`headrace decode`: header fields, then columns with their readings."""
    try:
        if options.file.stat().st_size > MAX_FILE:
            raise HeadraceError(f"{options.file} is larger than a block can be")
        content = options.file.read_bytes()
    except OSError as reason:
        raise HeadraceError(f"{options.file}: {reason.strerror}; name a file with a block in it") from None
    block = _native.decode(content)
    header = _header(block.header, len(content))
    by_tag: dict[int, list[tuple[int, Value, int]]] = {}
    for tag, time_ns, value, quality in block.rows():
        by_tag.setdefault(tag, []).append((time_ns, value, quality))
    columns = [
        {
            "tag": column.tag,
            "type": column.type,
            "time_codec": column.time_codec,
            "value_codec": column.value_codec,
            **({"problem": column.problem} if column.problem else {}),
            "readings": by_tag.get(column.tag, []),
        }
        for column in block.columns
    ]
    if options.json:
        print(json.dumps({**header, "columns": columns}, ensure_ascii=False))
        return 0
    for name, value in header.items():
        stamp = f"  {moment(value)}" if name.endswith("_ns") else ""
        print(f"{name:<14} {value}{stamp}")
    shown = 0
    for column in block.columns:
        codecs = f"times {column.time_codec}, values {column.value_codec}"
        print(f"\ntag {column.tag}  {column.type}  {codecs}  {column.problem}")
        for time_ns, value, quality in by_tag.get(column.tag, [])[: max(0, SHOWN - shown)]:
            print(f"  {moment(time_ns)}  {value!s:<24} {quality:#010x}")
        shown += column.readings
    if shown > SHOWN:
        print(f"\n... {header['readings']} readings in all; --json prints them")
    return 0
