"""Bytes per reading of blocks, beside the same readings in the formats of others.

    python -m benchmarks.sizes [plant tep tep32 steel nab] [--codecs] [--parts]

prints a table of the named signals alone; `--codecs` adds which codecs our blocks used, `--parts` where their bytes go.
Every figure is the mean over up to eight blocks that are spread over the signals.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from agent._native import Block, Buffer, decode
from agent.model import Reading
from benchmarks import signals
from benchmarks.result import Result, less
from benchmarks.rivals import RIVALS, Sample, pco
from benchmarks.signals import Signals

BLOCKS = 8
SCANS = (10, 60, 300)
STREAM = bytes(range(16))
FRAMED = "pco in our frame"
"""What pco writes, with our block's own header and checksum around it and `COLUMN` bytes for each column."""
COLUMN = 2
"""Bytes for a column's tag, type, codec and length: less than any format has, ours where columns are alike."""
NAMES = ("block", *RIVALS, FRAMED)
TARGETS = {"own": (2.9, 2.1, 1.9), "shared": (1.9, 1.4, 1.3)}
"""Bytes per reading that Tennessee Eastman may cost at most, by `SCANS`."""


@dataclass(slots=True)
class Size:
    """Bytes of some blocks of the same kind of readings, in every format."""

    source: str
    times: str
    scans: int
    readings: int = 0
    block: int = 0
    rivals: Counter[str] = field(default_factory=Counter)
    codecs: Counter[str] = field(default_factory=Counter)

    @property
    def name(self) -> str:
        return f"block of {self.source}, {self.scans} scans, {self.times} times"

    def add(self, source: Signals, rows: list[Reading], block: Block) -> None:
        """One more block, beside what its readings are in every other format. It has to give every one of them back."""
        sample, decoded = Sample.of(source.tags, rows), decode(block.data)
        if decoded.rows() != sorted(rows, key=lambda row: row.tag):
            raise ValueError(f"a block of {self.name} does not hold the readings that were pushed")
        self.readings += len(rows)
        self.block += len(block)
        for rival, encode in RIVALS.items():
            self.rivals[rival] += encode(sample)
        times = 1 if sample.shared else len(sample.columns)
        self.rivals[FRAMED] += pco(sample) + frame(block.data) + COLUMN * (times + len(sample.columns))
        for column in decoded.columns:
            self.codecs.update([f"time {column.time_codec}", f"value {column.value_codec}"])

    def each(self) -> dict[str, float]:
        """Bytes per reading by format, the block first."""
        return {name: size / self.readings for name, size in {"block": self.block, **self.rivals}.items()}


def sizes(names: list[str]) -> Iterator[Size]:
    """Of the signals by these names that are on this machine."""
    for name in names:
        if (source := signals.SETS[name]()) is not None:
            yield from (measure(source, scans, times) for times in ("shared", "own") for scans in SCANS)


def measure(source: Signals, scans: int, times: str) -> Size:
    size, buffer = Size(source.name, times, scans), Buffer(source.tags)
    for turn, first in enumerate(source.starts(scans, BLOCKS)):
        rows = (source.own if times == "own" else source.shared)(scans, first)
        buffer.push(rows)
        sealed = buffer.seal(stream=STREAM, sequence=turn, epoch=2**63, sealed_ns=rows[-1].time_ns + 5_000_000)
        assert sealed is not None
        size.add(source, rows, sealed)
    return size


def frame(block: bytes) -> int:
    """Bytes of a block's header and checksum (docs/block-format.md): what is there whatever the columns."""
    at = 4 + 3 + 16 + 8 + 8
    for _ in range(9 if block[6] & 1 else 8):
        while block[at] & 0x80:
            at += 1
        at += 1
    return at + 4


def results(size: Size) -> list[Result]:
    """The block against every other format."""
    block, *others = size.each().items()
    return less(size.name, block[1], "bytes/reading", **dict(others))


def parts(source: Signals, scans: int) -> str:
    """Where the bytes of a block with own times go, by leaving things out: a seal does not tell.

    Times are what a block with the scans' times saves, values what one with every tag's first value saves; the rest is
    header, directory and what no column costs alone. zstd over the whole block makes this a little less than exact.
    """
    rows, shared = source.own(scans), source.shared(scans)
    first = {row.tag: row.value for row in reversed(rows)}
    still = [row._replace(value=first[row.tag]) for row in rows]
    whole, bare = _length(source, rows), _length(source, [row._replace(value=first[row.tag]) for row in shared])
    times, values = whole - _length(source, shared), whole - _length(source, still)
    return (
        f"{source.name}, {scans} scans: {whole} bytes of {len(rows)} readings: own times {times}, values {values}, "
        f"both left out {bare}, of one reading {_length(source, rows[:1])}\n"
    )


def _length(source: Signals, rows: list[Reading]) -> int:
    buffer = Buffer(source.tags)
    buffer.push(rows)
    sealed = buffer.seal(stream=STREAM, epoch=2**63, sealed_ns=rows[-1].time_ns + 5_000_000)
    assert sealed is not None
    return len(sealed)


def table(found: list[Size]) -> str:
    """Markdown: a row a kind of block. A format that is smaller than the block is in bold."""
    lines = ["| signals | times | scans | " + " | ".join(NAMES) + " |", "| --- " * 3 + "| ---: " * len(NAMES) + "|"]
    for size in found:
        each = size.each()
        cells = [f"{each['block']:.2f}"]
        cells += [f"**{value:.2f}**" if value < each["block"] else f"{value:.2f}" for value in list(each.values())[1:]]
        lines.append(f"| {size.source} | {size.times} | {size.scans} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(words: list[str]) -> None:
    names = [word for word in words if not word.startswith("-")] or list(signals.SETS)
    if unknown := set(names) - set(signals.SETS):
        sys.exit(f"there are no signals {', '.join(sorted(unknown))}, only {', '.join(signals.SETS)}")
    found = list(sizes(names))
    sys.stdout.write(table(found))
    if "--codecs" in words:
        for size in found:
            counts = ", ".join(f"{codec} {count}" for codec, count in sorted(size.codecs.items()))
            sys.stdout.write(f"{size.name}: {counts}\n")
    if "--parts" in words:
        for source in filter(None, (signals.SETS[name]() for name in names)):
            sys.stdout.writelines(parts(source, scans) for scans in SCANS)


if __name__ == "__main__":
    main(sys.argv[1:])
