"""`python -m benchmarks` prints one JSON object a line: name, value, unit, baseline, ratio, command.

`ratio` is how many times better the value is than the baseline's in the same run (see `benchmarks.result.Result`).
Ratios travel to other machines, values do not. `--table` prints Markdown instead, and `--write-docs` puts it into
docs/benchmarks.md. `--core` adds what the Rust core does by itself, and builds that with cargo first. `--store` adds
the data center's store, and makes one of 100 million readings first (some minutes, once). The rest takes about half a
minute with the real signals, less without; names of signals (`benchmarks.signals.SETS`) leave the others' sizes out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from benchmarks import core, opcua_decode, page, query, signals, sizes, speed
from benchmarks.result import Result


def speeds(*, core_too: bool, store_too: bool = False) -> Iterator[Result]:
    yield from speed.results()
    yield from opcua_decode.results()
    if core_too:
        yield from core.results()
    if store_too:
        yield from query.results()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--table", action="store_true", help="Markdown for people instead of JSON lines")
    parser.add_argument("--write-docs", action="store_true", help="put the tables into docs/benchmarks.md")
    parser.add_argument("--core", action="store_true", help="also the Rust core by itself; builds it with cargo")
    parser.add_argument("--store", action="store_true", help="also the data center's store; makes one first")
    parser.add_argument("signals", nargs="*", metavar="NAME", help=f"{', '.join(signals.SETS)}; all without a name")
    asked = parser.parse_args()
    if unknown := set(asked.signals) - set(signals.SETS):
        parser.error(f"there are no signals {', '.join(sorted(unknown))}, only {', '.join(signals.SETS)}")
    names = asked.signals or list(signals.SETS)
    if not (asked.table or asked.write_docs):
        for size in sizes.sizes(names):
            for result in sizes.results(size):
                result.print()
        for result in speeds(core_too=asked.core, store_too=asked.store):
            result.print()
        return
    text = page.tables(list(sizes.sizes(names)), list(speeds(core_too=asked.core, store_too=asked.store)))
    if asked.write_docs:
        page.write(text)
    if asked.table:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
