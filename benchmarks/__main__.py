"""`python -m benchmarks` prints one JSON object a line: name, value, unit, baseline, ratio, command.

`ratio` is how many times better the value is than the baseline's in the same run (see `benchmarks.result.Result`).
Ratios travel to other machines, values do not. `--table` prints Markdown instead, and `--write-docs` puts it into
docs/benchmarks.md. It takes two and a half minutes with the real signals, less without; names of signals
(`benchmarks.signals.SETS`) leave the others' sizes out, and the agent too; `modbus`, `opcua` or `writes` alone is
only that.
`--core` adds what the Rust core does by itself, and builds that with cargo first; `--store` the data center's store,
and makes one of 100 million readings first (some minutes, once); `--drain` a backlog that goes through a real broker
into a data center.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from benchmarks import (
    core,
    drain,
    modbus,
    opcua,
    opcua_decode,
    opcua_many,
    page,
    query,
    signals,
    sizes,
    speed,
    tagging,
    writes,
)
from benchmarks.result import Result

MODBUS, OPCUA, WRITES = "modbus", "opcua", "writes"


def main() -> None:
    parts = [*signals.SETS, MODBUS, OPCUA, WRITES]
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--table", action="store_true", help="Markdown for people instead of JSON lines")
    parser.add_argument("--write-docs", action="store_true", help="put the tables into docs/benchmarks.md")
    parser.add_argument("--core", action="store_true", help="also the Rust core by itself; builds it with cargo")
    parser.add_argument("--store", action="store_true", help="also the data center's store; makes one first")
    parser.add_argument("--drain", action="store_true", help="also a backlog, through Mosquitto into a data center")
    parser.add_argument("signals", nargs="*", metavar="NAME", help=f"{', '.join(parts)}; all without a name")
    asked = parser.parse_args()
    if unknown := set(asked.signals) - set(parts):
        parser.error(f"there are no signals {', '.join(sorted(unknown))}, only {', '.join(parts)}")
    wanted = asked.signals or parts
    names = [name for name in wanted if name not in (MODBUS, OPCUA, WRITES)]
    if not (asked.table or asked.write_docs):
        for size in sizes.sizes(names):
            for result in sizes.results(size):
                result.print()
        for result in _speeds(wanted, core_too=asked.core, store_too=asked.store, drain_too=asked.drain):
            result.print()
        return
    text = page.tables(
        list(sizes.sizes(names)),
        list(_speeds(wanted, core_too=asked.core, store_too=asked.store, drain_too=asked.drain)),
    )
    if asked.write_docs:
        page.write(text)
    if asked.table:
        sys.stdout.write(text)


def _speeds(wanted: list[str], *, core_too: bool, store_too: bool, drain_too: bool) -> Iterator[Result]:
    if set(wanted) - {MODBUS, OPCUA, WRITES}:
        yield from speed.results()
        yield from opcua_decode.results()
    yield from tagging.results()
    if drain_too:
        yield from drain.results()
    if core_too:
        yield from core.results()
    if store_too:
        yield from query.results()
    if MODBUS in wanted:
        yield from modbus.results()
    if OPCUA in wanted:
        yield from opcua.results()
        yield from opcua_many.results()
    if WRITES in wanted:
        yield from writes.results()


if __name__ == "__main__":
    main()
